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
#define PS_SAME_MS 250			/* two begins this near each other are one */
#define PS_RECORD_CALL_MS 1000	/* the other duties wait meanwhile */

/* What has been logged about one node. */
typedef struct Noted
{
	TimestampTz since;			/* of the last silence that is logged */
	bool		is_over;		/* its end is logged, too */
	uint64		incarnation;	/* the node's, at the last look */
} Noted;

/* An outage of a shard that was written down as begun. */
typedef struct Lasting
{
	TimestampTz since;
	TimestampTz gone_at;		/* first look that did not find it; 0 = the last one did */
	bool		is_missed;		/* the look before this one did not find it, either */
	bool		is_open;		/* its end is not written down */
} Lasting;

static Noted noted[PS_NODES_MAX];
static Lasting lasting[PS_OUTAGE_CAUSES][PS_SHARDS_MAX];
static TimestampTz noted_since = 0;	/* this run of the keeper */

/* With the shards that it is primary of: what it cannot note itself, should it die. */
static void
note_lost(uint32 id, TimestampTz since)
{
	int		   *shards = palloc(sizeof(int) * PS_SHARDS_MAX);
	int			n = 0;
	PsMapShard	shard;

	for (int s = 0; s < ps_map_n_shards(); s++)
		if (ps_map_shard(s, &shard) && shard.primary == id)
			shards[n++] = s;
	ps_event_write_span("peer_lost", id, since, 0, shards, n, NULL);
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
	TimestampTz from = ps_silence_now(node->id);
	TimestampTz to;

	if (from != 0)
	{
		if (from != last->since && ps_silence_ms(node->id) > PS_SILENCE_MS)
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

static bool
has_shard(const PsOutage *outage, int shard)
{
	return (outage->shards[shard / 64] & (UINT64CONST(1) << (shard % 64))) != 0;
}

/* Of an outage that lasts: the shards of which it has not been written down. */
static bool
take_news(PsOutage *outage)
{
	bool		has = false;

	for (int s = 0; s < PS_SHARDS_MAX; s++)
	{
		Lasting    *shard = &lasting[outage->cause][s];

		if (!has_shard(outage, s))
			continue;
		if (shard->is_open)
			outage->shards[s / 64] &= ~(UINT64CONST(1) << (s % 64));
		else
		{
			shard->since = outage->since;
			shard->is_open = true;
			has = true;
		}
		shard->gone_at = 0;
	}
	return has;
}

/*
 * An outage that is over is the end of what was written down of its shards, also of
 * what had begun before: when its copy was silent, and nobody tried at first.
 */
static void
write_ended(const PsOutage *outage)
{
	Lasting    *shards = lasting[outage->cause];

	for (int s = 0; s < PS_SHARDS_MAX; s++)
	{
		PsOutage	whole = {shards[s].since, outage->until, outage->cause, {0}};
		bool		is_early = shards[s].is_open &&
			shards[s].since + PS_SAME_MS * INT64CONST(1000) < outage->since;

		if (!has_shard(outage, s) || !is_early)
			continue;
		for (int t = s; t < PS_SHARDS_MAX; t++)
			if (has_shard(outage, t) && shards[t].is_open && shards[t].since == whole.since)
			{
				whole.shards[t / 64] |= UINT64CONST(1) << (t % 64);
				shards[t].is_open = false;
			}
		write_outage("payments_resumed", &whole);
	}
	for (int s = 0; s < PS_SHARDS_MAX; s++)
		if (has_shard(outage, s))
			shards[s].is_open = false;
	write_outage("payments_resumed", outage);
}

/* Was a shard not found at two looks? */
static bool
is_gone(const Lasting *shard)
{
	return shard->is_open && shard->gone_at != 0 && shard->is_missed;
}

/*
 * What has lasted, is not found any more and was not told as ended, is over as
 * the map has changed: a copy left the in-sync set.
 */
static void
close_gone(uint32 cause)
{
	Lasting    *shards = lasting[cause];

	for (int s = 0; s < PS_SHARDS_MAX; s++)
	{
		PsOutage	outage = {shards[s].since, shards[s].gone_at, cause, {0}};

		if (!is_gone(&shards[s]))
		{
			shards[s].is_missed = shards[s].gone_at != 0;
			continue;
		}
		for (int t = s; t < PS_SHARDS_MAX; t++)
			if (is_gone(&shards[t]) && shards[t].since == outage.since &&
				shards[t].gone_at == outage.until)
			{
				outage.shards[t / 64] |= UINT64CONST(1) << (t % 64);
				shards[t].is_open = false;
			}
		write_outage("payments_resumed", &outage);
	}
}

/* Before a look at what lasts: whatever is not found now is gone since now. */
static void
begin_look(void)
{
	TimestampTz now = GetCurrentTimestamp();

	for (int cause = 0; cause < PS_OUTAGE_CAUSES; cause++)
		for (int s = 0; s < PS_SHARDS_MAX; s++)
			if (lasting[cause][s].is_open && lasting[cause][s].gone_at == 0)
				lasting[cause][s].gone_at = now;
}

/* (b) */
static void
note_outages(void)
{
	static PsOutage outages[PS_OUTAGES_MAX];
	int			n = ps_outage_ended(outages, PS_OUTAGES_MAX);

	for (int i = 0; i < n; i++)
		write_ended(&outages[i]);
	if (n > 0)
	{
		CommitTransactionCommand();
		StartTransactionCommand();
		ps_outage_forget(n);
	}
	begin_look();
	n = ps_outage_lasting(outages, PS_OUTAGES_MAX);
	for (int i = 0; i < n; i++)
		if (take_news(&outages[i]))
			write_outage("payments_stopped", &outages[i]);
	for (uint32 cause = 0; cause < PS_OUTAGE_CAUSES; cause++)
		close_gone(cause);
}

static void
close_silences(uint32 id, SPITupleTable *silences, uint64 n)
{
	bool		isnull;

	for (uint64 i = 0; i < n; i++)
		ps_event_write("peer_heard", id,
					   DatumGetTimestampTz(SPI_getbinval(silences->vals[i], silences->tupdesc, 1,
														 &isnull)),
					   "end not seen");
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
		SPI_execute_with_args("SELECT last_heard FROM payshard.silences "
							  "WHERE observer = $1 AND node = $2 AND heard_again IS NULL",
							  2, types, values, NULL, false, 0);
		close_silences(map->nodes[i].id, SPI_tuptable, SPI_processed);
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
	/* the clock may have been set back */
	SPI_execute_with_args("INSERT INTO payshard.watch_span AS w VALUES ($1, $2, greatest($2, clock_timestamp())) "
						  "ON CONFLICT (observer, since) DO UPDATE SET until = greatest(w.until, excluded.until)",
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
	/* one with a lower id may have been committed later */
	char	   *known = query_text("SELECT coalesce(max(id) - 20, 0) FROM payshard.event_log WHERE observer = $1",
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
	static PsTime next = 0;
	PsMap	   *map;
	bool		is_due = ps_now() >= next;

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
