# PayshardControls.pm
#		Negative controls: the same interleaving with a rule of the protocol kept,
#		where nothing may be found, and switched off (PS_RULE in src/node/fault.h),
#		where the checker of PayshardPayments must find something.
#
#	my $k = PayshardControls->new(nodes => 3, replicas => 3, shards => 8);
#	$k->run('W4', sub { my ($k, $rule_off) = @_; ... });
#
# An interleaving is made by waiting for each state that it needs, never by luck or by
# time: no node leaves the in-sync sets because it is slow (W6 is off, for each
# node at each primary) but where leave() lets it; a payment has the outcome that
# the interleaving says, or the control dies.
package PayshardControls;

use strict;
use warnings;
use Carp;
use PayshardCluster;
use PayshardPayments;
use POSIX ();
use PostgreSQL::Test::Utils ();
use Test::More;

# A pause must not look like a lost connection, nor end a payment.
my $conf = <<'CONF';
payshard.peer_timeout = 500ms
payshard.call_timeout = 60s
payshard.commit_timeout = 300s
payshard.gate_timeout = 300s
CONF

# new(%options): as PayshardCluster; the fault points are there.
sub new
{
	my ($class, %options) = @_;
	my $c = PayshardCluster->new(%options, conf => $conf . ($options{conf} // ''));
	my $self = bless { cluster => $c, payments => PayshardPayments->new($c), off => {} }, $class;

	foreach my $i ($self->{payments}->data_nodes)
	{
		push @{ $self->{nodes} }, $i;
		$c->sql($i, 'CREATE EXTENSION payshard_fault');
	}
	$self->nobody_leaves($_) foreach @{ $self->{nodes} };
	return $self;
}

sub cluster { return $_[0]{cluster}; }
sub payments { return $_[0]{payments}; }

# ------------------------------------------------------- points and rules

sub arm
{
	my ($self, $i, $point, $action) = @_;
	return $self->{cluster}->sql($i, "SELECT payshard_fault.arm('$point', '" . ($action // 'pause') . "')");
}

sub disarm
{
	my ($self, $i, $point) = @_;
	return $self->{cluster}->sql($i, "SELECT payshard_fault.disarm('$point')");
}

sub await_paused
{
	my ($self, $i, $point) = @_;
	return $self->{cluster}->wait_sql($i, "SELECT payshard_fault.paused('$point')");
}

# rule_off(i, rule...): until the end of the control, or of the server.
sub rule_off
{
	my ($self, $i, @rules) = @_;
	foreach my $rule (@rules)
	{
		$self->arm($i, $rule, 'off');
		$self->{off}{$i}{$rule} = 1;
	}
	return;
}

sub rule_on
{
	my ($self, $i, $rule) = @_;
	delete $self->{off}{$i}{$rule};
	return $self->disarm($i, $rule);
}

sub all_rules_on
{
	my ($self) = @_;
	foreach my $i (keys %{ $self->{off} })
	{
		$self->rule_on($i, $_) foreach keys %{ $self->{off}{$i} };
	}
	return;
}

# ----------------------------------------------------------------- nodes

# The first data node that is primary, and the others.
sub cast
{
	my ($self) = @_;
	my ($first) = grep { $self->{payments}->accounts_at($_) } @{ $self->{nodes} };
	return ($first, grep { $_ != $first } @{ $self->{nodes} });
}

sub nobody_leaves
{
	my ($self, $i) = @_;
	$self->arm($i, "W6.n$_", 'off') foreach @{ $self->{nodes} };
	return;
}

# start(i, rule...): starts the node with these rules off from its first moment on.
sub start
{
	my ($self, $i, @rules) = @_;
	my $c = $self->{cluster};

	return if $c->is_running($i);
	open my $file, '>', $c->node($i)->data_dir . '/payshard_fault.conf' or die $!;
	print $file map { "$_ off 1\n" } @rules, map { "W6.n$_" } @{ $self->{nodes} };
	close $file or die $!;
	$self->{off}{$i} = { map { $_ => 1 } @rules };
	$c->start($i);
	return;
}

sub kill9
{
	my ($self, $i) = @_;
	$self->{off}{$i} = {};
	$self->{cluster}->kill9($i, all => 1);
	return;
}

sub stop
{
	my ($self, $i) = @_;
	$self->{off}{$i} = {};
	$self->{cluster}->stop($i);
	return;
}

# leave(a, b, account): b, which does not answer, leaves the shards of a: a payment waits for that.
sub leave
{
	my ($self, $a, $b, $account) = @_;
	$self->disarm($a, "W6.n$b");
	$self->pay($a, $account);
	$self->arm($a, "W6.n$b", 'off');
	return;
}

# put_out(a, b, account): b runs and is out of the shards of a, where its rejoin is paused.
sub put_out
{
	my ($self, $a, $b, $account) = @_;
	$self->arm($b, 'receiver.before_journal');
	$self->arm($a, 'rejoin.before_teach');
	$self->leave($a, $b, $account);
	$self->disarm($b, 'receiver.before_journal');
	$self->await_paused($a, 'rejoin.before_teach');
	return;
}

# deafen(i), hear(i): node i hears nothing of newer maps, nor of the votes for them, as if only
# those who know no better could reach it.
sub deafen
{
	my ($self, $i) = @_;
	$self->arm($i, $_, 'off') foreach 'M2', 'Q1';
	return;
}

sub hear
{
	my ($self, $i) = @_;
	$self->disarm($i, $_) foreach 'M2', 'Q1';
	return;
}

# Fails over and takes the dead one back; everything in sync again.
sub replace
{
	my ($self, $dead, $by) = @_;
	$self->{cluster}->sql($by, "SELECT payshard.failover('n$dead')");
	$self->start($_) foreach @{ $self->{nodes} };
	$self->{payments}->wait_in_sync;
	return;
}

# background(i, sql): psql in a process of its own; await_background(it) dies when it has failed.
sub background
{
	my ($self, $i, $sql) = @_;
	my $path = PostgreSQL::Test::Utils::tempdir() . '/background';
	my $pid = fork() // die "fork: $!";

	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $path;
		open STDERR, '>&', \*STDOUT;
		exec 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $self->{cluster}->node($i)->connstr('postgres'), '-c', $sql
		  or POSIX::_exit(127);
	}
	return { pid => $pid, path => $path };
}

sub await_background
{
	my ($self, $process) = @_;
	$self->{cluster}->wait_until('a statement in the background', 90, sub {
			return waitpid($process->{pid}, POSIX::WNOHANG) != 0;
		});
	die PostgreSQL::Test::Utils::slurp_file($process->{path}) if $? != 0;
	return;
}

# -------------------------------------------------------------- payments

# pay(i, account): a payment that must be acknowledged.
sub pay
{
	my ($self, $i, $account) = @_;
	my ($outcome, $state) = $self->{payments}->pay($i, $account);
	croak "a payment at node $i: $outcome $state\n$self->{payments}{last_error}" if $outcome ne 'ok';
	return;
}

# pay_until(i, account, point): a payment that is paused at a point; its id.
sub pay_until
{
	my ($self, $i, $account, $point) = @_;
	$self->arm($i, $point);
	$self->{payments}->start($i, 1, accounts => [$account]);
	$self->await_paused($i, $point);
	return $self->{payments}{next_id} - 1;
}

# finish(outcome): the payments under way end, the last one like this.
sub finish
{
	my ($self, $wanted) = @_;
	my $p = $self->{payments};
	my $id = $p->{next_id} - 1;

	$p->finish;
	croak "payment $id: $p->{outcome}{$id} " . ($p->{state}{$id} // '') . ", not $wanted" if $p->{outcome}{$id} ne $wanted;
	return;
}

# die_committed(i, account): node i dies when it has committed a payment that the others
# have journaled and do not know to be decided.  Whoever asked it before has seen the payment.
sub die_committed
{
	my ($self, $i, $account) = @_;
	my $id = $self->pay_until($i, $account, 'commit.after_local');
	$self->kill9($i);
	$self->finish('unknown');
	$self->{payments}{outcome}{$id} = 'ok';
	return;
}

# Waits until node i has an entry in its journal.
sub await_journaled
{
	my ($self, $i) = @_;
	return $self->{cluster}->wait_sql($i, 'SELECT count(*) > 0 FROM payshard.journal');
}

# ------------------------------------------------------------------- runs

# Copies are made anew from the primaries, and what was journaled for a primary after it was
# settled goes: nobody would discard it, since with the rule kept it is not there.
sub heal
{
	my ($self) = @_;
	my $p = $self->{payments};

	$self->{cluster}->sql($_, 'DELETE FROM payshard.journal') foreach @{ $self->{nodes} };
	foreach my $i (@{ $self->{nodes} })
	{
		my ($by) = grep { $_ != $i } @{ $self->{nodes} };
		next unless grep { $_->[1] == $i && $_->[2] ne 't' } $p->placements;
		$self->{cluster}->sql($by, "SELECT payshard.rebuild_node('n$i')");
		$p->wait_in_sync;
	}
	$p->{outcome} = {};			# what is lost, or came back
	return $p->assert_kept('copies made anew');
}

# run(rule, control): three test points.  Anything that does not go as the control says
# is a failure, and the end of the test.
sub run
{
	my ($self, $rule, $control) = @_;
	my $p = $self->{payments};

	$control->($self, 0);
	$self->all_rules_on;
	$p->assert_kept("$rule kept") or die "the rest would say nothing\n";
	$control->($self, 1);
	$self->all_rules_on;
	$p->wait_in_sync;
	my $wrong = $p->violations;
	isnt($wrong, '', "$rule switched off: the checker finds it");
	note($wrong);
	$self->heal or die "the rest would say nothing\n";
	return;
}

1;
