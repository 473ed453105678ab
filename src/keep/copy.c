/*
 * copy.c
 *		Which rows does a joining placement need, and how do they get there
 *		(J3)?
 *
 * Keys: those this primary has recorded as dirty for the node (J1), and those
 * the node itself names: its unapplied tail and what it skipped while it was
 * out (J2).  For each shard first all keys are deleted over there, then the rows
 * that exist in the snapshot are inserted: row by row, a unique index could
 * meet a value that has moved from one key to another.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/relscan.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "ground/wire.h"
#include "keep/copy.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/relation.h"
#include "node/settings.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "write/row.h"

#define PS_COPY_TIMEOUT_MS 600000
#define PS_COPY_NAP_MS 1000

typedef struct CopyKey
{
	int			shard;
	uint32		table_id;		/* 0 = all of the shard */
	uint32		bytes;
	const char *key;
} CopyKey;

typedef struct Copy
{
	const PsCopyOrder *order;
	CopyKey    *keys;			/* sorted, each once */
	long		n_keys;
	long		keys_size;
	StringInfoData ops;			/* to be sent */
	MemoryContext scratch;		/* of one row or message */
	PsTime		begun;
	uint64		bytes;			/* sent since */
	PsCopyStats *stats;
} Copy;

char *
ps_int_array(const int *values, int n)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfoChar(&buf, '{');
	for (int i = 0; i < n; i++)
		appendStringInfo(&buf, "%s%d", i > 0 ? "," : "", values[i]);
	appendStringInfoChar(&buf, '}');
	return buf.data;
}

static PGresult *
call(Copy *copy, const char *sql, int n_args, PsArg *args)
{
	PGresult *result =
		ps_conn_call(copy->order->conn, sql, n_args, args, false, ps_deadline(PS_COPY_TIMEOUT_MS));

	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK)
		ps_conn_throw(result, copy->order->conn, copy->order->name, sql);
	return result;
}

/*
 * Waits as long as what is sent should have taken; between messages, so that it
 * may be interrupted, and a changed setting is heeded.
 */
static void
slow_down(Copy *copy)
{
	for (;;)
	{
		int64		due_us;
		int64		left_ms;

		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		CHECK_FOR_INTERRUPTS();
		copy->order->look();
		if (!copy->order->full || ps_copy_rate_kb == 0)
			return;
		due_us = (int64) (copy->bytes * 1000000.0 / (ps_copy_rate_kb * 1024.0));
		left_ms = (copy->begun + due_us - ps_now()) / 1000;
		if (left_ms <= 0)
			return;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 (long) Min(left_ms, PS_COPY_NAP_MS), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		/* the node would take us for gone (rejoin.c) */
		if (left_ms >= PS_COPY_NAP_MS)
			PQclear(call(copy, "SELECT 1", 0, NULL));
	}
}

/* Resets `scratch`. */
static void
flush_ops(Copy *copy)
{
	MemoryContext old = MemoryContextSwitchTo(copy->scratch);

	if (copy->ops.len > 0)
	{
		PsArg		arg;

		copy->bytes += copy->ops.len;
		ps_seal(&copy->ops);
		arg = ps_arg_bytes(copy->ops.data, copy->ops.len);
		PQclear(call(copy, "SELECT payshard.peer_copy($1)", 1, &arg));
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(copy->scratch);
	resetStringInfo(&copy->ops);
	slow_down(copy);
}

static void
flush_if_large(Copy *copy)
{
	if (copy->ops.len > ps_copy_batch_kb * 1024)
		flush_ops(copy);
}

static void
add_key(Copy *copy, int shard, uint32 table_id, const char *key, size_t bytes)
{
	CopyKey    *entry;

	if (copy->n_keys == copy->keys_size)
	{
		copy->keys_size = Max(1024, copy->keys_size * 2);
		copy->keys = copy->keys ?
			repalloc_huge(copy->keys, sizeof(CopyKey) * copy->keys_size) :
			palloc(sizeof(CopyKey) * copy->keys_size);
	}
	entry = &copy->keys[copy->n_keys++];
	entry->shard = shard;
	entry->table_id = table_id;
	entry->bytes = bytes;
	entry->key = memcpy(palloc(bytes + 1), key, bytes);
}

/* The keys this primary knows. */
static void
take_own_keys(Copy *copy, const char *shards)
{
	char	   *sql = psprintf("SELECT shard, table_id, key FROM payshard.dirty_key "
							   "WHERE node = %u AND shard = ANY ('%s')", copy->order->node, shards);
	MemoryContext caller = CurrentMemoryContext;
	bool		isnull;

	SPI_connect();
	SPI_execute(sql, true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bytea	   *key = DatumGetByteaPP(SPI_getbinval(row, desc, 3, &isnull));
		MemoryContext spi = MemoryContextSwitchTo(caller);

		add_key(copy, DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull)),
				(uint32) DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull)),
				VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
}

/* The keys the node names. */
static void
take_its_keys(Copy *copy, const char *shards)
{
	PsArg		arg = ps_arg_text(shards);
	PGresult   *result = call(copy, "SELECT shard, table_id, key FROM payshard.peer_join_keys($1::int[])", 1, &arg);

	for (int i = 0; i < PQntuples(result); i++)
	{
		size_t		bytes;
		char	   *key = ps_result_bytes(result, i, 2, &bytes);

		add_key(copy, (int) ps_result_int8(result, i, 0), (uint32) ps_result_int8(result, i, 1),
				key, bytes);
	}
	PQclear(result);
}

static int
compare_keys(const void *a, const void *b)
{
	const CopyKey *x = a;
	const CopyKey *y = b;
	int			c;

	if (x->shard != y->shard)
		return x->shard < y->shard ? -1 : 1;
	if (x->table_id != y->table_id)
		return x->table_id < y->table_id ? -1 : 1;
	c = memcmp(x->key, y->key, Min(x->bytes, y->bytes));
	if (c != 0)
		return c;
	return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static void
sort_keys(Copy *copy)
{
	long		n = 0;

	if (copy->n_keys == 0)
		return;
	qsort(copy->keys, copy->n_keys, sizeof(CopyKey), compare_keys);
	for (long i = 0; i < copy->n_keys; i++)
		if (n == 0 || compare_keys(&copy->keys[n - 1], &copy->keys[i]) != 0)
			copy->keys[n++] = copy->keys[i];
	copy->n_keys = n;
}

/* Ids of all distributed tables here. */
static List *
all_tables(void)
{
	List	   *tables = NIL;
	MemoryContext caller = CurrentMemoryContext;
	bool		isnull;

	SPI_connect();
	SPI_execute("SELECT table_id FROM payshard.distributed_table ORDER BY 1", true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int64 id =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
		MemoryContext spi = MemoryContextSwitchTo(caller);

		tables = lappend_oid(tables, (Oid) id);
		MemoryContextSwitchTo(spi);
	}
	SPI_finish();
	return tables;
}

/* Resets `scratch`. */
static void
put_insert(Copy *copy, const PsRowFormat *format, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(copy->scratch);

	ps_op_begin(&copy->ops, PS_OP_INSERT, format->table_id, format->shard);
	ps_row_put(&copy->ops, format, slot);
	MemoryContextSwitchTo(old);
	MemoryContextReset(copy->scratch);
	copy->stats->rows++;
	flush_if_large(copy);
}

/* All rows of one table's partition. */
static void
copy_whole_table(Copy *copy, uint32 table_id, int shard)
{
	Relation rel =
		table_open(ps_relation_partition(ps_relation_by_id(table_id), shard), AccessShareLock);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);

	ps_op_begin(&copy->ops, PS_OP_TRUNCATE, table_id, shard);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		put_insert(copy, ps_row_format(rel), slot);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

/* The rows of keys [from, to) of one table's partition. */
static void
copy_keys(Copy *copy, long from, long to)
{
	Relation	rel = table_open(ps_relation_partition(ps_relation_by_id(copy->keys[from].table_id),
													   copy->keys[from].shard), AccessShareLock);
	const PsRowFormat *format = ps_row_format(rel);
	Relation	index = index_open(format->key_index, AccessShareLock);
	TupleTableSlot *key = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	TupleTableSlot *row = table_slot_create(rel, NULL);
	IndexScanDesc scan = ps_index_beginscan(rel, index, GetActiveSnapshot(), format->n_key);
	ScanKeyData keys[INDEX_MAX_KEYS];

	for (long i = from; i < to; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(copy->scratch);

		ps_row_get_key(format, (const uint8 *) copy->keys[i].key, copy->keys[i].bytes, key);
		MemoryContextSwitchTo(old);
		ps_row_scan_keys(keys, index, format, key);
		index_rescan(scan, keys, format->n_key, NULL, 0);
		if (index_getnext_slot(scan, ForwardScanDirection, row))
			put_insert(copy, format, row);
		ExecClearTuple(key);
		MemoryContextReset(copy->scratch);
	}
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(key);
	ExecDropSingleTupleTableSlot(row);
	index_close(index, AccessShareLock);
	table_close(rel, AccessShareLock);
}

/* One shard, whose keys are [from, to). */
static void
copy_shard(Copy *copy, int shard, long from, long to, bool full, List *tables)
{
	ListCell   *cell;

	/* before a full copy, too: what then is there still, and different, has diverged */
	for (long i = from; i < to && copy->n_keys <= ps_dirty_keys_max; i++)
	{
		if (copy->keys[i].table_id == 0 || !OidIsValid(ps_relation_by_id(copy->keys[i].table_id)))
			continue;
		ps_op_begin(&copy->ops, PS_OP_DELETE, copy->keys[i].table_id, shard);
		appendBinaryStringInfo(&copy->ops, copy->keys[i].key, copy->keys[i].bytes);
		flush_if_large(copy);
	}
	if (full)
	{
		foreach(cell, tables)
			copy_whole_table(copy, lfirst_oid(cell), shard);
		copy->stats->full_shards++;
		return;
	}
	while (from < to)
	{
		long		end = from;

		while (end < to && copy->keys[end].table_id == copy->keys[from].table_id)
			end++;
		if (OidIsValid(ps_relation_by_id(copy->keys[from].table_id)))
			copy_keys(copy, from, end);
		from = end;
	}
}

/* Dirty keys of other nodes that are out go along (J3). */
static void
hand_over_dirty_keys(Copy *copy, const char *shards)
{
	char	   *sql = psprintf("SELECT node, shard, table_id, key FROM payshard.dirty_key "
							   "WHERE node <> %u AND shard = ANY ('%s') ORDER BY node", copy->order->node, shards);
	bool		isnull;

	SPI_connect();
	SPI_execute(sql, true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		bytea	   *key = DatumGetByteaPP(SPI_getbinval(row, desc, 4, &isnull));
		PsArg		args[4];

		args[0] = ps_arg_int8(DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull)));
		args[1] = ps_arg_int8(DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull)));
		args[2] = ps_arg_int8(DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull)));
		args[3] = ps_arg_bytes(VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
		PQclear(call(copy, "SELECT payshard.peer_take_dirty($1::int, $2::int, $3, $4)", 4, args));
	}
	SPI_finish();
}

void
ps_copy_shards(const PsCopyOrder *order, PsCopyStats *stats)
{
	Copy		copy = {.order = order, .stats = stats};
	const int  *shards = order->shards;
	char	   *array = ps_int_array(shards, order->n_shards);
	List	   *tables = all_tables();
	bool		too_many;

	initStringInfo(&copy.ops);
	copy.begun = ps_now();
	copy.scratch = AllocSetContextCreate(CurrentMemoryContext, "payshard copy", ALLOCSET_DEFAULT_SIZES);
	take_own_keys(&copy, array);
	take_its_keys(&copy, array);
	sort_keys(&copy);
	stats->keys = copy.n_keys;
	too_many = copy.n_keys > ps_dirty_keys_max;
	for (int i = 0; i < order->n_shards; i++)
	{
		long		from = 0;
		long		to;
		long		rows = stats->rows;
		uint64		bytes = copy.bytes + copy.ops.len;

		while (from < copy.n_keys && copy.keys[from].shard != shards[i])
			from++;
		to = from;
		while (to < copy.n_keys && copy.keys[to].shard == shards[i])
			to++;
		copy_shard(&copy, shards[i], from, to,
				   order->full || too_many || (from < to && copy.keys[from].table_id == 0), tables);
		stats->shard_rows[i] = stats->rows - rows;
		stats->shard_bytes[i] = copy.bytes + copy.ops.len - bytes;
	}
	flush_ops(&copy);
	hand_over_dirty_keys(&copy, array);
}
