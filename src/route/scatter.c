/*
 * scatter.c
 *		How is a distributed table read whose shards have several primaries?
 *
 * PostgreSQL plans the statement over the partitioned table as always.  In
 * set_rel_pathlist_hook partitions whose primary is another node are made
 * dummy, and where the planner has left any of these alive, the table is read
 * by an Append of the partitions here and one CustomScan that asks all other
 * nodes concerned.  The rest of the plan (joins, aggregates, order) runs here.
 *
 * The statement sent is SELECT columns FROM table WHERE filters AND
 * payshard.local_scope(terms): the other node's planner (route.c) makes all
 * partitions dummy of which it is not the primary, and the function refuses
 * with 40001 when the primaries of its map are others (ps_map_terms).  The number is
 * a constant in the text, so that no plan prepared under other ones is ever used.
 *
 * Not for tables that are changed or locked: those rows are elsewhere.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/explain.h"
#include "compat.h"
#include "executor/executor.h"
#include "link/samemap.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "node/map.h"
#include "node/relation.h"
#include "node/tables.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "route/fetch.h"
#include "route/route.h"
#include "route/scatter.h"
#include "route/text.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

/* Rows we expect from other nodes where nothing is known. */
#define ROWS_UNKNOWN 1000

/* custom_private of the scan, in this order */
enum
{
	SCATTER_TEXT,				/* String */
	SCATTER_NODES,				/* IntList */
	SCATTER_ATTNOS,				/* IntList: columns asked for */
	SCATTER_USER,				/* OidList of one: as whom */
	SCATTER_TERMS				/* String: of the map it was planned with */
};

typedef struct ScatterState
{
	CustomScanState css;
	List	   *nodes;
	List	   *params;
	List	   *states;
	char	   *text;
	Oid			user;
	bool		is_random;
	PsFetch    *fetch;			/* NULL = not sent yet */
} ScatterState;

static Plan *make_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
					   List *clauses, List *custom_plans);
static Node *create_state(CustomScan *scan);
static void begin(CustomScanState *node, EState *estate, int eflags);
static TupleTableSlot *next(CustomScanState *node);
static void end(CustomScanState *node);
static void rescan(CustomScanState *node);
static void explain(CustomScanState *node, List *ancestors, ExplainState *es);

static const CustomPathMethods path_methods = {
	.CustomName = "PayshardScatter",
	.PlanCustomPath = make_scan
};
static const CustomScanMethods scan_methods = {"PayshardScatter", create_state};
static const CustomExecMethods exec_methods = {
	.CustomName = "PayshardScatter",
	.BeginCustomScan = begin,
	.ExecCustomScan = next,
	.EndCustomScan = end,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain
};

static set_rel_pathlist_hook_type previous_hook = NULL;

Oid
ps_scatter_marker(void)
{
	Oid			schema = get_namespace_oid(PS_SCHEMA, true);
	Oid			argument = INT8OID;
	oidvector  *types;

	if (!OidIsValid(schema))
		return InvalidOid;
	types = buildoidvector(&argument, 1);
	return GetSysCacheOid3(PROCNAMEARGSNSP, Anum_pg_proc_oid, CStringGetDatum(PS_LOCAL_SCOPE),
						   PointerGetDatum(types), ObjectIdGetDatum(schema));
}

/* ------------------------------------------------------------ paths */

/* What cannot be read at other nodes is refused by name. */
static void
refuse_unreadable(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	ListCell   *cell;

	if (rti == root->parse->resultRelation || bms_is_member(rti, root->all_result_relids))
	{
		ps_samemap_require();
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change rows of distributed table \"%s\" at several nodes "
						"in one statement", get_rel_name(rte->relid)),
				 errdetail("The statement does not say by a constant or parameter which key it is "
				           "about."),
				 errhint("Give the distribution key with = in WHERE, or run one statement per "
				         "key.")));
	}
	foreach(cell, root->rowMarks)
	{
		if (((PlanRowMark *) lfirst(cell))->rti != rti)
			continue;
		ps_samemap_require();
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot lock or join rows of distributed table \"%s\" at several "
						"nodes in this statement", get_rel_name(rte->relid)),
				 errhint("Give the distribution key with =, or read the table in WITH ... AS "
						 "MATERIALIZED (SELECT ...).")));
	}
	if (rte->tablesample)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("TABLESAMPLE is not supported for distributed tables over several nodes"),
				 errhint("Use WHERE random() < ...")));
}

/* Nodes that hold what the planner has left alive of a table. */
static uint64
nodes_of_parts(PlannerInfo *root, RelOptInfo *rel, List **local)
{
	uint64		nodes = 0;
	int			i = -1;

	while ((i = bms_next_member(rel->live_parts, i)) >= 0)
	{
		RelOptInfo *child = rel->part_rels[i];
		const PsRelation *part;
		uint32		primary;

		if (child == NULL)
			continue;
		part = ps_relation(root->simple_rte_array[child->relid]->relid);
		if (part == NULL)
			continue;
		primary = ps_route_primary(part->shard);
		if (primary != ps_map_self())
			nodes |= PS_NODE_BIT(primary);
		else if (!IS_DUMMY_REL(child))
			*local = lappend(*local, child);
	}
	return nodes;
}

static bool
is_never_true(RelOptInfo *rel)
{
	ListCell   *cell;

	foreach(cell, rel->baserestrictinfo)
	{
		Const	   *clause = (Const *) ((RestrictInfo *) lfirst(cell))->clause;

		if (IsA(clause, Const) && (clause->constisnull || !DatumGetBool(clause->constvalue)))
			return true;
	}
	return false;
}

static CustomPath *
make_path(RelOptInfo *rel, uint64 nodes, double rows)
{
	CustomPath *path = makeNode(CustomPath);
	List	   *ids = NIL;

	for (int i = 1; i < PS_NODES_MAX; i++)
		if (PS_HAS_NODE(nodes, i))
			ids = lappend_int(ids, i);
	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.rows = rows;
	path->path.startup_cost = 100;
	path->path.total_cost = 100 + rows * 0.05;
	path->flags = CUSTOMPATH_SUPPORT_BACKWARD_SCAN | CUSTOMPATH_SUPPORT_PROJECTION;
	path->custom_private = list_make1(ids);
	path->methods = &path_methods;
	return path;
}

/* The table is read from `nodes` too. */
static void
replace_paths(PlannerInfo *root, RelOptInfo *rel, uint64 nodes, List *local)
{
	double		rows = 0;
	List	   *paths = NIL;
	ListCell   *cell;

	foreach(cell, local)
	{
		RelOptInfo *child = lfirst(cell);

		paths = lappend(paths, child->cheapest_total_path);
		rows += child->rows;
	}
	/* other nodes have as much of it as we, per shard */
	if (list_length(local) > 0)
		rows = rows / list_length(local) * Max(1,
				bms_num_members(rel->live_parts) - list_length(local));
	paths = lappend(paths, make_path(rel, nodes,
			list_length(local) > 0 ? clamp_row_est(rows) : ROWS_UNKNOWN));
	rel->consider_parallel = false;
	rel->partial_pathlist = NIL;
	rel->consider_partitionwise_join = false;
	rel->part_scheme = NULL;	/* or later steps would build the Append anew */
	if (list_length(paths) == 1)
		rel->pathlist = paths;
	else
		rel->pathlist = list_make1(create_append_path(root, rel, paths, NIL, NIL, NULL, 0, false,
				-1));
	rel->rows = ((Path *) linitial(rel->pathlist))->rows;
}

/* Is this partition here because its table was expanded? */
static bool
is_expanded(PlannerInfo *root, RelOptInfo *rel, const PsRelation *part)
{
	AppendRelInfo *info = root->append_rel_array ? root->append_rel_array[rel->relid] : NULL;

	return rel->reloptkind == RELOPT_OTHER_MEMBER_REL && info &&
			info->parent_reloid == part->parent;
}

static void
set_paths(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	const PsRelation *found;
	PsRelation	relation;
	uint64		nodes = 0;
	List	   *local = NIL;

	if (previous_hook)
		previous_hook(root, rel, rti, rte);
	if (ps_route_scope() == PS_SCOPE_NONE || rte->rtekind != RTE_RELATION)
		return;
	found = ps_relation(rte->relid);
	if (found == NULL)
		return;
	relation = *found;
	if (relation.shard >= 0)
	{
		uint32		primary = ps_route_primary(relation.shard);

		if (primary == ps_map_self())
			return;
		if (ps_route_scope() == PS_SCOPE_HERE || is_expanded(root, rel, &relation))
		{
			mark_dummy_rel(rel);
			return;
		}
		nodes = PS_NODE_BIT(primary);
	}
	else if (ps_route_scope() == PS_SCOPE_ALL && rte->inh)
		nodes = nodes_of_parts(root, rel, &local);
	if (nodes == 0 || is_never_true(rel))
		return;
	refuse_unreadable(root, rel, rti, rte);
	replace_paths(root, rel, nodes, local);
}

void
ps_scatter_install(void)
{
	previous_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = set_paths;
	RegisterCustomScanMethods(&scan_methods);
}

/* ------------------------------------------------------------ the plan */

/*
 * Columns of the table that are used here, in order.  What the rest of the plan
 * wants of it is in the relation's target: the tlist may be empty at this time,
 * and be put in later by a projection above.
 */
static List *
used_columns(RelOptInfo *rel, Oid relid, List *tlist, List *quals)
{
	Index		rti = rel->relid;
	Bitmapset  *used = NULL;
	List	   *attnos = NIL;
	bool		whole;
	Relation	table = RelationIdGetRelation(relid);
	int			n = RelationGetNumberOfAttributes(table);

	pull_varattnos((Node *) rel->reltarget->exprs, rti, &used);
	pull_varattnos((Node *) tlist, rti, &used);
	pull_varattnos((Node *) quals, rti, &used);
	whole = bms_is_member(0 - FirstLowInvalidHeapAttributeNumber, used);
	for (int attno = FirstLowInvalidHeapAttributeNumber + 1; attno < 0; attno++)
	{
		if (bms_is_member(attno - FirstLowInvalidHeapAttributeNumber, used))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot read system columns of distributed table \"%s\" from "
							"several nodes", get_rel_name(relid)),
					 errhint("Give the distribution key with = in WHERE.")));
	}
	for (int attno = 1; attno <= n; attno++)
	{
		if ((whole || bms_is_member(attno - FirstLowInvalidHeapAttributeNumber, used)) &&
			!TupleDescAttr(RelationGetDescr(table), attno - 1)->attisdropped)
			attnos = lappend_int(attnos, attno);
	}
	RelationClose(table);
	return attnos;
}

/* SELECT attnos FROM the table WHERE quals AND local_scope(terms) */
static Query *
make_query(PlannerInfo *root, Index rti, List *attnos, List *quals)
{
	Query	   *query = makeNode(Query);
	RangeTblEntry *rte = copyObject(root->simple_rte_array[rti]);
	RangeTblRef *ref = makeNode(RangeTblRef);
	Const	   *terms = makeConst(INT8OID, -1, InvalidOid, 8,
								  Int64GetDatum((int64) ps_map_terms()), false, FLOAT8PASSBYVAL);
	ListCell   *cell;

	rte->securityQuals = NIL;
	rte->tablesample = NULL;
	rte->inFromCl = true;
	rte->alias = NULL;
	rte->eref->aliasname = get_rel_name(rte->relid);
	query->commandType = CMD_SELECT;
	query->canSetTag = true;
	query->rtable = list_make1(rte);
	quals = copyObject(quals);
	ChangeVarNodes((Node *) quals, rti, 1, 0);
	quals = lappend(quals, makeFuncExpr(ps_scatter_marker(), BOOLOID, list_make1(terms),
										InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL));
	ref->rtindex = 1;
	query->jointree = makeFromExpr(list_make1(ref), (Node *) make_ands_explicit(quals));
	foreach(cell, attnos)
	{
		AttrNumber	attno = lfirst_int(cell);
		Oid			type;
		int32		typmod;
		Oid			collation;

		get_atttypetypmodcoll(rte->relid, attno, &type, &typmod, &collation);
		query->targetList = lappend(query->targetList,
									makeTargetEntry((Expr *) makeVar(1, attno, type, typmod,
											collation, 0),
													list_length(query->targetList) + 1,
													get_attname(rte->relid, attno, false), false));
	}
	return query;
}

static Oid
user_of(PlannerInfo *root, RangeTblEntry *rte)
{
#ifdef PS_PERMISSION_INFOS
	if (rte->perminfoindex == 0)
		return InvalidOid;
	return getRTEPermissionInfo(root->parse->rteperminfos, rte)->checkAsUser;
#else
	return rte->checkAsUser;
#endif
}

static Plan *
make_scan(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
		  List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);
	RangeTblEntry *rte = planner_rt_fetch(rel->relid, root);
	List	   *remote = NIL;
	List	   *here = NIL;
	List	   *attnos;
	List	   *params;
	ListCell   *cell;
	char	   *text;

	foreach(cell, extract_actual_clauses(clauses, false))
	{
		Node	   *clause = lfirst(cell);

		if (ps_text_is_shippable(clause))
			remote = lappend(remote, clause);
		else
			here = lappend(here, clause);
	}
	attnos = used_columns(rel, rte->relid, tlist, here);
	text = ps_text_of(make_query(root, rel->relid, attnos, remote), &params);
	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = here;
	scan->scan.scanrelid = rel->relid;
	scan->flags = path->flags;
	scan->methods = &scan_methods;
	scan->custom_exprs = params;
	scan->custom_private = list_make5(makeString(text), linitial(path->custom_private), attnos,
									  list_make1_oid(user_of(root, rte)),
									  makeString(psprintf(UINT64_FORMAT, ps_map_terms())));
	return (Plan *) scan;
}

/* ------------------------------------------------------------ execution */

static Node *
create_state(CustomScan *scan)
{
	ScatterState *state = (ScatterState *) newNode(sizeof(ScatterState), T_CustomScanState);

	state->css.methods = &exec_methods;
	state->text = strVal(list_nth(scan->custom_private, SCATTER_TEXT));
	state->nodes = list_nth(scan->custom_private, SCATTER_NODES);
	state->user = linitial_oid(list_nth(scan->custom_private, SCATTER_USER));
	state->params = scan->custom_exprs;
	return (Node *) state;
}

static void
begin(CustomScanState *node, EState *estate, int eflags)
{
	ScatterState *state = (ScatterState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;

	state->is_random = (eflags & (EXEC_FLAG_BACKWARD | EXEC_FLAG_REWIND | EXEC_FLAG_MARK)) != 0;
	if (eflags & EXEC_FLAG_EXPLAIN_ONLY)
		return;
	if (strtou64(strVal(list_nth(scan->custom_private, SCATTER_TERMS)), NULL, 10) != ps_map_terms())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("the placement of shards has changed since the statement was planned"),
				 errhint("Retry the transaction.")));
	state->states = ExecInitExprList(state->params, &node->ss.ps);
}

/* Sends to all, then gathers. */
static void
run(ScatterState *state)
{
	ScanState  *ss = &state->css.ss;
	CustomScan *scan = (CustomScan *) ss->ps.plan;
	TupleDesc	desc = ss->ss_ScanTupleSlot->tts_tupleDescriptor;
	List	   *list = list_nth(scan->custom_private, SCATTER_ATTNOS);
	int			n = list_length(list);
	AttrNumber *attnos = palloc(sizeof(AttrNumber) * Max(n, 1));
	MemoryContext old = MemoryContextSwitchTo(ss->ps.state->es_query_cxt);
	Oid			user = OidIsValid(state->user) ? state->user : GetUserId();
	PsLinkParams *params = ps_text_params(state->params, state->states, ss->ps.ps_ExprContext);
	List	   *links = NIL;
	bool		is_binary;
	ListCell   *cell;

	for (int i = 0; i < n; i++)
		attnos[i] = list_nth_int(list, i);
	is_binary = ps_fetch_is_binary(desc, n, attnos);
	params->shape = ps_fetch_shape(desc, n, attnos);
	state->fetch = ps_fetch_begin(desc, n, attnos, is_binary, state->is_random);
	foreach(cell, state->nodes)
	{
		PsLink	   *link = ps_link(lfirst_int(cell), user, PS_LINK_READ);

		ps_link_send(link, state->text, params, is_binary);
		links = lappend(links, link);
	}
	foreach(cell, links)
		ps_fetch_all(state->fetch, lfirst(cell));
	MemoryContextSwitchTo(old);
}

void
ps_scatter_run_now(CustomScanState *node)
{
	if (node->methods == &exec_methods && ((ScatterState *) node)->fetch == NULL)
		run((ScatterState *) node);
}

static TupleTableSlot *
access_next(ScanState *ss)
{
	ScatterState *state = (ScatterState *) ss;

	if (state->fetch == NULL)
		run(state);
	return ps_fetch_next(state->fetch, ss->ss_ScanTupleSlot,
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
	ScatterState *state = (ScatterState *) node;

	if (state->fetch)
		ps_fetch_end(state->fetch);
}

static void
rescan(CustomScanState *node)
{
	ScatterState *state = (ScatterState *) node;

	if (state->fetch)
		ps_fetch_rewind(state->fetch);
	ExecScanReScan(&node->ss);
}

static void
explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	ScatterState *state = (ScatterState *) node;
	List	   *names = NIL;
	ListCell   *cell;

	foreach(cell, state->nodes)
		names = lappend(names, ps_map_node_name(lfirst_int(cell)));
	ExplainPropertyList("Nodes", names, es);
	if (es->verbose)
		ExplainPropertyText("Remote SQL", state->text, es);
}
