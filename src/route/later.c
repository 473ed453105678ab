/*
 * later.c
 *		What if the key is only known when the statement is executed?
 *
 * A generic plan over parameters, an SQL function, a key that is computed: the
 * plan is one CustomScan that holds the query itself.  At execution the query
 * is planned with the parameters that are there (route.c), and that plan runs
 * inside.  It is planned anew for each execution, and costs so much that the
 * plan cache keeps to custom plans where it may choose.  Simple statements are
 * spared that: once.c puts a plan in its place before the executor sees it.
 *
 * The snapshot is older than the execution.  What was settled since is not in
 * it: when the map has another epoch than the plan, which is older still, the
 * statement inside takes a new one.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "compat.h"
#include "executor/executor.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "node/map.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "route/later.h"
#include "route/route.h"
#include "route/ship.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

struct PsNested
{
	Query	   *query;
	EState	   *outer;
	bool		is_random;
	uint64		epoch;			/* of the map when the snapshot was taken; 0 = older */
	MemoryContext memory;
	Tuplestorestate *store;
	TupleTableSlot *slot;		/* of the tuplestore; NULL = has not run */
};

typedef struct LaterState
{
	CustomScanState css;
	PsNested   *nested;
} LaterState;

/* custom_private, in this order */
enum
{
	LATER_QUERY,				/* Query */
	LATER_EPOCH,				/* Const: the map it was planned under */
	LATER_ONCE					/* List: see once.c; NIL = planned for each execution */
};

static Node *create_state(CustomScan *scan);
static void begin(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *next(CustomScanState *node);
static void end(CustomScanState *node);
static void rescan(CustomScanState *node);
static void explain(CustomScanState *node, List *ancestors, ExplainState *es);

static const CustomScanMethods scan_methods = {"PayshardLater", create_state};
static const CustomExecMethods exec_methods = {
	.CustomName = "PayshardLater",
	.BeginCustomScan = begin,
	.ExecCustomScan = next,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain
};

void
ps_later_register(void)
{
	RegisterCustomScanMethods(&scan_methods);
}

/* ------------------------------------------------------------ nested */

PsNested *
ps_nested_begin(Query *query, EState *estate, int eflags, uint64 epoch)
{
	PsNested   *nested = palloc0(sizeof(PsNested));

	if (epoch == 0 && IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("shards have moved since the transaction's snapshot was taken"),
				 errhint("Retry the transaction.")));
	nested->epoch = epoch;
	nested->query = query;
	nested->outer = estate;
	nested->is_random = (eflags & (EXEC_FLAG_BACKWARD | EXEC_FLAG_REWIND | EXEC_FLAG_MARK)) != 0;
	nested->memory = AllocSetContextCreate(CurrentMemoryContext, "payshard nested statement",
										   ALLOCSET_DEFAULT_SIZES);
	return nested;
}

/* Plans it and runs it to its end. */
static void
run_nested(PsNested *nested)
{
	EState	   *outer = nested->outer;
	const char *text = outer->es_sourceText ? outer->es_sourceText : "";
	MemoryContext old = MemoryContextSwitchTo(nested->memory);
	DestReceiver *dest = CreateDestReceiver(DestTuplestore);
	PlannedStmt *plan = ps_route_plan_inside(nested->query, text, outer->es_param_list_info);
	QueryDesc  *desc;
	/* planning may have waited for a failover; a transaction's snapshot stays */
	bool		has_moved = nested->epoch != ps_map_epoch() && !IsolationUsesXactSnapshot();

	nested->store = tuplestore_begin_heap(nested->is_random, false, work_mem);
	SetTuplestoreDestReceiverParams(dest, nested->store, nested->memory, false, NULL, NULL);
	if (has_moved)
		PushActiveSnapshot(GetTransactionSnapshot());
	desc = CreateQueryDesc(plan, text, has_moved ? GetActiveSnapshot() : outer->es_snapshot,
						   outer->es_crosscheck_snapshot, dest,
						   outer->es_param_list_info, outer->es_queryEnv, 0);
	ExecutorStart(desc, 0);
	ps_executor_run(desc);
	if (desc->operation != CMD_SELECT && outer->es_plannedstmt->canSetTag)
		outer->es_processed += desc->estate->es_processed;
	nested->slot = MakeSingleTupleTableSlot(CreateTupleDescCopy(desc->tupDesc),
			&TTSOpsMinimalTuple);
	ExecutorFinish(desc);
	ExecutorEnd(desc);
	FreeQueryDesc(desc);
	if (has_moved)
		PopActiveSnapshot();
	MemoryContextSwitchTo(old);
}

void
ps_nested_run(PsNested *nested)
{
	if (nested->slot == NULL)
		run_nested(nested);
}

TupleTableSlot *
ps_nested_next(PsNested *nested, TupleTableSlot *slot, bool is_forward)
{
	int			n = slot->tts_tupleDescriptor->natts;

	ps_nested_run(nested);
	ExecClearTuple(slot);
	if (!tuplestore_gettupleslot(nested->store, is_forward, false, nested->slot))
		return slot;
	slot_getallattrs(nested->slot);
	Assert(nested->slot->tts_tupleDescriptor->natts >= n);
	memcpy(slot->tts_values, nested->slot->tts_values, n * sizeof(Datum));
	memcpy(slot->tts_isnull, nested->slot->tts_isnull, n * sizeof(bool));
	return ExecStoreVirtualTuple(slot);
}

void
ps_nested_rewind(PsNested *nested)
{
	if (nested->slot)
		tuplestore_rescan(nested->store);
}

void
ps_nested_end(PsNested *nested)
{
	if (nested->slot)
	{
		ExecDropSingleTupleTableSlot(nested->slot);
		tuplestore_end(nested->store);
	}
	MemoryContextDelete(nested->memory);
}

/* ------------------------------------------------------------ the scan */

PlannedStmt *
ps_later_plan(Query *query, uint64 epoch, List *once, double cost)
{
	CustomScan *scan = makeNode(CustomScan);
	PlannedStmt *plan;

	scan->methods = &scan_methods;
	scan->custom_private = list_make3(query, ps_later_number(epoch), once);
	plan = ps_ship_shell(query, scan);
	scan->scan.plan.startup_cost = scan->scan.plan.total_cost = cost;
	return plan;
}

Const *
ps_later_number(uint64 number)
{
	return makeConst(INT8OID, -1, InvalidOid, sizeof(int64), Int64GetDatum((int64) number), false,
					 FLOAT8PASSBYVAL);
}

static uint64
epoch_of(CustomScan *scan)
{
	return (uint64) DatumGetInt64(castNode(Const, list_nth(scan->custom_private,
														   LATER_EPOCH))->constvalue);
}

List *
ps_later_once(PlannedStmt *plan, Query **query, uint64 *epoch)
{
	CustomScan *scan = (CustomScan *) plan->planTree;

	if (scan == NULL || !IsA(scan, CustomScan) || scan->methods != &scan_methods)
		return NIL;
	*query = list_nth(scan->custom_private, LATER_QUERY);
	*epoch = epoch_of(scan);
	return list_nth(scan->custom_private, LATER_ONCE);
}

static Node *
create_state(CustomScan *scan)
{
	LaterState *state = (LaterState *) newNode(sizeof(LaterState), T_CustomScanState);

	state->css.methods = &exec_methods;
	return (Node *) state;
}

static void
begin(CustomScanState *node, EState *estate, int eflags)
{
	LaterState *state = (LaterState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	if ((eflags & EXEC_FLAG_EXPLAIN_ONLY) == 0)
		state->nested = ps_nested_begin(copyObject(list_nth(scan->custom_private, LATER_QUERY)),
										estate, eflags, epoch_of(scan));
}

void
ps_later_run_now(CustomScanState *node)
{
	if (node->methods == &exec_methods)
		ps_nested_run(((LaterState *) node)->nested);
}

static TupleTableSlot *
access_next(ScanState *ss)
{
	return ps_nested_next(((LaterState *) ss)->nested, ss->ss_ScanTupleSlot,
						  ScanDirectionIsForward(ss->ps.state->es_direction));
}

static bool
recheck(ScanState *ss, TupleTableSlot *slot)
{
	return true;
}

static TupleTableSlot *
next(CustomScanState *node)
{
	return ExecScan(&node->ss, access_next, recheck);
}

static void
end(CustomScanState *node)
{
	LaterState *state = (LaterState *) node;

	if (state->nested)
		ps_nested_end(state->nested);
}

static void
rescan(CustomScanState *node)
{
	LaterState *state = (LaterState *) node;

	if (state->nested)
		ps_nested_rewind(state->nested);
}

static void
explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	ExplainPropertyText("Route", "decided at execution", es);
}
