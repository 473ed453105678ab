# The commit gate (J3): while a copy joins, it is shut for an instant.  Who commits
# meanwhile waits, has taken no seq, and may be cancelled, terminated or time out: then
# nothing of it is anywhere.  His row locks are held while he waits.  Readers, and
# transactions that are merely open, are not concerned.
#
# Method: node 2 comes back; node 1, which takes it in, stands still at a fault point
# behind the gate; others come.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, witness => [3], shards => 8, conf => "payshard.peer_timeout = 1s\n");
my $p = PayshardPayments->new($c);
my ($account, $other) = $p->accounts_between(1, 2);
my $point = 'rejoin.before_join';
$c->sql(1, 'CREATE EXTENSION payshard_fault');

# Client backends that wait in payshard (Extension) or for a lock (Lock).
my $payments = "FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'";

sub await_waiting
{
	my ($n, $type) = @_;
	return $c->wait_sql(1, "SELECT count(*) = $n $payments AND wait_event_type = '$type'");
}

sub set_gate_timeout
{
	my ($value) = @_;
	$c->node(1)->append_conf('postgresql.conf', "payshard.gate_timeout = $value");
	$c->sql(1, 'SELECT pg_reload_conf()');
	return $c->wait_sql(1, "SELECT current_setting('payshard.gate_timeout') = '$value'");
}

sub last_state { return $p->{state}{ $p->{next_id} - 1 } // ''; }

# Node 2 leaves, a payment is made without it, and it comes back as far as the gate.
set_gate_timeout('5min');
$c->stop(2);
is(scalar($p->pay(1, $account)), 'ok', 'a payment while the copy is away');
$c->sql(1, "SELECT payshard_fault.arm('$point', 'pause')");
$c->start(2);
$c->wait_sql(1, "SELECT payshard_fault.paused('$point')");
is($c->sql(1, "SELECT string_agg(DISTINCT gate, ',') FROM payshard.replication"), 'closed', 'the gate is shut');

# Cancelled, terminated, timed out.
foreach my $case ([ cancel => '57014' ], [ terminate => undef ])
{
	my ($how, $state) = @$case;
	$p->start(1, 1, accounts => [$account]);
	await_waiting(1, 'Extension');
	$c->sql(1, "SELECT pg_${how}_backend(pid) $payments");
	$p->finish;
	is(last_state(), $state, "$how of one who waits at the gate") if defined $state;
	my $id = $p->{next_id} - 1;
	# he was at the gate, so nothing can have been enqueued: not in doubt
	is($c->sql(1, "SELECT count(*) FROM payments WHERE account_id = $account AND id = $id"), 0, "$how: nothing was done");
}
set_gate_timeout('100ms');
is(scalar($p->pay(1, $account)), 'aborted', 'payshard.gate_timeout: aborted');
is(last_state(), '57P03', 'payshard.gate_timeout: 57P03') || diag($p->{last_error});
set_gate_timeout('5min');

# Who waits at the gate holds his locks; others read, and write up to their commit.
$p->start(1, 1, accounts => [$account]);
await_waiting(1, 'Extension');
$p->start(1, 1, accounts => [$account]);
await_waiting(1, 'Lock');
$p->start(1, 1, accounts => [$other]);
await_waiting(2, 'Extension');
is($c->sql(1, "SELECT count(*) FROM accounts WHERE id IN ($account, $other)"), 2, 'readers go on');

$c->sql(1, "SELECT payshard_fault.disarm('$point')");
$p->finish;
is($p->tally, 'aborted 2, ok 4, unknown 1', 'all who waited go on');
$p->assert_kept('the gate was open again');

# verify() shuts the gate, too: for who commits, not for who is open and holds locks.
my $open = $c->node(1)->background_psql('postgres');
$open->query_safe("BEGIN; UPDATE accounts SET balance = balance + 1 WHERE id = $account");
$c->assert_copies_equal(1, 'verify() while a transaction is open');
is($open->query('COMMIT; SELECT 1'), 1, 'it commits afterwards');
$open->query_safe("UPDATE accounts SET balance = balance - 1 WHERE id = $account");
$open->quit;
$p->assert_kept('open during verify()');
done_testing();
