# A batch is refused, and the empty one behind it in the pipeline is not: that one acks nothing
# of what the refused one held (W3, W4).
#
# Method: the sender to node 2 stands still with a payment under an old map, which node 2 does not take
# any more; an empty batch under the new one follows at once. Then the sender may not go on.
use strict;
use warnings;
use PayshardControls;
use Test::More;

my $k = PayshardControls->new(nodes => 3, replicas => 2, shards => 16,
	conf => "payshard.pipeline_depth = 2\npayshard.suspect_timeout = 60s\npayshard.call_timeout = 60s\npayshard.switchover_timeout = 30s\n");
my $c = $k->cluster;
my $p = $k->payments;
my ($account) = $p->accounts_between(1, 2);
my $shard = $c->sql(1, "SELECT payshard.shard_for('accounts', $account\::bigint)");
my $other = $c->sql(1, "SELECT min(shard) FROM payshard.shards JOIN payshard.placements p USING (shard) WHERE primary_node = 'n1' AND p.node = 'n2' AND shard <> $shard");
my $active = "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'WITH p%' AND state = 'active'";

$p->assert_kept('before');
# nothing is left to be told, and an empty batch is far off: the next one is the payment
$c->sql(1, q{ALTER SYSTEM SET payshard.keepalive = '60s'});
$c->sql(1, 'SELECT pg_reload_conf()');
$c->wait_sql(1, q{SELECT setting = '60000' FROM pg_settings WHERE name = 'payshard.keepalive'});
$c->wait_sql(2, q{SELECT count(*) = 0 FROM payshard.journal});
$k->arm(1, 'sender.before_send.n2');
$p->start(1, 1, accounts => [$account]);
$k->await_paused(1, 'sender.before_send.n2');
$c->wait_sql(1, $active);
my $epoch = $c->sql(1, 'SELECT epoch FROM payshard.chosen_map');
$c->sql(3, "SELECT payshard.set_node('n3', zone => 'elsewhere')");
$c->wait_sql($_, "SELECT epoch > $epoch FROM payshard.chosen_map") foreach 1, 2;
# a switchover hurries the sender, and asks then
$k->arm(2, 'join.await_applied');
my $switch = $k->background(1, "SELECT payshard.switchover($other, 'n2')");
$k->await_paused(2, 'join.await_applied');
$k->arm(1, 'sender.before_hello.n2');
$k->disarm(1, 'sender.before_send.n2');
$k->await_paused(1, 'sender.before_hello.n2');

my $journaled = $c->sql(2, q{SELECT journaled_seq FROM payshard.replication WHERE node = 'n1'});
my ($queued, $acked) = split /\|/, $c->sql(1, q{SELECT queued_seq, acked_seq FROM payshard.replication WHERE node = 'n2'});
cmp_ok($queued, '>', $journaled, "the payment ($queued) is not in the journal");
is($acked, $journaled, 'and not acked');
is($c->sql(1, $active), 't', 'its client waits');
$k->disarm(1, 'sender.before_hello.n2');
$k->disarm(2, 'join.await_applied');
$k->finish('ok');
$k->await_background($switch);
$p->assert_kept('sent again');
done_testing();
