/*
 * divergent.c
 *		Which rows of this node were not as their primary had them, and what
 *		were they (J4)?
 *
 * A full copy deletes a shard's rows and inserts the primary's, in one
 * transaction.  To that transaction both are there still: a snapshot of the command
 * that began to delete shows what was, its newest shows what came.  What was and did
 * not come again as it was is kept.  The primary has the keys deleted before that
 * of which it knows that they are out of date here: those are no divergence.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "node/event.h"
#include "node/map.h"
#include "node/relation.h"
#include "storage/proc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "write/digest.h"
#include "write/divergent.h"
#include "write/pin.h"
#include "write/row.h"

/* The command of this transaction that began to delete a shard. */
static LocalTransactionId truncated_in = InvalidLocalTransactionId;
static bool is_truncated[PS_SHARDS_MAX];
static CommandId truncated_at[PS_SHARDS_MAX];

/* Of one shard. */
typedef struct Found
{
	long		kept;
	long		more;			/* not kept, there are too many */
} Found;

/* The row as json: a name for each value. */
static Datum
as_json(TupleTableSlot *slot)
{
	int			nest = ps_pin_settings();
	Datum		json = OidFunctionCall1(F_ROW_TO_JSON_RECORD, ExecFetchSlotHeapTupleDatum(slot));

	AtEOXact_GUC(true, nest);
	return json;
}

static Datum
as_hex(const PsRowFormat *format, TupleTableSlot *slot)
{
	StringInfoData bytes;

	initStringInfo(&bytes);
	ps_row_put(&bytes, format, slot);
	return DirectFunctionCall2(binary_encode,
							   PointerGetDatum(cstring_to_text_with_len(bytes.data, bytes.len)),
							   CStringGetTextDatum("hex"));
}

bool
ps_divergent_keep(const PsRowFormat *format, const char *what, TupleTableSlot *found)
{
	Oid			types[6] = {INT8OID, INT4OID, TEXTOID, TEXTOID, JSONOID, INT4OID};
	Datum		values[6] = {0};
	char		nulls[6] = {' ', ' ', ' ', 'n', 'n', ' '};
	bool		kept;

	values[0] = Int64GetDatum(format->table_id);
	values[1] = Int32GetDatum(format->shard);
	values[2] = CStringGetTextDatum(what);
	values[5] = Int32GetDatum(PS_DIVERGENT_ROWS_MAX);
	if (found)
	{
		values[3] = as_hex(format, found);
		values[4] = as_json(found);
		nulls[3] = nulls[4] = ' ';
	}
	SPI_connect();
	SPI_execute_with_args("INSERT INTO payshard.divergent_rows (table_id, shard, what, found, found_json) "
						  "SELECT $1, $2, $3, $4, $5 WHERE $6 > (SELECT count(*) FROM "
						  "(SELECT FROM payshard.divergent_rows WHERE shard = $2 LIMIT $6) AS d)",
						  6, types, values, nulls, false, 0);
	kept = SPI_processed == 1;
	SPI_finish();
	return kept;
}

void
ps_divergent_truncated(int shard)
{
	if (truncated_in != MyProc->lxid)
		memset(is_truncated, 0, sizeof(is_truncated));
	truncated_in = MyProc->lxid;
	if (shard < 0 || shard >= PS_SHARDS_MAX || is_truncated[shard])
		return;
	is_truncated[shard] = true;
	truncated_at[shard] = GetCurrentCommandId(true);
}

/* One row that was here: is it what the index finds now? */
static void
compare_row(const PsRowFormat *format, TupleTableSlot *was, IndexScanDesc scan, TupleTableSlot *is,
			Found *found)
{
	ScanKeyData keys[INDEX_MAX_KEYS];
	StringInfoData old_row;
	StringInfoData new_row;
	bool		is_there;

	slot_getallattrs(was);
	ps_row_scan_keys(keys, scan->indexRelation, format, was);
	index_rescan(scan, keys, format->n_key, NULL, 0);
	is_there = index_getnext_slot(scan, ForwardScanDirection, is);
	if (is_there)
	{
		initStringInfo(&old_row);
		initStringInfo(&new_row);
		ps_row_put(&old_row, format, was);
		ps_row_put(&new_row, format, is);
		if (old_row.len == new_row.len && memcmp(old_row.data, new_row.data, old_row.len) == 0)
			return;
	}
	if (found->more == 0 &&
		ps_divergent_keep(format, is_there ? "its primary had another row of this key" :
						  "its primary had no row of this key", was))
		found->kept++;
	else
		found->more++;
}

/* One partition; the active snapshot shows what was. */
static void
compare_partition(Oid relid, Found *found)
{
	Relation	rel = table_open(relid, AccessShareLock);
	const PsRowFormat *format = ps_row_format(rel);
	Relation	index = index_open(format->key_index, AccessShareLock);
	Snapshot	now = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *was = table_slot_create(rel, NULL);
	TupleTableSlot *is = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	IndexScanDesc index_scan = ps_index_beginscan(rel, index, now, format->n_key);
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "payshard divergent rows",
												  ALLOCSET_DEFAULT_SIZES);

	while (table_scan_getnextslot(scan, ForwardScanDirection, was))
	{
		MemoryContext old = MemoryContextSwitchTo(per_row);

		CHECK_FOR_INTERRUPTS();
		compare_row(format, was, index_scan, is, found);
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
	}
	index_endscan(index_scan);
	table_endscan(scan);
	UnregisterSnapshot(now);
	ExecDropSingleTupleTableSlot(was);
	ExecDropSingleTupleTableSlot(is);
	MemoryContextDelete(per_row);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

static void
say(int shard, const Found *found)
{
	char	   *detail = psprintf("shard %d: %ld rows that its primary did not have are kept in payshard.divergent_rows, "
								  "%ld more are not (the limit is %d)",
								  shard, found->kept, found->more, PS_DIVERGENT_ROWS_MAX);

	ps_event_write("divergence", ps_map_self(), 0, detail);
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("payshard: rows of shard %d were not as their primary has them", shard),
			 errdetail("%ld rows are kept, %ld more are not; the limit for each shard is %d.",
					   found->kept, found->more, PS_DIVERGENT_ROWS_MAX),
			 errhint("They are put right; see payshard.divergent_rows.")));
}

void
ps_divergent_compare(const int *shards, int n)
{
	int			n_tables;
	Oid		   *tables = ps_digest_tables(&n_tables);

	for (int i = 0; i < n; i++)
	{
		int			shard = shards[i];
		Found		found = {0};

		if (truncated_in != MyProc->lxid || !is_truncated[shard])
			continue;
		PushCopiedSnapshot(GetLatestSnapshot());
		GetActiveSnapshot()->curcid = truncated_at[shard];
		for (int t = 0; t < n_tables; t++)
			compare_partition(ps_relation_partition(tables[t], shard), &found);
		PopActiveSnapshot();
		if (found.kept > 0 || found.more > 0)
			say(shard, &found);
	}
	pfree(tables);
}
