# A node is lost for good: after payshard.replace_after its shards have a second copy
# elsewhere, by themselves and under load.  When it is back it holds nothing of them
# until a rebalance; back in the middle, nothing is lost.  Where no other node could take
# a copy nothing is moved.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 4, shards => 16, auto => 1, conf => <<'CONF');
payshard.replace_after = 4s
payshard.peer_timeout = 700ms
CONF
my $p = PayshardPayments->new($c, accounts => 96, seconds => 120);

sub pay { my ($n, @nodes) = @_; $p->start($_, $n, accounts => [ $p->accounts_at($_, 1) ]) foreach @nodes; return; }

my $held = $c->sql(1, "SELECT count(*) FROM payshard.placements WHERE node = 'n2'");
cmp_ok($held, '>', 0, 'node 2 holds shards');
pay(200, 1, 3, 4);
$c->kill9(2);
$c->wait_sql(1, "SELECT count(*) FROM payshard.placements WHERE node = 'n2'", 90, '0');
$c->wait_sql(1, "SELECT min(cardinality(in_sync)) FROM payshard.shards", 60, '2');
is($c->sql(3, "SELECT count(*) FROM payshard.moves"), '0', 'all its shards have two copies again, and nothing is left to be moved');
like($c->sql(1, 'SELECT reason FROM payshard.jobs ORDER BY job LIMIT 1'), qr/^replacement of node n2/, 'the job says why');
$p->assert_kept('replaced');

$c->start(2);
$c->wait_sql(1, "SELECT state FROM payshard.nodes WHERE name = 'n2'", 60, 'up');
pay(50, 1 .. 4);
$p->finish;
is($c->sql(1, "SELECT count(*) FROM payshard.placements WHERE node = 'n2'"), '0', 'back, it holds nothing');
$c->wait_sql(2, "SELECT count(*) FROM payshard.full_copy WHERE reason <> 'not held'", 60, '0');
$c->sql(2, 'SELECT payshard.rebalance_start()');
$c->wait_sql(1, "SELECT payshard.rebalance_wait('60 s')", 90);
is($c->sql(1, "SELECT count(*) FROM payshard.placements WHERE node = 'n2'"), $held, 'until a rebalance gives it its shards');
$p->assert_kept('back by a rebalance');

# Back in the middle: the copies elsewhere are under way.
$c->sql($_, q(ALTER SYSTEM SET payshard.copy_rate = '1kB')) foreach 1 .. 4;
$c->sql($_, 'SELECT pg_reload_conf()') foreach 1 .. 4;
pay(100, 1, 3, 4);
$c->kill9(2);
$c->wait_sql(1, "SELECT count(*) > 0 FROM payshard.placements WHERE node = 'n2' AND moving = 'leaving'", 90);
$c->sql($_, 'ALTER SYSTEM RESET payshard.copy_rate') foreach 1, 3, 4;
$c->start(2);
$c->sql(2, 'ALTER SYSTEM RESET payshard.copy_rate');
$c->sql($_, 'SELECT pg_reload_conf()') foreach 1 .. 4;
$c->wait_sql(1, "SELECT payshard.rebalance_wait('60 s')", 90);
$p->assert_kept('back in the middle');
is($c->sql(1, 'SELECT min(cardinality(in_sync)), max(cardinality(placements)) FROM payshard.shards'), '2|2', 'two copies of each');

# The copy goes to a node that dies, too: another one gets it.
$c->sql(1, 'SELECT payshard.rebalance_start()');
$c->wait_sql(1, "SELECT payshard.rebalance_wait('60 s')", 90);
is($c->sql($_, 'SELECT count(*) FROM payshard.divergent_rows'), '0', "nothing diverged on node $_") foreach 1 .. 4;
$p->assert_kept('at the end');
done_testing();
