/*
 * event.c
 *		What has this node noticed that no map says?
 *
 * Every node writes its own rows (observer = itself) and keeps copies of the
 * others' (keep/record.c), so that a node which is gone leaves its notes.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "node/event.h"
#include "node/map.h"
#include "node/shared.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

static Datum
int_array(const int *numbers, int n)
{
	Datum	   *values = palloc(sizeof(Datum) * n);

	for (int i = 0; i < n; i++)
		values[i] = Int32GetDatum(numbers[i]);
	return PointerGetDatum(construct_array(values, n, INT4OID, sizeof(int32), true, TYPALIGN_INT));
}

/* The highest id of an event of this node in the log; 0 = there is none.  Within SPI. */
static uint64
last_id(void)
{
	Oid			type = INT4OID;
	Datum		self = Int32GetDatum(ps_map_self());
	bool		isnull;

	SPI_execute_with_args("SELECT coalesce(max(id), 0) FROM payshard.event_log WHERE observer = $1",
						  1, &type, &self, NULL, true, 1);
	return (uint64) DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
												&isnull));
}

/*
 * Ids rise, whatever the clock does, or the other nodes would not ask for an event any
 * more: by one, and with each start of this node above all that an earlier one can have
 * used, also when its data directory was restored.
 */
static int64
next_id(void)
{
	uint64		floor = ps_map_incarnation() << 32;
	uint64		last = pg_atomic_read_u64(&ps_shared->event_id);
	uint64		id;

	if (last == 0)
	{
		uint64		stored = Max(last_id(), 1);

		if (pg_atomic_compare_exchange_u64(&ps_shared->event_id, &last, stored))
			last = stored;
	}
	do
		id = Max(last, floor) + 1;
	while (!pg_atomic_compare_exchange_u64(&ps_shared->event_id, &last, id));
	return (int64) id;
}

void
ps_event_write(const char *kind, uint32 node, TimestampTz since, const char *detail)
{
	ps_event_write_span(kind, node, since, 0, NULL, 0, detail);
}

void
ps_event_write_span(const char *kind, uint32 node, TimestampTz since, TimestampTz until,
					const int *shards, int n, const char *detail)
{
	Oid			types[8] = {INT4OID, TEXTOID, INT4OID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID,
	INT4ARRAYOID, INT8OID};
	Datum		values[8];
	char		nulls[8] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};

	if (ps_map_self() == 0)
		return;
	values[0] = Int32GetDatum(ps_map_self());
	values[1] = CStringGetTextDatum(kind);
	values[2] = Int32GetDatum(node);
	values[3] = TimestampTzGetDatum(since);
	nulls[3] = since == 0 ? 'n' : ' ';
	values[4] = detail ? CStringGetTextDatum(detail) : (Datum) 0;
	nulls[4] = detail ? ' ' : 'n';
	values[5] = TimestampTzGetDatum(until);
	nulls[5] = until == 0 ? 'n' : ' ';
	values[6] = n > 0 ? int_array(shards, n) : (Datum) 0;
	nulls[6] = n > 0 ? ' ' : 'n';
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	values[7] = Int64GetDatum(next_id());
	SPI_execute_with_args("INSERT INTO payshard.event_log (observer, kind, node, since, detail, until, shards, id) "
						  "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", 8, types, values, nulls, false, 0);
	PopActiveSnapshot();
	SPI_finish();
}
