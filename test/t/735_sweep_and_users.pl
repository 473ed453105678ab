# What empties shards that a node does not hold any more waits for no lock of a user while it holds
# the map: the node would learn no newer one.
#
# Method: a session has locked all partitions of the node.
use strict;
use warnings;
use PayshardControls;
use Test::More;

my $k = PayshardControls->new(nodes => 3, replicas => 2, shards => 8);
my $c = $k->cluster;
my $p = $k->payments;
my ($shard) = split /\n/, $c->sql(2, "SELECT shard FROM payshard.shards WHERE shard NOT IN (SELECT shard FROM payshard.placements WHERE node = 'n2')");

my $user = $k->background(2, <<'SQL');
DO $$ DECLARE t regclass; BEGIN
	FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'payshard_data'::regnamespace AND relkind = 'r' LOOP
		PERFORM payshard.peer_ddl(format('LOCK TABLE ONLY %s IN SHARE MODE', t), current_user, 'public');
	END LOOP;
END $$; SELECT pg_sleep(600) AS user_holds_locks
SQL
$c->wait_sql(2, "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%user_holds_locks%' AND wait_event = 'PgSleep'");
$k->arm(2, 'sweep.chunk');
$c->sql(2, "INSERT INTO payshard.full_copy VALUES ($shard, 'to be emptied') ON CONFLICT (shard) DO UPDATE SET reason = 'to be emptied'");
$k->await_paused(2, 'sweep.chunk');
$k->disarm(2, 'sweep.chunk');
my $epoch = $c->sql(2, 'SELECT epoch FROM payshard.chosen_map');
$c->sql(1, "SELECT payshard.set_node('n3', zone => 'elsewhere')");
ok(eval { $c->wait_sql(2, "SELECT epoch > $epoch FROM payshard.chosen_map", 30); 1 }, 'the node learns the next map') || diag($@);
is($c->sql(2, "SELECT reason FROM payshard.full_copy WHERE shard = $shard"), 'to be emptied', 'the shard waits for the user');
$c->sql(2, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%user_holds_locks%' AND pid <> pg_backend_pid()");
eval { $k->await_background($user) };
$c->wait_sql(2, "SELECT reason = 'not held' FROM payshard.full_copy WHERE shard = $shard");
$p->assert_kept('afterwards');
done_testing();
