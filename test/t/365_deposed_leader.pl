# Two nodes lead the recovery of one primary, the first of them deposed without
# knowing it: what it still journals must not end up on one copy only (F2, F3).
#
# Method: four copies.  A payment of node 1 has reached node 2 only when node 1 dies.
# Node 2 leads and stands still after the tails; node 3 fails node 2 over and leads,
# and stands still when its union is journaled; node 2 goes on, and gets as far as node 3.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 5, replicas => 4, witness => [5], shards => 8,
	conf => "payshard.peer_timeout = 60s\npayshard.call_timeout = 5s\npayshard.pipeline_depth = 1\n");
my $p = PayshardPayments->new($c);
my ($account) = $p->accounts_at(1);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 4;

$p->assert_kept('before');
# they owe the answer to one batch each, and so get no other
$c->pause($_) foreach 3, 4;
$c->wait_sql(1, "SELECT count(*) = 2 FROM payshard.nodes WHERE name IN ('n3', 'n4') "
	  . "AND last_heard < clock_timestamp() - interval '1s'");
$p->start(1, 1, accounts => [$account]);
my $id = $p->{next_id} - 1;
$c->wait_sql(2, 'SELECT count(*) = 1 FROM payshard.journal');
$c->kill9(1, all => 1);
$c->resume($_) foreach 3, 4;
is($c->sql($_, 'SELECT count(*) FROM payshard.journal'), 0, "node $_ does not have the payment") foreach 3, 4;
$p->finish;

# failover() waits for the settling, which stands still: the keeper goes on without it.
sub begin_failover
{
	my ($i, $lost, $point) = @_;
	$c->sql($i, "SELECT payshard_fault.arm('$point', 'pause')");
	$c->try_sql($i, "SET statement_timeout = '3s'; SELECT payshard.failover('n$lost', force => true)");
	return $c->wait_sql($i, "SELECT payshard_fault.paused('$point')");
}

begin_failover(2, 1, 'settle.after_tails');
begin_failover(3, 2, 'settle.after_journal');
$c->sql(4, "SELECT payshard_fault.arm('settle.before_journal', 'error')");
my $from = $c->log_size(2);
$c->sql(2, "SELECT payshard_fault.disarm('settle.after_tails')");
$c->wait_log(2, qr/fault point "settle.before_journal"|has not the map of epoch/, 60, $from);
$c->sql(4, "SELECT payshard_fault.disarm('settle.before_journal')");
$c->sql(3, "SELECT payshard_fault.disarm('settle.after_journal')");
$c->wait_sql(3, "SELECT bool_and(state = 'open') FROM payshard.shards", 90);

my @n;
foreach my $i (3, 4)
{
	my @lines = split /\n/, $c->sql($i, 'SELECT l FROM ' . $p->copy('payments', $account) . ' l');
	push @n, scalar(grep { (split /\t/)[1] == $id } @lines);
}
is($n[0], $n[1], "the copies in sync agree on the payment ($n[0])");
$c->start(1);
$p->assert_kept('all nodes are back');
done_testing();
