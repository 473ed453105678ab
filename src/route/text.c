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
#include "route/scatter.h"
#include "route/text.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/ruleutils.h"

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

/* $n for an expression: the same expression, the same n. */
static Node *
as_parameter(Node *expr, List **params)
{
	Param	   *param = makeNode(Param);
	Oid			type = exprType(expr);
	ListCell   *cell;
	int			n = 0;

	foreach(cell, *params)
	{
		n++;
		if (equal(lfirst(cell), expr))
			break;
	}
	if (cell == NULL)
	{
		*params = lappend(*params, expr);
		n = list_length(*params);
	}
	param->paramkind = PARAM_EXTERN;
	param->paramid = n;
	param->paramtype = type;
	param->paramtypmod = exprTypmod(expr);
	param->paramcollid = exprCollation(expr);
	param->location = -1;
	if (ps_text_is_binary(type))
		return (Node *) param;
	return (Node *) makeRelabelType((Expr *) param, type, exprTypmod(expr),
									exprCollation(expr), COERCE_EXPLICIT_CAST);
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

static Node *
to_parameters(Node *node, void *context)
{
	List	  **params = context;

	if (node == NULL)
		return NULL;
	if (IsA(node, Query))
		return (Node *) query_tree_mutator((Query *) node, to_parameters, context, 0);
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

/* What the rewriter has filled in must be accepted once more over there. */
static bool
prepare_inserts(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if (query->commandType == CMD_INSERT)
			query->override = OVERRIDING_SYSTEM_VALUE;
		return query_tree_walker(query, prepare_inserts, context, 0);
	}
	return expression_tree_walker(node, prepare_inserts, context);
}

char *
ps_text_of(const Query *query, List **params)
{
	Query	   *copy;
	char	   *text;
	ListCell   *cell;
	int			nest = NewGUCNestLevel();

	*params = NIL;
	marker = ps_scatter_marker();
	copy = (Query *) to_parameters((Node *) copyObject(query), params);
	prepare_inserts((Node *) copy, NULL);
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
