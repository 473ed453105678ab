/*
 * record.c
 *		What does this node write down about the others, and how does it get
 *		what it missed?
 *
 * (a) Silences: a node that does not answer, with the time of its last answer,
 *	   and that it is back.  A silence shorter than PS_SILENCE_MS is no event,
 *	   unless the node has a new incarnation after it.
 * (b) Outages: when this node could not acknowledge payments of its shards
 *	   though the map says nothing of it (node/outage.h).  What lasts is written
 *	   down once, too: the node may not live to see its end.
 * (c) This node watches: payshard.watch_span is extended, so that time in which
 *	   nobody looked is known as such.
 * (d) From every node that answers: maps that this node has missed, and what
 *	   the other has written down since.  All nodes end up with the same rows.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "keep/proposer.h"
#include "keep/record.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "node/event.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/outage.h"
#include "node/settings.h"
#include "node/silence.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define PS_SILENCE_MS 1000
#define PS_SPAN_MS 5000
#define PS_SAME_MS 500			/* two begins this near each other are of one outage */
#define PS_RECORD_CALL_MS 1000	/* the other duties wait meanwhile */

/* What has been logged about one node. */
typedef struct Noted
{
	TimestampTz since;			/* of the last silence that is logged */
	bool		is_over;		/* its end is logged, too */
	uint64		incarnation;	/* the node's, at the last look */
} Noted;

static Noted noted[PS_NODES_MAX];
static TimestampTz noted_since = 0;	/* this run of the keeper */

static void
note_lost(uint32 id, TimestampTz since)
{
	ps_event_write("peer_lost", id, since, NULL);
	noted[id].since = since;
	noted[id].is_over = false;
}

static void
note_heard(uint32 id, TimestampTz since)
{
	ps_event_write("peer_heard", id, since, NULL);
	noted[id].is_over = true;
}

/* (a) for one node */
static void
note_silence(const PsMapNode *node)
{
	Noted	   *last = &noted[node->id];
	bool		is_new_start = last->incarnation != 0 && last->incarnation != node->incarnation;
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz from = ps_silence_now(node->id);
	TimestampTz to;

	if (from != 0)
	{
		if (from != last->since && now - from > PS_SILENCE_MS * INT64CONST(1000))
			note_lost(node->id, from);
		return;					/* a new incarnation counts when the node is back */
	}
	if (ps_silence_former(node->id, &from, &to))
	{
		if (from == last->since && !last->is_over)
			note_heard(node->id, from);
		else if (from > last->since &&
				 (is_new_start || to - from > PS_SILENCE_MS * INT64CONST(1000)))
		{
			note_lost(node->id, from);
			note_heard(node->id, from);
		}
	}
	last->incarnation = node->incarnation;
}

static void
write_outage(const char *kind, const PsOutage *outage)
{
	int		   *shards = palloc(sizeof(int) * PS_SHARDS_MAX);
	int			n = 0;

	for (int s = 0; s < PS_SHARDS_MAX; s++)
		if (outage->shards[s / 64] & (UINT64CONST(1) << (s % 64)))
			shards[n++] = s;
	ps_event_write_span(kind, ps_map_self(), outage->since, outage->until, shards, n,
						ps_outage_name(outage->cause));
}

/* Of an outage that lasts: the shards of which it has not been written down. */
static bool
take_news(PsOutage *outage)
{
	static TimestampTz written[PS_SHARDS_MAX];
	bool		has = false;

	for (int s = 0; s < PS_SHARDS_MAX; s++)
	{
		uint64		bit = UINT64CONST(1) << (s % 64);

		if ((outage->shards[s / 64] & bit) == 0)
			continue;
		if (outage->since <= written[s] + PS_SAME_MS * INT64CONST(1000))
			outage->shards[s / 64] &= ~bit;
		else
		{
			written[s] = outage->since;
			has = true;
		}
	}
	return has;
}

/* (b) */
static void
note_outages(void)
{
	static PsOutage outages[PS_OUTAGES_MAX];
	int			n = ps_outage_ended(outages, PS_OUTAGES_MAX);

	for (int i = 0; i < n; i++)
		write_outage("payments_resumed", &outages[i]);
	if (n > 0)
	{
		CommitTransactionCommand();
		StartTransactionCommand();
		ps_outage_forget(n);
	}
	n = ps_outage_lasting(outages, PS_OUTAGES_MAX);
	for (int i = 0; i < n; i++)
		if (take_news(&outages[i]))
			write_outage("payments_stopped", &outages[i]);
}

/*
 * Silences that a former run of the keeper has left open: their end was not
 * seen, unless they last.
 */
static void
close_stale(const PsMap *map)
{
	Oid			types[2] = {INT4OID, INT4OID};
	Datum		values[2];

	noted_since = GetCurrentTimestamp();
	values[0] = Int32GetDatum(ps_map_self());
	for (int i = 0; i < map->n_nodes; i++)
	{
		values[1] = Int32GetDatum(map->nodes[i].id);
		if (!noted[map->nodes[i].id].is_over && noted[map->nodes[i].id].since != 0)
			continue;
		SPI_execute_with_args("INSERT INTO payshard.event_log (observer, kind, node, since, detail) "
							  "SELECT observer, 'peer_heard', node, last_heard, 'end not seen' FROM payshard.silences "
							  "WHERE observer = $1 AND node = $2 AND heard_again IS NULL",
							  2, types, values, NULL, false, 0);
	}
}

/* (c) */
static void
extend_span(void)
{
	Oid			types[2] = {INT4OID, TIMESTAMPTZOID};
	Datum		values[2];

	values[0] = Int32GetDatum(ps_map_self());
	values[1] = TimestampTzGetDatum(noted_since);
	SPI_execute_with_args("INSERT INTO payshard.watch_span VALUES ($1, $2, clock_timestamp()) "
						  "ON CONFLICT (observer, since) DO UPDATE SET until = excluded.until",
						  2, types, values, NULL, false, 0);
}

/* The one text that a query yields, palloc'd; NULL = null or no row. */
static char *
query_text(const char *sql, uint32 id)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(id);

	SPI_execute_with_args(sql, 1, &type, &value, NULL, true, 1);
	if (SPI_processed != 1)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

/* One call to a node whose answer, a text, is the argument of a statement here. */
static bool
fetch(PGconn *conn, const char *sql, char *arg, const char *insert)
{
	PsArg		remote = ps_arg_text(arg);
	PGresult   *result = ps_conn_call(conn, sql, 1, &remote, false, ps_deadline(PS_RECORD_CALL_MS));
	bool		ok = result && PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1;

	if (ok)
	{
		Oid			type = TEXTOID;
		Datum		value = CStringGetTextDatum(PQgetvalue(result, 0, 0));

		SPI_execute_with_args(insert, 1, &type, &value, NULL, false, 0);
	}
	PQclear(result);
	return ok;
}

/* (d) for one node */
static void
catch_up(const PsMapNode *node)
{
	PGconn	   *conn = ps_peer(node->id, node->name, ps_deadline(PS_RECORD_CALL_MS));
	char	   *missing = query_text("SELECT array_agg(e) FROM (SELECT e FROM generate_series(1, "
									 "(SELECT max(epoch) FROM payshard.map_history)) e WHERE $1 > 0 AND NOT EXISTS "
									 "(SELECT FROM payshard.map_history h WHERE h.epoch = e) LIMIT 200) m", node->id);
	char	   *known = query_text("SELECT coalesce(max(id), 0) FROM payshard.event_log WHERE observer = $1",
								   node->id);

	if (conn == NULL)
		return;
	if (missing && !fetch(conn, "SELECT payshard.peer_history($1::bigint[])", missing,
						  "INSERT INTO payshard.map_history SELECT * FROM "
						  "jsonb_populate_recordset(null::payshard.map_history, $1::jsonb) ON CONFLICT DO NOTHING"))
		ps_peer_drop(node->id);
	else if (!fetch(conn, "SELECT payshard.peer_events($1::bigint)", known,
					"INSERT INTO payshard.event_log SELECT * FROM "
					"jsonb_populate_recordset(null::payshard.event_log, $1::jsonb) ON CONFLICT DO NOTHING") ||
			!fetch(conn, "SELECT payshard.peer_spans($1::int)", "100",
				   "INSERT INTO payshard.watch_span SELECT * FROM "
				   "jsonb_populate_recordset(null::payshard.watch_span, $1::jsonb) "
				   "ON CONFLICT (observer, since) DO UPDATE SET until = excluded.until") ||
			 !fetch(conn, "SELECT payshard.peer_moves($1::int)", "1000",
					"INSERT INTO payshard.move_log SELECT * FROM "
					"jsonb_populate_recordset(null::payshard.move_log, $1::jsonb) "
					"ON CONFLICT (job, shard, target) DO UPDATE SET source = excluded.source, started = excluded.started, "
					"ended = excluded.ended, sent_bytes = excluded.sent_bytes, rows = excluded.rows, "
					"pause_ms = excluded.pause_ms WHERE excluded.ended IS NOT NULL AND move_log.ended IS NULL"))
		ps_peer_drop(node->id);
}

/* Does it owe an answer for longer than usual?  The keeper must not wait for it. */
static bool
is_slow(uint32 id)
{
	uint64		since = pg_atomic_read_u64(&ps_shared->peers[id].waiting_since);

	return since != 0 && ps_clock_us() >= since + 2 * (uint64) ps_keepalive_ms * 1000;
}

bool
ps_duty_record(void)
{
	static TimestampTz next = 0;
	PsMap	   *map;
	bool		is_due = GetCurrentTimestamp() >= next;

	if (ps_map_incarnation() == 0)
		return false;
	note_outages();
	if ((map = ps_map_copy()) == NULL)
		return false;
	for (int i = 0; i < map->n_nodes; i++)
		if (map->nodes[i].id != ps_map_self())
			note_silence(&map->nodes[i]);
	if (!is_due)
		return false;
	next = ps_deadline(PS_SPAN_MS);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (noted_since == 0)
		close_stale(map);
	extend_span();
	for (int i = 0; i < map->n_nodes; i++)
		if (map->nodes[i].id != ps_map_self() && ps_silence_now(map->nodes[i].id) == 0 &&
			!is_slow(map->nodes[i].id))
			catch_up(&map->nodes[i]);
	PopActiveSnapshot();
	SPI_finish();
	return false;
}
