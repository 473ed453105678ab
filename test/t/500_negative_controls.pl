# The checker of these tests can see what it is there to see: each rule of the
# protocol, switched off, makes it find a violation; the same run with the rule
# kept finds none.
#
# One cluster of three data nodes with three copies; after each control what
# was spoilt is rebuilt from the primary.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, replicas => 3, shards => 8, conf => <<'CONF');
payshard.peer_timeout = 1s
payshard.call_timeout = 2s
wal_writer_delay = 10s
CONF
my $p = PayshardPayments->new($c);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;

sub arm { my ($i, $point, $action) = @_; return $c->sql($i, "SELECT payshard_fault.arm('$point', '$action')"); }
sub disarm { my ($i, $point) = @_; return $c->sql($i, "SELECT payshard_fault.disarm('$point')"); }
sub await_paused { my ($i, $point) = @_; return $c->wait_sql($i, "SELECT payshard_fault.paused('$point')"); }

# A node that is primary, and the two others.
sub cast
{
	my ($first) = grep { $p->accounts_at($_) } 1 .. 3;
	return ($first, grep { $_ != $first } 1 .. 3);
}

# Fails over and takes the dead one back; everything in sync again.
sub replace
{
	my ($dead, $by) = @_;
	$c->sql($by, "SELECT payshard.failover('n$dead')");
	$c->start($dead);
	$p->wait_in_sync;
	$p->wait_open;
	return;
}

my %control;

# W4: the client hears "committed" before the copies have it.  One copy is left, and the
# sender to it stands still.
$control{W4} = sub {
	my ($rule_off) = @_;
	my ($a, $b, $d) = cast();
	my ($account) = $p->accounts_at($a);
	$c->stop($d);
	$p->pay($a, $account);				# goes on when d is out
	arm($a, 'W4', 'off') if $rule_off;
	arm($a, 'sender.before_send', 'pause');
	await_paused($a, 'sender.before_send');
	my $client = $p->start($a, 1, accounts => [$account]);
	if ($rule_off) { $p->finish; }
	else { $c->wait_sql($a, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'"); }
	$c->kill9($a, all => 1);
	$p->finish;
	$c->start($d);
	replace($a, $b);
};

# W7: "aborted" is told without an ABORT at those who have the entry.
$control{W7} = sub {
	my ($rule_off) = @_;
	my ($a, $b, $d) = cast();
	my ($account) = $p->accounts_at($a);
	arm($a, 'W7', 'off') if $rule_off;
	arm($b, 'receiver.before_journal', 'pause');
	$p->start($a, 1, accounts => [$account]);
	await_paused($b, 'receiver.before_journal');
	$c->wait_sql($d, 'SELECT count(*) > 0 FROM payshard.journal');
	$c->sql($a, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active' AND pid <> pg_backend_pid()");
	$p->finish;
	$c->kill9($a, all => 1);
	disarm($b, 'receiver.before_journal');
	replace($a, $d);
};

# F4: tails are not united: what only one survivor has is applied there alone.
$control{F4} = sub {
	my ($rule_off) = @_;
	my ($a, $b, $d) = cast();
	my ($account) = $p->accounts_at($a);
	arm($b, 'F4', 'off') if $rule_off;
	arm($b, 'receiver.before_journal', 'error');
	arm($a, 'sender.before_hello', 'pause');	# b's sender does not try again
	$p->start($a, 1, accounts => [$account]);
	await_paused($a, 'sender.before_hello');
	$c->wait_sql($d, 'SELECT count(*) > 0 FROM payshard.journal');
	$c->kill9($a, all => 1);
	$p->finish;
	replace($a, $b);
	disarm($b, 'F4') if $rule_off;
};

# J1 (with the digests of J4 not looked at): changes while a copy is out are not noted.
$control{J1} = sub {
	my ($rule_off) = @_;
	my ($a, $b, $d) = cast();
	my ($account) = $p->accounts_at($a);
	if ($rule_off) { arm($a, $_, 'off') foreach 'J1', 'J4'; }
	$c->stop($b);
	$p->pay($a, $account);
	$c->start($b);
	$p->wait_in_sync;
	if ($rule_off) { disarm($a, $_) foreach 'J1', 'J4'; }
};

# F1: the transaction id of an entry is believed although a crash has lost it.
$control{F1} = sub {
	my ($rule_off) = @_;
	my ($a, $b, $d) = cast();
	my ($account) = $p->accounts_at($a);
	arm($a, 'commit.after_acks', 'pause');
	$p->start($a, 1, accounts => [$account]);
	await_paused($a, 'commit.after_acks');
	$c->kill9($a, all => 1);
	$p->finish;
	if ($rule_off)
	{
		open my $file, '>', $c->node($a)->data_dir . '/payshard_fault.conf' or die $!;
		print $file "F1 off 1\n";
		close $file;
	}
	$c->start($a);
	$p->wait_in_sync;
	$p->wait_open;
	disarm($a, 'F1') if $rule_off;
};

foreach my $rule (qw(J1 W7 F4 F1 W4))
{
	$control{$rule}->(0);
	$p->assert_kept("$rule kept") or last;
	$control{$rule}->(1);
	$p->wait_journals_empty;
	my $wrong = $p->violations;
	isnt($wrong, '', "$rule switched off: the checker finds it");
	note($wrong);
	# heal: copies from the primaries, and forget what is lost or came back
	my ($a, @others) = cast();
	foreach my $i (1 .. 3)
	{
		my ($by) = grep { $_ != $i } 1 .. 3;
		my ($status, $out, $err) = $c->try_sql($by, "SELECT payshard.rebuild_node('n$i')");
		$p->wait_in_sync;
	}
	$p->{outcome} = {};
	$p->assert_kept("$rule: healed") or last;
}

# W5: a secondary that applies what is not decided shows it too early.
my ($a, $b, $d) = cast();
my ($account) = $p->accounts_at($a);
my $count = 'SELECT count(*) FROM ' . $p->copy('payments', $account);
foreach my $rule_off (0, 1)
{
	$p->wait_journals_empty;
	arm($b, 'W5', 'off') if $rule_off;
	my $before = $c->sql($b, $count);
	arm($a, 'commit.after_acks', 'pause');
	$p->start($a, 1, accounts => [$account]);
	await_paused($a, 'commit.after_acks');
	if ($rule_off) { $c->wait_sql($b, "SELECT ($count) > $before", 20); pass('W5 switched off: shown before it is committed'); }
	else { is($c->sql($b, $count), $before, 'W5 kept: not shown before it is committed'); }
	disarm($a, 'commit.after_acks');
	$p->finish;
	disarm($b, 'W5') if $rule_off;
}
$p->assert_kept('at the end');
done_testing();
