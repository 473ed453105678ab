-- The views on a cluster of one node: what they say right after its creation.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
DO $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'payshard') THEN
		CREATE EXTENSION payshard;
	END IF;
	IF NOT EXISTS (SELECT FROM payshard.node_self) THEN
		PERFORM payshard.create_cluster('pay', shards => 4, replicas => 1);
	END IF;
END $$;
DO $$
BEGIN
	FOR i IN 1..200 LOOP
		EXIT WHEN (SELECT bool_and(state = 'open') FROM payshard.shards) AND payshard.incarnation() > 0
			AND EXISTS (SELECT FROM payshard.watch_span);
		PERFORM pg_sleep(0.1);
	END LOOP;
END $$;
SELECT node_id, name, zone, weight, state, is_self, last_heard, leader FROM payshard.nodes;
SELECT shard, primary_node, state, in_sync, joining, "out", placements, waits_for FROM payshard.shards;
SELECT * FROM payshard.placements;
SELECT shard, ring_order, chosen, primary_node, placements, as_chosen FROM payshard.ring();
SELECT * FROM payshard.replication;
SELECT * FROM payshard.in_doubt;
SELECT split_part(payshard.status(), E'\n', 1) AS sentence;
-- a table, and its copies compared
CREATE TABLE watched (id int PRIMARY KEY, note text);
SELECT payshard.create_distributed_table('watched', 'id');
SELECT payshard.stat_reset();
INSERT INTO watched SELECT g, 'n' || g FROM generate_series(1, 100) g;
SELECT commits, aborts, unknown_outcomes, batches, stats_reset <= now() AS is_reset FROM payshard.stat_commits;
SELECT table_name, key_columns, bytes > 0 AS has_bytes FROM payshard.tables WHERE table_name = 'watched'::regclass;
SELECT node, count(*), sum(rows), bool_and(equal) FROM payshard.verify() WHERE table_name = 'public.watched' GROUP BY node;
-- what happened
SELECT epoch, kind, node, shards FROM payshard.events WHERE epoch <= 3 ORDER BY epoch, kind;
SELECT count(*) FROM payshard.incidents WHERE epoch <= 3;
SELECT scope, name, down_s, up_s > 0 AS was_up FROM payshard.availability WHERE scope <> 'node';
SELECT transactions_lost FROM payshard.recovery_stats;
-- nobody else may look
CREATE ROLE views_nobody;
SET ROLE views_nobody;
SELECT * FROM payshard.nodes;
SELECT payshard.status();
SELECT payshard.stat_reset();
RESET ROLE;
DROP ROLE views_nobody;
SELECT payshard.undistribute_table('watched');
DROP TABLE watched;
