/*
 * text.c
 *		How does a query become text that another node understands the same way?
 *
 * pg_get_querydef prints it with a search_path of pg_catalog alone, so that
 * all other names are qualified; the other side has pg_catalog first in its
 * search_path (link/session.c).  Expressions that are stable, but not the same
 * everywhere, become parameters and are evaluated here, once per execution.
 *
 * Values travel as bytes where the type is built in: those bytes mean the same
 * on every node.  Values of other types travel as text, with a cast in the
 * statement, as their oids differ from node to node.
 */
#include "postgres.h"

#include "access/transam.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "rewrite/rewriteManip.h"
#include "route/scatter.h"
#include "route/text.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

/* Longest VALUES list whose sequence numbers are taken here. */
#define DRAWN_ROWS_MAX 1000

/* Types whose values name objects by oid. */
static bool
names_objects(Oid type)
{
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
		case REGCOLLATIONOID:
			return true;
		default:
			return false;
	}
}

bool
ps_text_is_binary(Oid type)
{
	Oid			element = get_element_type(type);

	if (type >= FirstUnpinnedObjectId || get_typtype(type) == TYPTYPE_PSEUDO)
		return false;
	return !names_objects(OidIsValid(element) ? element : type);
}

/* As text says it: a parameter has the default collation of its type. */
static Node *
with_collation(Node *param, Oid collation)
{
	CollateExpr *collate = makeNode(CollateExpr);

	if (!OidIsValid(collation) || collation == get_typcollation(exprType(param)))
		return param;
	collate->arg = (Expr *) param;
	collate->collOid = collation;
	collate->location = -1;
	return (Node *) collate;
}

/* $n as what the expression is. */
static Node *
parameter(Node *expr, int n)
{
	Param	   *param = makeNode(Param);
	Oid			type = exprType(expr);

	param->paramkind = PARAM_EXTERN;
	param->paramid = n;
	param->paramtype = type;
	param->paramtypmod = exprTypmod(expr);
	param->paramcollid = exprCollation(expr);
	param->location = -1;
	if (ps_text_is_binary(type))
		return with_collation((Node *) param, exprCollation(expr));
	return with_collation((Node *) makeRelabelType((Expr *) param, type, exprTypmod(expr),
												   get_typcollation(type), COERCE_EXPLICIT_CAST),
						  exprCollation(expr));
}

/* $n for an expression: the same expression, the same n. */
static Node *
as_parameter(Node *expr, List **params)
{
	ListCell   *cell;
	int			n = 0;

	foreach(cell, *params)
	{
		n++;
		if (equal(lfirst(cell), expr))
			return parameter(expr, n);
	}
	*params = lappend(*params, expr);
	return parameter(expr, list_length(*params));
}

static bool
depends_on_rows(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Var) || IsA(node, Aggref) || IsA(node, GroupingFunc) ||
		IsA(node, WindowFunc) || IsA(node, SubLink) || IsA(node, CaseTestExpr) ||
		IsA(node, CoerceToDomainValue) || IsA(node, SetToDefault) ||
		IsA(node, CurrentOfExpr) || IsA(node, NextValueExpr) || IsA(node, Query))
		return true;
	if (IsA(node, Param) && ((Param *) node)->paramkind != PARAM_EXTERN)
		return true;
	return expression_tree_walker(node, depends_on_rows, context);
}

/* Stable, and so perhaps another value at the other node? */
static bool
is_evaluated_here(Node *node)
{
	Oid			type;

	switch (nodeTag(node))
	{
		case T_FuncExpr:
		case T_OpExpr:
		case T_SQLValueFunction:
		case T_CoerceViaIO:
		case T_ScalarArrayOpExpr:
		case T_ArrayCoerceExpr:
		case T_MinMaxExpr:
			break;
		default:
			return false;
	}
	type = exprType(node);
	return get_typtype(type) != TYPTYPE_PSEUDO && !expression_returns_set(node) &&
		!depends_on_rows(node, NULL) && contain_mutable_functions(node) &&
		!contain_volatile_functions(node);
}

/* The mark of a scatter's statement must stay a call: the planner looks for it. */
static Oid	marker = InvalidOid;

typedef struct Replace
{
	List	  **params;
	List	   *drawn;			/* see draw(); by number */
} Replace;

static Node *
to_parameters(Node *node, void *context)
{
	List	  **params = ((Replace *) context)->params;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, to_parameters, context, 0);
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXTERN &&
		((Param *) node)->paramid < 0)
	{
		/* each is a call of its own */
		Node	   *call = list_nth(((Replace *) context)->drawn, -((Param *) node)->paramid - 1);

		*params = lappend(*params, call);
		return parameter(call, list_length(*params));
	}
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_EXTERN)
		return as_parameter(node, params);
	if (IsA(node, RangeTblFunction))
	{
		/* a function stands there, whatever its arguments are */
		RangeTblFunction *copy = makeNode(RangeTblFunction);

		*copy = *(RangeTblFunction *) node;
		copy->funcexpr = expression_tree_mutator(copy->funcexpr, to_parameters, context);
		return (Node *) copy;
	}
	if (IsA(node, FuncExpr) && ((FuncExpr *) node)->funcid == marker)
		return copyObject(node);
	if (is_evaluated_here(node))
		return as_parameter(node, params);
	return expression_tree_mutator(node, to_parameters, context);
}

/* ------------------------------------------------------------ undoing
 *
 * The rewriter has put target lists into the order of the columns and added
 * defaults, without doing the same to the VALUES lists or the SELECT of an
 * INSERT; pg_get_querydef prints both as if they agreed.
 */

typedef struct Row
{
	Index		rti;			/* of the VALUES lists */
	List	   *values;			/* one row of them */
} Row;

/* Vars of the VALUES lists become the values of one row. */
static Node *
fill_in(Node *node, void *context)
{
	Row		   *row = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Var) && ((Var *) node)->varno == row->rti && ((Var *) node)->varlevelsup == 0)
		return copyObject(list_nth(row->values, ((Var *) node)->varattno - 1));
	return expression_tree_mutator(node, fill_in, context);
}

/* Column i of the entry `rti` becomes what target i is; each is then that. */
static void
point_at_source(Query *query, Index rti)
{
	ListCell   *cell;
	int			n = 0;

	foreach(cell, query->targetList)
	{
		TargetEntry *tle = lfirst(cell);
		Node	   *expr = (Node *) tle->expr;

		tle->expr = (Expr *) makeVar(rti, ++n, exprType(expr), exprTypmod(expr),
									 exprCollation(expr), 0);
	}
}

static void
align_values(Query *query, Index rti, RangeTblEntry *rte)
{
	ListCell   *cell;
	ListCell   *target;

	foreach(cell, rte->values_lists)
	{
		Row			row = {rti, lfirst(cell)};
		List	   *aligned = NIL;

		foreach(target, query->targetList)
			aligned = lappend(aligned, fill_in((Node *) ((TargetEntry *) lfirst(target))->expr,
					&row));
		lfirst(cell) = aligned;
	}
	point_at_source(query, rti);
}

/* SELECT targets FROM (the SELECT as it is) */
static void
align_select(Query *query, Index rti, RangeTblEntry *rte)
{
	Query	   *wrapper = makeNode(Query);
	RangeTblEntry *inner = copyObject(rte);
	RangeTblRef *ref = makeNode(RangeTblRef);
	List	   *names = NIL;
	ListCell   *cell;

	IncrementVarSublevelsUp((Node *) inner->subquery, 1, 1);
	inner->inFromCl = true;
	inner->alias = makeAlias("source", NIL);
	inner->eref = makeAlias("source", copyObject(rte->eref->colnames));
	ref->rtindex = 1;
	wrapper->commandType = CMD_SELECT;
	wrapper->canSetTag = true;
	wrapper->rtable = list_make1(inner);
	wrapper->jointree = makeFromExpr(list_make1(ref), NULL);
	foreach(cell, query->targetList)
	{
		TargetEntry *tle = flatCopyTargetEntry(lfirst(cell));

		tle->expr = copyObject(tle->expr);
		ChangeVarNodes((Node *) tle->expr, rti, 1, 0);
		tle->resno = list_length(wrapper->targetList) + 1;
		tle->resname = psprintf("c%d", tle->resno);
		names = lappend(names, makeString(tle->resname));
		wrapper->targetList = lappend(wrapper->targetList, tle);
	}
	rte->subquery = wrapper;
	rte->eref = makeAlias(rte->eref->aliasname, names);
	point_at_source(query, rti);
}

static void
align_insert(Query *query)
{
	/* what the rewriter has filled in must be accepted once more over there */
	query->override = OVERRIDING_SYSTEM_VALUE;
	if (query->jointree->fromlist == NIL)
		return;
	for (Index rti = 1; rti <= list_length(query->rtable); rti++)
	{
		RangeTblEntry *rte = rt_fetch(rti, query->rtable);

		if (rte->rtekind == RTE_VALUES)
			align_values(query, rti, rte);
		else if (rte->rtekind == RTE_SUBQUERY)
			align_select(query, rti, rte);
	}
}

static bool
find_multiexpr(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param) && ((Param *) node)->paramkind == PARAM_MULTIEXPR)
	{
		*(int *) context = ((Param *) node)->paramid;
		return true;
	}
	return expression_tree_walker(node, find_multiexpr, context);
}

static int
compare_multiexpr(const ListCell *a, const ListCell *b)
{
	int			left = 0;
	int			right = 0;

	find_multiexpr((Node *) ((TargetEntry *) lfirst(a))->expr, &left);
	find_multiexpr((Node *) ((TargetEntry *) lfirst(b))->expr, &right);
	if (left != right)
		return left < right ? -1 : 1;
	return ((TargetEntry *) lfirst(a))->resno - ((TargetEntry *) lfirst(b))->resno;
}

/* SET (b, a) = (SELECT ..): its columns side by side again. */
static void
align_assignments(List *targets)
{
	int			id = 0;

	if (find_multiexpr((Node *) targets, &id))
		list_sort(targets, compare_multiexpr);
}

/* ------------------------------------------------------------ sequences
 *
 * nextval() in a row that an INSERT lists is called here, so that currval() and
 * lastval() of this session know it as they do after an INSERT into a plain table;
 * and these, too, are asked here.  Not for the rows of a SELECT, and not for very
 * many, each of which would be a parameter.
 */

static bool
is_drawn(Node *node)
{
	if (IsA(node, NextValueExpr))
		return true;
	if (!IsA(node, FuncExpr) || depends_on_rows((Node *) ((FuncExpr *) node)->args, NULL))
		return false;
	return ((FuncExpr *) node)->funcid == F_NEXTVAL || ((FuncExpr *) node)->funcid == F_CURRVAL ||
		((FuncExpr *) node)->funcid == F_LASTVAL;
}

/* Such calls become parameters with the negative of their number in the list. */
static Node *
draw(Node *node, void *context)
{
	List	  **drawn = context;
	Param	   *param;

	if (node == NULL || IsA(node, SubLink))
		return node;
	if (!is_drawn(node))
		return expression_tree_mutator(node, draw, context);
	*drawn = lappend(*drawn, node);
	param = makeNode(Param);
	param->paramkind = PARAM_EXTERN;
	param->paramid = -list_length(*drawn);
	param->paramtype = exprType(node);
	param->paramtypmod = exprTypmod(node);
	param->location = -1;
	return (Node *) param;
}

static void
draw_values(Query *query, List **drawn)
{
	ListCell   *cell;
	ListCell   *row;

	foreach(cell, query->jointree->fromlist == NIL ? query->targetList : NIL)
	{
		TargetEntry *tle = lfirst(cell);

		tle->expr = (Expr *) draw((Node *) tle->expr, drawn);
	}
	foreach(cell, query->jointree->fromlist == NIL ? NIL : query->rtable)
	{
		RangeTblEntry *rte = lfirst(cell);

		if (rte->rtekind != RTE_VALUES || list_length(rte->values_lists) > DRAWN_ROWS_MAX)
			continue;
		foreach(row, rte->values_lists)
			lfirst(row) = draw(lfirst(row), drawn);
	}
}

/* context: a list of the calls drawn. */
static bool
undo_rewriting(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if (query->commandType == CMD_INSERT)
		{
			align_insert(query);
			draw_values(query, context);
		}
		/* a view's table stands in FROM and is what is changed */
		if (query->commandType == CMD_UPDATE || query->commandType == CMD_DELETE)
			rt_fetch(query->resultRelation, query->rtable)->inFromCl = false;
		if (query->commandType == CMD_UPDATE)
			align_assignments(query->targetList);
		if (query->onConflict)
			align_assignments(query->onConflict->onConflictSet);
		return query_tree_walker(query, undo_rewriting, context, 0);
	}
	return expression_tree_walker(node, undo_rewriting, context);
}

char *
ps_text_of(const Query *query, List **params)
{
	Query	   *copy = copyObjectImpl(query);
	Replace		replace = {params, NIL};
	char	   *text;
	ListCell   *cell;
	int			nest = NewGUCNestLevel();

	*params = NIL;
	marker = ps_scatter_marker();
	undo_rewriting((Node *) copy, &replace.drawn);
	copy = (Query *) to_parameters((Node *) copy, &replace);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	text = pg_get_querydef(copy, false);
	while (*text == ' ' || *text == '\n')
		text++;
	AtEOXact_GUC(true, nest);
	foreach(cell, *params)
		lfirst(cell) = expression_planner(lfirst(cell));
	return text;
}

PsLinkParams *
ps_text_params(List *params, List *states, ExprContext *context)
{
	PsLinkParams *out = palloc0(sizeof(PsLinkParams));
	ListCell   *cell;
	ListCell   *state;
	int			n = list_length(params);

	out->types = palloc0(sizeof(Oid) * Max(n, 1));
	out->values = palloc0(sizeof(char *) * Max(n, 1));
	out->lengths = palloc0(sizeof(int) * Max(n, 1));
	out->formats = palloc0(sizeof(int) * Max(n, 1));
	forboth(cell, params, state, states)
	{
		Oid			type = exprType(lfirst(cell));
		bool		isnull;
		Datum		value = ExecEvalExpr((ExprState *) lfirst(state), context, &isnull);
		Oid			function;
		bool		is_varlena;

		out->types[out->n] = ps_text_is_binary(type) ? type : InvalidOid;
		if (!isnull && ps_text_is_binary(type))
		{
			bytea	   *bytes;

			getTypeBinaryOutputInfo(type, &function, &is_varlena);
			bytes = OidSendFunctionCall(function, value);
			out->values[out->n] = VARDATA(bytes);
			out->lengths[out->n] = VARSIZE(bytes) - VARHDRSZ;
			out->formats[out->n] = 1;
		}
		else if (!isnull)
		{
			getTypeOutputInfo(type, &function, &is_varlena);
			out->values[out->n] = OidOutputFunctionCall(function, value);
		}
		out->n++;
	}
	return out;
}

static bool
is_foreign_function(Oid function, void *context)
{
	return function >= FirstUnpinnedObjectId || func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

static bool
unshippable_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_foreign_function, context))
		return true;
	switch (nodeTag(node))
	{
		case T_Const:
			return !ps_text_is_binary(((Const *) node)->consttype);
		case T_Param:
			return ((Param *) node)->paramkind != PARAM_EXTERN;
		case T_Var:
			return ((Var *) node)->varattno < 0 || ((Var *) node)->varlevelsup > 0;
		case T_RelabelType:
			/* the planner makes a COLLATE this; its text would not say so */
			if (((RelabelType *) node)->resultcollid !=
				exprCollation((Node *) ((RelabelType *) node)->arg))
				return true;
			return expression_tree_walker(node, unshippable_walker, context);
		case T_OpExpr:
		case T_FuncExpr:
		case T_DistinctExpr:
		case T_NullIfExpr:
		case T_ScalarArrayOpExpr:
		case T_BoolExpr:
		case T_NullTest:
		case T_BooleanTest:
		case T_CaseExpr:
		case T_CaseWhen:
		case T_CaseTestExpr:
		case T_CoalesceExpr:
		case T_MinMaxExpr:
		case T_ArrayExpr:
		case T_CollateExpr:
		case T_List:
			return expression_tree_walker(node, unshippable_walker, context);
		default:
			return true;
	}
}

bool
ps_text_is_shippable(Node *expr)
{
	return !unshippable_walker(expr, NULL);
}
