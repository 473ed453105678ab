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
