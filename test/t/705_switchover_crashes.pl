# A switchover in which somebody dies, or something fails, at each of its points: at the
# primary that gives its shards away, at the node that gets them.
#
# Method: node 2 gives its shards away under payments at all nodes; at an armed point it,
# or node 3, crashes (panic), or the step fails (error), or the session is gone
# (disconnect).  Who crashed is started again.  Then every shard must have one open
# primary, and all payments must be as their clients were told.
use strict;
use warnings;
use FindBin;
use lib $FindBin::Bin;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 8, conf => <<'CONF');
payshard.peer_timeout = 700ms
payshard.call_timeout = 2s
payshard.keepalive = 50ms
payshard.failover_wait = 5s
payshard.switchover_timeout = 3s
payshard.gate_timeout = 8s
CONF
my $p = PayshardPayments->new($c, accounts => 32, seconds => 60);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;

# [point, node where it happens, action]
my @walk = (
	[ 'switch.begin', 2, 'panic' ], [ 'switch.held', 2, 'error' ], [ 'switch.held', 2, 'panic' ],
	[ 'switch.drained', 2, 'panic' ], [ 'switch.drained', 2, 'disconnect' ], [ 'switch.before_propose', 2, 'panic' ],
	[ 'proposer.before_accept', 2, 'error' ], [ 'proposer.after_accept', 2, 'panic' ],
	[ 'proposer.after_accept', 2, 'error' ], [ 'proposer.chosen', 2, 'panic' ], [ 'switch.after_propose', 2, 'panic' ],
	[ 'join.await_applied', 3, 'panic' ], [ 'acceptor.accepted', 3, 'panic' ], [ 'map.before_commit', 3, 'panic' ],
	[ 'map.after_commit', 3, 'panic' ],);

sub is_open
{
	return $c->wait_sql($_[0], "SELECT count(*) FILTER (WHERE state <> 'open') = 0 FROM payshard.shards", 60);
}

# Node 2 is primary of what the ring gives it.
sub set_up
{
	foreach my $shard (split /\n/, $c->sql(1, "SELECT shard FROM payshard.ring() WHERE chosen ~ '^n2\\M' AND primary_node <> 'n2'"))
	{
		$c->sql(2, "SELECT * FROM payshard.switchover($shard, 'n2')");
	}
	return;
}

foreach my $step (@walk)
{
	my ($point, $node, $action) = @$step;
	my $name = "node $node, $action at $point";

	set_up();
	my $shards = $c->sql(1, "SELECT count(*) FROM payshard.shards WHERE primary_node = 'n2'");
	$p->start($_, 30, accounts => [ 1 .. 32 ]) foreach 1 .. 3;
	$c->sql($node, "SELECT payshard_fault.arm('$point', '$action')");
	$c->try_sql(2, $node == 3 ? "SELECT * FROM payshard.switchover('n2', 'n3')" : "SELECT * FROM payshard.switchover('n2')");
	if ($action eq 'panic')
	{
		my $hit = eval { $c->wait_down($node, 30); 1 };
		ok($hit, "$name: it was there") || diag($@);
		$c->start($node) unless $c->is_running($node);
	}
	else
	{
		is($c->sql($node, "SELECT payshard_fault.armed('$point')"), 'f', "$name: it was there");
	}
	is_open($_) foreach 1 .. 3;
	$p->assert_kept("$name, of $shards shards") or last;
	$p->{outcome} = {};
}
is($c->sql($_, 'SELECT count(*) FROM payshard.divergent_rows'), '0', "nothing diverged on node $_") foreach 1 .. 3;
done_testing();
