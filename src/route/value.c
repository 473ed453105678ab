/*
 * value.c
 *		What is the value of an expression without Vars: now, at execution, or
 *		never the same?
 *
 * At plan time only constants, bound parameters and immutable functions of
 * them have a value.  At execution stable functions have one too.  Volatile
 * ones are only evaluated where the caller puts the value into the query in
 * their place (ps_value_now).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "nodes/pathnodes.h"
#include "parser/parse_coerce.h"
#include "route/value.h"
#include "utils/array.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"

static bool
depends_on_rows(Node *node, void *context)
{
	if (node == NULL)
		return false;
	switch (nodeTag(node))
	{
		case T_Var:
		case T_Aggref:
		case T_GroupingFunc:
		case T_WindowFunc:
		case T_SubLink:
		case T_SubPlan:
		case T_CurrentOfExpr:
		case T_SetToDefault:
		case T_PlaceHolderVar:
			return true;
		case T_Param:
			return ((Param *) node)->paramkind != PARAM_EXTERN;
		default:
			return expression_tree_walker(node, depends_on_rows, context);
	}
}

Node *
ps_value_strip(Node *expr)
{
	while (expr && IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	return expr;
}

bool
ps_value_depends_on_rows(Node *expr)
{
	return depends_on_rows(expr, NULL);
}

/* A bound parameter as a Const; NULL when it has no value (yet). */
static Const *
bound_parameter(Param *param, ParamListInfo params)
{
	ParamExternData *data;
	ParamExternData workspace;
	int16		length;
	bool		by_value;

	if (params == NULL || param->paramkind != PARAM_EXTERN ||
		param->paramid < 1 || param->paramid > params->numParams)
		return NULL;
	data = params->paramFetch ?
		params->paramFetch(params, param->paramid, true, &workspace) :
		&params->params[param->paramid - 1];
	if (data->ptype != param->paramtype)
		return NULL;
	get_typlenbyval(param->paramtype, &length, &by_value);
	return makeConst(param->paramtype, param->paramtypmod, param->paramcollid, length,
					 data->isnull || by_value ? data->value :
					 datumCopy(data->value, by_value, length),
					 data->isnull, by_value);
}

/* Folds what can be folded. */
static Node *
fold(Node *expr, ParamListInfo params, bool is_final)
{
	PlannerInfo *root;

	if (IsA(expr, Const))
		return expr;
	if (IsA(expr, Param))
	{
		Const	   *value = bound_parameter((Param *) expr, params);

		return value ? (Node *) value : expr;
	}
	root = makeNode(PlannerInfo);
	root->glob = makeNode(PlannerGlobal);
	root->glob->boundParams = params;
	root->parse = makeNode(Query);
	expr = copyObject(expr);
	return is_final ? estimate_expression_value(root, expr) : eval_const_expressions(root, expr);
}

/* An integer Const as another integer type; false when it does not fit. */
static bool
convert_integer(Const *value, Oid type, Datum *out)
{
	int64		number = value->consttype == INT8OID ? DatumGetInt64(value->constvalue) :
		value->consttype == INT4OID ? DatumGetInt32(value->constvalue) :
		DatumGetInt16(value->constvalue);

	if (type == INT8OID)
		*out = Int64GetDatum(number);
	else if (type == INT4OID && number >= PG_INT32_MIN && number <= PG_INT32_MAX)
		*out = Int32GetDatum((int32) number);
	else if (type == INT2OID && number >= PG_INT16_MIN && number <= PG_INT16_MAX)
		*out = Int16GetDatum((int16) number);
	else
		return false;
	return true;
}

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

PsValue
ps_value_of(Node *expr, Oid type, ParamListInfo params, bool is_final,
			Datum *value, bool *isnull)
{
	Const	   *constant;

	expr = ps_value_strip(fold(expr, params, is_final));
	if (!IsA(expr, Const))
		return is_final ? PS_VALUE_UNKNOWN : PS_VALUE_LATER;
	constant = (Const *) expr;
	*isnull = constant->constisnull;
	*value = constant->constvalue;
	if (*isnull || constant->consttype == type)
		return PS_VALUE_KNOWN;
	if (is_integer(type) && is_integer(constant->consttype))
		return convert_integer(constant, type, value) ? PS_VALUE_KNOWN : PS_VALUE_IMPOSSIBLE;
	if (IsBinaryCoercible(constant->consttype, type) ||
		IsBinaryCoercible(type, constant->consttype))
		return PS_VALUE_KNOWN;
	return PS_VALUE_UNKNOWN;
}

PsValue
ps_value_elements(Node *array, ParamListInfo params, bool is_final, List **tuples)
{
	Const	   *constant;
	ArrayType  *values;
	Oid			type;
	int16		length;
	bool		by_value;
	char		align;
	Datum	   *elements;
	bool	   *nulls;
	int			n;

	*tuples = NIL;
	array = ps_value_strip(array);
	if (IsA(array, ArrayExpr) && !((ArrayExpr *) array)->multidims)
	{
		ListCell   *cell;

		foreach(cell, ((ArrayExpr *) array)->elements)
			*tuples = lappend(*tuples, list_make1(lfirst(cell)));
		return PS_VALUE_KNOWN;
	}
	array = ps_value_strip(fold(array, params, is_final));
	if (!IsA(array, Const))
		return is_final ? PS_VALUE_UNKNOWN : PS_VALUE_LATER;
	constant = (Const *) array;
	if (constant->constisnull)
		return PS_VALUE_KNOWN;
	values = DatumGetArrayTypeP(constant->constvalue);
	type = ARR_ELEMTYPE(values);
	get_typlenbyvalalign(type, &length, &by_value, &align);
	deconstruct_array(values, type, length, by_value, align, &elements, &nulls, &n);
	for (int i = 0; i < n; i++)
		*tuples = lappend(*tuples, list_make1(makeConst(type, -1, constant->constcollid, length,
														elements[i], nulls[i], by_value)));
	return PS_VALUE_KNOWN;
}

Node *
ps_value_now(Node *expr, ParamListInfo params)
{
	EState	   *estate = CreateExecutorState();
	MemoryContext caller = CurrentMemoryContext;
	ExprContext *context;
	ExprState  *state;
	Datum		value;
	bool		isnull;
	int16		length;
	bool		by_value;
	MemoryContext old = MemoryContextSwitchTo(estate->es_query_cxt);

	estate->es_param_list_info = params;
	state = ExecPrepareExpr(copyObject((Expr *) expr), estate);
	context = GetPerTupleExprContext(estate);
	context->ecxt_param_list_info = params;
	value = ExecEvalExprSwitchContext(state, context, &isnull);
	get_typlenbyval(exprType(expr), &length, &by_value);
	MemoryContextSwitchTo(caller);
	if (!isnull && !by_value)
		value = length == -1 ? PointerGetDatum(PG_DETOAST_DATUM_COPY(value)) :
			datumCopy(value, by_value, length);
	MemoryContextSwitchTo(old);
	FreeExecutorState(estate);
	MemoryContextSwitchTo(caller);
	return (Node *) makeConst(exprType(expr), exprTypmod(expr), exprCollation(expr),
							  length, isnull ? (Datum) 0 : value, isnull, by_value);
}
