# A switchover of a whole node fails for one pair of nodes: the error says what was done before, which
# stays so, and a second call does the rest.
#
# Method: node 2 gives its shards to nodes 1 and 3; the second of the two fails when the shards are held.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 16);
my $p = PayshardPayments->new($c);
my $left = "SELECT coalesce(string_agg(shard::text, ',' ORDER BY shard), '') FROM payshard.shards WHERE primary_node = 'n2'";
my @to = split /\n/, $c->sql(1, q{SELECT DISTINCT p.node FROM payshard.placements p JOIN payshard.shards s USING (shard)
	WHERE s.primary_node = 'n2' AND p.node <> 'n2' ORDER BY 1});

is_deeply(\@to, [ 'n1', 'n3' ], 'node 2 has shards for both others');
$c->sql($_, 'CREATE EXTENSION payshard_fault') foreach 1 .. 3;
foreach my $caller (2, 1)
{
	my $before = $c->sql($caller, $left);
	$c->sql(2, "SELECT payshard_fault.arm('switch.held', 'error', 2)");
	my ($status, $out, $err) = $c->try_sql($caller, q{SELECT * FROM payshard.switchover('n2')});
	isnt($status, 0, "called at node $caller: fails at the second pair");
	my ($said, $to) = $err =~ /DETAIL:.*Other nodes are primary by now of shards \{([\d,]+)\} of node "n2" \(node "(n1)"\)\./;
	ok(defined $said, 'and says which shards are at another node') || diag($err);
	like($err, qr/HINT:.*call it again/, 'and what to do');
	is($c->sql($caller, "SELECT string_agg(shard::text, ',' ORDER BY shard) FROM payshard.shards WHERE primary_node = '$to' AND shard = ANY ('{$before}')"),
		$said, 'these and no others');
	isnt($c->sql($caller, $left), '', 'the others are where they were');
	$c->sql($caller, q{SELECT * FROM payshard.switchover('n2')});
	is($c->sql($caller, $left), '', 'a second call does the rest');
	$p->assert_kept("called at node $caller");
	$c->sql(2, "SELECT * FROM payshard.switchover($_, 'n2')") foreach split /,/, $before;
}
done_testing();
