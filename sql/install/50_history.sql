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
