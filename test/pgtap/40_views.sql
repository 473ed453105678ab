-- What a user may rely on: the views and their columns, a comment on each, and
-- who may see and call what.
BEGIN;
SELECT plan(79);

CREATE TEMP TABLE promised (view text, columns text[]);
INSERT INTO promised VALUES
	('nodes', '{node_id,name,zone,weight,state,incarnation,is_self,conninfo,last_heard,heard_ms,settled,leader}'),
	('leases', '{node,is_self,held,left_ms,granted_ms,promised_ms,suspicion,silent_ms,falls,pause_ms}'),
	('shards', '{shard,primary_node,term,state,in_sync,joining,out,placements,waits_for}'),
	('placements', '{shard,node,state,role,moving}'),
	('moves', '{job,shard,phase,arriving,leaving,heir}'),
	('balance', '{node,zone,weight,placements,primaries,load,placements_after,primaries_after,load_after}'),
	('jobs', '{job,reason,phase,shards,shards_done,shards_left,bytes,bytes_done,sent_bytes,pause_ms,started,ended,eta}'),
	('tables', '{table_name,key_columns,colocation,table_id,rows_estimate,bytes}'),
	('replication', '{node,phase,queued_seq,acked_seq,applied_seq,queued_entries,queued_bytes,apply_lag,gate,dirty_keys,all_dirty,origin_incarnation,journaled_seq,decided_seq,applied_here_seq,apply_backlog,is_held}'),
	('in_doubt', '{origin,incarnation,seq,xid,shards,age}'),
	('stat_commits', '{commits,aborts,unknown_outcomes,wait_ms,wait_ms_max,batches,records,sent_bytes,apply_transactions,apply_records,stats_reset}'),
	('silences', '{observer,node,last_heard,detected,heard_again}'),
	('events', '{epoch,at,kind,node,shards,detail,reason,observer}'),
	('stops', '{node_id,node,event,kind,shard,since,noted,until}'),
	('incidents', '{node,kind,failed,detected,decided,open_again,resumed,returned,back_in_sync,shards,paused,transactions_lost,entries_settled,epoch,reason,planned,opened,went_on}'),
	('planned', '{node_id,node,kind,since,until,detail}'),
	('availability', '{scope,name,since,window_s,up_s,down_s,planned_s,unknown_s,availability,nines}'),
	('recovery_stats', '{incidents,failovers,mttr_s,mtbf_s,worst_s,p95_s,fault_s,recovery_s,unavailability_ratio,transactions_lost}');

SELECT has_view('payshard', view::name, 'view ' || view) FROM promised ORDER BY view;
SELECT columns_are('payshard', view::name, columns::name[], 'columns of ' || view) FROM promised ORDER BY view;
SELECT ok(has_table_privilege('pg_monitor', 'payshard.' || view, 'SELECT'), 'pg_monitor reads ' || view)
FROM promised ORDER BY view;

SELECT is_empty($$
	SELECT c.relname || coalesce('.' || a.attname, '')
	FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	WHERE c.relnamespace = 'payshard'::regnamespace AND c.relkind = 'v'
		AND (obj_description(c.oid, 'pg_class') IS NULL OR col_description(c.oid, a.attnum) IS NULL)$$,
	'every view and column has a comment');
SELECT is_empty($$
	SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'payshard'::regnamespace AND c.relkind IN ('r', 'p')
		AND obj_description(c.oid, 'pg_class') IS NULL$$,
	'every table has a comment');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'payshard'::regnamespace
		AND p.proname NOT LIKE 'peer\_%' AND p.proname <> 'fdw_validator' AND obj_description(p.oid, 'pg_proc') IS NULL$$,
	'every function for users has a comment');

-- privileges
SELECT is_empty($$
	SELECT c.relname FROM pg_class c, aclexplode(c.relacl) a
	WHERE c.relnamespace = 'payshard'::regnamespace AND a.grantee = 0$$,
	'PUBLIC reads and writes no table and no view');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	WHERE p.pronamespace = 'payshard'::regnamespace AND a.grantee = 0 AND p.proname LIKE 'peer\_%'$$,
	'PUBLIC calls no function between nodes');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	WHERE p.pronamespace = 'payshard'::regnamespace AND a.grantee = 0
		AND p.proname IN ('create_cluster', 'add_node', 'remove_node', 'set_node', 'failover', 'rebuild_node',
			'switchover', 'start_maintenance', 'stop_maintenance', 'drill',
			'rebalance_plan', 'rebalance_start', 'rebalance_wait', 'rebalance_stop', 'verify', 'stat_reset', 'grant_peer', 'status', 'ring')$$,
	'PUBLIC calls nothing that changes the cluster or reveals it');
SELECT is_empty($$
	SELECT p.oid::regprocedure FROM pg_proc p
	WHERE p.pronamespace = 'payshard'::regnamespace AND p.prosecdef
		AND NOT coalesce(array_to_string(p.proconfig, ' '), '') LIKE '%search_path=%'$$,
	'every function that runs as its owner has a search_path of its own');

CREATE ROLE pgtap_watcher;
CREATE ROLE pgtap_nobody;
CREATE ROLE pgtap_peer;
GRANT pg_monitor TO pgtap_watcher;
SELECT payshard.grant_peer('pgtap_peer');
SET ROLE pgtap_watcher;
SELECT lives_ok('SELECT * FROM payshard.' || view, 'a member of pg_monitor reads ' || view)
FROM unnest('{availability,events,stops,in_doubt,incidents,planned,recovery_stats,replication,moves,balance,jobs}'::text[]) view;
SELECT lives_ok('SELECT payshard.status()', 'and sees the status');
SELECT isnt((SELECT conninfo FROM payshard.nodes LIMIT 1), NULL, 'and how nodes are reached');
SELECT is((SELECT count(*) FROM payshard.nodes WHERE conninfo ~ 'pass|user='), 0::bigint, 'but no user and no password');
SELECT throws_ok($$SELECT payshard.failover('n2')$$, '42501', NULL, 'and changes nothing');
RESET ROLE;
SET ROLE pgtap_nobody;
SELECT throws_ok('SELECT * FROM payshard.nodes', '42501', NULL, 'others see no nodes');
RESET ROLE;
SELECT ok(has_function_privilege('pgtap_peer', 'payshard.peer_journal(bytea)', 'EXECUTE'),
	'grant_peer: journals');

-- times of maps: a clock that jumped ahead (3, 4) or back (6) is not believed, nor what lies ahead (9)
DELETE FROM payshard.map_history;
INSERT INTO payshard.map_history (epoch, value, changed_at, reason)
SELECT n, '', timestamptz '2026-01-01 00:00+00' + seconds * interval '1 s', ''
FROM unnest('{0,10,604800,604801,40,-3600,60,70,1e10}'::float8[]) WITH ORDINALITY u(seconds, n);
SELECT results_eq($$SELECT extract(epoch FROM at - timestamptz '2026-01-01 00:00+00')::int FROM payshard.map_times() ORDER BY epoch$$,
	$$SELECT unnest('{0,10,40,40,40,60,60,70,70}'::int[])$$, 'times of maps rise, whatever one clock says');

SELECT * FROM finish();
ROLLBACK;
