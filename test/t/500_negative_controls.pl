# The checker of these tests can see what it is there to see: each rule of writing
# and of failover, switched off, makes it find a violation; the same run with the
# rule kept finds none (PayshardControls.pm).  For the rules of rejoin: 510.
#
# One cluster of three data nodes with three copies; a is a primary, b and d have its copies.
use strict;
use warnings;
use PayshardControls;
use Test::More;

my $k = PayshardControls->new(nodes => 3, replicas => 3, shards => 8, conf => "wal_writer_delay = 10s\n");
my $c = $k->cluster;
my $p = $k->payments;
my %control;

# W4: the client hears "committed" before the copies have it.  One copy is left, and the
# sender to it stands still.
$control{W4} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->stop($d);
	$k->leave($a, $d, $account);
	$k->rule_off($a, 'W4') if $rule_off;
	$k->arm($a, "sender.before_send.n$b");
	$k->await_paused($a, "sender.before_send.n$b");
	if ($rule_off) { $k->pay($a, $account); }
	else
	{
		$p->start($a, 1, accounts => [$account]);
		$c->wait_sql($a, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'");
	}
	$k->kill9($a);
	$k->finish('unknown') unless $rule_off;
	$k->start($d);
	$k->replace($a, $b);
};

# W7: "aborted" is told without an ABORT at those who have the entry.  d has it; b has
# not, and must not leave before the client has cancelled: with d alone it would commit.
$control{W7} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->rule_off($a, 'W7') if $rule_off;
	$k->arm($b, 'receiver.before_journal');
	$p->start($a, 1, accounts => [$account]);
	$k->await_paused($b, 'receiver.before_journal');
	$k->await_journaled($d);
	is($c->sql($a, "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'"),
		'1', 'the payment is cancelled while it commits');
	$k->disarm($a, "W6.n$b") unless $rule_off;
	$k->finish('aborted');
	$k->kill9($a);
	$k->disarm($b, 'receiver.before_journal');
	$k->replace($a, $d);
};

# W3: who journals does not hold the map.  d has checked a's batch when it adopts the map without
# a, and journals it when its tail has been taken.  b is out: a waits for d only.
$control{W3} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->put_out($a, $b, $account);
	$k->deafen($a);
	$k->rule_off($d, 'W3') if $rule_off;
	$k->arm($d, 'receiver.checked');
	$p->start($a, 1, accounts => [$account]);
	$k->await_paused($d, 'receiver.checked');
	my $failover = $k->background($b, "SELECT payshard.failover('n$a', force => true)");
	if ($rule_off) { $k->await_background($failover); }
	else { $c->wait_sql($d, "SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'payshard.chosen_map'::regclass"); }
	$k->disarm($d, 'receiver.checked');
	$k->finish('ok');
	$k->hear($a);
	$k->disarm($a, 'rejoin.before_teach');
	$k->await_background($failover) unless $rule_off;
	$p->wait_in_sync;
};

# F1: the transaction id of an entry is believed although a crash has lost it.  Whoever could
# flush a's WAL meanwhile stands still.
$control{F1} = sub {
	my ($k, $rule_off) = @_;
	my ($a) = $k->cast;
	my ($account) = $p->accounts_at($a);
	my @others = split /\n/, $c->sql($a, "SELECT pid FROM pg_stat_activity WHERE backend_type <> 'client backend' "
		  . "AND backend_type NOT LIKE 'payshard sender%'");
	kill 'STOP', @others;
	$c->wait_until('these processes to stand still', 10, sub {
			return !grep { PayshardCluster::_process_state($_) !~ /^[Tt]?$/ } @others;
		});
	my $flushed = $c->sql($a, 'SELECT pg_current_wal_flush_lsn()');
	$k->pay_until($a, $account, 'commit.after_acks');
	is($c->sql($a, 'SELECT pg_current_wal_flush_lsn()'), $flushed, 'nothing of the payment is in the WAL of its primary');
	$k->kill9($a);
	$k->finish('unknown');
	$k->start($a, $rule_off ? 'F1' : ());
	$p->wait_in_sync;
	$p->wait_open;
};

# F2, recovering: the shards of the lost primary do not wait for the recovery.
$control{'F2.recovering'} = sub { lose_committed(@_, 'F2.recovering'); };

# F5: they open before the recovery is complete.
$control{F5} = sub { lose_committed(@_, 'F5'); };

sub lose_committed
{
	my ($k, $rule_off, $rule) = @_;
	my ($a, $b) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->die_committed($a, $account);
	$k->rule_off($b, $rule) if $rule_off;
	$k->replace($a, $b);
	return;
}

# F3: d answers with its tail before it has adopted the map without a, and journals for
# a afterwards.  b is out: a waits for d only.  Neither hears of the map in other ways.
$control{F3} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->put_out($a, $b, $account);
	$k->deafen($_) foreach $a, $d;
	$k->rule_off($d, 'F3') if $rule_off;
	my $from = $c->log_size($b);
	my $failover = $k->background($b, "SELECT payshard.failover('n$a', force => true)");
	if ($rule_off) { $k->await_background($failover); }
	else { $c->wait_log($b, 'has not the map of epoch', 60, $from); }
	$k->pay($a, $account);
	$k->hear($_) foreach $d, $a;
	$k->disarm($a, 'rejoin.before_teach');
	$k->await_background($failover) unless $rule_off;
	$p->wait_in_sync;
};

# F4: tails are not united: what only one survivor has is applied there alone.
$control{F4} = sub {
	my ($k, $rule_off) = @_;
	my ($a, $b, $d) = $k->cast;
	my ($account) = $p->accounts_at($a);
	$k->rule_off($b, 'F4') if $rule_off;
	$k->arm($b, 'receiver.before_journal', 'error');
	$k->arm($a, "sender.before_hello.n$b");		# b's sender does not try again
	$p->start($a, 1, accounts => [$account]);
	$k->await_paused($a, "sender.before_hello.n$b");
	$k->await_journaled($d);
	$k->kill9($a);
	$k->finish('unknown');
	$k->replace($a, $b);
};

foreach my $rule (grep { !$ENV{PAYSHARD_CONTROL} || /^($ENV{PAYSHARD_CONTROL})$/ } qw(W3 W4 W7 F1 F2.recovering F3 F4 F5))
{
	$k->run($rule, $control{$rule});
}

# W5: a secondary that applies what is not decided shows it too early.
my ($a, $b) = $k->cast;
my ($account) = $p->accounts_at($a);
my $count = 'SELECT count(*) FROM ' . $p->copy('payments', $account);
foreach my $rule_off (0, 1)
{
	$p->wait_journals_empty;
	$k->rule_off($b, 'W5') if $rule_off;
	my $before = $c->sql($b, $count);
	$k->pay_until($a, $account, 'commit.after_acks');
	if ($rule_off) { $c->wait_sql($b, "SELECT ($count) > $before", 20); pass('W5 switched off: shown before it is committed'); }
	else { is($c->sql($b, $count), $before, 'W5 kept: not shown before it is committed'); }
	$k->disarm($a, 'commit.after_acks');
	$k->finish('ok');
}
$k->all_rules_on;
$p->assert_kept('at the end');
done_testing();
