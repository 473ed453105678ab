/*
 * target.c
 *		How is a row changed here as it was changed elsewhere?
 *
 * The server's own routines for logical replication (execReplication.c) find
 * and change rows by the primary key's index, with all indexes and constraints.
 * Triggers do not fire: what they did on the primary has been captured there.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "compat.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "node/map.h"
#include "node/relation.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "write/divergent.h"
#include "write/row.h"
#include "write/target.h"

#define PS_LOCK_WAIT_MS 1000	/* longest wait for a lock of a user at a time */

/* One open partition. */
typedef struct Target
{
	uint32		table_id;
	int			shard;
	Relation	rel;
	const PsRowFormat *format;
	ResultRelInfo *result;
	TupleTableSlot *row;		/* as it should be; virtual */
	TupleTableSlot *key;		/* to search for; virtual */
	TupleTableSlot *found;
} Target;

struct PsTargets
{
	MemoryContext context;		/* of this struct: the transaction's */
	bool		may_wait;		/* for a lock that somebody else holds */
	bool		is_again;		/* what is changed may have been changed so before */
	EState	   *estate;
	List	   *open;			/* Target */
	Target	   *last;			/* used last: the likely next */
};

/* The partition that was last found locked; see ps_targets_begin. */
static Oid	locked_partition = InvalidOid;

Oid
ps_target_locked(void)
{
	Oid			relid = locked_partition;

	locked_partition = InvalidOid;
	return relid;
}

void
ps_target_await(Oid relid)
{
	int			before = LockTimeout;

	LockTimeout = PS_LOCK_WAIT_MS;
	PG_TRY();
	{
		LockRelationOid(relid, RowExclusiveLock);
	}
	PG_FINALLY();
	{
		LockTimeout = before;
	}
	PG_END_TRY();
}

PsTargets *
ps_targets_begin(bool may_wait)
{
	PsTargets  *targets = palloc0(sizeof(PsTargets));

	targets->context = CurrentMemoryContext;
	targets->may_wait = may_wait;
	targets->estate = CreateExecutorState();
	PushActiveSnapshot(GetTransactionSnapshot());
	return targets;
}

static void
close_target(Target *target)
{
	ExecCloseIndices(target->result);
	ExecDropSingleTupleTableSlot(target->row);
	ExecDropSingleTupleTableSlot(target->key);
	ExecDropSingleTupleTableSlot(target->found);
	table_close(target->rel, NoLock);
}

void
ps_targets_end(PsTargets *targets)
{
	ListCell   *cell;

	foreach(cell, targets->open)
		close_target(lfirst(cell));
	FreeExecutorState(targets->estate);
	PopActiveSnapshot();
	CommandCounterIncrement();
}

static void
lock_table(const PsTargets *targets, Oid relid, LOCKMODE mode)
{
	if (targets->may_wait)
		LockRelationOid(relid, mode);
	else if (!ConditionalLockRelationOid(relid, mode))
	{
		locked_partition = relid;
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("payshard cannot apply changes to \"%s\" now", get_rel_name(relid)),
				 errdetail("A transaction on this node holds a lock of the table."),
				 errhint("It is tried again. See pg_locks for who holds it.")));
	}
}

/*
 * The table first, as DDL does: its bounds are read for each row, and who waited for
 * it then, with the partition locked, would be in a deadlock with DDL.
 */
static Relation
open_partition(const PsTargets *targets, Oid parent, Oid partition)
{
	lock_table(targets, parent, AccessShareLock);
	lock_table(targets, partition, RowExclusiveLock);
	return table_open(partition, NoLock);
}

/* Opens the partition of a table for a shard; NULL when it is not here. */
static Target *
open_target(PsTargets *targets, uint32 table_id, int shard)
{
	MemoryContext old;
	Target	   *target;
	Oid			parent = ps_relation_by_id(table_id);
	TupleDesc	desc;

	if (!OidIsValid(parent))
		return NULL;
	old = MemoryContextSwitchTo(targets->context);
	target = palloc0(sizeof(Target));
	target->table_id = table_id;
	target->shard = shard;
	target->rel = open_partition(targets, parent, ps_relation_partition(parent, shard));
	target->format = ps_row_format(target->rel);
	desc = RelationGetDescr(target->rel);
	target->result = makeNode(ResultRelInfo);
	InitResultRelInfo(target->result, target->rel, 0, NULL, 0);	/* 0: no range table */
	target->result->ri_TrigDesc = NULL;
	ExecOpenIndices(target->result, false);
	target->row = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	target->key = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	target->found = table_slot_create(target->rel, NULL);
	targets->open = lappend(targets->open, target);
	MemoryContextSwitchTo(old);
	return target;
}

static Target *
get_target(PsTargets *targets, uint32 table_id, int shard)
{
	ListCell   *cell;

	if (targets->last && targets->last->table_id == table_id && targets->last->shard == shard)
		return targets->last;
	foreach(cell, targets->open)
	{
		Target	   *target = lfirst(cell);

		if (target->table_id == table_id && target->shard == shard)
			return targets->last = target;
	}
	return targets->last = open_target(targets, table_id, shard);
}

/* Finds the row of the key in target->key. */
static bool
find_row(Target *target)
{
	ExecClearTuple(target->found);
	return RelationFindReplTupleByIndex(target->rel, target->format->key_index,
										LockTupleExclusive, target->key, target->found);
}

/* What was different, for a DBA to look at (J4). */
static void
keep_divergent(PsTargets *targets, Target *target, const char *what, bool has_found)
{
	bool		kept;

	if (targets->is_again)
		return;
	kept = ps_divergent_keep(target->format, what, has_found ? target->found : NULL);
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("payshard: a row of shard %d of \"%s\" was not as its primary has it: %s",
					target->shard, get_rel_name(RelationGetRelid(target->rel)), what),
			 kept ? errhint("It is put right and kept in payshard.divergent_rows; run payshard.verify().") :
			 errhint("It is put right; payshard.divergent_rows has as many of this shard as it takes. Run payshard.verify().")));
}

static void
insert_row(PsTargets *targets, Target *target)
{
	ExecSimpleRelationInsert(target->result, targets->estate, target->row);
}

static void
update_row(PsTargets *targets, Target *target)
{
	EPQState	epq;

	ps_no_recheck(&epq, targets->estate);
	ExecSimpleRelationUpdate(target->result, targets->estate, &epq, target->found, target->row);
	EvalPlanQualEnd(&epq);
}

static void
delete_row(PsTargets *targets, Target *target)
{
	EPQState	epq;

	ps_no_recheck(&epq, targets->estate);
	ExecSimpleRelationDelete(target->result, targets->estate, &epq, target->found);
	EvalPlanQualEnd(&epq);
}

/* The search key of the row in target->row. */
static void
key_of_row(Target *target)
{
	ExecClearTuple(target->key);
	ExecCopySlot(target->key, target->row);
}

static void
change_insert(PsTargets *targets, Target *target)
{
	key_of_row(target);
	if (!find_row(target))
		insert_row(targets, target);
	else
	{
		keep_divergent(targets, target, "a row to be inserted was there already", true);
		update_row(targets, target);
	}
}

static void
change_update(PsTargets *targets, Target *target)
{
	if (find_row(target))
		update_row(targets, target);
	else
	{
		keep_divergent(targets, target, "a row to be updated was missing", false);
		change_insert(targets, target);
	}
}

/*
 * Row by row: the server's own TRUNCATE refuses a table that a foreign key
 * points to, even when that table was truncated along with it on the primary.
 * A snapshot of now: what this transaction has inserted goes, too, and what it
 * has deleted is gone.
 */
static void
truncate_target(PsTargets *targets, Target *target)
{
	Snapshot	now = RegisterSnapshot(GetLatestSnapshot());
	TableScanDesc scan = table_beginscan(target->rel, now, 0, NULL);

	while (table_scan_getnextslot(scan, ForwardScanDirection, target->found))
		delete_row(targets, target);
	table_endscan(scan);
	ExecClearTuple(target->found);
	UnregisterSnapshot(now);
}

void
ps_targets_again(PsTargets *targets, bool is_again)
{
	targets->is_again = is_again;
}

bool
ps_target_change(PsTargets *targets, const PsOp *op)
{
	Target	   *target = get_target(targets, op->table_id, op->shard);
	MemoryContext old;

	if (target == NULL)
		return false;
	targets->estate->es_output_cid = GetCurrentCommandId(true);
	old = MemoryContextSwitchTo(GetPerTupleMemoryContext(targets->estate));
	if (op->n_key > 0)
		ps_row_get_key(target->format, op->key, op->key_bytes, target->key);
	if (op->n_row > 0)
		ps_row_get(target->format, op->row, op->row_bytes, target->row);
	switch (op->kind)
	{
		case PS_OP_INSERT:
			change_insert(targets, target);
			break;
		case PS_OP_UPDATE:
			change_update(targets, target);
			break;
		case PS_OP_DELETE:
			if (find_row(target))
				delete_row(targets, target);
			else
				keep_divergent(targets, target, "a row to be deleted was missing", false);
			break;
		case PS_OP_TRUNCATE:
			truncate_target(targets, target);
			break;
	}
	MemoryContextSwitchTo(old);
	ExecClearTuple(target->row);
	ExecClearTuple(target->key);
	ResetPerTupleExprContext(targets->estate);
	CommandCounterIncrement();
	return true;
}

int
ps_target_empty(Oid partition, int max)
{
	Relation	rel;
	Snapshot	now;
	TupleTableSlot *slot;
	TableScanDesc scan;
	int			n = 0;

	if (!ConditionalLockRelationOid(partition, RowExclusiveLock))
		return -1;
	rel = table_open(partition, NoLock);
	now = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = table_beginscan(rel, now, 0, NULL);
	while (n < max && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		simple_table_tuple_delete(rel, &slot->tts_tid, now);
		n++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(now);
	table_close(rel, NoLock);
	return n;
}

bool
ps_target_delete_key(PsTargets *targets, uint32 table_id, int shard,
					 const uint8 *key, size_t bytes)
{
	Target	   *target = get_target(targets, table_id, shard);
	MemoryContext old;

	if (target == NULL)
		return false;
	targets->estate->es_output_cid = GetCurrentCommandId(true);
	old = MemoryContextSwitchTo(GetPerTupleMemoryContext(targets->estate));
	ps_row_get_key(target->format, key, bytes, target->key);
	if (find_row(target))
		delete_row(targets, target);
	MemoryContextSwitchTo(old);
	ExecClearTuple(target->key);
	ResetPerTupleExprContext(targets->estate);
	CommandCounterIncrement();
	return true;
}
