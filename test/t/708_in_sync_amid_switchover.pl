# A copy gets in sync while a switchover has drained the others: it is drained, too, before there
# is another primary (J5).  What it has of the old one, not applied, would come after what the new one writes.
#
# Method: node d joins node a, and is amid the comparison of digests; its apply process stands still before a payment that it has journaled.
use strict;
use warnings;
use PayshardControls;
use Test::More;

my $k = PayshardControls->new(nodes => 3, replicas => 3, shards => 8,
	conf => "payshard.switchover_timeout = 60s\npayshard.switchover_pause = 10s\npayshard.gate_timeout = 60s\n");
my $c = $k->cluster;
my $p = $k->payments;
my ($a, $b, $d) = $k->cast;
my ($account) = $p->accounts_at($a);
my $shard = $c->sql($a, "SELECT payshard.shard_for('accounts', $account\::bigint)");
my $primary = "SELECT primary_node FROM payshard.shards WHERE shard = $shard";

$p->assert_kept('before');
$k->put_out($a, $d, $account);
$k->arm($d, 'join.digest');
$k->disarm($a, 'rejoin.before_teach');
$k->await_paused($d, 'join.digest');
$k->arm($d, 'apply.before');
$k->pay($a, $account);
$k->await_paused($d, 'apply.before');

$k->arm($a, 'switch.drained');
my $switch = $k->background($a, "SELECT payshard.switchover($shard, 'n$b')");
$k->await_paused($a, 'switch.drained');
$k->disarm($d, 'join.digest');
$c->wait_sql($a, "SELECT state = 'in_sync' FROM payshard.placements WHERE shard = $shard AND node = 'n$d'");
$k->arm($a, 'switch.held');
$k->disarm($a, 'switch.drained');
$c->wait_until('the switchover to begin again, or to end', 60, sub {
		return $c->sql($a, q{SELECT payshard_fault.paused('switch.held')}) eq 't' || $c->sql($a, $primary) eq "n$b";
	});
is($c->sql($a, $primary), "n$a", 'not before node d has applied what it has');
$k->disarm($a, 'switch.held');
$k->disarm($d, 'apply.before');
$k->await_background($switch);
is($c->sql($a, $primary), "n$b", 'then it is done');
$k->pay($b, $account);
$p->assert_kept('afterwards');
done_testing();
