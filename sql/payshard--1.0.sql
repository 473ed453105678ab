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
	boot bigint NOT NULL,
	boot_attempt bigint
);
COMMENT ON TABLE payshard.node_self IS 'who this node is (one row); boot: the mark of this directory''s last start, as the register has it, 0 = none; boot_attempt: the mark of a start that the register may not have yet (M3)';

CREATE TABLE payshard.run_end (
	incarnation bigint PRIMARY KEY,
	next_xid bigint NOT NULL
);
COMMENT ON TABLE payshard.run_end IS 'the first transaction id given out by the server after a start: of the incarnations up to this one, ids from there on were lost in the crash and given out again (F1)';

CREATE TABLE payshard.acceptor (
	cluster_id bigint PRIMARY KEY,
	promised bigint NOT NULL,
	accepted_ballot bigint NOT NULL,
	value bytea,
	lease_ms int NOT NULL DEFAULT 0
);
COMMENT ON TABLE payshard.acceptor IS 'this node''s vote on the map (M1): CASPaxos acceptor state; lease_ms: how long a promise of a lease may last that was given since it was last written (Q1)';

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
	copying boolean NOT NULL DEFAULT false,
	term bigint NOT NULL
);
COMMENT ON TABLE payshard.feed IS 'per shard that was copied to this node: entries of that stream up to seq, and all of earlier terms, are in the copy and not applied (J2); copying: the copy is under way, entries for the shard wait';

CREATE TABLE payshard.full_copy (
	shard int PRIMARY KEY,
	reason text NOT NULL
);
COMMENT ON TABLE payshard.full_copy IS 'shards of which this node has nothing (reason: not held), or only what is left of a placement that was dropped (to be emptied), or nothing to be trusted: if its placement joins, it gets all rows';

CREATE TABLE payshard.job_log (
	job bigint PRIMARY KEY,
	reason text NOT NULL,
	shards int NOT NULL,
	started timestamptz NOT NULL,
	ended timestamptz,
	outcome text
);
COMMENT ON TABLE payshard.job_log IS 'what maps have ordered to be moved, as this node has seen it; job: the epoch of the map that ordered it; see payshard.jobs';

CREATE TABLE payshard.move_log (
	job bigint NOT NULL,
	shard int NOT NULL,
	target int NOT NULL,
	source int NOT NULL,
	bytes bigint NOT NULL,
	noted timestamptz NOT NULL DEFAULT clock_timestamp(),
	started timestamptz,
	ended timestamptz,
	sent_bytes bigint,
	rows bigint,
	pause_ms double precision,
	PRIMARY KEY (job, shard, target)
);
COMMENT ON TABLE payshard.move_log IS 'shards that are copied to another node for a job, noted by their primary (source); bytes: its size there when it was ordered; pause_ms: how long commits waited at most';

CREATE TABLE payshard.divergent_rows (
	at timestamptz NOT NULL DEFAULT clock_timestamp(),
	table_id bigint NOT NULL,
	shard int NOT NULL,
	what text NOT NULL,
	found text,
	found_json json
);
COMMENT ON TABLE payshard.divergent_rows IS 'rows of this node that were not as their primary had them, and were put right, at most 100 of each shard; found_json: the row that was here; found: the same as a tuple of src/ground/wire.h in hex';

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

----------------------------------------------------------------------
-- Distributed tables: DDL on all nodes (R4)
----------------------------------------------------------------------

CREATE TABLE payshard.ddl_log (
	gid text PRIMARY KEY,
	committed boolean NOT NULL,
	logged_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	role name NOT NULL DEFAULT session_user,
	statement text NOT NULL
);
COMMENT ON TABLE payshard.ddl_log IS 'DDL that ran on all nodes in one transaction (R4); on the node where it was issued the committed row is the decision';

CREATE SEQUENCE payshard.table_number MAXVALUE 16777215;
COMMENT ON SEQUENCE payshard.table_number IS 'numbers of tables made on this node: lower 24 bits of a table id, never used again';

CREATE FUNCTION payshard.peer_ddl_begin(gid text, role name, statement text) RETURNS void
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	LOCK TABLE payshard.distributed_table IN SHARE ROW EXCLUSIVE MODE;
	INSERT INTO payshard.ddl_log (gid, committed, role, statement) VALUES (gid, true, role, statement);
END $$;
COMMENT ON FUNCTION payshard.peer_ddl_begin IS 'between nodes: a transaction with DDL on all nodes begins here; one at a time';

CREATE FUNCTION payshard.peer_ddl_outcome(gid text) RETURNS boolean
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
BEGIN
	-- waits while the transaction that issued it is under way; if it is gone, it never happens
	INSERT INTO payshard.ddl_log (gid, committed, statement) VALUES ($1, false, '') ON CONFLICT DO NOTHING;
	RETURN (SELECT l.committed FROM payshard.ddl_log l WHERE l.gid = $1);
END $$;
COMMENT ON FUNCTION payshard.peer_ddl_outcome IS 'between nodes: did the DDL of this id commit where it was issued?';

CREATE FUNCTION payshard.peer_ddl(script text, role name, search_path text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_ddl';
COMMENT ON FUNCTION payshard.peer_ddl IS 'between nodes: runs DDL here only, as the role that issued it';
CREATE FUNCTION payshard.peer_acked_seq(node int) RETURNS bigint
	STRICT LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_peer_acked_seq';
COMMENT ON FUNCTION payshard.peer_acked_seq IS 'between nodes: the last entry of this incarnation of this node that the other has journaled';
CREATE FUNCTION payshard.peer_register(table_id bigint, relation text, key_columns name[], colocation text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_register';
COMMENT ON FUNCTION payshard.peer_register IS 'between nodes: a table is distributed from now on';
CREATE FUNCTION payshard.peer_unregister(table_id bigint) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_unregister';
COMMENT ON FUNCTION payshard.peer_unregister IS 'between nodes: a table is not distributed any more';
CREATE FUNCTION payshard.peer_load(relation text, columns text[], rows text) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_load';
COMMENT ON FUNCTION payshard.peer_load IS 'between nodes: loads rows, in the text format of COPY, into a table that is being distributed';
CREATE FUNCTION payshard.peer_rows(relation text, shard int) RETURNS SETOF text
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_rows';
COMMENT ON FUNCTION payshard.peer_rows IS 'between nodes: the rows of one shard here, each a line in the text format of COPY';

-- Sequences that number a column: serial (owned, used by the default) or identity.
CREATE FUNCTION payshard.table_sequences(rel regclass,
	OUT sequence regclass, OUT column_name name, OUT is_identity boolean, OUT last_value bigint)
	RETURNS SETOF record LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	FOR sequence, column_name, is_identity IN
		SELECT d.objid::regclass, a.attname, a.attidentity <> ''
		FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
			JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
		WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
			AND d.refobjid = rel AND d.deptype IN ('a', 'i')
		ORDER BY a.attnum, s.relname
	LOOP
		EXECUTE format('SELECT CASE WHEN is_called THEN s.last_value ELSE s.last_value - 1 END FROM %s s', sequence)
			INTO last_value;
		RETURN NEXT;
	END LOOP;
END $$;
COMMENT ON FUNCTION payshard.table_sequences IS 'sequences owned by columns of a table, with the last value given out here';

-- Highest value in use of each sequence of a table, as far as this node knows.
CREATE FUNCTION payshard.sequence_floors(rel regclass) RETURNS jsonb
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	s record;
	top bigint;
	floors jsonb := '{}';
BEGIN
	FOR s IN SELECT * FROM payshard.table_sequences(rel) LOOP
		top := s.last_value;
		IF (SELECT relkind = 'r' FROM pg_class WHERE oid = rel) AND
			(SELECT atttypid IN (20, 21, 23) FROM pg_attribute WHERE attrelid = rel AND attname = s.column_name) THEN
			EXECUTE format('SELECT greatest(%s, max(%I)) FROM ONLY %s', top, s.column_name, rel) INTO top;
		END IF;
		floors := floors || jsonb_build_object(s.column_name, top);
	END LOOP;
	RETURN floors;
END $$;
COMMENT ON FUNCTION payshard.sequence_floors IS 'by column: the highest value this node knows to be in use';

-- Each node numbers in its own residue class: node k gives out k, k + 64, k + 128 ... (times the
-- sequence's own increment), so that no two nodes ever give out the same number.
CREATE FUNCTION payshard.sequence_options(sequence regclass, top bigint, node int, was_distributed boolean)
	RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT format('AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s CACHE %s',
		format_type(s.seqtypid, NULL), CASE WHEN node = 0 THEN i.one ELSE i.one * 64 END, s.seqmin, s.seqmax,
		CASE WHEN node = 0 THEN top + 1
			ELSE top + 1 + mod(mod(node * i.one - (top + 1), i.one * 64) + i.one * 64, i.one * 64) END,
		s.seqcache)
	FROM pg_sequence s,
		LATERAL (SELECT CASE WHEN was_distributed THEN s.seqincrement / 64 ELSE s.seqincrement END AS one) i
	WHERE s.seqrelid = sequence
$$;
COMMENT ON FUNCTION payshard.sequence_options IS 'options of a sequence on a node (0 = of a table that is not distributed)';

CREATE FUNCTION payshard.ddl_grants(kind text, name text, acl aclitem[], owner oid, column_name name) RETURNS text
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
	SELECT coalesce(string_agg(format('GRANT %s%s ON %s %s TO %s%s', x.privilege_type,
			CASE WHEN column_name IS NULL THEN '' ELSE format(' (%I)', column_name) END, kind, name,
			CASE WHEN x.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(x.grantee)) END,
			CASE WHEN x.is_grantable AND x.grantee <> owner THEN ' WITH GRANT OPTION' ELSE '' END),
			E';\n' ORDER BY x.grantee, x.privilege_type) || E';\n', '')
	FROM aclexplode(acl) x
$$;
COMMENT ON FUNCTION payshard.ddl_grants IS 'GRANT statements for an access list';

-- What makes the table and its partitions; rows can be loaded after it.
CREATE FUNCTION payshard.table_ddl_before(rel regclass, partitions text, key_columns name[], shards int,
	node int, floors jsonb, plain boolean) RETURNS text
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET intervalstyle = postgres
	SET extra_float_digits = 3 AS $$
DECLARE
	c pg_class;
	t text;
	ddl text := '';
	owner text;
	options text;
	was_distributed boolean;
BEGIN
	SELECT * INTO c FROM pg_class WHERE oid = rel;
	t := format('%I.%I', c.relnamespace::regnamespace::text, c.relname);
	SELECT format('%I.%I', n.nspname, c.relname) INTO t FROM pg_namespace n WHERE n.oid = c.relnamespace;
	owner := quote_ident(pg_get_userbyid(c.relowner));
	was_distributed := c.relkind = 'p';
	SELECT CASE WHEN x.reloptions IS NULL THEN '' ELSE format(' WITH (%s)', array_to_string(x.reloptions, ', ')) END
		INTO options
		FROM pg_class x
		WHERE x.oid = CASE WHEN was_distributed THEN (SELECT min(inhrelid) FROM pg_inherits WHERE inhparent = rel) ELSE rel END;

	SELECT coalesce(string_agg(format(E'CREATE SEQUENCE %I.%I %s;\n', n.nspname, s.relname,
			payshard.sequence_options(q.sequence, (floors->>q.column_name)::bigint, node, was_distributed)), ''), '')
		INTO ddl
		FROM payshard.table_sequences(rel) q JOIN pg_class s ON s.oid = q.sequence
			JOIN pg_namespace n ON n.oid = s.relnamespace
		WHERE NOT q.is_identity;

	ddl := ddl || format('CREATE TABLE %s (%s%s)%s;', t,
		(SELECT string_agg(format('%I %s%s%s%s%s', a.attname, format_type(a.atttypid, a.atttypmod),
				CASE a.attcompression WHEN 'p' THEN ' COMPRESSION pglz' WHEN 'l' THEN ' COMPRESSION lz4' ELSE '' END,
				CASE WHEN a.attcollation <> y.typcollation AND a.attcollation <> 0 THEN
					(SELECT format(' COLLATE %I.%I', n.nspname, l.collname) FROM pg_collation l
						JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) ELSE '' END,
				CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END,
				CASE WHEN a.attidentity <> '' THEN
					(SELECT format(' GENERATED %s AS IDENTITY (SEQUENCE NAME %I.%I %s)',
							CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, n.nspname, s.relname,
							regexp_replace(payshard.sequence_options(q.sequence, (floors->>q.column_name)::bigint,
								node, was_distributed), '^AS \S+ ', ''))
						FROM payshard.table_sequences(rel) q JOIN pg_class s ON s.oid = q.sequence
							JOIN pg_namespace n ON n.oid = s.relnamespace
						WHERE q.is_identity AND q.column_name = a.attname)
					WHEN a.attgenerated = 's' THEN format(' GENERATED ALWAYS AS (%s) STORED', pg_get_expr(d.adbin, rel))
					WHEN d.adbin IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(d.adbin, rel) ELSE '' END),
				', ' ORDER BY a.attnum)
			FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
				LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
			WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped),
		(SELECT coalesce(string_agg(format(', CONSTRAINT %I %s', k.conname, pg_get_constraintdef(k.oid)), ''
				ORDER BY position(k.contype IN 'pucf'), k.conname), '')
			FROM pg_constraint k
			WHERE k.conrelid = rel AND k.conparentid = 0 AND k.contype IN ('p', 'u', 'c', 'f')),
		CASE WHEN plain THEN options ELSE format(' PARTITION BY HASH (%s)',
			(SELECT string_agg(quote_ident(k), ', ' ORDER BY n) FROM unnest(key_columns) WITH ORDINALITY u(k, n))) END);

	-- on a partitioned table they say ON ONLY, and reach partitions made after them
	ddl := ddl || coalesce((SELECT string_agg(E'\n' || CASE WHEN plain THEN
				replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ') ELSE pg_get_indexdef(i.indexrelid) END || ';', ''
				ORDER BY i.indexrelid)
			FROM pg_index i
			WHERE i.indrelid = rel AND NOT EXISTS
				(SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.conrelid = rel AND k.contype IN ('p', 'u', 'x'))), '');
	IF NOT plain THEN
		ddl := ddl || (SELECT string_agg(format(E'\nCREATE TABLE payshard_data.%1$I PARTITION OF %2$s FOR VALUES WITH (MODULUS %3$s, REMAINDER %4$s)%5$s;\nALTER TABLE payshard_data.%1$I OWNER TO %6$s;',
				partitions || '_' || s, t, shards, s, options, owner), '' ORDER BY s)
			FROM generate_series(0, shards - 1) s);
	END IF;

	ddl := ddl || coalesce((SELECT string_agg(format(E'\nALTER SEQUENCE %I.%I OWNED BY %s.%I;', n.nspname, s.relname, t, q.column_name), '')
		FROM payshard.table_sequences(rel) q JOIN pg_class s ON s.oid = q.sequence
			JOIN pg_namespace n ON n.oid = s.relnamespace
		WHERE NOT q.is_identity), '');
	ddl := ddl || format(E'\nALTER TABLE %s OWNER TO %s;', t, owner);
	ddl := ddl || coalesce((SELECT string_agg(
			CASE WHEN a.attstorage <> y.typstorage THEN format(E'\nALTER TABLE %s ALTER COLUMN %I SET STORAGE %s;', t, a.attname,
				CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' ELSE 'EXTENDED' END) ELSE '' END ||
			CASE WHEN a.attstattarget >= 0 THEN format(E'\nALTER TABLE %s ALTER COLUMN %I SET STATISTICS %s;', t, a.attname, a.attstattarget) ELSE '' END ||
			CASE WHEN a.attoptions IS NOT NULL THEN format(E'\nALTER TABLE %s ALTER COLUMN %I SET (%s);', t, a.attname, array_to_string(a.attoptions, ', ')) ELSE '' END, '')
		FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
		WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped), '');
	RETURN ddl;
END $$;
COMMENT ON FUNCTION payshard.table_ddl_before IS 'DDL that makes a table like this one, distributed or plain, on a node: what must be there before its rows';

-- What comes after the rows: triggers must not fire for rows that are only moved.
CREATE FUNCTION payshard.table_ddl_after(rel regclass, partitions text, shards int, plain boolean) RETURNS text
	LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET intervalstyle = postgres
	SET extra_float_digits = 3 AS $$
DECLARE
	c pg_class;
	t text;
	ddl text := '';
BEGIN
	SELECT * INTO c FROM pg_class WHERE oid = rel;
	SELECT format('%I.%I', n.nspname, c.relname) INTO t FROM pg_namespace n WHERE n.oid = c.relnamespace;
	ddl := coalesce((SELECT string_agg(pg_get_statisticsobjdef(oid) || E';\n', '') FROM pg_statistic_ext WHERE stxrelid = rel), '');
	ddl := ddl || coalesce((SELECT string_agg(pg_get_triggerdef(g.oid) || E';\n' ||
				CASE g.tgenabled WHEN 'O' THEN '' ELSE format(E'ALTER TABLE %s %s TRIGGER %I;\n', t,
					CASE g.tgenabled WHEN 'A' THEN 'ENABLE ALWAYS' WHEN 'R' THEN 'ENABLE REPLICA' ELSE 'DISABLE' END, g.tgname) END,
				'' ORDER BY g.tgname)
		FROM pg_trigger g
		WHERE g.tgrelid = rel AND NOT g.tgisinternal AND g.tgname NOT LIKE 'zz\_payshard\_capture%'), '');
	IF NOT plain THEN
		ddl := ddl || format(E'CREATE TRIGGER zz_payshard_capture AFTER INSERT OR UPDATE OR DELETE ON %1$s FOR EACH ROW EXECUTE FUNCTION payshard.capture();\nALTER TABLE %1$s ENABLE ALWAYS TRIGGER zz_payshard_capture;\n', t);
		ddl := ddl || (SELECT string_agg(format(E'CREATE TRIGGER zz_payshard_capture_truncate AFTER TRUNCATE ON payshard_data.%1$I FOR EACH STATEMENT EXECUTE FUNCTION payshard.capture_truncate();\nALTER TABLE payshard_data.%1$I ENABLE ALWAYS TRIGGER zz_payshard_capture_truncate;\n',
				partitions || '_' || s), '' ORDER BY s)
			FROM generate_series(0, shards - 1) s);
	END IF;
	ddl := ddl || coalesce((SELECT string_agg(format(E'CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s;\n', p.polname, t,
				CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
				CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'ALL' END,
				(SELECT string_agg(CASE WHEN r = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ') FROM unnest(p.polroles) r),
				' USING (' || pg_get_expr(p.polqual, rel) || ')', ' WITH CHECK (' || pg_get_expr(p.polwithcheck, rel) || ')'), ''
			ORDER BY p.polname)
		FROM pg_policy p WHERE p.polrelid = rel), '');
	ddl := ddl || CASE WHEN c.relrowsecurity THEN format(E'ALTER TABLE %s ENABLE ROW LEVEL SECURITY;\n', t) ELSE '' END
		|| CASE WHEN c.relforcerowsecurity THEN format(E'ALTER TABLE %s FORCE ROW LEVEL SECURITY;\n', t) ELSE '' END;

	IF c.relacl IS NOT NULL THEN
		ddl := ddl || format(E'REVOKE ALL ON TABLE %s FROM PUBLIC, %I;\n', t, pg_get_userbyid(c.relowner))
			|| payshard.ddl_grants('TABLE', t, c.relacl, c.relowner, NULL);
	END IF;
	ddl := ddl || coalesce((SELECT string_agg(payshard.ddl_grants('TABLE', t, a.attacl, c.relowner, a.attname), '')
		FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped AND a.attacl IS NOT NULL), '');
	ddl := ddl || coalesce((SELECT string_agg(payshard.ddl_grants('SEQUENCE', format('%I.%I', n.nspname, s.relname), s.relacl, s.relowner, NULL), '')
		FROM payshard.table_sequences(rel) q JOIN pg_class s ON s.oid = q.sequence JOIN pg_namespace n ON n.oid = s.relnamespace
		WHERE s.relacl IS NOT NULL), '');
	ddl := ddl || coalesce((SELECT string_agg(format(E'COMMENT ON %s IS %L;\n', o.what, o.text), '' ORDER BY o.what)
		FROM (
			SELECT 'TABLE ' || t, obj_description(rel, 'pg_class')
			UNION ALL
			SELECT format('COLUMN %s.%I', t, a.attname), col_description(rel, a.attnum)
				FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped
			UNION ALL
			SELECT format('CONSTRAINT %I ON %s', k.conname, t), obj_description(k.oid, 'pg_constraint')
				FROM pg_constraint k WHERE k.conrelid = rel AND k.conparentid = 0
			UNION ALL
			SELECT format('INDEX %I.%I', n.nspname, x.relname), obj_description(x.oid, 'pg_class')
				FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_namespace n ON n.oid = x.relnamespace
				WHERE i.indrelid = rel
			UNION ALL
			SELECT format('SEQUENCE %I.%I', n.nspname, x.relname), obj_description(x.oid, 'pg_class')
				FROM payshard.table_sequences(rel) q JOIN pg_class x ON x.oid = q.sequence JOIN pg_namespace n ON n.oid = x.relnamespace
			UNION ALL
			SELECT format('TRIGGER %I ON %s', g.tgname, t), obj_description(g.oid, 'pg_trigger')
				FROM pg_trigger g WHERE g.tgrelid = rel AND NOT g.tgisinternal
			UNION ALL
			SELECT format('POLICY %I ON %s', p.polname, t), obj_description(p.oid, 'pg_policy')
				FROM pg_policy p WHERE p.polrelid = rel
		) o(what, text) WHERE o.text IS NOT NULL), '');
	RETURN ddl;
END $$;
COMMENT ON FUNCTION payshard.table_ddl_after IS 'DDL that makes a table like this one, distributed or plain, on a node: what must come after its rows';

CREATE FUNCTION payshard.create_distributed_table(relation regclass, VARIADIC key_columns text[]) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_create_distributed_table';
COMMENT ON FUNCTION payshard.create_distributed_table IS 'distributes a table, empty or with rows, over the nodes by the hash of its key columns; its numbering sequences then step by 64 times their increment, each node in its own residue class, so that numbers stay unique over all nodes';

CREATE FUNCTION payshard.undistribute_table(relation regclass) RETURNS void
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_undistribute_table';
COMMENT ON FUNCTION payshard.undistribute_table IS 'makes a distributed table an ordinary one on this node, with all its rows, and drops it on the others';

CREATE FUNCTION payshard.shard_for(relation regclass, VARIADIC key "any") RETURNS int
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'payshard_shard_for';
COMMENT ON FUNCTION payshard.shard_for IS 'the shard of a key of a distributed table';

CREATE FUNCTION payshard.nodes_for(shard int, OUT node text, OUT is_primary boolean, OUT state text) RETURNS SETOF record
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'payshard_nodes_for';
COMMENT ON FUNCTION payshard.nodes_for(int) IS 'the nodes that hold a shard, the primary first';
CREATE FUNCTION payshard.nodes_for(relation regclass, VARIADIC key "any", OUT node text, OUT is_primary boolean, OUT state text) RETURNS SETOF record
	LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'payshard_nodes_for';
COMMENT ON FUNCTION payshard.nodes_for(regclass, "any") IS 'the nodes that hold the shard of a key, the primary first';

REVOKE ALL ON FUNCTION payshard.peer_ddl_begin, payshard.peer_ddl_outcome, payshard.peer_ddl, payshard.peer_acked_seq, payshard.peer_register,
	payshard.peer_unregister, payshard.peer_load, payshard.peer_rows, payshard.table_sequences, payshard.sequence_floors,
	payshard.sequence_options, payshard.ddl_grants, payshard.table_ddl_before, payshard.table_ddl_after FROM PUBLIC;
CREATE FUNCTION payshard.peer_digest(shards int[], OUT shard int, OUT rows bigint, OUT digest text) RETURNS SETOF record
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_digest';
-- Views (watch): what this node knows.  Functions named show_* are what the
-- views are made of; members of pg_monitor may use both.
----------------------------------------------------------------------

CREATE FUNCTION payshard.show_nodes(OUT node_id int, OUT name text, OUT zone text, OUT weight int,
	OUT state text, OUT incarnation bigint, OUT is_self boolean, OUT conninfo text,
	OUT last_heard timestamptz, OUT heard_ms bigint, OUT settled bigint, OUT leader text)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_show_nodes';
COMMENT ON FUNCTION payshard.show_nodes IS 'rows of payshard.nodes';

CREATE FUNCTION payshard.show_leases(OUT node text, OUT is_self boolean, OUT held boolean, OUT left_ms bigint,
	OUT granted_ms bigint, OUT promised_ms bigint, OUT suspicion text, OUT silent_ms bigint,
	OUT falls bigint, OUT pause_ms bigint)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_show_leases';
COMMENT ON FUNCTION payshard.show_leases IS 'rows of payshard.leases';

CREATE FUNCTION payshard.show_shards(OUT shard int, OUT primary_node text, OUT term bigint, OUT state text,
	OUT in_sync text[], OUT joining text[], OUT "out" text[], OUT placements text[], OUT waits_for text[])
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_show_shards';
COMMENT ON FUNCTION payshard.show_shards IS 'rows of payshard.shards';

CREATE FUNCTION payshard.show_placements(OUT shard int, OUT node text, OUT state text, OUT role text, OUT moving text)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_show_placements';
COMMENT ON FUNCTION payshard.show_placements IS 'rows of payshard.placements';

CREATE VIEW payshard.nodes AS SELECT * FROM payshard.show_nodes();
COMMENT ON VIEW payshard.nodes IS 'the nodes of the cluster, by the newest map this node has adopted';
COMMENT ON COLUMN payshard.nodes.node_id IS 'number of the node in the map';
COMMENT ON COLUMN payshard.nodes.name IS 'name of the node';
COMMENT ON COLUMN payshard.nodes.zone IS 'zone: copies of a shard lie in different zones while there are any';
COMMENT ON COLUMN payshard.nodes.weight IS 'share of the shards relative to other nodes; 0: a witness, which votes and routes but stores nothing';
COMMENT ON COLUMN payshard.nodes.state IS 'up; maintenance: up, and expected to be down (payshard.start_maintenance); failed: failed over away from and not started again since';
COMMENT ON COLUMN payshard.nodes.incarnation IS 'number of the node''s present start, issued by the map register';
COMMENT ON COLUMN payshard.nodes.is_self IS 'is it the node that answers this query';
COMMENT ON COLUMN payshard.nodes.conninfo IS 'how this node reaches it, without user and password; null for who is no member of pg_read_all_stats';
COMMENT ON COLUMN payshard.nodes.last_heard IS 'when this node last had an answer from it; null: not since this server started, or the node itself';
COMMENT ON COLUMN payshard.nodes.heard_ms IS 'how many milliseconds ago that was';
COMMENT ON COLUMN payshard.nodes.settled IS 'nothing of its incarnations up to this one is undecided anywhere';
COMMENT ON COLUMN payshard.nodes.leader IS 'node that settles what it left undecided; null: nothing is to be settled';

CREATE VIEW payshard.leases AS SELECT * FROM payshard.show_leases();
COMMENT ON VIEW payshard.leases IS 'may this node serve its shards, what do the others promise it, and whom does it suspect to be gone; as this node sees it now';
COMMENT ON COLUMN payshard.leases.node IS 'the node';
COMMENT ON COLUMN payshard.leases.is_self IS 'is it the node that answers this query';
COMMENT ON COLUMN payshard.leases.held IS 'of this node itself: has it the lease, without which it neither reads nor writes its shards; null for the others, which know';
COMMENT ON COLUMN payshard.leases.left_ms IS 'of this node itself: milliseconds until it would end unless renewed; null: it needs none (one or two voters, or payshard.lease_timeout = 0)';
COMMENT ON COLUMN payshard.leases.granted_ms IS 'of another node: how long it still promises this one to depose it by no vote, less a margin for the clocks';
COMMENT ON COLUMN payshard.leases.promised_ms IS 'of another node: how long this one is still bound not to depose it, by what it promised, or may have promised before its server was started';
COMMENT ON COLUMN payshard.leases.suspicion IS 'why this node believes that it is gone: refuses connections, does not answer, is not heard; null: it does not';
COMMENT ON COLUMN payshard.leases.silent_ms IS 'milliseconds since its last sign of life here';
COMMENT ON COLUMN payshard.leases.falls IS 'how often it has failed or was left out lately; one is forgotten after each payshard.fall_memory without another';
COMMENT ON COLUMN payshard.leases.pause_ms IS 'what is left of the pause in which the map is not changed for it, because it fell too often';

CREATE VIEW payshard.shards AS SELECT * FROM payshard.show_shards();
COMMENT ON VIEW payshard.shards IS 'the shards, by the newest map this node has adopted';
COMMENT ON COLUMN payshard.shards.shard IS 'number of the shard, 0 to number of shards - 1';
COMMENT ON COLUMN payshard.shards.primary_node IS 'node at which the shard is written';
COMMENT ON COLUMN payshard.shards.term IS 'counts the shard''s primaries';
COMMENT ON COLUMN payshard.shards.state IS 'open; recovering: waits until a former primary is settled; no primary: the only copy in sync is on a failed node';
COMMENT ON COLUMN payshard.shards.in_sync IS 'nodes that have every acknowledged commit';
COMMENT ON COLUMN payshard.shards.joining IS 'nodes that are about to become in sync';
COMMENT ON COLUMN payshard.shards."out" IS 'nodes that should have a copy and lack commits';
COMMENT ON COLUMN payshard.shards.placements IS 'all nodes that have or should have a copy';
COMMENT ON COLUMN payshard.shards.waits_for IS 'nodes of which something must be settled before the shard opens';

CREATE VIEW payshard.placements AS SELECT * FROM payshard.show_placements();
COMMENT ON VIEW payshard.placements IS 'the copies of the shards, one row each';
COMMENT ON COLUMN payshard.placements.shard IS 'number of the shard';
COMMENT ON COLUMN payshard.placements.node IS 'node that holds the copy';
COMMENT ON COLUMN payshard.placements.state IS 'in_sync, joining or out';
COMMENT ON COLUMN payshard.placements.role IS 'primary or secondary';
COMMENT ON COLUMN payshard.placements.moving IS 'arriving: it was added by a move and is not in sync yet; leaving: it is dropped when enough others are in sync; null: it stays';

CREATE FUNCTION payshard.show_moves(OUT job bigint, OUT shard int, OUT phase text, OUT arriving text[], OUT leaving text[], OUT heir text)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_show_moves';
COMMENT ON FUNCTION payshard.show_moves IS 'rows of payshard.moves';
CREATE FUNCTION payshard.show_balance(OUT node text, OUT zone text, OUT weight int, OUT placements int, OUT primaries int,
	OUT load double precision, OUT placements_after int, OUT primaries_after int, OUT load_after double precision)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_show_balance';
COMMENT ON FUNCTION payshard.show_balance IS 'rows of payshard.balance';

CREATE VIEW payshard.moves AS SELECT * FROM payshard.show_moves();
COMMENT ON VIEW payshard.moves IS 'the shards of which something is to be moved, by the newest map this node has adopted';
COMMENT ON COLUMN payshard.moves.job IS 'what ordered it: the epoch of a map, see payshard.jobs';
COMMENT ON COLUMN payshard.moves.shard IS 'number of the shard';
COMMENT ON COLUMN payshard.moves.phase IS 'waiting: for its turn to be copied, or for the node it goes to; copying; switching: it gets another primary; dropping: the old copy goes when enough others are in sync; recovering: not before its primary is settled';
COMMENT ON COLUMN payshard.moves.arriving IS 'nodes that get a copy';
COMMENT ON COLUMN payshard.moves.leaving IS 'nodes whose copy is dropped at the end';
COMMENT ON COLUMN payshard.moves.heir IS 'node that becomes primary; null: that of now stays';

CREATE VIEW payshard.balance AS SELECT * FROM payshard.show_balance();
COMMENT ON VIEW payshard.balance IS 'how evenly shards are spread over the nodes, now and after payshard.rebalance_start()';
COMMENT ON COLUMN payshard.balance.node IS 'the node';
COMMENT ON COLUMN payshard.balance.zone IS 'its zone';
COMMENT ON COLUMN payshard.balance.weight IS 'its weight';
COMMENT ON COLUMN payshard.balance.placements IS 'shards of which it has or should have a copy';
COMMENT ON COLUMN payshard.balance.primaries IS 'shards of which it is primary';
COMMENT ON COLUMN payshard.balance.load IS 'placements over its fair share of them by weight; 1: even; null: it is to hold nothing';
COMMENT ON COLUMN payshard.balance.placements_after IS 'the same, when all that is ordered and all that a rebalance would order is done';
COMMENT ON COLUMN payshard.balance.primaries_after IS 'shards of which it is primary then';
COMMENT ON COLUMN payshard.balance.load_after IS 'its load then';

CREATE VIEW payshard.jobs AS
WITH work AS (
	SELECT m.job, count(*)::int AS shards, min(m.phase) AS any_phase, bool_or(m.phase = 'copying') AS copies,
		bool_or(m.phase = 'waiting') AS waits, bool_or(m.phase = 'switching') AS switches
	FROM payshard.show_moves() m GROUP BY m.job
), moved AS (
	SELECT l.job, sum(l.bytes)::bigint AS bytes, (sum(l.bytes) FILTER (WHERE l.ended IS NOT NULL))::bigint AS bytes_done,
		sum(l.sent_bytes)::bigint AS sent_bytes, max(l.pause_ms) AS pause_ms
	FROM payshard.move_log l GROUP BY l.job
)
SELECT j.job, j.reason, CASE WHEN w.job IS NULL THEN coalesce(j.outcome, 'done') WHEN w.copies THEN 'copying'
		WHEN w.waits THEN 'waiting' WHEN w.switches THEN 'switching' ELSE w.any_phase END AS phase,
	j.shards, j.shards - coalesce(w.shards, 0) AS shards_done, coalesce(w.shards, 0) AS shards_left,
	coalesce(m.bytes, 0) AS bytes, coalesce(m.bytes_done, 0) AS bytes_done, coalesce(m.sent_bytes, 0) AS sent_bytes,
	m.pause_ms, j.started, j.ended,
	CASE WHEN w.job IS NOT NULL AND m.bytes_done > 0 THEN pg_catalog.clock_timestamp()
			+ (pg_catalog.clock_timestamp() - j.started) * ((m.bytes - m.bytes_done)::double precision / m.bytes_done)
		WHEN w.job IS NOT NULL AND j.shards > w.shards THEN pg_catalog.clock_timestamp()
			+ (pg_catalog.clock_timestamp() - j.started) * (w.shards::double precision / (j.shards - w.shards)) END AS eta
FROM payshard.job_log j LEFT JOIN work w USING (job) LEFT JOIN moved m USING (job);
COMMENT ON VIEW payshard.jobs IS 'moves of shards: what was ordered, how far it is, how long it takes; what other nodes have copied is known here some seconds later';
COMMENT ON COLUMN payshard.jobs.job IS 'number: the epoch of the map that ordered it';
COMMENT ON COLUMN payshard.jobs.reason IS 'rebalance; drain of a node that is being removed; replacement of a lost node; place shards after adding a node';
COMMENT ON COLUMN payshard.jobs.phase IS 'waiting, copying, switching (primaries change), dropping, recovering; done, stopped';
COMMENT ON COLUMN payshard.jobs.shards IS 'shards of which something was to be moved';
COMMENT ON COLUMN payshard.jobs.shards_done IS 'shards that are where they were to go, or that a later job has taken over';
COMMENT ON COLUMN payshard.jobs.shards_left IS 'shards that are not';
COMMENT ON COLUMN payshard.jobs.bytes IS 'size of what is to be copied, as stored when it was ordered';
COMMENT ON COLUMN payshard.jobs.bytes_done IS 'size of what is copied and in sync';
COMMENT ON COLUMN payshard.jobs.sent_bytes IS 'bytes that were sent for that';
COMMENT ON COLUMN payshard.jobs.pause_ms IS 'longest time for which commits of a primary waited while a shard was taken in';
COMMENT ON COLUMN payshard.jobs.started IS 'when it was ordered';
COMMENT ON COLUMN payshard.jobs.ended IS 'when nothing was left of it; null: not yet';
COMMENT ON COLUMN payshard.jobs.eta IS 'when it will be over if it goes on as it did; null: it is, or nothing can be said yet';

CREATE VIEW payshard.tables AS
SELECT d.relid AS table_name, d.key_columns, d.colocation, d.table_id,
	(SELECT sum(greatest(c.reltuples, 0))::bigint FROM pg_catalog.pg_inherits i
	 JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = d.relid) AS rows_estimate,
	(SELECT sum(pg_catalog.pg_total_relation_size(i.inhrelid))::bigint FROM pg_catalog.pg_inherits i
	 WHERE i.inhparent = d.relid) AS bytes
FROM payshard.distributed_table d;
COMMENT ON VIEW payshard.tables IS 'the distributed tables; sizes are of what this node stores';
COMMENT ON COLUMN payshard.tables.table_name IS 'the table';
COMMENT ON COLUMN payshard.tables.key_columns IS 'its distribution key';
COMMENT ON COLUMN payshard.tables.colocation IS 'tables of one group have equal keys in the same shard';
COMMENT ON COLUMN payshard.tables.table_id IS 'number of the table, the same on all nodes';
COMMENT ON COLUMN payshard.tables.rows_estimate IS 'rows on this node as last counted by ANALYZE or autovacuum';
COMMENT ON COLUMN payshard.tables.bytes IS 'bytes on this node, indexes and TOAST included';

CREATE FUNCTION payshard.show_replication(OUT node_id int, OUT node text, OUT phase text,
	OUT queued_seq bigint, OUT acked_seq bigint, OUT applied_seq bigint,
	OUT queued_entries bigint, OUT queued_bytes bigint, OUT apply_lag bigint, OUT gate text,
	OUT origin_incarnation bigint, OUT journaled_seq bigint, OUT decided_seq bigint,
	OUT applied_here_seq bigint, OUT apply_backlog bigint, OUT is_held boolean)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_show_replication';
COMMENT ON FUNCTION payshard.show_replication IS 'rows of payshard.replication';

CREATE FUNCTION payshard.journal_entries(origin int, incarnation bigint, records bytea,
	OUT seq bigint, OUT first_seq bigint, OUT xid bigint, OUT shards int[], OUT is_decided boolean)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_journal_entries';
COMMENT ON FUNCTION payshard.journal_entries IS 'the entries in one row of payshard.journal';

CREATE FUNCTION payshard.show_stats(OUT commits bigint, OUT aborts bigint, OUT unknown_outcomes bigint,
	OUT wait_ms double precision, OUT wait_ms_max double precision, OUT batches bigint, OUT records bigint,
	OUT sent_bytes bigint, OUT apply_transactions bigint, OUT apply_records bigint, OUT stats_reset timestamptz)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_show_stats';
COMMENT ON FUNCTION payshard.show_stats IS 'the row of payshard.stat_commits';

CREATE FUNCTION payshard.stat_reset() RETURNS void
	LANGUAGE c AS 'MODULE_PATHNAME', 'payshard_stat_reset';
COMMENT ON FUNCTION payshard.stat_reset IS 'starts the counters of payshard.stat_commits on this node again';

CREATE FUNCTION payshard.ring(OUT shard int, OUT place text, OUT ring_order text, OUT chosen text,
	OUT primary_node text, OUT placements text[], OUT as_chosen boolean)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_ring';
COMMENT ON FUNCTION payshard.ring IS 'where each shard should be by the ring and where it is: its place on the ring (16 hex digits), the nodes in the order in which one meets them from there, the nodes chosen under the bounds on load and zones (the first is to be primary), the actual primary and placements, and whether both agree';

CREATE VIEW payshard.replication AS
SELECT r.node, CASE WHEN EXISTS (SELECT FROM payshard.feed f WHERE f.origin = r.node_id AND f.copying)
		THEN 'copying' ELSE r.phase END AS phase,
	r.queued_seq, r.acked_seq, r.applied_seq, r.queued_entries, r.queued_bytes, r.apply_lag, r.gate,
	(SELECT count(*) FROM payshard.dirty_key k WHERE k.node = r.node_id) AS dirty_keys,
	EXISTS (SELECT FROM payshard.dirty_key k WHERE k.node = r.node_id AND k.table_id = 0) AS all_dirty,
	r.origin_incarnation, r.journaled_seq, r.decided_seq, r.applied_here_seq, r.apply_backlog, r.is_held
FROM payshard.show_replication() r;
COMMENT ON VIEW payshard.replication IS 'what is on its way between this node and every other one: sent from here (until dirty_keys) and received here (from origin_incarnation)';
COMMENT ON COLUMN payshard.replication.node IS 'the other node';
COMMENT ON COLUMN payshard.replication.phase IS 'what it is to the shards of which this node is primary: streaming (in sync), joining, out, none; copying: this node is getting a copy from it';
COMMENT ON COLUMN payshard.replication.queued_seq IS 'last entry of this node; null from here to apply_lag: the node gets no entries of ours';
COMMENT ON COLUMN payshard.replication.acked_seq IS 'durable over there up to this entry';
COMMENT ON COLUMN payshard.replication.applied_seq IS 'applied over there up to this entry, as it told last';
COMMENT ON COLUMN payshard.replication.queued_entries IS 'entries that are not durable over there (some may not be for it)';
COMMENT ON COLUMN payshard.replication.queued_bytes IS 'bytes of the queue that are kept for it';
COMMENT ON COLUMN payshard.replication.apply_lag IS 'entries durable over there and not applied';
COMMENT ON COLUMN payshard.replication.gate IS 'open, or closed: commits of this node wait (a copy joins, or digests are compared)';
COMMENT ON COLUMN payshard.replication.dirty_keys IS 'primary keys that this node has noted for it while its placements are out';
COMMENT ON COLUMN payshard.replication.all_dirty IS 'of some shard it needs a full copy';
COMMENT ON COLUMN payshard.replication.origin_incarnation IS 'incarnation of its stream to this node; null from here to apply_backlog: none since this server started';
COMMENT ON COLUMN payshard.replication.journaled_seq IS 'its entries are durable here up to this one';
COMMENT ON COLUMN payshard.replication.decided_seq IS 'its entries are decided up to this one, by its word';
COMMENT ON COLUMN payshard.replication.applied_here_seq IS 'its entries are applied here up to this one';
COMMENT ON COLUMN payshard.replication.apply_backlog IS 'its entries that are durable here and not applied';
COMMENT ON COLUMN payshard.replication.is_held IS 'apply is held while digests are compared (verify)';

CREATE VIEW payshard.in_doubt AS
SELECT coalesce(n.name, 'node ' || j.origin) AS origin, j.incarnation, e.seq, e.xid, e.shards,
	CASE WHEN pg_catalog.current_setting('track_commit_timestamp')::boolean
		THEN pg_catalog.clock_timestamp() - pg_catalog.pg_xact_commit_timestamp(j.xmin) END AS age
FROM payshard.journal j
CROSS JOIN LATERAL payshard.journal_entries(j.origin, j.incarnation, j.records) e
LEFT JOIN payshard.show_nodes() n ON n.node_id = j.origin
LEFT JOIN payshard.position p ON p.origin = j.origin
WHERE NOT e.is_decided
	AND (p.origin IS NULL OR p.incarnation < j.incarnation
		OR p.incarnation = j.incarnation AND p.applied_seq < e.seq)
	AND NOT EXISTS (SELECT FROM payshard.journal_abort a
		WHERE a.origin = j.origin AND a.incarnation = j.incarnation AND a.seq = e.first_seq);
COMMENT ON VIEW payshard.in_doubt IS 'entries of other primaries that are durable on this node and of which it does not know whether they have committed';
COMMENT ON COLUMN payshard.in_doubt.origin IS 'primary at which the transaction ran';
COMMENT ON COLUMN payshard.in_doubt.incarnation IS 'its incarnation';
COMMENT ON COLUMN payshard.in_doubt.seq IS 'number of the entry';
COMMENT ON COLUMN payshard.in_doubt.xid IS 'transaction id over there, with epoch';
COMMENT ON COLUMN payshard.in_doubt.shards IS 'shards it writes';
COMMENT ON COLUMN payshard.in_doubt.age IS 'since when it is durable here; null unless track_commit_timestamp is on';

CREATE VIEW payshard.stat_commits AS SELECT * FROM payshard.show_stats();
COMMENT ON VIEW payshard.stat_commits IS 'counters of this node since stats_reset';
COMMENT ON COLUMN payshard.stat_commits.commits IS 'transactions that wrote distributed tables and committed here';
COMMENT ON COLUMN payshard.stat_commits.aborts IS 'transactions taken back on all nodes after they had been sent';
COMMENT ON COLUMN payshard.stat_commits.unknown_outcomes IS 'transactions whose client was told that the outcome is not known (SQLSTATE 08007)';
COMMENT ON COLUMN payshard.stat_commits.wait_ms IS 'time that commits have waited for other nodes, all together';
COMMENT ON COLUMN payshard.stat_commits.wait_ms_max IS 'longest such wait';
COMMENT ON COLUMN payshard.stat_commits.batches IS 'batches with entries sent to other nodes';
COMMENT ON COLUMN payshard.stat_commits.records IS 'entries and fragments sent, counted for each node they went to';
COMMENT ON COLUMN payshard.stat_commits.sent_bytes IS 'bytes of these batches';
COMMENT ON COLUMN payshard.stat_commits.apply_transactions IS 'transactions in which other primaries'' entries were applied here';
COMMENT ON COLUMN payshard.stat_commits.apply_records IS 'entries and fragments of other primaries passed by apply';
COMMENT ON COLUMN payshard.stat_commits.stats_reset IS 'since when the counters count';

----------------------------------------------------------------------
-- Comparing copies (Q3)
----------------------------------------------------------------------

CREATE FUNCTION payshard.peer_hold(origin int, incarnation bigint, below bigint) RETURNS boolean
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_hold';
COMMENT ON FUNCTION payshard.peer_hold IS 'between nodes: holds apply of an origin''s entries below a number while copies are compared';
CREATE FUNCTION payshard.peer_table_digests(shards int[], OUT shard int, OUT table_id bigint, OUT rows bigint, OUT digest text)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_table_digests';
COMMENT ON FUNCTION payshard.peer_table_digests IS 'between nodes: digests of this node''s copies, by table';
CREATE FUNCTION payshard.peer_verify(OUT shard int, OUT node text, OUT table_name text, OUT rows bigint,
	OUT digest text, OUT equal boolean)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_verify';
COMMENT ON FUNCTION payshard.peer_verify IS 'between nodes: compares the shards of which this node is primary with their other copies';
CREATE FUNCTION payshard.verify(OUT shard int, OUT node text, OUT table_name text, OUT rows bigint,
	OUT digest text, OUT equal boolean)
	RETURNS SETOF record LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_verify';
COMMENT ON FUNCTION payshard.verify IS 'compares all copies in sync, each shard at one moment, while payments go on: rows and digest of every copy; equal: as the primary''s; null: the shard could not be compared, because it recovers or its primary cannot be reached';
-- Routing (R1 to R3)
----------------------------------------------------------------------

CREATE FUNCTION payshard.local_scope(terms bigint) RETURNS boolean
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'payshard_local_scope';
COMMENT ON FUNCTION payshard.local_scope IS 'between nodes: marks a statement that reads only shards of which this node is the primary; 40001 when its map has other primaries, by the sum of all shards'' terms';

----------------------------------------------------------------------
-- What has happened (S3)
----------------------------------------------------------------------

CREATE TABLE payshard.event_log (
	observer int NOT NULL,
	id bigint NOT NULL,
	at timestamptz NOT NULL DEFAULT clock_timestamp(),
	kind text NOT NULL,
	node int NOT NULL,
	since timestamptz,
	detail text,
	until timestamptz,
	shards int[],
	PRIMARY KEY (observer, id)
);
COMMENT ON TABLE payshard.event_log IS 'what nodes have noticed and what is no change of the map; every node writes its own rows (observer) and keeps copies of the others''';

CREATE TABLE payshard.watch_span (
	observer int NOT NULL,
	since timestamptz NOT NULL,
	until timestamptz NOT NULL,
	PRIMARY KEY (observer, since)
);
COMMENT ON TABLE payshard.watch_span IS 'intervals in which a node watched the others; what lies in none of them is unknown';

CREATE FUNCTION payshard.peer_history(epochs bigint[]) RETURNS jsonb
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS
$$SELECT coalesce(jsonb_agg(to_jsonb(h)), '[]') FROM payshard.map_history h WHERE h.epoch = ANY (epochs)$$;
COMMENT ON FUNCTION payshard.peer_history IS 'between nodes: maps that the caller has missed';
CREATE FUNCTION payshard.peer_events(after bigint) RETURNS jsonb
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS
$$SELECT coalesce(jsonb_agg(to_jsonb(e)), '[]') FROM (SELECT l.* FROM payshard.event_log l
	WHERE l.observer = (SELECT node_id FROM payshard.node_self) AND l.id > after ORDER BY l.id LIMIT 1000) e$$;
COMMENT ON FUNCTION payshard.peer_events IS 'between nodes: what this node has noticed since';
CREATE FUNCTION payshard.peer_spans(most int) RETURNS jsonb
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS
$$SELECT coalesce(jsonb_agg(to_jsonb(w)), '[]') FROM (SELECT s.* FROM payshard.watch_span s
	WHERE s.observer = (SELECT node_id FROM payshard.node_self) ORDER BY s.since DESC LIMIT most) w$$;
COMMENT ON FUNCTION payshard.peer_spans IS 'between nodes: when this node has watched';

CREATE FUNCTION payshard.peer_moves(most int) RETURNS jsonb
	LANGUAGE sql STABLE STRICT SET search_path = pg_catalog, pg_temp AS
$$SELECT coalesce(jsonb_agg(to_jsonb(m)), '[]') FROM (SELECT l.* FROM payshard.move_log l
	WHERE l.source = (SELECT node_id FROM payshard.node_self) ORDER BY greatest(l.noted, l.ended) DESC LIMIT most) m$$;
COMMENT ON FUNCTION payshard.peer_moves IS 'between nodes: what this node has copied lately';

CREATE FUNCTION payshard.map_changes(before bytea, after bytea, OUT kind text, OUT node text,
	OUT shards int[], OUT detail text)
	RETURNS SETOF record LANGUAGE c IMMUTABLE AS 'MODULE_PATHNAME', 'payshard_map_changes';
COMMENT ON FUNCTION payshard.map_changes IS 'what is different in the second of two maps (values in payshard.map_history)';

CREATE FUNCTION payshard.map_incidents(OUT epoch bigint, OUT node text, OUT node_id int, OUT kind text,
	OUT begun timestamptz, OUT decided timestamptz, OUT open_again timestamptz, OUT resumed timestamptz,
	OUT returned timestamptz, OUT back timestamptz, OUT shards int[], OUT paused int[],
	OUT opened timestamptz[], OUT went_on timestamptz[],
	OUT entries bigint, OUT reason text)
	RETURNS SETOF record LANGUAGE c STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'payshard_map_incidents';
COMMENT ON FUNCTION payshard.map_incidents IS 'incidents by the maps alone; see payshard.incidents';

CREATE FUNCTION payshard.map_times(OUT epoch bigint, OUT at timestamptz)
	RETURNS SETOF record LANGUAGE c STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp
	AS 'MODULE_PATHNAME', 'payshard_map_times';
COMMENT ON FUNCTION payshard.map_times IS 'when each map was chosen: as its proposer noted it, but for clocks that had jumped: most of the times that rise together are believed, none that lies ahead';

CREATE FUNCTION payshard.total_seconds(spans tstzmultirange) RETURNS double precision
	LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS
$$SELECT coalesce(sum(extract(epoch FROM upper(r) - lower(r))), 0)::double precision FROM unnest(spans) r$$;
COMMENT ON FUNCTION payshard.total_seconds IS 'length of intervals together, in seconds';

CREATE VIEW payshard.silences AS
SELECT l.observer, l.node, l.since AS last_heard, l.at AS detected, h.at AS heard_again
FROM payshard.event_log l
LEFT JOIN LATERAL (SELECT e.at FROM payshard.event_log e WHERE e.kind = 'peer_heard' AND e.observer = l.observer
	AND e.node = l.node AND e.since = l.since AND e.id > l.id ORDER BY e.id LIMIT 1) h ON true
WHERE l.kind = 'peer_lost';
COMMENT ON VIEW payshard.silences IS 'intervals in which one node did not hear another';
COMMENT ON COLUMN payshard.silences.observer IS 'number of the node that did not hear';
COMMENT ON COLUMN payshard.silences.node IS 'number of the node that was not heard';
COMMENT ON COLUMN payshard.silences.last_heard IS 'its last answer before';
COMMENT ON COLUMN payshard.silences.detected IS 'when this was noticed';
COMMENT ON COLUMN payshard.silences.heard_again IS 'when it took part again; null: not yet';

CREATE VIEW payshard.events AS
SELECT h.epoch, h.at, c.kind, c.node, c.shards, c.detail, h.reason,
	NULL::text AS observer
FROM (SELECT m.epoch, m.value, t.at, m.reason, lag(m.value) OVER (ORDER BY m.epoch) AS before
	FROM payshard.map_history m JOIN payshard.map_times() t USING (epoch)) h
CROSS JOIN LATERAL payshard.map_changes(h.before, h.value) c
UNION ALL
SELECT NULL, coalesce(l.until, l.at), l.kind, coalesce(n.name, 'node ' || l.node), l.shards,
	CASE WHEN l.kind LIKE 'payments%' THEN l.detail || ' since ' || l.since
		WHEN l.since IS NOT NULL THEN 'last heard ' || l.since ELSE l.detail END, NULL,
	coalesce(o.name, 'node ' || l.observer)
FROM payshard.event_log l
LEFT JOIN payshard.show_nodes() n ON n.node_id = l.node
LEFT JOIN payshard.show_nodes() o ON o.node_id = l.observer;
COMMENT ON VIEW payshard.events IS 'all that has happened: changes of the map, the same on all nodes, and what nodes have noticed besides; order it by at';
COMMENT ON COLUMN payshard.events.epoch IS 'map in which it is first so; null: no change of the map';
COMMENT ON COLUMN payshard.events.at IS 'when, by the clock of the node that proposed the map, unless that contradicts the others (payshard.map_times); or by the observer''s';
COMMENT ON COLUMN payshard.events.kind IS 'node_added, node_set, node_started, node_failed, node_settling, node_settled, node_removed; placement_out, placement_joining, placement_in_sync, placement_dropped; primary_changed, shard_recovering, shard_open; maintenance_started, maintenance_ended; peer_lost, peer_heard, not_failed_over, divergence, stranger, drill_started, drill_ended; payments_stopped, payments_resumed (see payshard.stops)';
COMMENT ON COLUMN payshard.events.node IS 'the node it is about; of primary_changed: the new primary; of shard_recovering: the node that is to be settled';
COMMENT ON COLUMN payshard.events.shards IS 'shards it is about';
COMMENT ON COLUMN payshard.events.detail IS 'particulars';
COMMENT ON COLUMN payshard.events.reason IS 'why the map was changed';
COMMENT ON COLUMN payshard.events.observer IS 'node that has noticed it; null: in the map';

CREATE VIEW payshard.stops AS
WITH said AS (
	SELECT l.observer, l.id, l.kind, l.at, l.detail, l.since, l.until, s AS shard
	FROM payshard.event_log l, unnest(l.shards) s WHERE l.kind IN ('payments_stopped', 'payments_resumed')
), change AS (
	SELECT e.kind, e.at, e.node, s AS shard FROM payshard.events e LEFT JOIN LATERAL unnest(e.shards) s ON true
	WHERE e.kind IN ('primary_changed', 'node_started')
), stop AS (
SELECT a.observer AS node_id, n.name AS node, a.id AS event, a.detail AS kind, a.shard, a.since, a.at AS noted,
	-- another node serves it from then on, or this one has started anew: that is in the map
	least(a.until, (SELECT min(c.at) FROM change c WHERE c.at > a.since AND CASE c.kind
		WHEN 'primary_changed' THEN c.shard = a.shard AND c.node <> n.name ELSE c.node = n.name END)) AS until
FROM said a JOIN payshard.show_nodes() n ON n.node_id = a.observer
WHERE a.kind = 'payments_resumed' OR NOT EXISTS (SELECT FROM said b WHERE b.kind = 'payments_resumed' AND b.observer = a.observer
	AND b.shard = a.shard AND b.detail = a.detail AND ((b.id > a.id AND b.id >> 32 = a.id >> 32) OR (b.until > a.since AND b.since < a.since + interval '1 s')))
), noticed AS (
	SELECT l.node, l.observer, s AS shard, range_agg(tstzrange(l.since, least(h.at, (SELECT min(c.at) FROM change c
		JOIN payshard.show_nodes() n ON n.node_id = l.node WHERE c.at > l.since AND CASE c.kind
			WHEN 'primary_changed' THEN c.shard = s AND c.node <> n.name ELSE c.node = n.name END)))) AS spans
	FROM payshard.event_log l CROSS JOIN LATERAL (SELECT e.at, e.detail FROM payshard.event_log e WHERE e.kind = 'peer_heard'
		AND e.observer = l.observer AND e.node = l.node AND e.since = l.since AND e.id > l.id ORDER BY e.id LIMIT 1) h,
		unnest(l.shards) s
	WHERE l.kind = 'peer_lost' AND h.detail IS NULL AND h.at > l.since
	GROUP BY l.node, l.observer, s
), silent AS (
	-- what no other node heard, less what the node has noted itself
	SELECT c.node, c.shard, range_intersect_agg(c.spans) - coalesce((SELECT range_agg(tstzrange(s.since, greatest(s.since,
		coalesce(s.until, pg_catalog.now())))) FROM stop s WHERE s.node_id = c.node AND s.shard = c.shard), '{}') AS spans
	FROM noticed c GROUP BY c.node, c.shard
	HAVING count(*) >= (SELECT count(*) FROM payshard.show_nodes() o WHERE o.node_id <> c.node)
), apart AS (
	-- a payment that waited and the silence for which it did are one
	SELECT s.*, greatest(s.since, max(coalesce(s.until, pg_catalog.now())) OVER (PARTITION BY s.node_id, s.kind, s.shard
		ORDER BY s.since, s.event ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS begun
	FROM stop s
)
SELECT node_id, node, event, kind, shard, begun AS since, noted, until
FROM apart WHERE coalesce(until, pg_catalog.now()) >= begun + interval '0.5 s'
UNION ALL
SELECT s.node, n.name, NULL, 'silent', s.shard, lower(x), upper(x), upper(x)
FROM silent s JOIN payshard.show_nodes() n ON n.node_id = s.node, unnest(s.spans) x
-- its next start, before which it has noted nothing any more
WHERE upper(x) >= lower(x) + interval '0.5 s' AND NOT EXISTS (SELECT FROM payshard.event_log o WHERE o.observer = s.node AND o.at > upper(x)
	AND o.at < coalesce((SELECT min(c.at) FROM change c WHERE c.kind = 'node_started' AND c.node = n.name AND c.at > upper(x)), 'infinity'));
COMMENT ON VIEW payshard.stops IS 'intervals in which a primary could not acknowledge payments of a shard though the map was as before, one row per shard; payments were tried, or the node knows that it served none';
COMMENT ON COLUMN payshard.stops.node_id IS 'number of the node';
COMMENT ON COLUMN payshard.stops.node IS 'the primary, which has noticed it; of silent: about which the others did';
COMMENT ON COLUMN payshard.stops.event IS 'id of the row in payshard.event_log; null: silent';
COMMENT ON COLUMN payshard.stops.kind IS 'held: commits waited for other copies; failing: payments failed, as the disk was full or a file could not be read; no lease: the node had none; frozen: none of its processes moved; silent: no other node heard it meanwhile, and it has not lived to note why';
COMMENT ON COLUMN payshard.stops.shard IS 'the shard';
COMMENT ON COLUMN payshard.stops.since IS 'begin: held and failing, of the first payment that waited or failed, but not before the last that was acknowledged';
COMMENT ON COLUMN payshard.stops.noted IS 'when it was written down';
COMMENT ON COLUMN payshard.stops.until IS 'end: the next payment is acknowledged, or nobody has tried for 5 s, or another node became primary; null: not yet';

CREATE VIEW payshard.planned AS
WITH change AS MATERIALIZED (
	SELECT e.kind, e.node, e.at, e.reason FROM payshard.events e WHERE e.kind IN ('maintenance_started', 'maintenance_ended')
)
SELECT n.node_id, n.name AS node, 'maintenance' AS kind, e.at AS since, (SELECT min(x.at) FROM change x
		WHERE x.kind = 'maintenance_ended' AND x.node = e.node AND x.at >= e.at) AS until, e.reason AS detail
FROM change e JOIN payshard.show_nodes() n ON n.name = e.node
WHERE e.kind = 'maintenance_started'
UNION ALL
SELECT n.node_id, n.name, 'drill', l.at, x.at, x.detail
FROM payshard.event_log l JOIN payshard.show_nodes() n ON n.node_id = l.node
LEFT JOIN LATERAL (SELECT e.at, e.detail FROM payshard.event_log e WHERE e.kind = 'drill_ended' AND e.observer = l.observer
		AND e.node = l.node AND e.id > l.id ORDER BY e.id LIMIT 1) x ON true
-- one whose session died ends by itself
WHERE l.kind = 'drill_started' AND (x.at IS NOT NULL OR l.at > pg_catalog.now() - interval '10 minutes');
COMMENT ON VIEW payshard.planned IS 'when nodes were, or are, expected to be down';
COMMENT ON COLUMN payshard.planned.node_id IS 'number of the node';
COMMENT ON COLUMN payshard.planned.node IS 'the node';
COMMENT ON COLUMN payshard.planned.kind IS 'maintenance, or drill';
COMMENT ON COLUMN payshard.planned.since IS 'begin';
COMMENT ON COLUMN payshard.planned.until IS 'end; null: not yet';
COMMENT ON COLUMN payshard.planned.detail IS 'the reason that was given; or what the drill has measured';

CREATE VIEW payshard.incidents AS
WITH quiet AS MATERIALIZED (
	SELECT * FROM payshard.silences
), plan AS MATERIALIZED (
	SELECT * FROM payshard.planned
), watching AS (
	SELECT DISTINCT observer FROM payshard.watch_span WHERE until > pg_catalog.now() - interval '30 seconds'
), silent AS (
	SELECT s.node AS node_id, max(s.last_heard) AS failed, min(s.detected) AS detected
	FROM quiet s JOIN watching w USING (observer)
	WHERE s.heard_again IS NULL
	GROUP BY s.node
	HAVING count(DISTINCT s.observer) >= (SELECT count(*) FROM watching v WHERE v.observer <> s.node)
), by_map AS (
	-- left out and still silent: nobody can write what it is primary of, either
	SELECT m.*, s.failed, d.detected,
		m.back IS NULL AND m.kind = 'left out' AND m.node_id IN (SELECT x.node_id FROM silent x) AS is_silent
	FROM (SELECT i.*, lag(i.back) OVER (PARTITION BY i.node_id ORDER BY i.epoch) AS former_back
		FROM payshard.map_incidents() i) m
	LEFT JOIN LATERAL (
		-- a silence from before the last incident was over belongs to that one; only
		-- who starts again may be heard before the map says so
		SELECT max(q.last_heard) AS failed FROM quiet q
		WHERE q.node = m.node_id AND q.last_heard <= m.begun AND q.last_heard >= coalesce(m.former_back, '-infinity')
			AND coalesce(q.heard_again, 'infinity') >= m.begun - CASE m.kind WHEN 'restart' THEN interval '15 s' ELSE interval '1 s' END
	) s ON true
	LEFT JOIN LATERAL (
		SELECT min(q.detected) AS detected FROM quiet q
		WHERE q.node = m.node_id AND q.last_heard <= m.begun AND q.detected >= s.failed
	) d ON true
), told AS (
SELECT node, CASE WHEN EXISTS (SELECT FROM plan p WHERE p.node_id = by_map.node_id AND p.kind = 'drill'
		AND begun >= p.since AND begun <= coalesce(p.until, 'infinity')) THEN 'drill' ELSE kind END AS kind,
	coalesce(failed, begun) AS failed, least(coalesce(detected, begun), begun) AS detected,
	decided, CASE WHEN NOT is_silent THEN open_again END AS open_again, resumed, returned, back AS back_in_sync,
	CASE WHEN is_silent THEN (SELECT coalesce(array_agg(h.shard ORDER BY h.shard), '{}') FROM payshard.show_shards() h
		WHERE h.primary_node = by_map.node) ELSE shards END AS shards, paused,
	0::bigint AS transactions_lost, entries AS entries_settled, epoch, reason,
	EXISTS (SELECT FROM plan p WHERE p.node_id = by_map.node_id
		AND begun >= p.since AND begun <= coalesce(p.until, 'infinity')) AS planned,
	CASE WHEN NOT is_silent THEN opened END AS opened, went_on
FROM by_map
UNION ALL
SELECT n.name, 'silent', s.failed, s.detected, NULL, NULL, NULL, NULL, NULL,
	(SELECT coalesce(array_agg(h.shard ORDER BY h.shard), '{}') FROM payshard.show_shards() h
		WHERE h.primary_node = n.name),
	(SELECT coalesce(array_agg(h.shard ORDER BY h.shard), '{}') FROM payshard.show_shards() h
		WHERE h.primary_node <> n.name AND n.name = ANY (h.in_sync)),
	0, 0, NULL, NULL, EXISTS (SELECT FROM plan p WHERE p.node_id = n.node_id AND p.until IS NULL), NULL, NULL
FROM silent s JOIN payshard.show_nodes() n USING (node_id)
WHERE NOT EXISTS (SELECT FROM by_map b WHERE b.node_id = s.node_id AND b.back IS NULL)
), told_shard AS (
	SELECT s.shard, tstzrange(t.failed, greatest(t.failed, coalesce(s.at, pg_catalog.now()))) AS span
	FROM told t, unnest(t.shards, t.opened) s(shard, at) WHERE t.kind <> 'rebuild'
	UNION ALL
	SELECT s.shard, tstzrange(t.failed, greatest(t.failed, coalesce(s.at, pg_catalog.now())))
	FROM told t, unnest(t.paused, t.went_on) s(shard, at) WHERE t.kind <> 'rebuild'
), stop AS (
	-- what those tell already is not told twice
	SELECT p.*, tstzmultirange(tstzrange(p.since, greatest(p.since, coalesce(p.until, pg_catalog.now()))))
		- coalesce((SELECT range_agg(t.span) FROM told_shard t WHERE t.shard = p.shard), '{}') AS rest
	FROM payshard.stops p
)
SELECT * FROM told
UNION ALL
SELECT s.node, s.kind, min(lower(s.rest)), least(greatest(min(lower(s.rest)), min(s.noted)), max(upper(s.rest))),
	CASE WHEN count(*) = count(s.until) THEN max(upper(s.rest)) END, CASE WHEN count(*) = count(s.until) THEN max(upper(s.rest)) END, NULL,
	CASE WHEN count(*) = count(s.until) THEN max(upper(s.rest)) END, CASE WHEN count(*) = count(s.until) THEN max(upper(s.rest)) END,
	array_agg(s.shard ORDER BY s.shard), '{}', 0, 0, NULL, NULL,
	EXISTS (SELECT FROM plan p WHERE p.node_id = s.node_id AND min(s.since) >= p.since
		AND min(s.since) <= coalesce(p.until, 'infinity')),
	array_agg(CASE WHEN s.until IS NOT NULL THEN upper(s.rest) END ORDER BY s.shard), '{}'
FROM stop s
WHERE payshard.total_seconds(s.rest) >= 0.5
GROUP BY s.node_id, s.node, s.kind, s.event, CASE WHEN s.event IS NULL THEN s.since END;
COMMENT ON VIEW payshard.incidents IS 'one row per failure or restart of a node, and per interval in which it could not take payments though the map stayed as it was; a node that fails again before it is back in sync is the same incident';
COMMENT ON COLUMN payshard.incidents.node IS 'the node';
COMMENT ON COLUMN payshard.incidents.kind IS 'failover: its shards got other primaries; restart: it came back by itself; left out: its copies left the in-sync sets; rebuild: a full copy was asked for; drill: any of these while payshard.drill() ran; silent: it does not answer any node that watches, and nothing was decided (yet); held, failing, no lease, frozen: of payshard.stops, less the time that other incidents of these shards tell';
COMMENT ON COLUMN payshard.incidents.failed IS 'its last answer to any node; where nobody has noted one: the time of the map with which the incident begins';
COMMENT ON COLUMN payshard.incidents.detected IS 'when a node noticed first';
COMMENT ON COLUMN payshard.incidents.decided IS 'map in which it is failed over, started again or left out; where no map has changed, as open_again';
COMMENT ON COLUMN payshard.incidents.open_again IS 'map in which all shards that it was primary of are open; where no map has changed: when the last of its shards took payments again';
COMMENT ON COLUMN payshard.incidents.resumed IS 'map from which on no other primary waited for its answer';
COMMENT ON COLUMN payshard.incidents.returned IS 'map in which it takes part again';
COMMENT ON COLUMN payshard.incidents.back_in_sync IS 'map in which it is settled and all its copies are in sync; null: not yet';
COMMENT ON COLUMN payshard.incidents.shards IS 'shards that it was primary of: each not written from failed until it was opened';
COMMENT ON COLUMN payshard.incidents.paused IS 'shards of other primaries that waited for it: each from failed until it went on';
COMMENT ON COLUMN payshard.incidents.transactions_lost IS 'acknowledged transactions that are not there any more: 0, as shards only open when all that was journaled is settled, and failover refuses where that cannot be';
COMMENT ON COLUMN payshard.incidents.entries_settled IS 'journal entries of it that were still undecided somewhere, and were settled (rolled forward, or their abort confirmed)';
COMMENT ON COLUMN payshard.incidents.epoch IS 'map with which it begins';
COMMENT ON COLUMN payshard.incidents.reason IS 'reason of that map';
COMMENT ON COLUMN payshard.incidents.planned IS 'was the node expected to be down (payshard.planned)? Such incidents are not in payshard.recovery_stats, and their time is planned time in payshard.availability';
COMMENT ON COLUMN payshard.incidents.opened IS 'when each of shards was open again, in their order; null: not yet';
COMMENT ON COLUMN payshard.incidents.went_on IS 'when each of paused did not wait any more, in their order';

CREATE VIEW payshard.availability AS
WITH cluster AS (
	SELECT min(at) AS since, pg_catalog.now() AS until FROM payshard.map_times() HAVING count(*) > 0
), added AS (
	SELECT node, min(at) AS since FROM payshard.events WHERE kind = 'node_added' GROUP BY node
), incident AS (
	SELECT * FROM payshard.incidents WHERE kind <> 'rebuild'
), stop AS (
	SELECT p.*, tstzrange(p.since, greatest(p.since, coalesce(p.until, pg_catalog.now()))) AS span FROM payshard.stops p
), watched AS (
	SELECT coalesce(range_agg(tstzrange(since, greatest(since, CASE WHEN until > pg_catalog.now() - interval '15 seconds'
		THEN greatest(until, pg_catalog.now()) ELSE until + interval '5 seconds' END))), '{}') AS spans
	FROM payshard.watch_span
), maintenance AS (
	SELECT p.node_id, range_agg(tstzrange(p.since, greatest(p.since, coalesce(p.until, pg_catalog.now())))) AS spans
	FROM payshard.planned p GROUP BY p.node_id
), shard_outage AS (
	SELECT s.shard, i.node, tstzrange(i.failed, greatest(i.failed, coalesce(s.at, pg_catalog.now()))) AS span
	FROM incident i, unnest(i.shards, i.opened) s(shard, at) WHERE i.kind NOT IN ('held', 'failing', 'no lease', 'frozen')
	UNION ALL
	SELECT s.shard, i.node, tstzrange(i.failed, greatest(i.failed, coalesce(s.at, pg_catalog.now())))
	FROM incident i, unnest(i.paused, i.went_on) s(shard, at)
	UNION ALL
	SELECT p.shard, p.node, p.span FROM stop p
), subject AS (
	SELECT 'cluster' AS scope, c.since, m.name, 0 AS place,
		(SELECT coalesce(range_agg(o.span), '{}') FROM shard_outage o) AS outages,
		(SELECT coalesce(range_agg(o.span * x), '{}') FROM shard_outage o JOIN payshard.show_nodes() n ON n.name = o.node
			JOIN maintenance p USING (node_id), unnest(p.spans) x) AS planned
	FROM cluster c, (SELECT 'all shards' AS name) m
	UNION ALL
	SELECT 'node', a.since, n.name, n.node_id,
		(SELECT coalesce(range_agg(tstzrange(i.failed, greatest(i.failed, coalesce(i.returned, pg_catalog.now())))), '{}')
			-- with commits that are held or fail it still takes part
			FROM incident i WHERE i.node = n.name AND i.kind NOT IN ('held', 'failing')),
		(SELECT coalesce(range_agg(x), '{}') FROM maintenance p, unnest(p.spans) x WHERE p.node_id = n.node_id)
	FROM payshard.show_nodes() n JOIN added a ON a.node = n.name
	UNION ALL
	SELECT 'shard', c.since, h.shard::text, h.shard,
		(SELECT coalesce(range_agg(o.span), '{}') FROM shard_outage o WHERE o.shard = h.shard),
		(SELECT coalesce(range_agg(o.span * x), '{}') FROM shard_outage o JOIN payshard.show_nodes() n ON n.name = o.node
			JOIN maintenance p USING (node_id), unnest(p.spans) x WHERE o.shard = h.shard)
	FROM payshard.show_shards() h, cluster c
), measured AS (
	SELECT s.scope, s.place, s.name, s.since,
		extract(epoch FROM pg_catalog.now() - s.since)::double precision AS window_s,
		payshard.total_seconds((s.outages - s.planned) * w.life) AS down_s,
		payshard.total_seconds(s.outages * s.planned * w.life) AS planned_s,
		payshard.total_seconds(w.life - watched.spans - s.outages) AS unknown_s
	FROM subject s, watched, LATERAL (SELECT tstzmultirange(tstzrange(s.since, greatest(s.since, pg_catalog.now()))) AS life) w
)
SELECT scope, name, since, window_s, window_s - down_s - planned_s - unknown_s AS up_s, down_s, planned_s, unknown_s,
	CASE WHEN window_s - planned_s - unknown_s > 0
		THEN (window_s - down_s - planned_s - unknown_s) / (window_s - planned_s - unknown_s) END AS availability,
	CASE WHEN down_s = 0 THEN NULL WHEN window_s - planned_s - unknown_s > down_s
		THEN floor(-log((down_s / (window_s - planned_s - unknown_s))::numeric))::int ELSE 0 END AS nines
FROM measured
ORDER BY scope, place;
COMMENT ON VIEW payshard.availability IS 'uptime / total time of the cluster, of every node and shard, from the intervals of payshard.incidents and payshard.stops; what lies in several of them counts once; planned and unknown time are kept apart and belong to neither';
COMMENT ON COLUMN payshard.availability.scope IS 'cluster: down while any shard is; node: down while it does not take part; shard: down while payments in it cannot commit';
COMMENT ON COLUMN payshard.availability.name IS 'node or shard';
COMMENT ON COLUMN payshard.availability.since IS 'begin of the time that is looked at: the cluster''s creation, or the addition of the node';
COMMENT ON COLUMN payshard.availability.window_s IS 'seconds from then until now';
COMMENT ON COLUMN payshard.availability.up_s IS 'seconds up';
COMMENT ON COLUMN payshard.availability.down_s IS 'seconds down: from the last answer of the node that failed until its shards were open, and stops without a change of the map of half a second or more';
COMMENT ON COLUMN payshard.availability.planned_s IS 'seconds down within maintenance and drills (payshard.planned)';
COMMENT ON COLUMN payshard.availability.unknown_s IS 'seconds in which no node watched';
COMMENT ON COLUMN payshard.availability.availability IS 'up_s / (up_s + down_s)';
COMMENT ON COLUMN payshard.availability.nines IS 'whole nines of it: 3 = 99.9 %; null: never down';

CREATE VIEW payshard.recovery_stats AS
WITH incident AS (
	SELECT *, extract(epoch FROM coalesce(decided, pg_catalog.now()) - failed) AS fault_s,
		extract(epoch FROM coalesce(greatest(CASE WHEN shards <> '{}' THEN open_again END,
			CASE WHEN paused <> '{}' THEN resumed END), pg_catalog.now()) - failed) AS repair_s
	FROM payshard.incidents WHERE kind <> 'rebuild' AND NOT planned AND (shards <> '{}' OR paused <> '{}')
), total AS (
	SELECT window_s - planned_s - unknown_s AS total_s, up_s, down_s FROM payshard.availability WHERE scope = 'cluster'
)
SELECT count(i.failed)::int AS incidents, count(i.failed) FILTER (WHERE i.kind = 'failover')::int AS failovers,
	avg(i.repair_s)::double precision AS mttr_s,
	CASE WHEN count(i.failed) > 0 THEN (max(t.up_s) / count(i.failed))::double precision END AS mtbf_s,
	max(i.repair_s)::double precision AS worst_s,
	(percentile_disc(0.95) WITHIN GROUP (ORDER BY i.repair_s))::double precision AS p95_s,
	coalesce(sum(i.fault_s), 0)::double precision AS fault_s,
	coalesce(sum(i.repair_s - i.fault_s), 0)::double precision AS recovery_s,
	CASE WHEN max(t.total_s) > 0 THEN (max(t.down_s) / max(t.total_s))::double precision END AS unavailability_ratio,
	coalesce(sum(i.transactions_lost), 0)::bigint AS transactions_lost
FROM total t LEFT JOIN incident i ON true;
COMMENT ON VIEW payshard.recovery_stats IS 'how often payments stopped and how long, over all incidents that touched a shard';
COMMENT ON COLUMN payshard.recovery_stats.incidents IS 'incidents in which payments of some shard had to wait';
COMMENT ON COLUMN payshard.recovery_stats.failovers IS 'those with a failover';
COMMENT ON COLUMN payshard.recovery_stats.mttr_s IS 'mean time to recovery: from failed until the last shard accepts payments again';
COMMENT ON COLUMN payshard.recovery_stats.mtbf_s IS 'mean time between failures: uptime of the cluster / incidents';
COMMENT ON COLUMN payshard.recovery_stats.worst_s IS 'longest such time';
COMMENT ON COLUMN payshard.recovery_stats.p95_s IS '95 of 100 were not longer than this';
COMMENT ON COLUMN payshard.recovery_stats.fault_s IS 'fault time: from failed to decided, all incidents together; where no map has changed, until payments were taken again';
COMMENT ON COLUMN payshard.recovery_stats.recovery_s IS 'recovery time: from decided until the last shard accepts payments again';
COMMENT ON COLUMN payshard.recovery_stats.unavailability_ratio IS '(fault time + recovery time) / total time, where incidents that overlap count once and planned and unknown time not at all';
COMMENT ON COLUMN payshard.recovery_stats.transactions_lost IS 'acknowledged transactions lost; anything but 0 is a bug';

CREATE FUNCTION payshard.status() RETURNS text
	LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	silent text[];
	closed text[];	-- and this node, while it may not serve
	shards int;
	accepting int;
	single int;
	sentence text;
	about text;
	result text;
BEGIN
	SELECT count(*) INTO shards FROM payshard.shards;
	IF shards = 0 THEN
		RETURN 'This database is in no payshard cluster.';
	END IF;
	SELECT coalesce(array_agg(n.name ORDER BY n.node_id), '{}') INTO silent FROM payshard.nodes n
		WHERE NOT n.is_self AND coalesce(n.heard_ms, 2147483647) >
			(SELECT s.setting::int FROM pg_settings s WHERE s.name = 'payshard.peer_timeout');
	SELECT silent || coalesce(array_agg(l.node), '{}') INTO closed FROM payshard.leases l WHERE l.is_self AND NOT l.held;
	SELECT count(*) FILTER (WHERE s.state = 'open' AND s.primary_node <> ALL (closed)),
		count(*) FILTER (WHERE cardinality(s.in_sync) = 1) INTO accepting, single FROM payshard.shards s;
	sentence := CASE WHEN accepting = shards THEN shards || ' shards accept payments'
		WHEN accepting = 0 THEN 'None of ' || shards || ' shards accepts payments'
		ELSE accepting || ' of ' || shards || ' shards accept payments' END
		|| CASE single WHEN 0 THEN '' WHEN 1 THEN ', 1 has one copy' ELSE ', ' || single || ' have one copy' END;
	SELECT string_agg(', ' || n.name || CASE
			WHEN n.state = 'failed' THEN ' is failed over'
			WHEN n.state = 'maintenance' THEN ' is in maintenance' || CASE WHEN n.name = ANY (silent) THEN ' and down' ELSE '' END
			WHEN n.name = ANY (silent) THEN ' does not answer'
			WHEN n.name = ANY (closed) THEN ' has no lease of a majority'
			WHEN n.leader IS NOT NULL THEN ' is being settled'
			WHEN p.joining > 0 THEN ' is rejoining'
			WHEN p.missing > 0 THEN ' is to rejoin'
			ELSE ' gets ' || p.arriving || ' shards' END, '' ORDER BY n.node_id) INTO about
	FROM payshard.nodes n
	LEFT JOIN (SELECT q.node, count(*) FILTER (WHERE q.state = 'joining' AND q.moving IS DISTINCT FROM 'arriving') AS joining,
			count(*) FILTER (WHERE q.state <> 'in_sync' AND q.moving IS DISTINCT FROM 'arriving') AS missing,
			count(*) FILTER (WHERE q.moving = 'arriving') AS arriving
		FROM payshard.placements q GROUP BY q.node) p ON p.node = n.name
	WHERE n.state <> 'up' OR n.name = ANY (closed) OR n.leader IS NOT NULL OR coalesce(p.missing + p.arriving, 0) > 0;
	result := sentence || coalesce(about, '') || '.' || E'\n\nnodes\n';
	SELECT result || string_agg(format('  %-12s %-7s %-10s primary of %s, copies in sync %s of %s%s%s', n.name, n.state,
			CASE WHEN n.weight = 0 THEN 'witness' WHEN n.zone = '' THEN '' ELSE n.zone END,
			(SELECT count(*) FROM payshard.shards s WHERE s.primary_node = n.name),
			(SELECT count(*) FROM payshard.placements p WHERE p.node = n.name AND p.state = 'in_sync'),
			(SELECT count(*) FROM payshard.placements p WHERE p.node = n.name),
			CASE WHEN n.is_self THEN ', answers you'
				WHEN n.heard_ms IS NULL THEN ', never heard from here'
				ELSE ', heard ' || n.heard_ms || ' ms ago' END,
			', incarnation ' || n.incarnation), E'\n' ORDER BY n.node_id)
		INTO result FROM payshard.nodes n;
	SELECT result || E'\n\ncopies in sync, by shard (!: does not accept payments)\n' || string_agg(line, E'\n' ORDER BY row)
		INTO result
	FROM (SELECT s.shard / 64 AS row, format('  %4s  ', min(s.shard)) || string_agg(
				CASE WHEN s.state = 'open' AND s.primary_node <> ALL (closed) THEN cardinality(s.in_sync)::text ELSE '!' END
				|| CASE WHEN s.shard % 16 = 15 THEN ' ' ELSE '' END, '' ORDER BY s.shard) AS line
		FROM payshard.shards s GROUP BY s.shard / 64) strip;
	SELECT result || coalesce(E'\n\nreplication from here\n' || string_agg(format('  %-12s %-10s %s entries (%s bytes) on their way, %s not applied there%s',
			r.node, r.phase, coalesce(r.queued_entries, 0), coalesce(r.queued_bytes, 0), coalesce(r.apply_lag, 0),
			CASE WHEN r.all_dirty THEN ', needs a full copy' WHEN r.dirty_keys > 0 THEN ', ' || r.dirty_keys || ' dirty keys' ELSE '' END),
			E'\n' ORDER BY r.node), '')
		INTO result FROM payshard.replication r;
	SELECT result || coalesce(E'\n\nlast incidents\n' || string_agg(format('  %s  %-8s %-8s %s', to_char(i.failed, 'YYYY-MM-DD HH24:MI:SS.MS'),
			i.node, i.kind, CASE
				WHEN i.kind = 'silent' AND i.open_again IS NULL THEN 'nothing decided yet; see payshard.failover()'
				WHEN i.open_again IS NULL AND i.epoch IS NULL THEN 'payments wait, or fail'
				WHEN i.open_again IS NULL THEN 'shards not open yet'
				ELSE format('%s, %s', coalesce('payments waited ' || round(extract(epoch FROM greatest(
					CASE WHEN i.shards <> '{}' THEN i.open_again END, CASE WHEN i.paused <> '{}' THEN i.resumed END) - i.failed), 3) || ' s', 'no payment waited'),
					coalesce('in sync again after ' || round(extract(epoch FROM i.back_in_sync - i.failed), 3) || ' s', 'not back in sync')) END),
			E'\n' ORDER BY i.failed DESC), '')
		INTO result FROM (SELECT * FROM payshard.incidents ORDER BY failed DESC LIMIT 5) i;
	RETURN result;
END $$;
COMMENT ON FUNCTION payshard.status() IS 'the state of the cluster as text, led by one sentence; for a terminal: psql -Atc "SELECT payshard.status()"';

----------------------------------------------------------------------
-- Privileges: keep this section last.  Nothing that changes or reveals is for
-- PUBLIC; views and what they call are for pg_monitor.
----------------------------------------------------------------------

DO $$
DECLARE
	f regprocedure;
	v regclass;
	views constant text[] := '{nodes,leases,shards,placements,moves,balance,jobs,tables,replication,in_doubt,stat_commits,silences,events,stops,planned,incidents,availability,recovery_stats}';
	for_monitor constant text[] := '{show_nodes,show_leases,show_shards,show_placements,show_moves,show_balance,show_replication,show_stats,journal_entries,map_changes,map_incidents,map_times,total_seconds,status,ring}';
	for_admin constant text[] := '{create_cluster,add_node,remove_node,set_node,failover,switchover,rebuild_node,start_maintenance,stop_maintenance,drill,rebalance_plan,rebalance_start,rebalance_wait,rebalance_stop,verify,repair,stat_reset,resolve_in_doubt,grant_peer}';
BEGIN
	FOR f IN SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'payshard'::regnamespace
		AND (p.proname LIKE 'peer\_%' OR p.proname = ANY (for_monitor || for_admin))
	LOOP
		EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC', f);
	END LOOP;
	FOR f IN SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'payshard'::regnamespace
		AND p.proname = ANY (for_monitor)
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO pg_monitor', f);
	END LOOP;
	FOR v IN SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relnamespace = 'payshard'::regnamespace
		AND c.relname = ANY (views)
	LOOP
		EXECUTE format('GRANT SELECT ON %s TO pg_monitor', v);
	END LOOP;
	-- What nodes call on each other all the time runs as the extension's owner:
	-- the peer role needs EXECUTE and nothing else.  What changes membership or
	-- runs DDL stays with superusers.
	FOR f IN SELECT p.oid FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'payshard'::regnamespace
		AND p.proname IN ('peer_learn', 'peer_prepare', 'peer_accept', 'peer_turn', 'peer_hello', 'peer_journal', 'peer_tail',
			'peer_settle_journal', 'peer_settle_apply', 'peer_history', 'peer_events', 'peer_spans', 'peer_moves', 'peer_shard_bytes', 'peer_heard', 'peer_suspects',
			'peer_hold', 'peer_table_digests', 'peer_digest', 'peer_await_applied', 'peer_join_begin', 'peer_join_keys',
			'peer_copy', 'peer_switch', 'peer_note', 'peer_is_quiet', 'peer_join_copied', 'peer_take_dirty', 'peer_verify', 'verify')
	LOOP
		EXECUTE format('ALTER FUNCTION %s SECURITY DEFINER SET search_path = pg_catalog, pg_temp', f);
	END LOOP;
END $$;

CREATE FUNCTION payshard.grant_peer(role regrole) RETURNS void
	LANGUAGE plpgsql STRICT SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	f regprocedure;
BEGIN
	IF NOT (SELECT r.rolsuper FROM pg_roles r WHERE r.rolname = current_user) THEN
		RAISE EXCEPTION 'permission denied for grant_peer'
			USING ERRCODE = 'insufficient_privilege', DETAIL = format('Role "%s" is no superuser.', current_user),
				HINT = 'Only superusers change a payshard cluster.';
	END IF;
	FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'payshard'::regnamespace
		AND p.proname LIKE 'peer\_%' AND p.prosecdef
	LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %s', f, role);
	END LOOP;
	EXECUTE format('GRANT EXECUTE ON FUNCTION payshard.incarnation() TO %s', role);
END $$;
REVOKE ALL ON FUNCTION payshard.grant_peer(regrole) FROM PUBLIC;
COMMENT ON FUNCTION payshard.grant_peer IS 'lets a role do on this node what nodes ask of each other all the time: votes, heartbeats, journals, copies; call it on every node for the role of the others'' user mappings. Adding nodes and DDL on all nodes need a superuser';
