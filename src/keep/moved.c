/*
 * moved.c
 *		What is moved, was moved, and how long did it take?
 *
 * A job is what one map has ordered; its number is that map's epoch.  Every node
 * notes the jobs it sees begin and end.  Who is primary of a shard notes its
 * moves: the size before, what was sent and how long after; record.c brings these
 * to all nodes.  Nothing but payshard.jobs reads them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "keep/copy.h"
#include "keep/moved.h"
#include "node/map.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

static int
count_job(const PsMap *map, uint64 job)
{
	int			n = 0;

	for (int s = 0; s < map->n_shards; s++)
		n += map->shards[s].job == job;
	return n;
}

/* The map that ordered a job, if it is in the history here; else NULL. */
static PsMap *
ordering_map(uint64 job)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum((int64) job);
	bool		isnull;
	bytea	   *bytes;
	PsMap	   *map;

	SPI_execute_with_args("SELECT value FROM payshard.map_history WHERE epoch = $1", 1, &type, &value,
						  NULL, true, 1);
	if (SPI_processed != 1)
		return NULL;
	bytes = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
										  &isnull));
	map = palloc(sizeof(PsMap));
	return ps_map_read(map, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)) == NULL ? map : NULL;
}

/* Is the job noted already? */
static bool
is_noted(uint64 job)
{
	Oid			type = INT8OID;
	Datum		value = Int64GetDatum((int64) job);

	SPI_execute_with_args("SELECT FROM payshard.job_log WHERE job = $1", 1, &type, &value, NULL, true, 1);
	return SPI_processed > 0;
}

static void
note_begun(const PsMap *now, uint64 job)
{
	Oid			types[4] = {INT8OID, TEXTOID, INT4OID, TIMESTAMPTZOID};
	Datum		values[4];
	PsMap	   *ordered;

	if (is_noted(job))
		return;
	ordered = ordering_map(job);
	values[0] = Int64GetDatum((int64) job);
	values[1] = CStringGetTextDatum(ordered ? ordered->reason : "");
	values[2] = Int32GetDatum(count_job(ordered ? ordered : now, job));
	values[3] = TimestampTzGetDatum(ordered ? ordered->changed_at : now->changed_at);
	SPI_execute_with_args("INSERT INTO payshard.job_log (job, reason, shards, started) VALUES ($1, $2, $3, $4)",
						  4, types, values, NULL, false, 0);
}

/* Jobs of which the map has nothing any more. */
static void
note_ended(const PsMap *map, const char *under_way)
{
	Oid			types[2] = {TIMESTAMPTZOID, TEXTOID};
	Datum		values[2];

	values[0] = TimestampTzGetDatum(map->changed_at);
	values[1] = CStringGetTextDatum(strncmp(map->reason, "stop", 4) == 0 ? "stopped" : "done");
	SPI_execute_with_args(psprintf("UPDATE payshard.job_log SET ended = greatest($1, started), outcome = $2 "
								   "WHERE ended IS NULL AND job <> ALL ('%s'::bigint[])", under_way),
						  2, types, values, NULL, false, 0);
}

/* What is to be copied from here, with its size. */
static void
note_sizes(const PsMap *map)
{
	for (int i = 0; i < map->n_nodes; i++)
	{
		int			shards[PS_SHARDS_MAX];
		int			n = 0;
		StringInfoData jobs;

		initStringInfo(&jobs);
		for (int s = 0; s < map->n_shards; s++)
			if (map->shards[s].primary == ps_map_self() &&
				PS_HAS_NODE(map->shards[s].arriving, map->nodes[i].id))
			{
				appendStringInfo(&jobs, "%s" UINT64_FORMAT, n > 0 ? "," : "", map->shards[s].job);
				shards[n++] = s;
			}
		if (n == 0)
			continue;
		SPI_execute(psprintf("INSERT INTO payshard.move_log (job, shard, target, source, bytes) "
							 "SELECT j.job, j.shard, %u, %u, b.bytes "
							 "FROM unnest('{%s}'::bigint[], '%s'::int[]) j(job, shard) "
							 "JOIN payshard.peer_shard_bytes('%s') b USING (shard) ON CONFLICT DO NOTHING",
							 map->nodes[i].id, ps_map_self(), jobs.data, ps_int_array(shards, n),
							 ps_int_array(shards, n)), false, 0);
	}
}

void
ps_moved_look(const PsMap *map)
{
	StringInfoData under_way;
	uint64		last = 0;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	initStringInfo(&under_way);
	appendStringInfoChar(&under_way, '{');
	for (int s = 0; s < map->n_shards; s++)
	{
		uint64		job = map->shards[s].job;

		if (job == 0 || job == last)
			continue;
		last = job;
		note_begun(map, job);
		appendStringInfo(&under_way, "%s" UINT64_FORMAT, under_way.len > 1 ? "," : "", job);
		CommandCounterIncrement();
		UpdateActiveSnapshotCommandId();
	}
	appendStringInfoChar(&under_way, '}');
	note_ended(map, under_way.data);
	note_sizes(map);
	PopActiveSnapshot();
	SPI_finish();
}

void
ps_moved_note(uint64 job, int shard, uint32 node, TimestampTz begun, uint64 bytes, long rows,
			  int64 pause_us)
{
	Oid			types[8] = {INT8OID, INT4OID, INT4OID, INT4OID, TIMESTAMPTZOID, INT8OID, INT8OID,
	FLOAT8OID};
	Datum		values[8];

	values[0] = Int64GetDatum((int64) job);
	values[1] = Int32GetDatum(shard);
	values[2] = Int32GetDatum((int32) node);
	values[3] = Int32GetDatum((int32) ps_map_self());
	values[4] = TimestampTzGetDatum(begun);
	values[5] = Int64GetDatum((int64) bytes);
	values[6] = Int64GetDatum(rows);
	values[7] = Float8GetDatum(pause_us / 1000.0);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("INSERT INTO payshard.move_log (job, shard, target, source, bytes, started, ended, sent_bytes, "
						  "rows, pause_ms) VALUES ($1, $2, $3, $4, $6, $5, clock_timestamp(), $6, $7, $8) "
						  "ON CONFLICT (job, shard, target) DO UPDATE SET source = excluded.source, "
						  "started = excluded.started, ended = excluded.ended, sent_bytes = excluded.sent_bytes, "
						  "rows = excluded.rows, pause_ms = excluded.pause_ms",
						  8, types, values, NULL, false, 0);
	PopActiveSnapshot();
	SPI_finish();
}
