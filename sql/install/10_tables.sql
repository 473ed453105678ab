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
