# A fourth server is added while payments run at all nodes, and a rebalance moves
# shards to it (J3 to J5): no client hears an error, nothing is lost or doubled,
# all copies are equal, each shard has two copies in sync all the time, and who held
# a shard before has nothing left of it.  The longest time for which commits waited
# is printed.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 3, shards => 16, conf => "payshard.move_shards = 2\n");
my $p = PayshardPayments->new($c, accounts => 128, seconds => 120);

is($c->sql(1, 'SELECT count(*) FROM payshard.rebalance_plan()'), '0', 'nothing is to be moved yet');
is($c->sql(1, 'SELECT payshard.rebalance_start()'), '0', 'and nothing is ordered');

sub pay { $p->start($_, $_[0], accounts => [ $p->accounts_at($_, 1) ]) foreach 1 .. 3; return; }

pay(100);
$p->finish;
my $four = $c->new_server;
pay(400);
$c->add_node($four, zone => 'z4');
my $plan = $c->sql(2, 'SELECT shard, from_node, to_node, bytes > 0, reason FROM payshard.rebalance_plan() ORDER BY 1, 2');
note($plan);
my $n_moves = grep { /ring$/ } split /\n/, $plan;
cmp_ok($n_moves, '>=', 6, 'about a fourth of the copies would move');
cmp_ok($n_moves, '<=', 14, 'and not many more');
like($plan, qr/^\d+\|n[123]\|n4\|t\|ring$/m, 'with their sizes');
note($c->sql(1, 'SELECT * FROM payshard.balance'));

cmp_ok($c->sql(1, 'SELECT payshard.rebalance_start()'), '>', 0, 'a rebalance begins, and the call returns');
is($c->sql(3, "SELECT payshard.rebalance_wait('40 s')"), 't', 'it ends, as another node sees it, too');
note($c->sql(1, 'SELECT * FROM payshard.jobs'));
$p->finish;
my %failed;
$failed{ $p->{state}{$_} // 'none' }++ foreach grep { $p->{outcome}{$_} ne 'ok' } keys %{ $p->{outcome} };
is(join(', ', map { "$_: $failed{$_}" } sort keys %failed), '', 'no client heard an error');
is($c->sql(1, 'SELECT count(*) FROM payshard.rebalance_plan()'), '0', 'nothing more is to be moved');
is($c->sql(1, 'SELECT count(*) FROM payshard.ring() WHERE NOT as_chosen'), '0', 'every shard is where the ring has it');
$p->assert_kept('moved under load');
note($c->sql(1, 'SELECT node, placements, primaries, load FROM payshard.balance'));
note('longest pause: ' . $c->sql(1, 'SELECT max(pause_ms) FROM payshard.move_log') . ' ms');
done_testing();
