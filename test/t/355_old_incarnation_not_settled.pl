# A node that died starts again, and is made primary of a shard, before what it was is settled: nothing that
# it writes there may be applied before the entries of its former incarnation, which would then count for
# nothing (F1).
#
# Method: A acknowledges a payment that B has journaled, and not applied. A and D die; A is failed over, but settling it
# waits for D, the only copy of another shard of A. A starts again, joins a shard with B, gets it by a
# switchover, and writes there. Then D comes back.
use strict;
use warnings;
use IPC::Run ();
use PayshardCluster;
use PayshardPayments;
use Test::More;

plan skip_all => 'needs a build with PAYSHARD_FAULTS=1' unless $ENV{PAYSHARD_FAULTS};

my $c = PayshardCluster->new(nodes => 5, witness => [ 4, 5 ], replicas => 2, shards => 32, conf => "payshard.peer_timeout = 10min\npayshard.call_timeout = 2s\n");
my $p = PayshardPayments->new($c);
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;

# pairs(a, b): accounts of a shard with primary a and a copy on b
my ($a, $b, $d);
foreach my $try ([ 1, 2, 3 ], [ 1, 3, 2 ], [ 2, 1, 3 ], [ 2, 3, 1 ], [ 3, 1, 2 ], [ 3, 2, 1 ])
{
	my ($x, $y, $z) = @$try;
	next if $a;
	($a, $b, $d) = @$try if $p->accounts_between($x, $y) && $p->accounts_between($x, $z) && $p->accounts_between($y, $x);
}
ok($a, "node $a shares shards with $b and $d") or BAIL_OUT('the ring gives no such nodes');
my ($lost) = $p->accounts_between($a, $b);
my ($other) = $p->accounts_between($b, $a);
my $shard = $c->sql($b, "SELECT payshard.shard_for('accounts', $other)");

# Leaves the payment journaled at b and undecided, A and D dead, A failed over, A back as primary of a shard.
sub come_back
{
	my ($account) = @_;
	my $was = $c->sql($b, "SELECT incarnation FROM payshard.nodes WHERE name = 'n$a'");

	$p->wait_journals_empty;
	$c->sql($a, "SELECT payshard_fault.arm('commit.after_local', 'pause')");
	$p->start($a, 1, accounts => [$account]);
	$c->wait_sql($a, "SELECT payshard_fault.paused('commit.after_local')");
	is($c->sql($b, "SELECT count(*) FROM payshard.journal WHERE origin = $a"), '1', 'the payment is journaled, and not decided');
	$c->kill9($_, all => 1) foreach $a, $d;
	$p->finish;
	$p->{outcome}{ $p->{next_id} - 1 } = 'ok';	# committed: whoever has asked has seen it
	my $failover = IPC::Run::start([ 'psql', '-XAtq', '-d', $c->node($b)->connstr('postgres'), '-c', "SELECT payshard.failover('n$a', force => true)" ], '<', \undef, '&>', \my $said);
	$c->wait_sql($b, "SELECT state = 'failed' FROM payshard.nodes WHERE name = 'n$a'");
	$c->start($a);
	$c->wait_sql($b, "SELECT incarnation > $was FROM payshard.nodes WHERE name = 'n$a'");
	$c->wait_sql($b, "SELECT state = 'in_sync' FROM payshard.placements WHERE shard = $shard AND node = 'n$a'");
	$c->sql($b, "SELECT payshard.switchover($shard, 'n$a')");
	my $pid = $p->start($a, 1, accounts => [$other]);
	return $failover;
}

my $failover = come_back($lost);
$c->wait_sql($b, "SELECT origin_incarnation = (SELECT incarnation FROM payshard.nodes WHERE name = 'n$a') AND journaled_seq > 0 FROM payshard.replication WHERE node = 'n$a'");
$c->start($d);
$p->finish;
$failover->finish;
$p->assert_kept('the former incarnation was settled first');
done_testing();
