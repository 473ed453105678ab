/*
 * ship.c
 *		How does a whole statement run at another node?
 *
 * The plan is one CustomScan over nothing (scanrelid 0) with the statement's
 * output columns.  At the first call it evaluates the parameters, sends the
 * text on the transaction's connection to that node and reads the answer to
 * its end.  What the statement changed is added to es_processed, as there is
 * no ModifyTable to do it.
 *
 * The range table holds the relations of all levels, so that rights are
 * checked here too, plans are invalidated and locks are taken as usual.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "commands/explain.h"
#include "compat.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "node/clock.h"
#include "node/map.h"
#include "node/settings.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/clauses.h"
#include "route/fetch.h"
#include "route/later.h"
#include "route/patience.h"
#include "route/route.h"
#include "route/ship.h"
#include "route/text.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define PS_AGREEMENT_MS 2000	/* in which two nodes agree on the map */
#define PS_AGREEMENT_LOOK_MS 10

/* custom_private, in this order */
enum
{
	SHIP_TEXT,					/* String */
	SHIP_NODE,					/* Integer */
	SHIP_SHARDS,				/* IntList */
	SHIP_USE,					/* Integer: PsLinkUse */
	SHIP_QUERY,					/* Query: to plan anew when the map has changed */
	SHIP_COUNT
};

typedef struct ShipState
{
	CustomScanState css;
	char	   *text;
	uint32		node;
	PsLinkUse	use;
	List	   *params;			/* expressions */
	List	   *states;			/* their ExprStates */
	PsFetch    *fetch;			/* NULL = not sent yet */
	bool		is_random;
	int			eflags;
	PsNested   *nested;			/* instead of all that: the map has changed */
} ShipState;

static Node *create_state(CustomScan *scan);
static void begin(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *next(CustomScanState *node);
static void end(CustomScanState *node);
static void rescan(CustomScanState *node);
static void explain(CustomScanState *node, List *ancestors, ExplainState *es);

static const CustomScanMethods scan_methods = {"PayshardShip", create_state};
static const CustomExecMethods exec_methods = {
	.CustomName = "PayshardShip",
	.BeginCustomScan = begin,
	.ExecCustomScan = next,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain
};

void
ps_ship_register(void)
{
	RegisterCustomScanMethods(&scan_methods);
}

/* ------------------------------------------------------------ planning */

typedef struct Shell
{
	PlannedStmt *plan;
	Query	   *query;			/* of the level */
} Shell;

static bool
collect_relations(Node *node, void *context)
{
	Shell	   *shell = context;
	ListCell   *cell;
	Query	   *outer;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, collect_relations, context);
	foreach(cell, ((Query *) node)->rtable)
	{
		RangeTblEntry *rte = lfirst(cell);

		if (rte->rtekind != RTE_RELATION)
			continue;
		rte = copyObject(rte);
		rte->securityQuals = NIL;
		rte->tablesample = NULL;
#ifdef PS_PERMISSION_INFOS
		if (rte->perminfoindex > 0)
		{
			RTEPermissionInfo *info = list_nth(((Query *) node)->rteperminfos,
					rte->perminfoindex - 1);

			shell->plan->permInfos = lappend(shell->plan->permInfos, copyObject(info));
			rte->perminfoindex = list_length(shell->plan->permInfos);
		}
#endif
		shell->plan->rtable = lappend(shell->plan->rtable, rte);
		shell->plan->relationOids = lappend_oid(shell->plan->relationOids, rte->relid);
	}
	outer = shell->query;
	shell->query = (Query *) node;
	query_tree_walker((Query *) node, collect_relations, context, 0);
	shell->query = outer;
	return false;
}

PlannedStmt *
ps_ship_shell(Query *query, CustomScan *scan)
{
	PlannedStmt *plan = makeNode(PlannedStmt);
	Shell		shell = {plan, query};
	List	   *output = query->commandType == CMD_SELECT ? query->targetList :
		query->returningList;
	ListCell   *cell;
	int			n = 0;

	plan->commandType = query->commandType;
	plan->queryId = query->queryId;
	plan->hasReturning = query->returningList != NIL;
	plan->hasModifyingCTE = query->hasModifyingCTE;
	plan->canSetTag = query->canSetTag;
	plan->dependsOnRole = query->hasRowSecurity;
	plan->stmt_location = query->stmt_location;
	plan->stmt_len = query->stmt_len;
	collect_relations((Node *) query, &shell);
	foreach(cell, output)
	{
		TargetEntry *tle = lfirst(cell);
		TargetEntry *column;
		Oid			type = exprType((Node *) tle->expr);
		int32		typmod = exprTypmod((Node *) tle->expr);
		Oid			collation = exprCollation((Node *) tle->expr);

		if (tle->resjunk)
			continue;
		n++;
		/* typed nulls: Vars would send EXPLAIN round in circles */
		scan->custom_scan_tlist = lappend(scan->custom_scan_tlist,
										  makeTargetEntry((Expr *) makeNullConst(type, typmod,
										  		collation),
														  n, tle->resname, false));
		column = makeTargetEntry((Expr *) makeVar(INDEX_VAR, n, type, typmod, collation, 0),
								 n, tle->resname, false);
		column->resorigtbl = tle->resorigtbl;
		column->resorigcol = tle->resorigcol;
		scan->scan.plan.targetlist = lappend(scan->scan.plan.targetlist, column);
	}
	scan->scan.scanrelid = 0;
	scan->flags = CUSTOMPATH_SUPPORT_BACKWARD_SCAN;
	scan->scan.plan.startup_cost = 100;
	scan->scan.plan.total_cost = 110;
	scan->scan.plan.plan_rows = 1;
	scan->scan.plan.plan_width = 32;
	plan->planTree = (Plan *) scan;
	return plan;
}

static bool
is_volatile(Oid function, void *context)
{
	PsLinkUse  *use = context;

	/* a function that we do not know may write */
	if (func_volatile(function) == PROVOLATILE_VOLATILE)
		*use = Max(*use, function >= FirstUnpinnedObjectId ? PS_LINK_WRITE : PS_LINK_LOCK);
	return false;
}

static bool
use_walker(Node *node, void *context)
{
	PsLinkUse  *use = context;

	if (node == NULL)
		return false;
	check_functions_in_node(node, is_volatile, context);
	if (IsA(node, NextValueExpr))
		*use = Max(*use, PS_LINK_LOCK);
	if (IsA(node, Query))
	{
		if (((Query *) node)->commandType != CMD_SELECT)
			*use = PS_LINK_WRITE;
		if (((Query *) node)->rowMarks != NIL)
			*use = Max(*use, PS_LINK_LOCK);
		return query_tree_walker((Query *) node, use_walker, context, 0);
	}
	return expression_tree_walker(node, use_walker, context);
}

static PsLinkUse
use_of(Query *query)
{
	PsLinkUse	use = PS_LINK_READ;

	use_walker((Node *) query, &use);
	return use;
}

PlannedStmt *
ps_ship_plan(Query *query, uint32 node, List *shards)
{
	CustomScan *scan = makeNode(CustomScan);
	List	   *params;
	char	   *text = ps_text_of(query, &params);

	scan->methods = &scan_methods;
	scan->custom_exprs = params;
	scan->custom_private = list_make5(makeString(text), makeInteger(node), shards,
									  makeInteger(use_of(query)),
									  query);
	return ps_ship_shell(query, scan);
}

/* ------------------------------------------------------------ execution */

static Node *
create_state(CustomScan *scan)
{
	ShipState  *state = (ShipState *) newNode(sizeof(ShipState), T_CustomScanState);

	state->css.methods = &exec_methods;
	state->text = strVal(list_nth(scan->custom_private, SHIP_TEXT));
	state->node = intVal(list_nth(scan->custom_private, SHIP_NODE));
	state->use = intVal(list_nth(scan->custom_private, SHIP_USE));
	state->params = scan->custom_exprs;
	return (Node *) state;
}

static bool
is_still_there(List *shards, uint32 node)
{
	ListCell   *cell;

	foreach(cell, shards)
	{
		ps_await_shard(lfirst_int(cell));
		if (ps_route_primary(lfirst_int(cell)) != node)
			return false;
	}
	return true;
}

/* The shards have moved: the query is planned anew and runs as it should now. */
static void
run_instead(ShipState *state)
{
	CustomScan *scan = (CustomScan *) state->css.ss.ps.plan;
	EState	   *estate = state->css.ss.ps.state;
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);

	state->nested = ps_nested_begin(copyObject(list_nth(scan->custom_private, SHIP_QUERY)),
									estate, state->eflags, 0);
	MemoryContextSwitchTo(old);
}

/*
 * The node cannot be reached, and nothing of this transaction is there: waits
 * until another one is primary, or it is back.
 */
static void
reach(ShipState *state)
{
	CustomScan *scan = (CustomScan *) state->css.ss.ps.plan;
	List	   *shards = list_nth(scan->custom_private, SHIP_SHARDS);
	PsTime		since = ps_now();
	PsTime		deadline = ps_patience_end();

	while (!ps_link_reach(state->node, GetUserId(), state->use) && ps_now() < deadline)
	{
		if (ps_await_move(shards, state->node))
		{
			ps_patience_spend(since);
			run_instead(state);
			return;
		}
	}
	ps_patience_spend(since);
}

static void
begin(CustomScanState *node, EState *estate, int eflags)
{
	ShipState  *state = (ShipState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	state->eflags = eflags;
	state->is_random = (eflags & (EXEC_FLAG_BACKWARD | EXEC_FLAG_REWIND | EXEC_FLAG_MARK)) != 0;
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	ps_map_require_serving();
	if (!is_still_there(list_nth(scan->custom_private, SHIP_SHARDS), state->node))
		run_instead(state);
	else
		state->states = ExecInitExprList(state->params, &node->ss.ps);
}

/* False: the node says that it is not the primary, and nothing was done. */
static bool
run(ShipState *state, bool may_refuse)
{
	ScanState  *ss = &state->css.ss;
	TupleDesc	desc = ss->ss_ScanTupleSlot->tts_tupleDescriptor;
	EState	   *estate = ss->ps.state;
	PlannedStmt *plan = estate->es_plannedstmt;
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);
	bool		is_binary = ps_fetch_is_binary(desc, desc->natts, NULL);
	PsLink	   *link = ps_link(state->node, GetUserId(), state->use);
	PsLinkParams *params = ps_text_params(state->params, state->states, ss->ps.ps_ExprContext);
	bool		is_refused;
	uint64		n;

	state->fetch = ps_fetch_begin(desc, desc->natts, NULL, is_binary, state->is_random);
	params->shape = ps_fetch_shape(desc, desc->natts, NULL);
	if (may_refuse)
		ps_link_try(link);
	ps_link_send(link, state->text, params, is_binary);
	n = ps_fetch_all(state->fetch, link);
	is_refused = ps_link_retreat(link);
	if (is_refused)
	{
		ps_fetch_end(state->fetch);
		state->fetch = NULL;
	}
	else if (plan->commandType != CMD_SELECT && plan->canSetTag)
		estate->es_processed += n;
	MemoryContextSwitchTo(old);
	return !is_refused;
}

/*
 * The node has refused: it is not the primary any more, and we learn who is, or
 * it has not learnt yet that it is.  False: that lasts.
 */
static bool
await_agreement(ShipState *state, PsTime *deadline)
{
	CustomScan *scan = (CustomScan *) state->css.ss.ps.plan;

	if (*deadline == 0)
		*deadline = ps_deadline(Min(ps_failover_wait_ms, PS_AGREEMENT_MS));
	if (!is_still_there(list_nth(scan->custom_private, SHIP_SHARDS), state->node))
	{
		run_instead(state);
		return true;
	}
	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	(void) ConditionVariableTimedSleep(&ps_shared->map_changed, PS_AGREEMENT_LOOK_MS,
									   PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	return ps_now() < *deadline;
}

/* The rows, unless they are here. */
static void
get_rows(ShipState *state)
{
	bool		may_refuse = ps_failover_wait_ms > 0;
	PsTime		deadline = 0;

	while (state->fetch == NULL && state->nested == NULL)
	{
		if (ps_failover_wait_ms > 0)
			reach(state);
		if (state->nested == NULL && !run(state, may_refuse))
			may_refuse = await_agreement(state, &deadline);
	}
}

void
ps_ship_run_now(CustomScanState *node)
{
	ShipState  *state = (ShipState *) node;

	if (node->methods != &exec_methods)
		return;
	get_rows(state);
	if (state->nested)
		ps_nested_run(state->nested);
}

static TupleTableSlot *
access_next(ScanState *ss)
{
	ShipState  *state = (ShipState *) ss;
	bool		is_forward = ScanDirectionIsForward(ss->ps.state->es_direction);

	get_rows(state);
	if (state->nested)
		return ps_nested_next(state->nested, ss->ss_ScanTupleSlot, is_forward);
	return ps_fetch_next(state->fetch, ss->ss_ScanTupleSlot, is_forward);
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
	ShipState  *state = (ShipState *) node;

	if (state->fetch)
		ps_fetch_end(state->fetch);
	if (state->nested)
		ps_nested_end(state->nested);
}

static void
rescan(CustomScanState *node)
{
	ShipState  *state = (ShipState *) node;

	if (state->fetch)
		ps_fetch_rewind(state->fetch);
	if (state->nested)
		ps_nested_rewind(state->nested);
}

/* Shards, node, in-sync set. */
static void
explain_node(ExplainState *es, uint32 node, List *shards)
{
	List	   *numbers = NIL;
	List	   *names = NIL;
	ListCell   *cell;
	PsMapShard	state;
	uint64		in_sync = ~UINT64CONST(0);

	foreach(cell, shards)
	{
		numbers = lappend(numbers, psprintf("%d", lfirst_int(cell)));
		if (ps_map_shard(lfirst_int(cell), &state))
			in_sync &= state.in_sync;
	}
	if (list_length(numbers) == 1)
		ExplainPropertyInteger("Shard", NULL, linitial_int(shards), es);
	else if (numbers != NIL)
		ExplainPropertyList("Shards", numbers, es);
	ExplainPropertyText("Node", ps_map_node_name(node), es);
	for (int i = 1; numbers != NIL && i < PS_NODES_MAX; i++)
		if (PS_HAS_NODE(in_sync, i))
			names = lappend(names, ps_map_node_name(i));
	if (numbers != NIL)
		ExplainPropertyList("In-sync", names, es);
}

static void
explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	ShipState  *state = (ShipState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	explain_node(es, state->node, list_nth(scan->custom_private, SHIP_SHARDS));
	if (es->verbose)
		ExplainPropertyText("Remote SQL", state->text, es);
}
