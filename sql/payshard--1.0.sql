\echo Use "CREATE EXTENSION payshard" to load this file. \quit

-- Refuse early what could only fail later: the library must be preloaded.
DO $$
BEGIN
	IF current_setting('payshard.database', true) IS NULL THEN
		RAISE EXCEPTION 'payshard is not preloaded'
			USING ERRCODE = 'object_not_in_prerequisite_state',
				  DETAIL = 'The library payshard must be loaded when the server starts.',
				  HINT = 'Set shared_preload_libraries = ''payshard'' in postgresql.conf and restart the server.';
	END IF;
END $$;

CREATE SCHEMA payshard_data;
COMMENT ON SCHEMA payshard_data IS 'partitions of distributed tables, one per shard (P1)';
GRANT USAGE ON SCHEMA payshard_data TO PUBLIC;
GRANT USAGE ON SCHEMA payshard TO PUBLIC;

----------------------------------------------------------------------
-- Tables of this node.  None is part of a logical dump: what is restored
-- wakes up as nobody.
----------------------------------------------------------------------

CREATE TABLE payshard.node_self (
	one boolean PRIMARY KEY DEFAULT true CHECK (one),
	cluster_id bigint NOT NULL,
	node_id int NOT NULL,
	name name NOT NULL,
	peer_role name NOT NULL,
	boot bigint NOT NULL
);
COMMENT ON TABLE payshard.node_self IS 'who this node is (one row); boot counts the starts of this data directory (M3)';

CREATE TABLE payshard.acceptor (
	cluster_id bigint PRIMARY KEY,
	promised bigint NOT NULL,
	accepted_ballot bigint NOT NULL,
	value bytea
);
COMMENT ON TABLE payshard.acceptor IS 'this node''s vote on the map (M1): CASPaxos acceptor state';

CREATE TABLE payshard.chosen_map (
	one boolean PRIMARY KEY DEFAULT true CHECK (one),
	epoch bigint NOT NULL,
	value bytea NOT NULL
);
COMMENT ON TABLE payshard.chosen_map IS 'the newest chosen map this node has adopted (M1)';

CREATE TABLE payshard.map_history (
	epoch bigint PRIMARY KEY,
	value bytea NOT NULL,
	changed_at timestamptz NOT NULL,
	reason text NOT NULL
);
COMMENT ON TABLE payshard.map_history IS 'every map this node has adopted; events and availability are computed from it';

CREATE TABLE payshard.journal (
	origin int NOT NULL,
	incarnation bigint NOT NULL,
	first_seq bigint NOT NULL,
	last_seq bigint NOT NULL,
	records bytea NOT NULL,
	PRIMARY KEY (origin, incarnation, last_seq)
) WITH (toast_tuple_target = 8160, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
ALTER TABLE payshard.journal ALTER COLUMN records SET STORAGE EXTERNAL;
COMMENT ON TABLE payshard.journal IS 'entries of other primaries, durable here before they are acknowledged there, until they are applied (W3, W5); records as in src/ground/wire.h';

CREATE TABLE payshard.journal_abort (
	origin int NOT NULL,
	incarnation bigint NOT NULL,
	seq bigint NOT NULL,
	PRIMARY KEY (origin, incarnation, seq)
);
COMMENT ON TABLE payshard.journal_abort IS 'entries in the journal that their origin has aborted (W7)';

CREATE TABLE payshard.position (
	origin int PRIMARY KEY,
	incarnation bigint NOT NULL,
	applied_seq bigint NOT NULL,
	lsn pg_lsn NOT NULL DEFAULT '0/0'
);
COMMENT ON TABLE payshard.position IS 'how far each origin''s entries are applied here; on the origin itself: how far a recovery has rolled forward (F1)';

CREATE TABLE payshard.feed (
	shard int PRIMARY KEY,
	origin int NOT NULL,
	incarnation bigint NOT NULL,
	seq bigint NOT NULL,
	copying boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE payshard.feed IS 'per shard that was copied to this node: entries of that stream up to seq are in the copy and not applied (J2); copying: the copy is under way, entries for the shard wait';

CREATE TABLE payshard.full_copy (
	shard int PRIMARY KEY,
	reason text NOT NULL
);
COMMENT ON TABLE payshard.full_copy IS 'shards of which this node has nothing (reason: not held), or nothing to be trusted: if its placement joins, it gets all rows';

CREATE TABLE payshard.divergent_rows (
	at timestamptz NOT NULL DEFAULT clock_timestamp(),
	table_id bigint NOT NULL,
	shard int NOT NULL,
	what text NOT NULL,
	found text
);
COMMENT ON TABLE payshard.divergent_rows IS 'rows of this node that were not as their primary had them, and were put right; found: the row that was here, as a tuple of src/ground/wire.h in hex';

CREATE TABLE payshard.dirty_key (
	node int NOT NULL,
	shard int NOT NULL,
	table_id bigint NOT NULL,
	key bytea NOT NULL,
	PRIMARY KEY (node, shard, table_id, key)
);
COMMENT ON TABLE payshard.dirty_key IS 'primary keys changed while a placement is out (J1); table_id 0 = all keys of the shard';

CREATE TABLE payshard.distributed_table (
	table_id bigint PRIMARY KEY,
	relid regclass NOT NULL UNIQUE,
	key_columns name[] NOT NULL,
	colocation text NOT NULL
);
COMMENT ON TABLE payshard.distributed_table IS 'distributed tables: id (the same on all nodes), the partitioned table, its key';

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
	OUT promised boolean, OUT promised_ballot bigint, OUT accepted_ballot bigint, OUT value bytea)
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_prepare';
CREATE FUNCTION payshard.peer_accept(cluster_id bigint, ballot bigint, value bytea,
	OUT accepted boolean, OUT promised_ballot bigint)
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_accept';
CREATE FUNCTION payshard.peer_hello(cluster_id bigint, sender int, incarnation bigint, epoch bigint, attach_seq bigint) RETURNS bytea
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
CREATE FUNCTION payshard.peer_join_copied(shards int[]) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_join_copied';
CREATE FUNCTION payshard.peer_take_dirty(node int, shard int, table_id bigint, key bytea) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_take_dirty';
CREATE FUNCTION payshard.rebuild_node(node text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_rebuild_node';
COMMENT ON FUNCTION payshard.rebuild_node IS 'gives all placements of a node, but those it is primary of, a full copy; refused where it holds the only copy in sync';
CREATE FUNCTION payshard.peer_await_applied(origin int, incarnation bigint, seq bigint, timeout_ms int) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_await_applied';
