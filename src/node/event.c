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
#include "utils/builtins.h"
#include "utils/snapmgr.h"

void
ps_event_write(const char *kind, uint32 node, TimestampTz since, const char *detail)
{
	Oid			types[5] = {INT4OID, TEXTOID, INT4OID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[5];
	char		nulls[5] = {' ', ' ', ' ', ' ', ' '};

	if (ps_map_self() == 0)
		return;
	values[0] = Int32GetDatum(ps_map_self());
	values[1] = CStringGetTextDatum(kind);
	values[2] = Int32GetDatum(node);
	values[3] = TimestampTzGetDatum(since);
	nulls[3] = since == 0 ? 'n' : ' ';
	values[4] = detail ? CStringGetTextDatum(detail) : (Datum) 0;
	nulls[4] = detail ? ' ' : 'n';
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("INSERT INTO payshard.event_log (observer, kind, node, since, detail) "
						  "VALUES ($1, $2, $3, $4, $5)", 5, types, values, nulls, false, 0);
	PopActiveSnapshot();
	SPI_finish();
}
