/*
 * route.c
 *		Which node runs this statement (R1 to R3)?
 *
 * planner_hook looks at every statement that mentions a distributed table:
 *
 *	keys known, one primary, this node	planned here, by PostgreSQL
 *	keys known, one primary, another	shipped as a whole (ship.c)
 *	keys known at execution only		planned then (later.c), simple
 *										statements once per shard (once.c)
 *	several primaries, only read		planned here, other nodes' shards
 *										are read there (scatter.c)
 *	several primaries, written			refused, 0A000
 *
 * In a session that another node has opened for its client's statements
 * (payshard.shipped) nothing is sent on: what is not for this node is refused
 * with 25006, and the sender makes that 40001.
 *
 * A plan may be older than the map.  So ExecutorStart looks once more at the
 * partitions a plan reads or writes here: this node must be their primary
 * still, and have its lease (Q1).  (The capture trigger looks at those that are
 * written, too.)
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "executor/executor.h"
#include "link/local.h"
#include "link/samemap.h"
#include "link/session.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "parser/parsetree.h"
#include "port/pg_bitutils.h"
#include "postmaster/bgworker_internals.h"
#include "route/allnodes.h"
#include "route/copy.h"
#include "route/later.h"
#include "route/once.h"
#include "route/patience.h"
#include "route/route.h"
#include "route/scatter.h"
#include "route/shards.h"
#include "route/ship.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/portal.h"
#include "utils/rel.h"
#include "write/capture.h"
#include "write/hold.h"

PS_FUNCTION(payshard_local_scope);

static planner_hook_type previous_planner = NULL;
static ExecutorStart_hook_type previous_start = NULL;
static ExecutorRun_hook_type previous_run = NULL;

static bool shipped = false;	/* payshard.shipped */
static bool suspended = false;
static PsScope scope = PS_SCOPE_NONE;
static int	run_depth = 0;		/* statements that are being executed */
static uint64 plans_epoch = 0;	/* map of which cached plans may be */

/* So often a statement is planned anew because the map changes meanwhile. */
#define PS_PLANS_MAX 5

/* Where a statement goes. */
typedef struct Way
{
	enum
	{
		WAY_HERE,				/* all of it concerns this node only */
		WAY_SHIP,
		WAY_LATER,
		WAY_MANY
	}			way;
	uint32		node;			/* WAY_SHIP */
	List	   *shards;			/* those known, as integers */
	bool		is_single;		/* one node is primary of everything */
} Way;

bool
ps_route_suspend(void)
{
	bool		before = suspended;

	suspended = true;
	return before;
}

void
ps_route_restore(bool before)
{
	suspended = before;
}

PsScope
ps_route_scope(void)
{
	return scope;
}

bool
ps_route_is_shipped(void)
{
	return shipped;
}

bool
ps_route_is_off(void)
{
	return suspended || ps_capture_off || ps_allnodes_is_internal() || ps_map_self() == 0 ||
		(MyBgworkerEntry && strcmp(MyBgworkerEntry->bgw_library_name, "payshard") == 0);
}

uint32
ps_route_primary(int shard)
{
	PsMapShard	state;

	if (!ps_map_shard(shard, &state))
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("the map of the cluster does not know shard %d", shard),
				 errhint("Retry; see payshard.shards.")));
	if (state.waits != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("shard %d is not open yet", shard),
				 errdetail("It is being recovered after the loss or restart of a primary."),
				 errhint("Retry; see payshard.shards.")));
	return state.primary;
}

/* ------------------------------------------------------------ deciding */

/* Waits until all shards are served, or for as long as a statement would. */
static void
await_all(void)
{
	int			n = ps_map_n_shards();

	for (int i = 0; i < n; i++)
		ps_await_shard(i);
}

/* Primaries of all shards, open or not. */
static uint64
all_primaries(void)
{
	uint64		nodes = 0;
	int			n = ps_map_n_shards();
	PsMapShard	state;

	for (int i = 0; i < n; i++)
		if (ps_map_shard(i, &state))
			nodes |= PS_NODE_BIT(state.primary);
	return nodes;
}

static int
count_nodes(uint64 nodes)
{
	return pg_popcount64(nodes);
}

static Way
decide(PsMention *mention, ParamListInfo params, bool is_final)
{
	Way			way = {WAY_HERE, 0, NIL, false};
	uint64		nodes = 0;
	uint64		self = PS_NODE_BIT(ps_map_self());
	bool		is_later = false;
	bool		is_any = false;
	ListCell   *cell;

	foreach(cell, mention->targets)
	{
		Bitmapset  *shards;
		int			known = ps_shards_find(lfirst(cell), params, is_final, &shards);
		int			shard = -1;

		is_later |= known < 0;
		is_any |= known == 0;
		while (known == 1 && (shard = bms_next_member(shards, shard)) >= 0)
		{
			ps_await_shard(shard);
			nodes |= PS_NODE_BIT(ps_route_primary(shard));
			way.shards = list_append_unique_int(way.shards, shard);
			PS_FAULT("route.found");
		}
	}
	if (is_any)
		await_all();
	if (is_any || is_later)
	{
		uint64		all = all_primaries();

		/* with one primary for everything the key does not matter */
		way.is_single = count_nodes(all) == 1;
		if (way.is_single)
			is_later = false;
		if (is_any || way.is_single)
			nodes = all;
	}
	if (is_later)
		way.way = WAY_LATER;
	else if (count_nodes(nodes) > 1)
		way.way = WAY_MANY;
	else if (nodes != 0 && nodes != self)
	{
		way.way = WAY_SHIP;
		way.node = pg_rightmost_one_pos64(nodes);
	}
	return way;
}

/* ------------------------------------------------------------ refusing */

static const char *
verb_of(Query *query)
{
	switch (query->commandType)
	{
		case CMD_INSERT:
			return "INSERT into";
		case CMD_UPDATE:
			return "UPDATE of";
		case CMD_DELETE:
			return "DELETE from";
		case CMD_MERGE:
			return "MERGE into";
		default:
			return query->hasModifyingCTE ? "change of" :
				query->rowMarks ? "SELECT FOR UPDATE or SHARE of" : "SELECT from";
	}
}

/* Is any mention written or locked? */
static PsTarget *
changed_target(PsMention *mention)
{
	ListCell   *cell;

	foreach(cell, mention->targets)
	{
		PsTarget   *target = lfirst(cell);

		if (target->is_written || target->is_locked)
			return target;
	}
	return NULL;
}

static void
refuse_many(Query *query, PsTarget *target)
{
	bool		is_known = target->tuples != NIL || target->array != NULL;

	ps_samemap_require();
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s distributed table \"%s\" cannot run at several nodes in one statement yet",
					verb_of(query), get_rel_name(target->relid)),
			 is_known ? errdetail("Its rows have primaries on several nodes.") :
			 errdetail("It does not say by constants or parameters which distribution key it is "
			           "about."),
			 is_known ? errhint("Use one statement, in a transaction of its own, per node; "
			                    "payshard.nodes_for() tells where a key lives.") :
			 errhint("Give the distribution key with = in WHERE, or values for it.")));
}

static void
refuse_shipped(Query *query, Way *way)
{
	if (run_depth > 0)
		ps_samemap_require();
	if (run_depth > 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a function or trigger cannot use shards of another node here"),
				 errdetail("The statement that called it was sent to this node by another one."),
				 errhint("Let functions and triggers use rows with the same distribution key "
				         "only.")));
	ereport(ERROR,
			(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
			 errmsg("this node is not the primary of all shards of the statement"),
			 errdetail("The map of this node has epoch " UINT64_FORMAT ".", ps_map_epoch()),
			 errhint("Retry the transaction.")));
}

/* Functions that ask or change the session they run in. */
static bool
is_of_session(Oid function, void *context)
{
	switch (function)
	{
		case F_SET_CONFIG:
		case F_NEXTVAL:
		case F_CURRVAL:
		case F_LASTVAL:
		case F_SETVAL_REGCLASS_INT8:
		case F_SETVAL_REGCLASS_INT8_BOOL:
		case F_PG_NOTIFY:
			return true;
		default:
			/* advisory locks */
			return (function >= F_PG_ADVISORY_LOCK_INT8 && function <= F_PG_ADVISORY_UNLOCK_ALL) ||
				(function >= F_PG_ADVISORY_XACT_LOCK_INT8 &&
				 function <= F_PG_TRY_ADVISORY_XACT_LOCK_SHARED_INT4_INT4);
	}
}

static bool
of_session_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_of_session, context))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, of_session_walker, context, 0);
	return expression_tree_walker(node, of_session_walker, context);
}

/*
 * What stands beside a query, and its text would not say: the CHECK OPTION of a
 * view and the WHERE of a security barrier, when it is written through them; and
 * SEARCH and CYCLE, which the rewriter has already spelled out.
 */
static bool
hidden_walker(Node *node, void *context)
{
	const char **why = context;
	Query	   *query = (Query *) node;
	bool		has_view = false;
	ListCell   *cell;

	if (node == NULL)
		return false;
	if (!IsA(node, Query))
		return expression_tree_walker(node, hidden_walker, context);
	*why = "It writes through a view WITH CHECK OPTION or with security_barrier.";
	foreach(cell, query->withCheckOptions)
	{
		if (((WithCheckOption *) lfirst(cell))->kind == WCO_VIEW_CHECK)
			return true;
	}
	foreach(cell, query->resultRelation ? query->rtable : NIL)
		has_view |= ((RangeTblEntry *) lfirst(cell))->relkind == RELKIND_VIEW;
	if (has_view && rt_fetch(query->resultRelation, query->rtable)->securityQuals != NIL)
		return true;
	*why = "It has a recursive WITH query with SEARCH or CYCLE.";
	foreach(cell, query->cteList)
	{
		CommonTableExpr *cte = lfirst(cell);

		if (cte->search_clause || cte->cycle_clause)
			return true;
	}
	return query_tree_walker(query, hidden_walker, context, 0);
}

/* Why a statement cannot be run as a whole elsewhere; NULL = it can. */
static const char *
unshippable(Query *query, PsMention *mention)
{
	List	   *output = query->commandType == CMD_SELECT ? query->targetList :
		query->returningList;
	const char *why = NULL;
	ListCell   *cell;

	if (mention->has_other)
		return "It also uses ordinary tables of this node.";
	if (query->commandType == CMD_SELECT && of_session_walker((Node *) query, NULL))
		return "It calls a function about the session of the client.";
	if (hidden_walker((Node *) query, &why))
		return why;
	foreach(cell, mention->targets)
	{
		PsTarget   *target = lfirst(cell);

		if (OidIsValid(target->user) && target->user != GetUserId())
			return "It runs with the rights of a view's owner.";
	}
	foreach(cell, output)
	{
		TargetEntry *tle = lfirst(cell);

		if (!tle->resjunk && get_typtype(exprType((Node *) tle->expr)) == TYPTYPE_PSEUDO)
			return "It returns values without a type.";
	}
	return NULL;
}

/* Where rows move to must be known. */
static void
refuse_moves(PsMention *mention)
{
	ListCell   *cell;

	foreach(cell, mention->targets)
	{
		PsTarget   *target = lfirst(cell);

		if (target->is_moved && target->moved_to == NIL && count_nodes(all_primaries()) > 1)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot assign the distribution key of table \"%s\" in this statement",
							get_rel_name(target->relid)),
					 errdetail("Rows could move to shards of other nodes."),
					 errhint("Give the key with = in WHERE and assign a constant or parameter; or "
							 "delete the row and insert it anew.")));
	}
}

static void
refuse_serializable(void)
{
	if (IsolationIsSerializable() && all_primaries() != PS_NODE_BIT(ps_map_self()))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("SERIALIZABLE transactions cannot use distributed tables"),
				 errdetail("Conflicts with transactions on other nodes would not be seen."),
				 errhint("Use REPEATABLE READ or READ COMMITTED with explicit row locks.")));
}

/* ------------------------------------------------------------ planning */

static PlannedStmt *
plan_here(Query *query, const char *text, int options, ParamListInfo params, PsScope new_scope)
{
	PsScope		before = scope;
	PlannedStmt *plan;

	scope = new_scope;
	PG_TRY();
	{
		plan = previous_planner ? previous_planner(query, text, options, params) :
			standard_planner(query, text, options, params);
	}
	PG_FINALLY();
	{
		scope = before;
	}
	PG_END_TRY();
	return plan;
}

static bool
has_distributed(PlannedStmt *plan)
{
	ListCell   *cell;

	if (plan->planTree && IsA(plan->planTree, CustomScan) &&
		((CustomScan *) plan->planTree)->scan.scanrelid == 0)
		return false;			/* ours: they look themselves */
	foreach(cell, plan->rtable)
	{
		RangeTblEntry *rte = lfirst(cell);

		if (rte->rtekind == RTE_RELATION && ps_relation(rte->relid) != NULL)
			return true;
	}
	return false;
}

static void
throw_planned_before(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the placement of shards has changed while the statement was planned"),
			 errhint("Retry the transaction.")));
}

/*
 * As plan_here, for a map whose shards have these terms.  NULL when it is not the map
 * any more: what was looked up meanwhile may be of two maps, and a partition that has
 * been made dummy leaves no trace in the plan.  Leaves the query as it is.
 */
static PlannedStmt *
plan_under(uint64 terms, Query *query, const char *text, int options, ParamListInfo params,
		   PsScope new_scope)
{
	PlannedStmt *plan = plan_here(copyObject(query), text, options, params, new_scope);

	return terms == ps_map_terms() ? plan : NULL;
}

static void
require_terms(uint64 terms)
{
	if (terms != ps_map_terms())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the nodes do not have the same map"),
				 errdetail("Shards have other primaries here, in epoch " UINT64_FORMAT
						   ", than where the statement was planned.", ps_map_epoch()),
				 errhint("Retry the transaction.")));
}

/*
 * Is this the statement of a scatter, for our own shards only?  *terms: those of the
 * map it was planned under.
 */
static bool
is_local_scope(Query *query, uint64 *terms)
{
	List	   *quals = NIL;
	ListCell   *cell;
	Oid			marker;

	if (!shipped || query->commandType != CMD_SELECT || query->jointree->quals == NULL)
		return false;
	if (IsA(query->jointree->quals, FuncExpr))
		quals = list_make1(query->jointree->quals);
	else if (is_andclause(query->jointree->quals))
		quals = ((BoolExpr *) query->jointree->quals)->args;
	marker = ps_scatter_marker();
	foreach(cell, quals)
	{
		FuncExpr   *call = lfirst(cell);
		Const	   *argument;

		if (!IsA(call, FuncExpr) || call->funcid != marker)
			continue;
		argument = linitial(call->args);
		if (!IsA(argument, Const) || argument->constisnull)
			continue;
		*terms = (uint64) DatumGetInt64(argument->constvalue);
		return true;
	}
	return false;
}

/*
 * What is written must be here, the rest may be read elsewhere; and only where a
 * plan can tell apart which is which.
 */
static void
require_changed_here(Query *query, PsTarget *changed, ParamListInfo params, bool is_final)
{
	Bitmapset  *shards;
	int			shard = -1;

	if (query->commandType == CMD_SELECT || query->commandType == CMD_MERGE ||
		list_length(query->cteList) > 0 || !changed->is_written)
		refuse_many(query, changed);
	if (ps_shards_find(changed, params, is_final, &shards) != 1)
		refuse_many(query, changed);
	while ((shard = bms_next_member(shards, shard)) >= 0)
		if (ps_route_primary(shard) != ps_map_self())
			refuse_many(query, changed);
}

/* Plans it; NULL when the map has changed meanwhile. */
static PlannedStmt *
try_plan(Query *query, const char *text, int options, ParamListInfo params, bool is_final)
{
	PsMention  *mention;
	Way			way;
	PsTarget   *changed;
	const char *why;
	uint64		epoch = ps_map_epoch();
	uint64		terms = ps_map_terms();	/* before it is decided */
	uint64		wanted;

	if (is_local_scope(query, &wanted))
	{
		/* the call is in the scans: where no partition is alive nobody makes it */
		require_terms(wanted);
		return plan_under(terms, query, text, options, params, PS_SCOPE_HERE);
	}
	mention = ps_key_find(query);
	refuse_moves(mention);
	way = decide(mention, params, is_final);
	if (way.way == WAY_MANY && terms != ps_map_terms())
		return NULL;			/* looked up in two maps */
	changed = changed_target(mention);
	if (way.way == WAY_LATER)
	{
		PlannedStmt *plan = params ? NULL : ps_once_plan(query, mention, text, epoch);

		return plan ? plan : ps_later_plan(query, epoch, NIL, PS_LATER_COST);
	}
	if (way.way == WAY_HERE)
		return plan_under(terms, query, text, options, params, PS_SCOPE_HERE);
	if (shipped)
		refuse_shipped(query, &way);
	why = unshippable(query, mention);
	if (way.way == WAY_SHIP && why == NULL)
		return ps_ship_plan(query, way.node, way.shards);
	if (way.way == WAY_SHIP && changed)
		ps_samemap_require();
	if (way.way == WAY_SHIP && changed)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot run this %s distributed table \"%s\" at node \"%s\"",
						verb_of(query),
						get_rel_name(changed->relid), ps_map_node_name(way.node)),
				 errdetail_internal("%s", why),
				 errhint("Use two statements: read first, then write with values.")));
	if (changed)
		require_changed_here(query, changed, params, is_final);
	return plan_under(terms, query, text, options, params, PS_SCOPE_ALL);
}

static PlannedStmt *
plan_routed(Query *query, const char *text, int options, ParamListInfo params, bool is_final)
{
	PS_FAULT("route.before_map");
	ps_map_require_serving();
	ps_samemap_note();
	refuse_serializable();
	if (is_final)
		ps_shards_fix(query, params);
	for (int i = 1;; i++)
	{
		PlannedStmt *plan = try_plan(query, text, options, params, is_final);

		if (plan)
			return plan;
		/* a transaction's snapshot is older than the map */
		if (i == PS_PLANS_MAX || IsolationUsesXactSnapshot())
			throw_planned_before();
	}
}

/* No distributed table stands in it, but perhaps in a function that is inlined. */
static PlannedStmt *
plan_ordinary(Query *query, const char *text, int options, ParamListInfo params)
{
	uint64		epoch = ps_map_epoch();
	PlannedStmt *plan = plan_here(query, text, options, params, PS_SCOPE_ALL);

	if (unlikely(epoch != ps_map_epoch()) && has_distributed(plan))
		throw_planned_before();
	return plan;
}

static PlannedStmt *
route_planner(Query *query, const char *text, int options, ParamListInfo params)
{
	if (query->commandType != CMD_UTILITY && ps_map_self() == 0 && MyBgworkerEntry == NULL &&
		ps_key_is_distributed(query))
		ps_map_await_self();
	if (query->commandType == CMD_UTILITY || ps_route_is_off())
		return plan_here(query, text, options, params, PS_SCOPE_NONE);
	if (!ps_key_is_distributed(query))
		return plan_ordinary(query, text, options, params);
	plans_epoch = Min(plans_epoch, ps_map_epoch());
	return plan_routed(query, text, options, params, false);
}

PlannedStmt *
ps_route_plan(Query *query, const char *text, int options, ParamListInfo params)
{
	return plan_routed(query, text, options, params, true);
}

PlannedStmt *
ps_route_plan_inside(Query *query, const char *text, ParamListInfo params)
{
	PlannedStmt *plan;

	run_depth--;
	PG_TRY();
	{
		plan = plan_routed(query, text, 0, params, true);
	}
	PG_FINALLY();
	{
		run_depth++;
	}
	PG_END_TRY();
	return plan;
}

PlannedStmt *
ps_route_plan_here(Query *query, const char *text)
{
	return plan_here(query, text, 0, NULL, PS_SCOPE_HERE);
}

/* ------------------------------------------------------------ executing */

/* A look at the partitions of a statement. */
typedef struct Look
{
	Snapshot	snapshot;
	uint64		terms;			/* grows by the term of each, which is at least 1 */
} Look;

/*
 * A partition that is read or written here: are we its primary still, and were we
 * when the snapshot was taken?
 */
static void
check_relation(Relation rel, Look *look)
{
	const PsRelation *part = rel ? ps_relation(RelationGetRelid(rel)) : NULL;
	PsMapShard	before;
	PsMapShard	state;

	if (part == NULL || part->shard < 0 || !ps_map_shard(part->shard, &before))
		return;
	ps_hold_enter(part->shard);
	if (ps_map_shard(part->shard, &state))
		look->terms += state.term;
	if (ps_map_opened_after(part->shard, look->snapshot))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("shard %d was opened here after the snapshot was taken", part->shard),
				 errdetail("What was committed at its primary before may be missing in the "
				           "snapshot."),
				 errhint("Retry the transaction.")));
	/* another term: the snapshot is older than the wait for a switchover */
	if (ps_route_primary(part->shard) == ps_map_self() && state.term == before.term)
		return;
	if (shipped)
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("this node is not the primary of shard %d any more", part->shard),
				 errhint("Retry the transaction.")));
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the placement of shard %d has changed since the statement was planned",
					part->shard),
			 errhint("Retry the transaction.")));
}

static bool
check_state(PlanState *state, void *context)
{
	switch (nodeTag(state))
	{
		case T_SeqScanState:
		case T_SampleScanState:
		case T_IndexScanState:
		case T_IndexOnlyScanState:
		case T_BitmapHeapScanState:
		case T_TidScanState:
		case T_TidRangeScanState:
			check_relation(((ScanState *) state)->ss_currentRelation, context);
			break;
		case T_ModifyTableState:
			for (int i = 0; i < ((ModifyTableState *) state)->mt_nrels; i++)
				check_relation(((ModifyTableState *) state)->resultRelInfo[i].ri_RelationDesc,
							   context);
			break;
		default:
			break;
	}
	return planstate_tree_walker(state, check_state, context);
}

/* Writes to a distributed table here, after writes elsewhere? */
static void
check_writes(PlannedStmt *plan)
{
	ListCell   *cell;

	if (ps_session_writes_at() == 0)
		return;
	ps_session_require_writer();
	foreach(cell, plan->resultRelations)
	{
		if (ps_relation(rt_fetch(lfirst_int(cell), plan->rtable)->relid) != NULL)
			ps_refuse_two_writers(ps_session_writes_at(), 0);
	}
}

/* A cursor that is being opened: other statements may run before its first row. */
static bool
is_cursor(QueryDesc *desc)
{
	return desc->operation == CMD_SELECT && ActivePortal != NULL &&
		ActivePortal->status == PORTAL_DEFINED && ActivePortal->name[0] != '\0';
}

/* It shows what was there when it was opened: rows of other nodes are got now. */
static bool
get_rows_now(PlanState *state, void *context)
{
	if (IsA(state, CustomScanState))
	{
		ps_ship_run_now((CustomScanState *) state);
		ps_scatter_run_now((CustomScanState *) state);
		ps_later_run_now((CustomScanState *) state);
	}
	return planstate_tree_walker(state, get_rows_now, context);
}

/* Does a plan change or lock rows at this node that outlive the session? */
static bool
changes_here(PlannedStmt *plan)
{
	ListCell   *cell;

	foreach(cell, plan->rowMarks)
	{
		if (RowMarkRequiresRowShareLock(((PlanRowMark *) lfirst(cell))->markType))
			return true;
	}
	foreach(cell, plan->resultRelations)
	{
		RangeTblEntry *rte = rt_fetch(lfirst_int(cell), plan->rtable);

		if (get_rel_persistence(rte->relid) != RELPERSISTENCE_TEMP)
			return true;
	}
	return false;
}

static void
start(QueryDesc *desc, int eflags)
{
	if (previous_start)
		previous_start(desc, eflags);
	else
		standard_ExecutorStart(desc, eflags);
}

/* Starts a statement, with its remembered plan if it has one. */
static void
start_once(QueryDesc *desc, int eflags)
{
	PsOnce	   *once = ps_once_begin(desc, eflags);

	if (once == NULL)
	{
		start(desc, eflags);
		return;
	}
	PG_TRY();
	{
		start(desc, eflags);
	}
	PG_CATCH();
	{
		ps_once_failed(once);
		PG_RE_THROW();
	}
	PG_END_TRY();
	ps_once_started(once, desc, eflags);
}

/*
 * Is this node the primary of all that is read or written here, and has it the
 * lease?  Where that was waited for and the map has changed, in the same terms as
 * before: the snapshot is older than the wait.  Terms only grow: their sum tells.
 */
static void
check_shards(QueryDesc *desc)
{
	Look		before = {desc->snapshot, 0};
	Look		after = {desc->snapshot, 0};

	check_state(desc->planstate, &before);
	/* in local scope to have nothing here is an answer, too */
	if ((before.terms == 0 && !shipped) || !ps_lease_require())	/* the snapshot is taken */
		return;
	check_state(desc->planstate, &after);
	if (before.terms != after.terms)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the payshard map changed while the statement waited for a lease"),
				 errhint("Retry the transaction.")));
}

/* Looks at a statement that has been started; false = it uses no shard here. */
static bool
check_started(QueryDesc *desc)
{
	if (plans_epoch != ps_map_epoch())
	{
		ResetPlanCache();
		plans_epoch = ps_map_epoch();
	}
	if (is_cursor(desc))
		get_rows_now(desc->planstate, NULL);
	if (!has_distributed(desc->plannedstmt))
		return false;
	ps_map_require_serving();
	ps_samemap_note();
	check_writes(desc->plannedstmt);
	ps_session_claim(ps_map_self());
	check_shards(desc);
	return true;
}

static void
route_start(QueryDesc *desc, int eflags)
{
	bool		is_explained = (eflags & EXEC_FLAG_EXPLAIN_ONLY) != 0;
	bool		is_changing;

	start_once(desc, eflags);
	is_changing = !is_explained && changes_here(desc->plannedstmt);
	if (is_changing)
		ps_local_note();
	/* what a worker does for its leader the leader has looked at; not what functions do */
	if (ps_route_is_off() || (IsParallelWorker() && run_depth == 0))
		return;
	/* to the end of the transaction nobody else becomes primary of what is written */
	if (!is_explained && check_started(desc) && is_changing)
		ps_hold_keep();
	else
		ps_hold_leave();
}

static void
route_run(PS_EXECUTOR_RUN_ARGUMENTS)
{
	run_depth++;
	PG_TRY();
	{
		if (previous_run)
			previous_run(PS_EXECUTOR_RUN_PASS);
		else
			standard_ExecutorRun(PS_EXECUTOR_RUN_PASS);
	}
	PG_FINALLY();
	{
		run_depth--;
	}
	PG_END_TRY();
}

/* local_scope(terms): see scatter.c */
Datum
payshard_local_scope(PG_FUNCTION_ARGS)
{
	uint64		terms = (uint64) PG_GETARG_INT64(0);

	(void) ps_lease_require();
	require_terms(terms);
	PG_RETURN_BOOL(true);
}

static void
on_xact_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		suspended = false;
}

void
ps_route_install(void)
{
	DefineCustomBoolVariable("payshard.shipped",
							 "This session was opened by another node for its client's statements.",
							 NULL, &shipped, false, PGC_USERSET,
							 GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							 NULL, NULL, NULL);
	previous_planner = planner_hook;
	planner_hook = route_planner;
	previous_start = ExecutorStart_hook;
	ExecutorStart_hook = route_start;
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = route_run;
	ps_ship_register();
	ps_later_register();
	ps_scatter_install();
	ps_copy_install();
	RegisterXactCallback(on_xact_end, NULL);
}
