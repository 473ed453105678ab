/*
 * once.c
 *		How is a statement planned once for each shard, and not once for each
 *		execution (R3)?
 *
 * For simple statements: one distributed table, nothing else, each column of
 * its key a parameter or constant.  Their generic plan is the CustomScan of
 * later.c, at the cost that the statement has in one of the partitions here:
 * so the plan cache chooses between it and custom plans as it does for an
 * ordinary table.  ExecutorStart never lets that scan run, unless it must:
 *
 *	shard's primary is here		its remembered plan: a generic plan over the
 *								partition itself, made at the first execution
 *	elsewhere, or key is NULL	planned now, as a custom plan would be
 *	map has changed since the	the scan runs, and the statement inside it gets
 *	statement was planned		a snapshot of its own (later.c)
 *
 * The last line is why the scan knows the map's epoch: the snapshot was taken
 * after the statement was planned and before we look at the map.  An unchanged
 * epoch says that the shard was served here when it was taken.
 *
 * A remembered plan is made from the query with the partition in the table's
 * place.  The table's own entry stays in the range table: its rights are
 * checked, its columns stand in the details of errors.  So the partition's
 * columns must have the numbers of the table's.  Triggers of statements are
 * the table's, which the executor would not see here, and BEFORE UPDATE triggers
 * may move a row: tables with these are planned for each execution.
 *
 * Plans are kept per process under (number of the generic plan, shard), the
 * last recently used goes first.  The plan cache drops the generic plan when
 * something in the query has changed (the next one has another number); the
 * callbacks here drop plans when the table, its partition or an inlined
 * function has.  A plan in use is not freed: it is counted until the memory of
 * its execution goes, in whatever way.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/sysattr.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "executor/executor.h"
#include "lib/ilist.h"
#include "miscadmin.h"
#include "node/map.h"
#include "node/settings.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "route/later.h"
#include "route/once.h"
#include "route/patience.h"
#include "route/route.h"
#include "route/value.h"
#include "storage/lmgr.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* What later.c keeps for us, in this order. */
enum
{
	ONCE_NUMBER,				/* Const */
	ONCE_TUPLE					/* List: an expression for each column of the key */
};

typedef struct OnceKey
{
	uint64		number;			/* of the generic plan */
	int64		shard;
} OnceKey;

struct PsOnce
{
	OnceKey		key;
	MemoryContext memory;		/* of all this */
	PlannedStmt *plan;
	bool		is_kept;		/* else the rest but pins is not valid */
	bool		is_valid;
	int			pins;			/* executions that use it */
	dlist_node	node;			/* in kept, or in dropped */
	Oid			partition;
	LOCKMODE	lock;
	Index		root;			/* the table in the plan's range table */
	bool		keeps_key;		/* no row can leave the partition */
};

typedef struct Slot
{
	OnceKey		key;			/* hash key */
	PsOnce	   *once;
} Slot;

static HTAB *slots = NULL;
static dlist_head kept = DLIST_STATIC_INIT(kept);	/* last used first */
static dlist_head dropped = DLIST_STATIC_INIT(dropped); /* not in slots, perhaps in use */
static MemoryContext all_plans = NULL;
static uint64 epoch_of_kept = 0;
static uint64 last_number = 0;
static uint64 invalidations = 0;

/* ------------------------------------------------------------ forgetting */

/* No catalog access in these: they run amid the reading of invalidations. */
static void
on_relation(Datum arg, Oid relid)
{
	dlist_iter	i;

	invalidations++;
	dlist_foreach(i, &kept)
	{
		PsOnce	   *once = dlist_container(PsOnce, node, i.cur);

		if (!OidIsValid(relid) || list_member_oid(once->plan->relationOids, relid))
			once->is_valid = false;
	}
}

static void
on_object(Datum arg, int cache, uint32 hash)
{
	dlist_iter	i;
	ListCell   *cell;

	invalidations++;
	dlist_foreach(i, &kept)
	{
		PsOnce	   *once = dlist_container(PsOnce, node, i.cur);

		foreach(cell, once->plan->invalItems)
		{
			PlanInvalItem *item = lfirst(cell);

			if (item->cacheId == cache && (hash == 0 || item->hashValue == hash))
				once->is_valid = false;
		}
	}
}

static void
make_slots(void)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(OnceKey);
	control.entrysize = sizeof(Slot);
	all_plans = AllocSetContextCreate(TopMemoryContext, "payshard plans", ALLOCSET_SMALL_SIZES);
	slots = hash_create("payshard plans", 256, &control, HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(on_relation, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, on_object, (Datum) 0);
	CacheRegisterSyscacheCallback(TYPEOID, on_object, (Datum) 0);
}

static void
drop(PsOnce *once)
{
	hash_search(slots, &once->key, HASH_REMOVE, NULL);
	dlist_delete(&once->node);
	dlist_push_head(&dropped, &once->node);
}

/* Drops plans of older maps; frees dropped ones that nobody executes any more. */
static void
sweep(void)
{
	dlist_mutable_iter i;

	if (epoch_of_kept != ps_map_epoch())
	{
		epoch_of_kept = ps_map_epoch();
		while (!dlist_is_empty(&kept))
			drop(dlist_tail_element(PsOnce, node, &kept));
	}
	dlist_foreach_modify(i, &dropped)
	{
		PsOnce	   *once = dlist_container(PsOnce, node, i.cur);

		if (once->pins > 0)
			continue;
		dlist_delete(&once->node);
		MemoryContextDelete(once->memory);
	}
}

/* ------------------------------------------------------------ which statements */

static bool
has_whole_row(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var))
		return ((Var *) node)->varattno == InvalidAttrNumber;
	return expression_tree_walker(node, has_whole_row, context);
}

static bool
assigns_key(List *tlist, const PsRelation *table)
{
	ListCell   *cell;

	foreach(cell, tlist)
	{
		for (int i = 0; i < table->n_key; i++)
			if (((TargetEntry *) lfirst(cell))->resno == table->key[i])
				return true;
	}
	return false;
}

/* Is this ON CONFLICT the same for the partition alone? */
static bool
is_simple_conflict(OnConflictExpr *conflict, const PsRelation *table)
{
	/* a constraint's index is the table's, a partition has its own */
	return conflict == NULL ||
		(!OidIsValid(conflict->constraint) && !assigns_key(conflict->onConflictSet, table));
}

/* A parameter or constant, perhaps under another name of its type? */
static bool
is_simple_key(List *tuple)
{
	ListCell   *cell;

	foreach(cell, tuple)
	{
		Node	   *expr = ps_value_strip(lfirst(cell));

		if (!IsA(expr, Const) && !IsA(expr, Param))
			return false;
	}
	return true;
}

static bool
is_simple(Query *query, PsMention *mention)
{
	PsTarget   *target;
	RangeTblEntry *rte;
	const PsRelation *table;
	int			n = query->onConflict && query->onConflict->exclRelIndex > 0 ? 2 : 1;

	if (list_length(mention->targets) != 1 || mention->has_other ||
		list_length(query->rtable) != n)
		return false;
	target = linitial(mention->targets);
	rte = linitial(query->rtable);
	table = ps_relation(target->parent);
	return rte->rtekind == RTE_RELATION && rte->relid == target->parent && target->shard < 0 &&
		(query->commandType == CMD_INSERT || rte->inh) && rte->securityQuals == NIL &&
		query->commandType != CMD_MERGE && !target->is_moved && !target->is_sampled &&
		!OidIsValid(target->user) && list_length(target->tuples) == 1 && target->array == NULL &&
		query->cteList == NIL && !query->hasSubLinks && !query->hasRowSecurity &&
		query->withCheckOptions == NIL && query->setOperations == NULL &&
		table != NULL && is_simple_conflict(query->onConflict, table) &&
		is_simple_key(linitial(target->tuples)) &&
		!query_tree_walker(query, has_whole_row, NULL, 0);
}

/* ------------------------------------------------------------ planning */

static bool
has_same_columns(TupleDesc a, TupleDesc b)
{
	if (a->natts != b->natts)
		return false;
	for (int i = 0; i < a->natts; i++)
	{
		Form_pg_attribute x = TupleDescAttr(a, i);
		Form_pg_attribute y = TupleDescAttr(b, i);

		if (x->attisdropped != y->attisdropped || x->atttypid != y->atttypid ||
			x->atttypmod != y->atttypmod || x->attcollation != y->attcollation ||
			strcmp(NameStr(x->attname), NameStr(y->attname)) != 0)
			return false;
	}
	return true;
}

static bool
has_statement_triggers(Relation rel)
{
	TriggerDesc *t = rel->trigdesc;

	return t && (t->trig_insert_before_statement || t->trig_insert_after_statement ||
				 t->trig_update_before_statement || t->trig_update_after_statement ||
				 t->trig_delete_before_statement || t->trig_delete_after_statement ||
				 t->trig_insert_new_table || t->trig_update_old_table ||
				 t->trig_update_new_table || t->trig_delete_old_table);
}

/*
 * Is the statement the same when it names the partition?  *keeps_key: can no row
 * leave the partition by it?
 */
static bool
is_same_for(Query *query, Oid parent, Oid partition, bool *keeps_key)
{
	Relation	table = RelationIdGetRelation(parent);
	Relation	part = RelationIdGetRelation(partition);
	bool		is_same = table && part &&
		has_same_columns(RelationGetDescr(table), RelationGetDescr(part));
	bool		updates = query->commandType == CMD_UPDATE || query->onConflict != NULL;

	if (is_same && query->commandType != CMD_SELECT)
		is_same = !has_statement_triggers(table) && !has_statement_triggers(part) &&
			!(updates && part->trigdesc && part->trigdesc->trig_update_before_row);
	*keeps_key = is_same && updates &&
		!(query->commandType == CMD_INSERT && part->trigdesc &&
		  part->trigdesc->trig_insert_before_row);
	if (part)
		RelationClose(part);
	if (table)
		RelationClose(table);
	return is_same;
}

/* The query with the partition in the place of the table. */
static Query *
with_partition(Query *query, Oid partition)
{
	Query	   *copy = copyObject(query);
	RangeTblEntry *rte = linitial(copy->rtable);
	RangeTblEntry *table = copyObject(rte);

	table->inh = false;
	if (rte->alias == NULL)
		rte->alias = makeAlias(rte->eref->aliasname, NIL);	/* for EXPLAIN */
	copy->rtable = lappend(copy->rtable, table);
	rte->relid = partition;
	rte->relkind = RELKIND_RELATION;
	rte->inh = false;
#ifdef PS_PERMISSION_INFOS
	{
		RTEPermissionInfo *info = copyObject(getRTEPermissionInfo(copy->rteperminfos, rte));

		info->relid = partition;
		info->requiredPerms = 0;
		copy->rteperminfos = lappend(copy->rteperminfos, info);
		rte->perminfoindex = list_length(copy->rteperminfos);
	}
#else
	rte->requiredPerms = 0;
#endif
	if (copy->onConflict && copy->onConflict->exclRelIndex > 0)
		rt_fetch(copy->onConflict->exclRelIndex, copy->rtable)->relid = partition;
	return copy;
}

static bool
is_seq_scan(Plan *plan)
{
	return plan && (IsA(plan, SeqScan) || is_seq_scan(plan->lefttree));
}

/*
 * Plans the statement for a partition.  Partitions are small, and a plan that is
 * kept must not read all of one that grows: an index is taken where it costs no
 * more than two pages in addition.
 */
static PlannedStmt *
plan_partition(Query *query, Oid partition, const char *text)
{
	PlannedStmt *plan = ps_route_plan_here(with_partition(query, partition), text);
	PlannedStmt *by_index;
	bool		before = enable_seqscan;

	if (!is_seq_scan(plan->planTree))
		return plan;
	enable_seqscan = false;
	PG_TRY();
	{
		by_index = ps_route_plan_here(with_partition(query, partition), text);
	}
	PG_FINALLY();
	{
		enable_seqscan = before;
	}
	PG_END_TRY();
	return by_index->planTree->total_cost <= plan->planTree->total_cost + 2 * random_page_cost ?
		by_index : plan;
}

static PsOnce *
new_once(MemoryContext parent)
{
	MemoryContext memory = AllocSetContextCreate(parent, "payshard plan", ALLOCSET_SMALL_SIZES);
	PsOnce	   *once = MemoryContextAllocZero(memory, sizeof(PsOnce));

	once->memory = memory;
	return once;
}

/* Makes room for one more, and puts it in. */
static void
keep(PsOnce *once, const OnceKey *key)
{
	Slot	   *slot;

	while (hash_get_num_entries(slots) >= ps_plans_kept && !dlist_is_empty(&kept))
		drop(dlist_tail_element(PsOnce, node, &kept));
	once->key = *key;
	once->is_kept = true;
	slot = hash_search(slots, key, HASH_ENTER, NULL);
	slot->once = once;
	dlist_push_head(&kept, &once->node);
}

/* Plans a statement for a shard of this node; NULL when it cannot be. */
static PsOnce *
plan_once(Query *query, const OnceKey *key, const char *text, uint64 epoch)
{
	RangeTblEntry *rte = linitial(query->rtable);
	Oid			partition = ps_relation_partition(rte->relid, key->shard);
	uint64		before = invalidations;
	bool		keeps_key;
	MemoryContext scratch;
	MemoryContext old;
	PlannedStmt *plan;
	PsOnce	   *once;

	LockRelationOid(partition, rte->rellockmode);
	if (ps_relation_partition(rte->relid, key->shard) != partition ||
		!is_same_for(query, rte->relid, partition, &keeps_key))
		return NULL;
	scratch = AllocSetContextCreate(CurrentMemoryContext, "payshard planning",
									ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(scratch);
	plan = plan_partition(query, partition, text);
	once = new_once(all_plans);
	MemoryContextSwitchTo(once->memory);
	once->plan = copyObject(plan);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	once->partition = partition;
	once->lock = rte->rellockmode;
	once->root = list_length(query->rtable) + 1;
	once->keeps_key = keeps_key;
	/* what came in meanwhile may concern it: good for now, but not for the next time */
	once->is_valid = before == invalidations && epoch == ps_map_epoch();
	keep(once, key);
	elog(DEBUG1, "payshard: planned for shard %d of relation %u", (int) key->shard, rte->relid);
	return once;
}

/* The plan of a statement for a shard of this node, locked. */
static PsOnce *
recall(Query *query, const OnceKey *key, const char *text, uint64 epoch)
{
	Slot	   *slot = hash_search(slots, key, HASH_FIND, NULL);

	if (slot && slot->once->is_valid)
		LockRelationOid(slot->once->partition, slot->once->lock);
	/* which may have brought news about it */
	if (slot && slot->once->is_valid)
	{
		dlist_move_head(&kept, &slot->once->node);
		return slot->once;
	}
	if (slot)
		drop(slot->once);
	return plan_once(query, key, text, epoch);
}

/* A shard that is served here; -1 when there is none. */
static int
some_shard_here(void)
{
	int			n = ps_map_n_shards();
	PsMapShard	state;

	for (int i = 0; i < n; i++)
		if (ps_map_shard(i, &state) && state.primary == ps_map_self() && state.waits == 0)
			return i;
	return -1;
}

PlannedStmt *
ps_once_plan(Query *query, PsMention *mention, const char *text, uint64 epoch)
{
	OnceKey		key;
	double		cost = 0;
	PsTarget   *target;

	if (ps_plans_kept == 0 || !is_simple(query, mention))
		return NULL;
	if (slots == NULL)
		make_slots();
	sweep();
	memset(&key, 0, sizeof(key));
	key.number = ++last_number;
	key.shard = some_shard_here();
	if (key.shard >= 0)
	{
		PsOnce	   *once = recall(query, &key, text, epoch);

		if (once == NULL)
			return NULL;
		cost = once->plan->planTree->total_cost;
	}
	target = linitial(mention->targets);
	return ps_later_plan(query, epoch, list_make2(ps_later_number(key.number),
												  linitial(target->tuples)), cost);
}

/* ------------------------------------------------------------ executing */

/* The value of a column of the key; false when it is NULL, or cannot be said. */
static bool
key_value(Node *expr, Oid type, ParamListInfo params, Datum *value, bool *isnull)
{
	PsValue		answer = ps_value_of(ps_value_strip(expr), type, params, true, value, isnull);

	if (answer == PS_VALUE_UNKNOWN)
		answer = ps_value_of(expr, type, params, true, value, isnull);
	return answer == PS_VALUE_KNOWN && !*isnull;
}

/* The shard of this execution; -1 when there is none, or it cannot be said. */
static int
shard_of(Oid parent, List *tuple, ParamListInfo params)
{
	MemoryContext scratch = AllocSetContextCreate(CurrentMemoryContext, "payshard key",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(scratch);
	Datum		values[PS_KEY_COLUMNS_MAX];
	bool		nulls[PS_KEY_COLUMNS_MAX];
	Relation	rel;
	PartitionKey key = ps_key_of(parent, &rel);
	bool		is_known = list_length(tuple) == key->partnatts;
	int			shard = -1;

	for (int i = 0; is_known && i < key->partnatts; i++)
		is_known = key_value(list_nth(tuple, i), key->parttypid[i], params, &values[i],
							 &nulls[i]);
	RelationClose(rel);
	if (is_known)
		shard = ps_relation_shard(parent, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextDelete(scratch);
	return shard;
}

/* As a custom plan would be. */
static PsOnce *
plan_now(Query *query, QueryDesc *desc)
{
	PsOnce	   *once = new_once(CurrentMemoryContext);
	MemoryContext old = MemoryContextSwitchTo(once->memory);

	once->plan = ps_route_plan(copyObject(query), desc->sourceText, 0, desc->params);
	MemoryContextSwitchTo(old);
	return once;
}

PsOnce *
ps_once_begin(QueryDesc *desc, int eflags)
{
	Query	   *query;
	uint64		epoch;
	List	   *known = ps_later_once(desc->plannedstmt, &query, &epoch);
	Oid			parent;
	OnceKey		key;
	PsOnce	   *once = NULL;

	if (known == NIL || desc->params == NULL || ps_route_is_off() || IsParallelWorker())
		return NULL;
	ps_map_require_serving();
	sweep();
	memset(&key, 0, sizeof(key));
	key.number = DatumGetInt64(castNode(Const, list_nth(known, ONCE_NUMBER))->constvalue);
	parent = ((RangeTblEntry *) linitial(query->rtable))->relid;
	key.shard = IsolationIsSerializable() ? -1 :
		shard_of(parent, list_nth(known, ONCE_TUPLE), desc->params);
	if (key.shard >= 0)
	{
		ps_await_shard(key.shard);
		if (ps_route_primary(key.shard) == ps_map_self() && epoch == ps_map_epoch())
			once = recall(query, &key, desc->sourceText, epoch);
	}
	if (once == NULL && (epoch == ps_map_epoch() || (eflags & EXEC_FLAG_EXPLAIN_ONLY)))
		once = plan_now(query, desc);
	if (once == NULL)
		return NULL;
	once->pins++;
	/* a wait meanwhile? */
	if ((epoch != ps_map_epoch() && (eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0) ||
		((eflags & (EXEC_FLAG_BACKWARD | EXEC_FLAG_MARK)) &&
		 !ExecSupportsBackwardScan(once->plan->planTree)))
	{
		once->pins--;
		if (!once->is_kept)
			MemoryContextDelete(once->memory);
		return NULL;
	}
	desc->plannedstmt = once->plan;
	return once;
}

/* The memory of an execution goes. */
static void
unpin(void *arg)
{
	((PsOnce *) arg)->pins--;
}

/*
 * The table is the root of the partition, as if the row had been routed: errors
 * show its columns, and who may see them; the executor does not ask whether
 * the row belongs there, unless a trigger may have changed it.
 */
static void
set_root(ModifyTableState *state, EState *estate, PsOnce *once)
{
	ResultRelInfo *root = makeNode(ResultRelInfo);

	root->ri_RangeTableIndex = once->root;
	root->ri_RelationDesc = ps_range_table_relation(estate, once->root);
	state->resultRelInfo->ri_RootResultRelInfo = root;
	if (once->keeps_key)
		state->resultRelInfo->ri_PartitionCheckExpr =
			ExecInitCheck(list_make1(makeBoolConst(true, false)), NULL);
}

void
ps_once_started(PsOnce *once, QueryDesc *desc, int eflags)
{
	MemoryContext memory = desc->estate->es_query_cxt;
	MemoryContextCallback *callback;
	MemoryContext old;

	if (!once->is_kept)
	{
		MemoryContextSetParent(once->memory, memory);
		return;
	}
	callback = MemoryContextAlloc(memory, sizeof(MemoryContextCallback));
	callback->func = unpin;
	callback->arg = once;
	MemoryContextRegisterResetCallback(memory, callback);
	if (!IsA(desc->planstate, ModifyTableState) || (eflags & EXEC_FLAG_EXPLAIN_ONLY))
		return;
	old = MemoryContextSwitchTo(memory);
	set_root((ModifyTableState *) desc->planstate, desc->estate, once);
	MemoryContextSwitchTo(old);
}

void
ps_once_failed(PsOnce *once)
{
	/* others go with the memory of the caller */
	once->pins--;
}
