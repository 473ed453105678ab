/*
 * relation.c
 *		Which shard of which distributed table is this relation?
 *
 * Answers come from payshard.distributed_table and the server's own catalog
 * of partitions, and are kept per process, one entry per relation asked for,
 * "no" included.  The relcache callback drops an entry when its relation
 * changes; whoever changes a row of payshard.distributed_table invalidates the
 * table and its partitions (route/distribute.c).
 *
 * An answer that was read while invalidations came in is given out once and
 * not kept: it may be older than the change that invalidated it.
 *
 * Shards are remainders of the hash partitions.  The key columns are those of
 * the partition key, by number in the relation at hand: a partition that was
 * made after a column was dropped numbers its columns differently.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "ground/base.h"
#include "node/relation.h"
#include "node/tables.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Columns of payshard.distributed_table. */
#define ANUM_TABLE_ID 1
#define ANUM_RELID 2

typedef struct Entry
{
	PsRelation	relation;		/* begins with the hash key */
	bool		valid;			/* else to be read again */
	int			n_shards;		/* of the table; 0 for a partition */
	Oid		   *partitions;		/* n_shards oids by shard, InvalidOid = none;
								 * NULL for a partition */
} Entry;

/* table_id -> oid; a hint, checked against the entry of that oid. */
typedef struct ById
{
	uint32		table_id;		/* hash key */
	Oid			relid;
} ById;

static HTAB *entries = NULL;
static HTAB *by_id = NULL;
static uint64 invalidations = 0;

/* No catalog access here: runs amid the reading of invalidations. */
static void
forget(Datum arg, Oid relid)
{
	Entry	   *entry;

	invalidations++;
	if (OidIsValid(relid))
	{
		entry = hash_search(entries, &relid, HASH_FIND, NULL);
		if (entry && entry->relation.is_distributed)
			entry->valid = false;	/* callers may hold a pointer */
		else if (entry)
			hash_search(entries, &relid, HASH_REMOVE, NULL);
	}
	else
	{
		HASH_SEQ_STATUS seq;

		hash_seq_init(&seq, entries);
		while ((entry = hash_seq_search(&seq)) != NULL)
			entry->valid = false;
	}
}

static void
make_caches(void)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(uint32);
	control.entrysize = sizeof(ById);
	by_id = hash_create("payshard tables by id", 64, &control, HASH_ELEM | HASH_BLOBS);
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(Entry);
	entries = hash_create("payshard relations", 256, &control, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(forget, (Datum) 0);
}

/*
 * The row of payshard.distributed_table in which `column` is `key`; false when
 * there is none, or no such table in this database (yet).
 */
static bool
read_row(AttrNumber column, RegProcedure equals, Datum key, uint32 *table_id, Oid *relid)
{
	Oid			schema = get_namespace_oid(PS_SCHEMA, true);
	Oid			table = OidIsValid(schema) ? get_relname_relid("distributed_table", schema) : InvalidOid;
	Oid			index;
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData scankey;
	HeapTuple	tuple;
	bool		found;

	if (!OidIsValid(table) || !ps_extension_exists())
		return false;
	rel = table_open(table, AccessShareLock);
	index = get_relname_relid(column == ANUM_RELID ? "distributed_table_relid_key" :
							  "distributed_table_pkey", schema);
	ScanKeyInit(&scankey, column, BTEqualStrategyNumber, equals, key);
	/* NULL: a new catalog snapshot, which sees this transaction's commands */
	scan = systable_beginscan(rel, index, OidIsValid(index), NULL, 1, &scankey);
	tuple = systable_getnext(scan);
	found = HeapTupleIsValid(tuple);
	if (found)
	{
		bool		isnull;

		*table_id = (uint32) DatumGetInt64(heap_getattr(tuple, ANUM_TABLE_ID,
														RelationGetDescr(rel), &isnull));
		*relid = DatumGetObjectId(heap_getattr(tuple, ANUM_RELID, RelationGetDescr(rel), &isnull));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

/* Fills the entry of a distributed table itself. */
static bool
load_table(Entry *entry)
{
	Oid			relid = entry->relation.relid;
	Oid			same;
	Relation	rel;
	PartitionKey key;
	PartitionDesc desc;

	if (!read_row(ANUM_RELID, F_OIDEQ, ObjectIdGetDatum(relid), &entry->relation.table_id, &same))
		return false;
	rel = RelationIdGetRelation(relid);
	if (rel == NULL)
		return false;
	key = RelationGetPartitionKey(rel);
	desc = key ? RelationGetPartitionDesc(rel, true) : NULL;
	if (desc && desc->boundinfo && key->strategy == PARTITION_STRATEGY_HASH &&
		key->partnatts <= PS_KEY_COLUMNS_MAX)
	{
		entry->relation.is_distributed = true;
		entry->relation.parent = relid;
		entry->relation.shard = -1;
		entry->relation.n_key = key->partnatts;
		memcpy(entry->relation.key, key->partattrs, key->partnatts * sizeof(AttrNumber));
		entry->n_shards = desc->boundinfo->nindexes;
		entry->partitions = MemoryContextAllocZero(TopMemoryContext, entry->n_shards * sizeof(Oid));
		for (int i = 0; i < entry->n_shards; i++)
			if (desc->boundinfo->indexes[i] >= 0)
				entry->partitions[i] = desc->oids[desc->boundinfo->indexes[i]];
	}
	RelationClose(rel);
	return entry->relation.is_distributed;
}

/* Fills the entry of a partition of a distributed table. */
static bool
load_partition(Entry *entry)
{
	Oid			relid = entry->relation.relid;
	Oid			parent = get_partition_parent(relid, true);
	const PsRelation *table = ps_relation(parent);
	const Entry *of_table = (const Entry *) table;

	if (table == NULL || table->shard != -1)
		return false;
	entry->relation.shard = -1;
	for (int i = 0; i < of_table->n_shards; i++)
		if (of_table->partitions[i] == relid)
			entry->relation.shard = i;
	if (entry->relation.shard == -1)
		return false;
	entry->relation.is_distributed = true;
	entry->relation.parent = parent;
	entry->relation.table_id = table->table_id;
	entry->relation.n_key = table->n_key;
	for (int i = 0; i < table->n_key; i++)
		entry->relation.key[i] = get_attnum(relid, get_attname(parent, table->key[i], false));
	return true;
}

/* Reads an entry from the catalog. */
static void
load(Oid relid, Entry *entry)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	char		kind = RELKIND_INDEX;
	bool		is_partition = false;

	memset(entry, 0, sizeof(Entry));
	entry->relation.relid = relid;
	if (HeapTupleIsValid(tuple))
	{
		kind = ((Form_pg_class) GETSTRUCT(tuple))->relkind;
		is_partition = ((Form_pg_class) GETSTRUCT(tuple))->relispartition;
		ReleaseSysCache(tuple);
	}
	if (kind == RELKIND_RELATION && is_partition)
		load_partition(entry);
	else if (kind == RELKIND_PARTITIONED_TABLE && !is_partition)
		load_table(entry);
}

const PsRelation *
ps_relation(Oid relid)
{
	Entry	   *entry;
	Entry		fresh;
	uint64		before;
	bool		found;

	if (relid < FirstNormalObjectId)
		return NULL;
	if (entries == NULL)
		make_caches();
	entry = hash_search(entries, &relid, HASH_FIND, NULL);
	if (entry && entry->valid)
		return entry->relation.is_distributed ? &entry->relation : NULL;

	before = invalidations;
	load(relid, &fresh);
	entry = hash_search(entries, &relid, HASH_ENTER, &found);
	if (found && entry->partitions)
		pfree(entry->partitions);
	*entry = fresh;
	entry->valid = before == invalidations;
	return entry->relation.is_distributed ? &entry->relation : NULL;
}

Oid
ps_relation_partition(Oid parent, int shard)
{
	const PsRelation *table = ps_relation(parent);
	const Entry *entry = (const Entry *) table;
	Oid			partition = InvalidOid;

	if (table && table->shard == -1 && shard >= 0 && shard < entry->n_shards)
		partition = entry->partitions[shard];
	if (!OidIsValid(partition))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation %u has no partition for shard %d", parent, shard),
				 errhint("The table was dropped or changed meanwhile; retry.")));
	return partition;
}

Oid
ps_relation_by_id(uint32 table_id)
{
	ById	   *hint;
	const PsRelation *table;
	uint32		same;
	Oid			relid;

	if (entries == NULL)
		make_caches();
	hint = hash_search(by_id, &table_id, HASH_FIND, NULL);
	table = hint ? ps_relation(hint->relid) : NULL;
	if (table && table->shard == -1 && table->table_id == table_id)
		return hint->relid;
	if (!read_row(ANUM_TABLE_ID, F_INT8EQ, Int64GetDatum(table_id), &same, &relid))
		return InvalidOid;
	hint = hash_search(by_id, &table_id, HASH_ENTER, NULL);
	hint->relid = relid;
	return relid;
}

int
ps_relation_shard(Oid parent, const Datum *values, const bool *nulls)
{
	Relation	rel = RelationIdGetRelation(parent);
	PartitionKey key = rel ? RelationGetPartitionKey(rel) : NULL;
	const Entry *entry = (const Entry *) ps_relation(parent);
	uint64		hash;

	if (key == NULL || entry == NULL || entry->relation.shard != -1)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("relation %u is not a distributed table", parent)));
	hash = compute_partition_hash_value(key->partnatts, key->partsupfunc, key->partcollation,
										(Datum *) values, (bool *) nulls);
	RelationClose(rel);
	return (int) (hash % (uint64) entry->n_shards);
}
