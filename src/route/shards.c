/*
 * shards.c
 *		In which shards are the rows a statement is about, once its values are
 *		known?
 *
 * key.c has found for each mention of a distributed table which expressions its
 * key equals; here they get their values and are hashed.  Keys that an INSERT
 * computes anew each time (nextval, random, now) are computed once, here, and
 * stand in the query as constants from then on: the row goes where it belongs.
 */
#include "postgres.h"

#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parsetree.h"
#include "route/shards.h"
#include "route/value.h"
#include "utils/partcache.h"
#include "utils/rel.h"

/* Adds the shard of one tuple; 0 = cannot be said, -1 = at execution. */
static int
add_shard(PsTarget *target, PartitionKey key, List *tuple, ParamListInfo params,
		  bool is_final, Bitmapset **shards)
{
	Datum		values[PS_KEY_COLUMNS_MAX];
	bool		nulls[PS_KEY_COLUMNS_MAX];
	ListCell   *cell;
	int			i = 0;

	foreach(cell, tuple)
	{
		PsValue		answer = ps_value_of(lfirst(cell), key->parttypid[i], params, is_final,
										 &values[i], &nulls[i]);

		if (answer == PS_VALUE_LATER)
			return -1;
		if (answer == PS_VALUE_UNKNOWN)
			return 0;
		/* no row equals this; an INSERT of a null key fails anywhere */
		if ((nulls[i] || answer == PS_VALUE_IMPOSSIBLE) && !target->is_written)
			return 1;
		if (answer == PS_VALUE_IMPOSSIBLE)
			return 1;
		i++;
	}
	*shards = bms_add_member(*shards, ps_relation_shard(target->parent, values, nulls));
	return 1;
}

int
ps_shards_find(PsTarget *target, ParamListInfo params, bool is_final, Bitmapset **shards)
{
	Relation	rel;
	PartitionKey key;
	List	   *tuples = target->tuples;
	ListCell   *cell;
	int			answer = 1;

	*shards = NULL;
	if (target->shard >= 0)
	{
		*shards = bms_make_singleton(target->shard);
		return 1;
	}
	if (tuples == NIL && target->array == NULL)
		return 0;
	key = ps_key_of(target->parent, &rel);
	if (target->array)
	{
		PsValue		known = ps_value_elements(target->array, params, is_final, &tuples);

		answer = known == PS_VALUE_LATER ? -1 : known == PS_VALUE_UNKNOWN ? 0 : 1;
	}
	if (answer == 1)
	{
		foreach(cell, tuples)
		{
			answer = add_shard(target, key, lfirst(cell), params, is_final, shards);
			if (answer != 1)
				break;
		}
	}
	if (answer == 1 && target->is_moved)
		answer = target->moved_to == NIL ? 0 :
			add_shard(target, key, target->moved_to, params, is_final, shards);
	RelationClose(rel);
	return answer;
}

/* ------------------------------------------------------------ fixing */

/* Must its value be taken once, here? */
static bool
is_computed(Node *expr)
{
	return !ps_value_depends_on_rows(expr) && contain_mutable_functions(expr);
}

/* A key column of an INSERT with VALUES: every row gets its constant. */
static void
fix_rows(RangeTblEntry *rte, TargetEntry *tle, ParamListInfo params)
{
	Var		   *var = (Var *) ps_value_strip((Node *) tle->expr);
	bool		is_column = IsA(var, Var) && var->varlevelsup == 0;
	ListCell   *cell;

	if (!is_column && !is_computed((Node *) tle->expr))
		return;
	foreach(cell, rte->values_lists)
	{
		List	   *row = lfirst(cell);

		if (!is_column)
			lfirst(cell) = lappend(row, ps_value_now((Node *) tle->expr, params));
		else if (is_computed(list_nth(row, var->varattno - 1)))
			lfirst(list_nth_cell(row, var->varattno - 1)) =
				ps_value_now(list_nth(row, var->varattno - 1), params);
	}
	if (!is_column)
	{
		Oid			type = exprType((Node *) tle->expr);
		int32		typmod = exprTypmod((Node *) tle->expr);
		Oid			collation = exprCollation((Node *) tle->expr);

		rte->coltypes = lappend_oid(rte->coltypes, type);
		rte->coltypmods = lappend_int(rte->coltypmods, typmod);
		rte->colcollations = lappend_oid(rte->colcollations, collation);
		rte->eref->colnames = lappend(rte->eref->colnames,
									  makeString(psprintf("column%d", list_length(rte->coltypes))));
		/* the VALUES list is the only entry of the FROM clause */
		tle->expr = (Expr *) makeVar(0, list_length(rte->coltypes), type, typmod, collation, 0);
	}
}

static void
fix_level(Query *query, ParamListInfo params)
{
	const PsRelation *relation;
	PsRelation	table;
	RangeTblEntry *values = NULL;
	Index		values_rti = 0;

	if (query->commandType != CMD_INSERT)
		return;
	relation = ps_relation(rt_fetch(query->resultRelation, query->rtable)->relid);
	if (relation == NULL)
		return;
	table = *relation;
	for (Index i = 1; i <= list_length(query->rtable); i++)
	{
		if (rt_fetch(i, query->rtable)->rtekind == RTE_VALUES && query->jointree->fromlist != NIL)
		{
			values_rti = i;
			values = rt_fetch(i, query->rtable);
		}
	}
	for (int i = 0; i < table.n_key; i++)
	{
		ListCell   *cell;

		foreach(cell, query->targetList)
		{
			TargetEntry *tle = lfirst(cell);

			if (tle->resno != table.key[i] || tle->resjunk)
				continue;
			if (values)
				fix_rows(values, tle, params);
			else if (is_computed((Node *) tle->expr))
				tle->expr = (Expr *) ps_value_now((Node *) tle->expr, params);
			if (IsA(tle->expr, Var) && ((Var *) tle->expr)->varno == 0)
				((Var *) tle->expr)->varno = values_rti;
		}
	}
}

void
ps_shards_fix(Query *query, ParamListInfo params)
{
	ListCell   *cell;

	fix_level(query, params);
	foreach(cell, query->cteList)
		ps_shards_fix((Query *) ((CommonTableExpr *) lfirst(cell))->ctequery, params);
}
