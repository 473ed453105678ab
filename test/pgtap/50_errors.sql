-- Who may call what, and what a refused call says: SQLSTATE, message, detail
-- and hint.  What several nodes add, and that nothing has changed then, is in
-- test/t/160_bad_input.pl.
BEGIN;
SELECT plan(55);

-- The whole list: a new function has to be put here, or revoked.
SELECT set_eq($$
	SELECT p.proname::text FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	WHERE p.pronamespace = 'payshard'::regnamespace AND a.grantee = 0 AND a.privilege_type = 'EXECUTE'$$,
	'{capture,capture_truncate,create_distributed_table,fdw_validator,incarnation,local_scope,nodes_for,shard_for,undistribute_table}'::text[],
	'PUBLIC calls what is for owners and users of tables, and nothing else');
SELECT set_eq($$
	SELECT p.proname::text FROM pg_proc p, aclexplode(p.proacl) a
	WHERE p.pronamespace = 'payshard'::regnamespace AND a.grantee = 'pg_monitor'::regrole$$,
	'{show_nodes,show_leases,show_shards,show_placements,show_moves,show_balance,show_replication,show_stats,journal_entries,map_changes,map_incidents,map_times,total_seconds,status,ring}'::text[],
	'members of pg_monitor call what the views are made of, and nothing else');
SELECT set_eq($$
	SELECT c.relname::text FROM pg_class c, aclexplode(c.relacl) a
	WHERE c.relnamespace = 'payshard'::regnamespace AND a.grantee = 'pg_monitor'::regrole AND a.privilege_type = 'SELECT'$$,
	$$SELECT relname::text FROM pg_class WHERE relnamespace = 'payshard'::regnamespace AND relkind = 'v'$$,
	'members of pg_monitor read every view, and no table');
SELECT is_empty($$
	SELECT c.relname, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
	WHERE c.relnamespace = 'payshard'::regnamespace AND a.grantee <> c.relowner AND a.privilege_type <> 'SELECT'$$,
	'nobody else writes a table');
SELECT is_empty($$
	SELECT nspname, a.privilege_type FROM pg_namespace, aclexplode(nspacl) a
	WHERE nspname IN ('payshard', 'payshard_data') AND a.grantee <> nspowner AND a.privilege_type <> 'USAGE'$$,
	'nobody else makes anything in the schemas');
SELECT set_eq($$
	SELECT proname::text FROM pg_proc WHERE pronamespace = 'payshard'::regnamespace AND prosecdef$$,
	'{peer_learn,peer_prepare,peer_accept,peer_turn,peer_hello,peer_journal,peer_tail,peer_settle_journal,peer_settle_apply,peer_history,peer_events,
	peer_spans,peer_moves,peer_shard_bytes,peer_heard,peer_suspects,peer_hold,peer_table_digests,peer_digest,peer_await_applied,peer_join_begin,peer_join_keys,peer_copy,
	peer_join_copied,peer_take_dirty,peer_switch,peer_note,peer_is_quiet,peer_verify,verify,map_incidents,map_times}'::text[],
	'what runs as the owner of the extension');

-- What a call says: SQLSTATE|message|detail|hint, or "ok".
CREATE FUNCTION pg_temp.said(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	state text;
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE call;
	RETURN 'ok';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws('|', state, message, detail, hint);
END $$;

CREATE TABLE ordinary (k int PRIMARY KEY, v text);
CREATE TABLE placed (k int PRIMARY KEY, v text);
SELECT payshard.create_distributed_table('placed', 'k');

SELECT is(pg_temp.said($$SELECT payshard.create_cluster('again')$$),
	'42710|this database is already node "n1" of a payshard cluster|A database is a node of one cluster, under one name.|'
	'To start anew, run DROP EXTENSION payshard CASCADE and CREATE EXTENSION payshard.', 'create_cluster on a node');
SELECT is(pg_temp.said(format('SELECT payshard.%s', call)),
	'42704|there is no node "n7"|The nodes of this cluster are: n1, n2, n3.|See payshard.nodes.', 'unknown node: ' || call)
FROM unnest('{remove_node(''n7''),"set_node(''n7'', 1)",failover(''n7''),rebuild_node(''n7''),switchover(''n7''),start_maintenance(''n7''),stop_maintenance(''n7''),drill(''n7'')}'::text[]) call;
SELECT is(pg_temp.said($$SELECT * FROM payshard.switchover(4711)$$),
	'22023|there is no shard 4711|Shards are numbered 0 to 15.|See payshard.shards.', 'switchover: unknown shard');
SELECT is(pg_temp.said($$SELECT * FROM payshard.switchover('n2', 'n2')$$),
	'22023|node "n2" cannot give its shards to itself|The node and the target are the same.|Name another target, or none.', 'switchover: to itself');
SELECT is(pg_temp.said($$SELECT payshard.drill('n2', 'burn')$$),
	'22023|"burn" is no kind of drill|A drill is of kind kill or stop.|See payshard.drill() in doc/operations.md.', 'drill: unknown kind');
SELECT is(pg_temp.said($$SELECT payshard.add_node('', 'host=x')$$),
	'22023|"" cannot be the name of a node|A name has 1 to 53 bytes.|Choose a shorter name, such as n1.', 'add_node: no name');
SELECT is(pg_temp.said($$SELECT payshard.add_node('n4', 'colour=red')$$),
	'22023|"colour=red" is not a connection string|invalid connection option "colour"|For example: host=10.0.0.2 port=5432 dbname=pay.',
	'add_node: no connection string');
SELECT is(pg_temp.said($$SELECT payshard.add_node('n4', 'host=x', weight => 101)$$),
	'22003|weight 101 is out of range|A weight is 0 (a witness) to 100.|Weights are relative to each other: 1 and 2 say as much as 100 and 200.',
	'add_node: weight');
SELECT matches(pg_temp.said($$SELECT payshard.add_node('n4', 'host=127.0.0.1 port=1')$$),
	'^08001\|node "n4" cannot be reached\|.*Connection refused.*\|Check the connection string, pg_hba.conf and the password\.$', 'add_node: nobody there');
SELECT is(pg_temp.said($$SELECT payshard.failover('n1')$$),
	'55000|node "n1" cannot be failed over from itself|Who answers is not lost.|Call payshard.failover() on another node.', 'failover: itself');
SELECT matches(pg_temp.said($$SELECT payshard.failover('n2')$$),
	'^55000\|node "n2" is healthy\|It answers with its current incarnation \d+\.\|Use force => true to fail over nevertheless', 'failover: healthy');
SELECT is(pg_temp.said($$SELECT payshard.remove_node('n1')$$),
	'55000|node "n1" cannot remove itself|It would not learn the map without it.|Call payshard.remove_node() on another node.', 'remove_node: itself');

SELECT is(pg_temp.said($$SELECT payshard.create_distributed_table('placed', 'k')$$),
	'42710|table "placed" is distributed already|Its key is (k).|To change its key, call payshard.undistribute_table() first.', 'distributed already');
SELECT is(pg_temp.said($$SELECT payshard.create_distributed_table('ordinary', 'nothing')$$),
	'42703|column "nothing" of table "ordinary" does not exist|It is named as a column of the distribution key.|Its columns are: k, v.', 'key column missing');
SELECT is(pg_temp.said($$SELECT payshard.create_distributed_table('ordinary', 'v')$$),
	'42P10|primary key "ordinary_pkey" does not contain the distribution key|'
	'Column "v" is missing in it: a shard cannot see what is unique in the others.|Add the key columns to it, or distribute by columns that it has.',
	'key column not in the primary key');
SELECT is(pg_temp.said($$SELECT payshard.undistribute_table('ordinary')$$),
	'42809|"ordinary" is not a distributed table|It is an ordinary relation of this node.|See payshard.tables for all distributed tables.',
	'undistribute_table: an ordinary table');
SELECT is(pg_temp.said($$SELECT payshard.nodes_for(4711)$$),
	'22023|there is no shard 4711|Shards are numbered 0 to 15.|See payshard.shards.', 'nodes_for: unknown shard');
SELECT is(pg_temp.said(format('SELECT payshard.%s', format(call, array_arg))), said, format(call, array_arg))
FROM unnest('{peer_digest(%L),peer_table_digests(%L),"peer_switch(%L, 2)","peer_join_begin(%L, 2, 1, 1)",peer_join_keys(%L),"peer_join_copied(%L, 2, 1, 1)"}'::text[]) call,
	(VALUES ('{NULL}', '22023|a shard is null|An array of shards has no nulls.|Nodes call this function with numbers of shards.'),
		('{4711}', '22023|there is no shard 4711|Shards are numbered 0 to 15.|Nodes of one cluster have the same shards.')) v(array_arg, said);
SELECT is((SELECT relkind::text FROM pg_class WHERE oid = 'ordinary'::regclass), 'r', 'after all this the table is as it was');

CREATE ROLE pgtap_nobody;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA payshard TO pgtap_nobody;
SET ROLE pgtap_nobody;
SELECT is(pg_temp.said(format('SELECT payshard.%s', call)),
	format('42501|permission denied for %s|Role "pgtap_nobody" is no superuser.|Only superusers change a payshard cluster.', split_part(call, '(', 1)),
	'EXECUTE alone is not enough: ' || call)
FROM unnest('{create_cluster(''x''),"add_node(''n4'', ''host=x'')",remove_node(''n3''),"set_node(''n3'', 1)",failover(''n2''),rebuild_node(''n2''),switchover(''n2''),start_maintenance(''n2''),drill(''n2''),grant_peer(''pgtap_nobody'')}'::text[]) call;
SELECT is(pg_temp.said($$SELECT payshard.create_distributed_table('ordinary', 'k')$$),
	format('42501|must be owner of table "ordinary"|Its owner is "%s".|Call it as the owner, or as a superuser.', session_user), 'not the owner');
RESET ROLE;
SELECT is((SELECT count(*) FROM pg_foreign_server WHERE srvname LIKE 'payshard\_%'), 3::bigint, 'no foreign server is left over');

SELECT * FROM finish();
ROLLBACK;
