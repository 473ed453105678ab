# A move goes on whoever dies (kill -9) in it, and wherever: the primary that gives a
# shard away, the node that gets it, the node that was asked, who has been dropped.
#
# Method: node 4 loses its weight and gets it back, in turn; each time a point in the
# move is armed on one node, which crashes there under payments.  It is started again;
# then the moves must come to their end by themselves, every shard be where the ring has
# it, and all payments be as their clients were told.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 4, shards => 8, conf => <<'CONF');
payshard.move_shards = 2
payshard.peer_timeout = 700ms
payshard.call_timeout = 2s
payshard.keepalive = 50ms
CONF
my $p = PayshardPayments->new($c, accounts => 64, seconds => 90);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 4;

# [point, node where it happens, weight that node 4 gets]: at a weight of 1 node 4 is
# the one that gets shards, at 0 the one that gives them away.
my @walk = (
	[ 'move.after_order', 1, 0 ], [ 'rejoin.after_join', 2, 1 ],
	[ 'move.before_switch', 4, 0 ], [ 'join.copied', 4, 1 ],
	[ 'move.after_switch', 4, 0 ], [ 'join.copy', 4, 1 ],
	[ 'move.before_finish', 3, 0 ], [ 'rejoin.before_in_sync', 1, 1 ],
	[ 'sweep.chunk', 4, 0 ], [ 'rejoin.after_in_sync', 3, 1 ],
	[ 'move.after_finish', 2, 0 ], [ 'join.await_applied', 4, 1 ],);

sub walk
{
	my ($point, $node, $weight) = @_;
	my $name = "node $node dies at $point, node 4 " . ($weight ? 'gets shards' : 'gives them away');

	$c->sql(1, "SELECT payshard.set_node('n4', weight => $weight)");
	$c->sql($node, "SELECT payshard_fault.arm('$point', 'panic')");
	$p->start($_, 40, accounts => [ $p->accounts_at($_, 1) ]) foreach 1 .. 4;
	$c->try_sql(1, 'SELECT payshard.rebalance_start()');
	my $hit = eval { $c->wait_down($node, 30); 1 };
	ok($hit, "$name: it was there") || diag($@);
	$c->start($node);
	$c->try_sql($node, "SELECT payshard_fault.disarm('$point')");
	$c->wait_sql(2, "SELECT payshard.rebalance_wait('60 s')", 90);
	is($c->sql(2, 'SELECT count(*) FROM payshard.ring() WHERE NOT as_chosen'), '0', "$name: every shard is where it belongs");
	my $kept = $p->assert_kept($name);
	$p->{outcome} = {} if $kept;
	return $kept;
}

foreach my $step (@walk)
{
	walk(@$step) or last;
}
is($c->sql($_, 'SELECT count(*) FROM payshard.divergent_rows'), '0', "nothing diverged on node $_") foreach 1 .. 4;
done_testing();
