----------------------------------------------------------------------
-- How to reach a node (S2)
----------------------------------------------------------------------

CREATE FUNCTION payshard.fdw_validator(options text[], catalog oid) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_fdw_validator';
CREATE FOREIGN DATA WRAPPER payshard VALIDATOR payshard.fdw_validator;
COMMENT ON FOREIGN DATA WRAPPER payshard IS 'how to reach payshard nodes: one server payshard_<node> per node, options as of libpq';

----------------------------------------------------------------------
-- Cluster
----------------------------------------------------------------------

CREATE FUNCTION payshard.create_cluster(name text, shards int DEFAULT 64, replicas int DEFAULT 2,
	node text DEFAULT 'n1', conninfo text DEFAULT NULL, zone text DEFAULT '', weight int DEFAULT 1,
	load_percent int DEFAULT 110)
	RETURNS void LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_create_cluster';
COMMENT ON FUNCTION payshard.create_cluster IS 'makes this database the first node of a cluster; shards: a power of two, fixed for ever; replicas: copies of each shard; conninfo: how all nodes, this one too, reach it; load_percent: no node holds more than this percentage of its fair share';

CREATE FUNCTION payshard.add_node(name text, conninfo text, zone text DEFAULT '', weight int DEFAULT 1)
	RETURNS int LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_add_node';
COMMENT ON FUNCTION payshard.add_node IS 'adds a node, on which the extension must be installed; weight 0: a witness, which votes and routes but stores nothing; returns its id; takes effect at once, also when the transaction is rolled back';

CREATE FUNCTION payshard.remove_node(name text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_remove_node';
COMMENT ON FUNCTION payshard.remove_node IS 'moves all copies of a node to others, removes it, and returns then; refused where that would lose a last copy, or copies and zones do not allow it; goes on when the call is cancelled or its node dies, until payshard.rebalance_stop()';
CREATE FUNCTION payshard.set_node(name text, weight int DEFAULT NULL, zone text DEFAULT NULL) RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_set_node';
COMMENT ON FUNCTION payshard.set_node IS 'changes weight and zone of a node; shards stay where they are';

----------------------------------------------------------------------
-- Between nodes
----------------------------------------------------------------------

CREATE FUNCTION payshard.peer_check_settings() RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_peer_check_settings';
CREATE FUNCTION payshard.peer_invite(cluster_id bigint, node_id int, name text, members jsonb, map bytea) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_invite';
CREATE FUNCTION payshard.peer_define(name text, conninfo text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_define';
CREATE FUNCTION payshard.peer_learn(map bytea) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_learn';
CREATE FUNCTION payshard.peer_prepare(cluster_id bigint, ballot bigint,
	OUT promised boolean, OUT promised_ballot bigint, OUT accepted_ballot bigint, OUT value bytea,
	OUT boot bigint, OUT boot_attempt bigint)
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_prepare';
CREATE FUNCTION payshard.peer_accept(cluster_id bigint, ballot bigint, value bytea,
	OUT accepted boolean, OUT promised_ballot bigint)
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_accept';
CREATE FUNCTION payshard.peer_turn(take boolean) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_turn';
CREATE FUNCTION payshard.peer_hello(hello bytea) RETURNS bytea
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_hello';
CREATE FUNCTION payshard.peer_journal(batch bytea) RETURNS bytea
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_journal';
CREATE FUNCTION payshard.peer_capture_off() RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_peer_capture_off';

----------------------------------------------------------------------
-- Triggers on distributed tables (W1)
----------------------------------------------------------------------

CREATE FUNCTION payshard.capture() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_capture';
COMMENT ON FUNCTION payshard.capture() IS 'row trigger of distributed tables: collects what a transaction writes';
CREATE FUNCTION payshard.capture_truncate() RETURNS trigger
	LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_capture_truncate';
COMMENT ON FUNCTION payshard.capture_truncate() IS 'TRUNCATE trigger of distributed tables';

----------------------------------------------------------------------
-- Failover
----------------------------------------------------------------------

CREATE FUNCTION payshard.peer_tail(origin int, epoch bigint, OUT incarnation bigint, OUT record bytea) RETURNS SETOF record
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_tail';
CREATE FUNCTION payshard.peer_settle_journal(origin int, epoch bigint, incarnation bigint, records bytea) RETURNS int
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_settle_journal';
CREATE FUNCTION payshard.peer_settle_apply(origin int, epoch bigint, incarnation bigint) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_settle_apply';

CREATE FUNCTION payshard.peer_suspects(node int, incarnation bigint, OUT suspects boolean, OUT bound_ms int, OUT journaled bigint)
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_suspects';
COMMENT ON FUNCTION payshard.peer_suspects IS 'between nodes: does this one, too, find that a node is gone? Then it promises it no lease for a while';
CREATE FUNCTION payshard.peer_heard(node int) RETURNS bigint
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_heard';
CREATE FUNCTION payshard.incarnation() RETURNS bigint
	LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_incarnation';
COMMENT ON FUNCTION payshard.incarnation() IS 'number of this start of the node, issued by the map register (M3); 0 while it serves nothing';

CREATE FUNCTION payshard.failover(node text, force boolean DEFAULT false, partial boolean DEFAULT false) RETURNS int
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_failover';
COMMENT ON FUNCTION payshard.failover IS 'gives the shards of a lost node to other primaries, after all that it committed is settled (F2 to F5); refuses when the node answers (force), or when it holds the only copy of a shard (partial: fail over the others); returns how many shards got a new primary';

----------------------------------------------------------------------
-- Rejoin
----------------------------------------------------------------------

CREATE FUNCTION payshard.peer_join_begin(shards int[], origin int, incarnation bigint, seq bigint) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_join_begin';
CREATE FUNCTION payshard.peer_join_keys(shards int[], OUT shard int, OUT table_id bigint, OUT key bytea) RETURNS SETOF record
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_join_keys';
CREATE FUNCTION payshard.peer_copy(ops bytea) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_copy';
CREATE FUNCTION payshard.peer_join_copied(shards int[], origin int, incarnation bigint, seq bigint) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_join_copied';
CREATE FUNCTION payshard.peer_take_dirty(node int, shard int, table_id bigint, key bytea) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_take_dirty';
CREATE FUNCTION payshard.rebuild_node(node text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_rebuild_node';
COMMENT ON FUNCTION payshard.rebuild_node IS 'gives all placements of a node, but those it is primary of, a full copy; refused where it holds the only copy in sync';
CREATE FUNCTION payshard.peer_await_applied(origin int, incarnation bigint, seq bigint, timeout_ms int) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_await_applied';

CREATE FUNCTION payshard.switchover(node text, target text DEFAULT NULL,
	OUT from_node text, OUT to_node text, OUT shards int[], OUT pause_ms double precision)
	RETURNS SETOF record LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_switchover_node';
COMMENT ON FUNCTION payshard.switchover(text, text) IS 'makes other nodes primary of all shards of a node, each one that has a copy in sync; or one target, of those of which it has one. Clients notice nothing but a pause: pause_ms, for which writes to these shards waited at most';
CREATE FUNCTION payshard.switchover(shard int, target text DEFAULT NULL,
	OUT from_node text, OUT to_node text, OUT shards int[], OUT pause_ms double precision)
	RETURNS SETOF record LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_switchover_shard';
COMMENT ON FUNCTION payshard.switchover(int, text) IS 'the same for one shard';
CREATE FUNCTION payshard.start_maintenance(node text, reason text DEFAULT NULL) RETURNS int
	LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_start_maintenance';
COMMENT ON FUNCTION payshard.start_maintenance IS 'makes a node ready to be stopped: other nodes become primary of its shards, and from now on its absence is planned time and its copies are not replaced; refused where the cluster could not go on without it. Returns how many shards got another primary';
CREATE FUNCTION payshard.stop_maintenance(node text) RETURNS int
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_stop_maintenance';
COMMENT ON FUNCTION payshard.stop_maintenance IS 'takes a node back: waits until its copies are in sync (payshard.switchover_timeout), ends the planned time, and makes it primary of the shards of which the ring has it first. Returns how many these are';
CREATE FUNCTION payshard.drill(node text, how text DEFAULT 'kill', OUT node_name text, OUT kind text, OUT switchover_ms double precision,
	OUT recovery_ms double precision, OUT back_in_sync_ms double precision, OUT failed_over boolean)
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_drill';
COMMENT ON FUNCTION payshard.drill IS 'lets a node die by a crash from which its server restarts by itself, and measures: recovery_ms until all shards that it was primary of are open (failed_over: at other nodes), back_in_sync_ms until its copies are in sync; then it is primary again of what it was. how => ''kill'': without warning; ''stop'': after other nodes have become primary. switchover_ms: longest pause by that. An incident of kind drill; refused where the cluster could not go on without the node';
CREATE FUNCTION payshard.peer_is_quiet() RETURNS boolean
	LANGUAGE sql VOLATILE STRICT SET search_path = pg_catalog, pg_temp AS
$$SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'payshard session' AND state <> 'idle')$$;
COMMENT ON FUNCTION payshard.peer_is_quiet IS 'between nodes: does no transaction of another node''s client run here?';

CREATE FUNCTION payshard.peer_crash(incarnation bigint) RETURNS int
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_crash';
COMMENT ON FUNCTION payshard.peer_crash IS 'between nodes, superusers only: kills a process of this server for a drill';
CREATE FUNCTION payshard.peer_note(kind text, node int, detail text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_note';
COMMENT ON FUNCTION payshard.peer_note IS 'between nodes: writes a row of payshard.event_log';
CREATE FUNCTION payshard.peer_switch(shards int[], target int) RETURNS double precision
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_switch';
COMMENT ON FUNCTION payshard.peer_switch IS 'between nodes: makes another node primary of shards of this one; returns for how many ms writes to them waited at most';

----------------------------------------------------------------------
-- Moving shards (J5)
----------------------------------------------------------------------

CREATE FUNCTION payshard.rebalance_plan(OUT shard int, OUT from_node text, OUT to_node text, OUT bytes bigint, OUT reason text)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_rebalance_plan';
COMMENT ON FUNCTION payshard.rebalance_plan IS 'what payshard.rebalance_start() would order, by the ring: placements that go from one node to another (reason: ring, the node has no weight, a copy is missing, a copy too many), with their size (null: its primary does not answer), and shards that get another primary (reason: primary); payshard.balance shows the nodes before and after';
CREATE FUNCTION payshard.rebalance_start() RETURNS int
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_rebalance_start';
COMMENT ON FUNCTION payshard.rebalance_start IS 'orders that every shard goes to where the ring has it, and returns at once: the number of shards of which something is to be moved; takes effect at once, also when the transaction is rolled back';
CREATE FUNCTION payshard.rebalance_wait(timeout interval DEFAULT NULL) RETURNS boolean
	LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_rebalance_wait';
COMMENT ON FUNCTION payshard.rebalance_wait IS 'waits until nothing is left to be moved: true; or until the time is over: false';
CREATE FUNCTION payshard.rebalance_stop() RETURNS int
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_rebalance_stop';
COMMENT ON FUNCTION payshard.rebalance_stop IS 'stops all moves, also those of remove_node and those that replace a lost node: what has not arrived yet is dropped, what has arrived is carried through; returns of how many shards there is still something to be finished';
CREATE FUNCTION payshard.peer_shard_bytes(shards int[], OUT shard int, OUT bytes bigint) RETURNS SETOF record
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS $$
	SELECT s, (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint
		FROM payshard.distributed_table d JOIN pg_inherits i ON i.inhparent = d.relid JOIN pg_class c ON c.oid = i.inhrelid
		WHERE c.relname LIKE '%\_' || s)
	FROM unnest(shards) s
$$;
COMMENT ON FUNCTION payshard.peer_shard_bytes IS 'between nodes: size of shards as they are stored here';
