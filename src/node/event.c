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

void
ps_event_write(const char *kind, uint32 node, TimestampTz since, const char *detail)
{
	ps_event_write_span(kind, node, since, 0, NULL, 0, detail);
}

void
ps_event_write_span(const char *kind, uint32 node, TimestampTz since, TimestampTz until,
					const int *shards, int n, const char *detail)
{
	Oid			types[7] = {INT4OID, TEXTOID, INT4OID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID,
	INT4ARRAYOID};
	Datum		values[7];
	char		nulls[7] = {' ', ' ', ' ', ' ', ' ', ' ', ' '};

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
	SPI_execute_with_args("INSERT INTO payshard.event_log (observer, kind, node, since, detail, until, shards) "
						  "VALUES ($1, $2, $3, $4, $5, $6, $7)", 7, types, values, nulls, false, 0);
	PopActiveSnapshot();
	SPI_finish();
}
