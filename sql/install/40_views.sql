----------------------------------------------------------------------
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

CREATE FUNCTION payshard.peer_digest(shards int[], OUT shard int, OUT rows bigint, OUT digest text) RETURNS SETOF record
	LANGUAGE c STRICT AS 'MODULE_PATHNAME', 'payshard_peer_digest';
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

----------------------------------------------------------------------
-- Routing (R1 to R3)
----------------------------------------------------------------------

CREATE FUNCTION payshard.local_scope(terms bigint) RETURNS boolean
	LANGUAGE c STABLE STRICT AS 'MODULE_PATHNAME', 'payshard_local_scope';
COMMENT ON FUNCTION payshard.local_scope IS 'between nodes: marks a statement that reads only shards of which this node is the primary; 40001 when its map has other primaries, by the sum of all shards'' terms';
