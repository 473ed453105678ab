# One or two nodes decide nothing without each of them: there are no leases to be
# lost and no automatic failover, and both say why (M1).
#
# Method: a cluster of two nodes with the defaults of automatic failover.  One is
# killed while the other is primary of shards: this one goes on serving what it
# may.  A third node makes leases begin; one node alone never needs any.
use strict;
use warnings;
use PayshardCluster;
use PayshardPayments;
use Test::More;

my $c = PayshardCluster->new(nodes => 2, shards => 8, auto => 1, conf => "payshard.failover_wait = 0\n");
my $p = PayshardPayments->new($c);
my $own_lease = "SELECT held, left_ms FROM payshard.leases WHERE is_self";

$p->start($_, 20) foreach 1, 2;
$p->finish;
$p->assert_kept('two nodes');
is($c->sql($_, $own_lease), 't|', "two nodes: node $_ needs no lease") foreach 1, 2;

my ($account) = $p->accounts_at(1);
my $balance = $c->sql(1, "SELECT balance FROM accounts WHERE id = $account");
my $epoch = $c->sql(1, 'SELECT max(epoch) FROM payshard.map_history');
$c->kill9(2, all => 1);
$c->wait_sql(1, "SELECT count(*) > 0 FROM payshard.events WHERE kind = 'not_failed_over' AND node = 'n2' "
	  . "AND detail LIKE 'fewer than three voters: no majority without it%'", 60);
pass('the other is lost: an event says why it is not failed over');
my ($status, $out, $err) = $c->try_sql(1, "SELECT payshard.failover('n2')");
like($err, qr/ERROR:  55000: node "n2" cannot be failed over without a majority/, 'failover() refuses at once, and says why');
is($c->sql(1, $own_lease), 't|', 'the one that is left needs no lease');
is($c->sql(1, "SELECT balance FROM accounts WHERE id = $account"), $balance, 'and reads what it is primary of');
is($c->sql(1, 'SELECT max(epoch) FROM payshard.map_history'), $epoch, 'the map is the same');
$c->start(2);
$p->assert_kept('the lost one is back');

my $third = $c->new_server;
$c->add_node($third, weight => 0);
$c->wait_sql($_, 'SELECT held AND left_ms > 0 FROM payshard.leases WHERE is_self', 60) foreach 1 .. 3;
pass('three nodes: leases have begun');
$p->assert_kept('a third node');

my $one = PayshardCluster->new(nodes => 1, replicas => 1, shards => 4, auto => 1);
my $alone = PayshardPayments->new($one, accounts => 8);
is($one->sql(1, $own_lease), 't|', 'one node needs no lease');
$alone->start(1, 10);
$alone->finish;
$one->kill9(1, all => 1);
$one->start(1);
$alone->assert_kept('one node, killed and started');
done_testing();
