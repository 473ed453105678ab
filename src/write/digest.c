/*
 * digest.c
 *		Are two placements of a shard equal?
 *
 * Reads tables directly: no row security, no triggers, no planner.  What the
 * two placements are compared at (one decided seq) is the caller's business;
 * here only the active snapshot counts.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "node/relation.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "write/digest.h"
#include "write/row.h"

static const uint64 lane_seed[2] = {
	UINT64CONST(0x9e3779b97f4a7c15),
	UINT64CONST(0xd1b54a32d192ed03),
};

static void
add_row(PsDigest *digest, uint32 table_id, StringInfo row)
{
	for (int lane = 0; lane < 2; lane++)
		digest->sum[lane] += hash_bytes_extended((const unsigned char *) row->data, row->len,
												 lane_seed[lane] ^ table_id);
	digest->rows++;
}

void
ps_digest_partition(Oid relid, PsDigest *out)
{
	Relation	rel = table_open(relid, AccessShareLock);
	const PsRowFormat *format = ps_row_format(rel);
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "payshard digest",
												  ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *slot;
	TableScanDesc scan;

	if (format->shard < 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a partition of a distributed table", RelationGetRelationName(rel))));
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, GetActiveSnapshot(), 0, NULL);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(per_row);
		StringInfoData row;

		CHECK_FOR_INTERRUPTS();
		initStringInfo(&row);
		ps_row_put(&row, format, slot);
		add_row(out, format->table_id, &row);
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(per_row);
	table_close(rel, AccessShareLock);
}

Oid *
ps_digest_tables(int *n)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid		   *tables;
	bool		isnull;

	SPI_connect();
	SPI_execute("SELECT relid FROM payshard.distributed_table ORDER BY table_id", true, 0);
	*n = SPI_processed;
	tables = MemoryContextAlloc(caller, sizeof(Oid) * (*n + 1));
	for (int i = 0; i < *n; i++)
		tables[i] = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
												   SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return tables;
}

void
ps_digest_shard(int shard, PsDigest *out)
{
	int			n;
	Oid		   *tables = ps_digest_tables(&n);

	memset(out, 0, sizeof(PsDigest));
	for (int i = 0; i < n; i++)
		ps_digest_partition(ps_relation_partition(tables[i], shard), out);
	pfree(tables);
}

bool
ps_digest_equal(const PsDigest *a, const PsDigest *b)
{
	return a->rows == b->rows && a->sum[0] == b->sum[0] && a->sum[1] == b->sum[1];
}

void
ps_digest_text(const PsDigest *digest, char *text)
{
	snprintf(text, PS_DIGEST_TEXT_BYTES, "%016llx%016llx",
			 (unsigned long long) digest->sum[0], (unsigned long long) digest->sum[1]);
}
