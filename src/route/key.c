/*
 * key.c
 *		Which rows of which distributed tables can a query touch, as far as
 *		its text says?
 *
 * For every mention of a distributed table: is there, for each column of the
 * distribution key, an expression without Vars that the column must equal for
 * a row to matter?  Such an expression comes from the quals, from quals of
 * tables joined by the key, through the columns of subqueries and CTEs, and
 * for INSERT from VALUES or the SELECT.  The answer may be "do not know", and
 * then the statement goes another way (route.c); it is never too narrow.
 *
 * Facts are equalities found in the quals of one query level.  `within` says
 * for which range table entries a fact holds: in WHERE and the ON of inner
 * joins for all below; in the ON of an outer join for its nullable side only.
 * A row of the other side stays whether or not the condition is true.
 *
 * Levels know each other: an outer Var in a subquery is looked up among those
 * facts of the outer level that hold for all its rows, as others are dropped
 * there anyway.  A fact passes down into a subquery's column only where that
 * column does not depend on other rows (no LIMIT, windows, set operations; with
 * grouping only for a grouping column).
 */
#include "postgres.h"

#include "access/stratnum.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/clauses.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "route/key.h"
#include "route/value.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"

#define RESOLVE_DEPTH_MAX 24

typedef struct Level
{
	struct Level *parent;		/* the level outside; NULL = top */
	Query	   *query;
	Index		rti;			/* in the parent's range table; 0 = CTE or sublink */
	List	   *facts;
	List	   *inner;			/* levels of subqueries: in its range table, in
								 * expressions */
	List	   *ctes;			/* levels of its CTEs, in their order */
} Level;

typedef struct Fact
{
	Node	   *left;
	Node	   *right;
	Oid			op;				/* equality; of an array (right): any of it */
	bool		is_array;
	Bitmapset  *within;			/* NULL = all of the level */
} Fact;

typedef struct Search
{
	PsMention  *mention;
	Level	   *level;			/* while walking expressions */
	List	   *levels;			/* all, outer first */
} Search;

static void walk_level(Search *search, Query *query, Level *parent, Index rti);

/* ------------------------------------------------------------ quick look */

static bool
is_distributed_walker(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
		return ps_key_is_distributed((Query *) node);
	return expression_tree_walker(node, is_distributed_walker, context);
}

bool
ps_key_is_distributed(Query *query)
{
	ListCell   *cell;

	foreach(cell, query->rtable)
	{
		RangeTblEntry *rte = lfirst(cell);

		if (rte->rtekind == RTE_RELATION && ps_relation(rte->relid) != NULL)
			return true;
		if (rte->rtekind == RTE_SUBQUERY && ps_key_is_distributed(rte->subquery))
			return true;
	}
	foreach(cell, query->cteList)
	{
		if (ps_key_is_distributed((Query *) ((CommonTableExpr *) lfirst(cell))->ctequery))
			return true;
	}
	return query->hasSubLinks &&
		query_tree_walker(query, is_distributed_walker, NULL,
						  QTW_IGNORE_RT_SUBQUERIES | QTW_IGNORE_CTE_SUBQUERIES);
}

/* ------------------------------------------------------------ facts */

/* Does equality under this collation mean the same bytes, as rows are hashed? */
static bool
is_bytewise(Oid collation)
{
	return !OidIsValid(collation) || get_collation_isdeterministic(collation);
}

static void
add_fact(Level *level, Node *left, Node *right, Oid op, bool is_array, Bitmapset *within)
{
	Fact	   *fact = palloc(sizeof(Fact));

	fact->left = left;
	fact->right = right;
	fact->op = op;
	fact->is_array = is_array;
	fact->within = within;
	level->facts = lappend(level->facts, fact);
}

/* k = 1 OR k = 2 is k = ANY of both; NULL when it is anything else. */
static void
add_or(Level *level, BoolExpr *or, Bitmapset *within)
{
	Node	   *left = NULL;
	Oid			op = InvalidOid;
	ArrayExpr  *array = makeNode(ArrayExpr);
	ListCell   *cell;

	foreach(cell, or->args)
	{
		OpExpr	   *op_expr = lfirst(cell);

		if (!IsA(op_expr, OpExpr) || list_length(op_expr->args) != 2 ||
			!IsA(linitial(op_expr->args), Var) || !is_bytewise(op_expr->inputcollid) ||
			ps_value_depends_on_rows(lsecond(op_expr->args)))
			return;
		if (left != NULL && (!equal(left, linitial(op_expr->args)) || op != op_expr->opno))
			return;
		left = linitial(op_expr->args);
		op = op_expr->opno;
		array->elements = lappend(array->elements, lsecond(op_expr->args));
	}
	array->element_typeid = exprType(linitial(array->elements));
	array->array_typeid = get_array_type(array->element_typeid);
	array->array_collid = exprCollation(linitial(array->elements));
	array->location = -1;
	if (OidIsValid(array->array_typeid))
		add_fact(level, left, (Node *) array, op, true, within);
}

/* Collects equalities of an AND of quals. */
static void
add_quals(Level *level, Node *quals, Bitmapset *within)
{
	ListCell   *cell;

	if (quals == NULL)
		return;
	if (IsA(quals, List))
	{
		foreach(cell, (List *) quals)
			add_quals(level, lfirst(cell), within);
	}
	else if (is_andclause(quals))
		add_quals(level, (Node *) ((BoolExpr *) quals)->args, within);
	else if (is_orclause(quals))
		add_or(level, (BoolExpr *) quals, within);
	else if (IsA(quals, OpExpr) && list_length(((OpExpr *) quals)->args) == 2)
	{
		OpExpr	   *op = (OpExpr *) quals;

		if (is_bytewise(op->inputcollid))
			add_fact(level, linitial(op->args), lsecond(op->args), op->opno, false, within);
	}
	else if (IsA(quals, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) quals)->useOr)
	{
		ScalarArrayOpExpr *any = (ScalarArrayOpExpr *) quals;

		if (is_bytewise(any->inputcollid))
			add_fact(level, linitial(any->args), lsecond(any->args), any->opno, true, within);
	}
	else if (IsA(quals, SubLink) && ((SubLink *) quals)->subLinkType == ANY_SUBLINK)
	{
		OpExpr	   *op = (OpExpr *) ((SubLink *) quals)->testexpr;

		/* k IN (SELECT column): equal to what the column is, see resolve_sublink */
		if (IsA(op, OpExpr) && list_length(op->args) == 2 && IsA(lsecond(op->args), Param) &&
			is_bytewise(op->inputcollid))
			add_fact(level, linitial(op->args), quals, op->opno, false, within);
	}
}

/* Range table entries below a node of the join tree. */
static Bitmapset *
relids_below(Node *node)
{
	Bitmapset  *set = NULL;
	ListCell   *cell;

	if (IsA(node, RangeTblRef))
		return bms_make_singleton(((RangeTblRef *) node)->rtindex);
	if (IsA(node, JoinExpr))
		return bms_join(relids_below(((JoinExpr *) node)->larg),
						relids_below(((JoinExpr *) node)->rarg));
	foreach(cell, ((FromExpr *) node)->fromlist)
		set = bms_join(set, relids_below(lfirst(cell)));
	return set;
}

static void
add_jointree(Level *level, Node *node, Bitmapset *within)
{
	JoinExpr   *join = (JoinExpr *) node;
	Bitmapset  *left = within;
	Bitmapset  *right = within;
	ListCell   *cell;

	if (node == NULL || IsA(node, RangeTblRef))
		return;
	if (IsA(node, FromExpr))
	{
		add_quals(level, ((FromExpr *) node)->quals, within);
		foreach(cell, ((FromExpr *) node)->fromlist)
			add_jointree(level, lfirst(cell), within);
		return;
	}
	Assert(IsA(node, JoinExpr));
	if (join->jointype == JOIN_LEFT || join->jointype == JOIN_FULL)
		right = relids_below(join->rarg);
	if (join->jointype == JOIN_RIGHT || join->jointype == JOIN_FULL)
		left = relids_below(join->larg);
	if (join->jointype == JOIN_INNER)
		add_quals(level, join->quals, within);
	else if (join->jointype == JOIN_LEFT)
		add_quals(level, join->quals, right);
	else if (join->jointype == JOIN_RIGHT)
		add_quals(level, join->quals, left);
	add_jointree(level, join->larg, left);
	add_jointree(level, join->rarg, right);
}

/* ------------------------------------------------------------ levels */

static bool
sublink_walker(Node *node, void *context)
{
	Search	   *search = context;

	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Level	   *level = search->level;

		walk_level(search, (Query *) node, level, 0);
		level->inner = lappend(level->inner, search->level);
		search->level = level;
		return false;
	}
	return expression_tree_walker(node, sublink_walker, context);
}

static void
walk_level(Search *search, Query *query, Level *parent, Index rti)
{
	Level	   *level = palloc0(sizeof(Level));
	ListCell   *cell;
	Index		i = 0;

	level->parent = parent;
	level->query = query;
	level->rti = rti;
	search->levels = lappend(search->levels, level);
	/* the condition of MERGE says nothing about the rows it inserts */
	if (query->commandType != CMD_MERGE)
		add_jointree(level, (Node *) query->jointree, NULL);
	foreach(cell, query->cteList)
	{
		walk_level(search, (Query *) ((CommonTableExpr *) lfirst(cell))->ctequery, level, 0);
		level->ctes = lappend(level->ctes, search->level);
	}
	foreach(cell, query->rtable)
	{
		RangeTblEntry *rte = lfirst(cell);

		i++;
		if (rte->rtekind != RTE_SUBQUERY)
			continue;
		walk_level(search, rte->subquery, level, i);
		level->inner = lappend(level->inner, search->level);
	}
	search->level = level;
	if (query->hasSubLinks)
		query_tree_walker(query, sublink_walker, search,
						  QTW_IGNORE_RT_SUBQUERIES | QTW_IGNORE_CTE_SUBQUERIES);
	search->level = level;
}

static Level *
inner_level(Level *level, Index rti)
{
	ListCell   *cell;

	foreach(cell, level->inner)
	{
		if (((Level *) lfirst(cell))->rti == rti)
			return lfirst(cell);
	}
	return NULL;
}

/* The level of the CTE an entry refers to, not when it is recursive. */
static Level *
cte_level(Level *level, RangeTblEntry *rte)
{
	ListCell   *cell;
	ListCell   *cte;

	for (Index up = rte->ctelevelsup; up > 0 && level; up--)
		level = level->parent;
	if (level == NULL)
		return NULL;
	forboth(cell, level->ctes, cte, level->query->cteList)
	{
		CommonTableExpr *expr = lfirst(cte);

		if (strcmp(expr->ctename, rte->ctename) == 0)
			return expr->cterecursive ? NULL : lfirst(cell);
	}
	return NULL;
}

/* ------------------------------------------------------------ resolving */

/* A Var that was looked up: once more would find nothing else. */
typedef struct Visit
{
	Level	   *level;
	Index		target;
	int			varno;
	AttrNumber	varattno;
} Visit;

typedef struct Resolve
{
	Oid			family;			/* hash operator family of the key column */
	int			depth;
	bool	   *is_array;		/* out: the answer is an array of keys, one of which
								 * it equals; NULL = no such answer */
	List	   *visits;
} Resolve;

static Node *resolve(Resolve *r, Level *level, Index target, Node *expr);
static List *insert_values(Level *level, AttrNumber attno, Oid family);

/* May a condition on output column `attno` be moved into the subquery? */
static bool
passes_down(Query *query, AttrNumber attno)
{
	TargetEntry *tle = get_tle_by_resno(query->targetList, attno);
	ListCell   *cell;

	if (tle == NULL || query->commandType != CMD_SELECT || query->setOperations ||
		query->limitCount || query->limitOffset || query->hasWindowFuncs ||
		query->hasTargetSRFs || query->hasDistinctOn || query->groupingSets)
		return false;
	if (query->groupClause == NIL && !query->hasAggs)
		return true;
	foreach(cell, query->groupClause)
	{
		if (((SortGroupClause *) lfirst(cell))->tleSortGroupRef == tle->ressortgroupref &&
			tle->ressortgroupref != 0)
			return true;
	}
	return false;
}

/* Looks among the facts of a level for something a Var equals. */
static Node *
resolve_by_facts(Resolve *r, Level *level, Index target, Var *var)
{
	ListCell   *cell;

	foreach(cell, level->facts)
	{
		Fact	   *fact = lfirst(cell);
		Node	   *left = ps_value_strip(fact->left);
		Node	   *right = ps_value_strip(fact->right);
		Node	   *other = NULL;
		Node	   *found;

		if (fact->within && (target == 0 || !bms_is_member(target, fact->within)))
			continue;
		if (equal(left, var))
			other = fact->right;
		else if (!fact->is_array && equal(right, var))
			other = fact->left;
		if (other == NULL ||
			get_op_opfamily_strategy(fact->op, r->family) != HTEqualStrategyNumber)
			continue;
		if (fact->is_array)
		{
			if (r->is_array == NULL || ps_value_depends_on_rows(other) ||
				contain_volatile_functions(other))
				continue;
			*r->is_array = true;
			return other;
		}
		found = resolve(r, level, target, other);
		if (found)
			return found;
	}
	return NULL;
}

/* Does a statement that changes rows set this column? */
static bool
is_assigned(Query *query, AttrNumber attno)
{
	ListCell   *cell;

	if (query->commandType == CMD_INSERT || query->commandType == CMD_MERGE)
		return true;
	if (query->commandType != CMD_UPDATE)
		return false;
	foreach(cell, query->targetList)
	{
		TargetEntry *tle = lfirst(cell);

		if (!tle->resjunk && tle->resno == attno)
			return true;
	}
	return false;
}

/* Is a Var looked up already?  Notes that it is. */
static bool
is_visited(Resolve *r, Level *level, Index target, Var *var)
{
	Visit	   *visit;
	ListCell   *cell;

	foreach(cell, r->visits)
	{
		visit = lfirst(cell);
		if (visit->level == level && visit->target == target && visit->varno == var->varno &&
			visit->varattno == var->varattno)
			return true;
	}
	visit = palloc(sizeof(Visit));
	visit->level = level;
	visit->target = target;
	visit->varno = var->varno;
	visit->varattno = var->varattno;
	r->visits = lappend(r->visits, visit);
	return false;
}

/* What the only column of a subquery in an expression is in each of its rows. */
static Node *
resolve_sublink(Resolve *r, Level *level, SubLink *sublink)
{
	Query	   *query = (Query *) sublink->subselect;
	TargetEntry *column = query->targetList ? linitial(query->targetList) : NULL;
	ListCell   *cell;

	if (sublink->subLinkType != EXPR_SUBLINK && sublink->subLinkType != ANY_SUBLINK)
		return NULL;
	if (column == NULL || query->setOperations || query->groupingSets || query->hasTargetSRFs)
		return NULL;
	foreach(cell, level->inner)
	{
		Level	   *inside = lfirst(cell);

		if (inside->query == query)
			return resolve(r, inside, 0, (Node *) column->expr);
	}
	return NULL;
}

/* The array whose elements an expression returns as rows. */
static Node *
unnested(Node *expr)
{
	FuncExpr   *call = (FuncExpr *) expr;

	return IsA(call, FuncExpr) && call->funcid == F_UNNEST_ANYARRAY ? linitial(call->args) : NULL;
}

static Node *
one_of(Resolve *r, Node *array)
{
	if (array == NULL || r->is_array == NULL || ps_value_depends_on_rows(array) ||
		contain_volatile_functions(array))
		return NULL;
	*r->is_array = true;
	return array;
}

/* One of several values, where a Var is a column of VALUES or of unnest(). */
static Node *
resolve_elements(Resolve *r, RangeTblEntry *rte, Var *var)
{
	Node	   *array = NULL;
	ListCell   *cell;

	if (rte->rtekind == RTE_VALUES)
	{
		ArrayExpr  *values = makeNode(ArrayExpr);

		foreach(cell, rte->values_lists)
			values->elements = lappend(values->elements, list_nth(lfirst(cell), var->varattno - 1));
		array = (Node *) values;
	}
	else if (rte->rtekind == RTE_FUNCTION)
	{
		int			column = 1;

		foreach(cell, rte->functions)
		{
			RangeTblFunction *function = lfirst(cell);

			if (column == var->varattno)
				array = unnested(function->funcexpr);
			column += function->funccolcount;
		}
	}
	return one_of(r, array);
}

/* Looks into the subquery or CTE whose column a Var is. */
static Node *
resolve_inside(Resolve *r, Level *level, RangeTblEntry *rte, Var *var)
{
	Level	   *inside = rte->rtekind == RTE_SUBQUERY ? inner_level(level, var->varno) :
		cte_level(level, rte);
	TargetEntry *tle;
	Var		   *column;
	bool		is_select;

	if (inside == NULL || inside->query->setOperations || inside->query->groupingSets)
		return NULL;
	is_select = inside->query->commandType == CMD_SELECT;
	tle = get_tle_by_resno(is_select ? inside->query->targetList : inside->query->returningList,
						   var->varattno);
	if (tle == NULL)
		return NULL;
	column = (Var *) ps_value_strip((Node *) tle->expr);
	if (inside->query->hasTargetSRFs && expression_returns_set((Node *) column))
		return one_of(r, unnested((Node *) column));
	if (is_select || !IsA(column, Var) || column->varno != inside->query->resultRelation)
		return resolve(r, inside, 0, (Node *) column);
	/* what RETURNING shows of the target is what was written */
	if (is_assigned(inside->query, column->varattno))
	{
		List	   *values = NIL;

		if (inside->query->commandType == CMD_INSERT)
			values = insert_values(inside, column->varattno, r->family);
		return list_length(values) == 1 && !contain_volatile_functions(linitial(values)) ?
			linitial(values) : NULL;
	}
	return resolve(r, inside, 0, (Node *) column);
}

/* The output column of this level that a Var is, seen from outside. */
static Node *
resolve_outside(Resolve *r, Level *level, Var *var)
{
	ListCell   *cell;

	if (level->rti == 0 || level->parent == NULL)
		return NULL;
	foreach(cell, level->query->targetList)
	{
		TargetEntry *tle = lfirst(cell);
		Var		   *outer;
		Node	   *found;

		if (tle->resjunk || !equal(ps_value_strip((Node *) tle->expr), var) ||
			!passes_down(level->query, tle->resno))
			continue;
		outer = makeVar(level->rti, tle->resno, exprType((Node *) tle->expr),
						exprTypmod((Node *) tle->expr), exprCollation((Node *) tle->expr), 0);
		found = resolve(r, level->parent, level->rti, (Node *) outer);
		if (found)
			return found;
	}
	return NULL;
}

/* From one integer type to another: equal integers stay equal. */
static bool
is_integer_cast(Node *node)
{
	FuncExpr   *cast = (FuncExpr *) node;
	Oid			from;

	if (!IsA(cast, FuncExpr) || list_length(cast->args) != 1 ||
		(cast->funcformat != COERCE_IMPLICIT_CAST && cast->funcformat != COERCE_EXPLICIT_CAST))
		return false;
	from = exprType(linitial(cast->args));
	return (from == INT2OID || from == INT4OID || from == INT8OID) &&
		(cast->funcresulttype == INT2OID || cast->funcresulttype == INT4OID ||
		 cast->funcresulttype == INT8OID);
}

/*
 * An expression without Vars that `expr`, of this level, equals in every row
 * that matters; NULL when there is none.  target: for which entry of the range
 * table we ask (its facts hold), 0 = facts that hold for all.
 */
static Node *
resolve(Resolve *r, Level *level, Index target, Node *expr)
{
	Var		   *var = (Var *) ps_value_strip(expr);
	RangeTblEntry *rte;
	Node	   *found;

	CHECK_FOR_INTERRUPTS();
	if (r->depth >= RESOLVE_DEPTH_MAX)
		return NULL;
	if (is_integer_cast((Node *) var))
	{
		FuncExpr   *cast = makeNode(FuncExpr);

		*cast = *(FuncExpr *) var;
		found = resolve(r, level, target, linitial(cast->args));
		if (found && r->is_array && *r->is_array)
			return found;
		cast->args = list_make1(found);
		return found ? (Node *) cast : NULL;
	}
	if (IsA(var, SubLink))
		return resolve_sublink(r, level, (SubLink *) var);
	if (!IsA(var, Var))
	{
		if (ps_value_depends_on_rows(expr) || contain_volatile_functions(expr))
			return NULL;
		return expr;
	}
	if (var->varlevelsup > 0)
	{
		Var		   *outer = copyObject(var);

		for (; outer->varlevelsup > 0 && level; outer->varlevelsup--)
			level = level->parent;
		if (level == NULL)
			return NULL;
		return resolve(r, level, 0, (Node *) outer);
	}
	if (var->varattno <= 0 || is_visited(r, level, target, var))
		return NULL;
	r->depth++;
	rte = rt_fetch(var->varno, level->query->rtable);
	if (rte->rtekind == RTE_JOIN)
		found = resolve(r, level, target, list_nth(rte->joinaliasvars, var->varattno - 1));
	else
	{
		found = resolve_by_facts(r, level, target, var);
		if (!found && (rte->rtekind == RTE_SUBQUERY || rte->rtekind == RTE_CTE))
			found = resolve_inside(r, level, rte, var);
		if (!found)
			found = resolve_elements(r, rte, var);
		if (!found)
			found = resolve_outside(r, level, var);
	}
	r->depth--;
	return found;
}

/* ------------------------------------------------------------ targets */

PartitionKey
ps_key_of(Oid parent, Relation *rel)
{
	*rel = RelationIdGetRelation(parent);
	if (*rel == NULL || RelationGetPartitionKey(*rel) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("distributed table %u is gone", parent),
				 errhint("It was dropped or changed meanwhile; retry.")));
	return RelationGetPartitionKey(*rel);
}

/* Key of a table that is read, updated or deleted from: by facts. */
static void
find_by_facts(Level *level, Index rti, const PsRelation *relation, PsTarget *target)
{
	RangeTblEntry *rte = rt_fetch(rti, level->query->rtable);
	Relation	rel;
	PartitionKey key = ps_key_of(target->parent, &rel);
	List	   *tuple = NIL;

	for (int i = 0; i < relation->n_key; i++)
	{
		bool		is_array = false;
		Resolve		r = {key->partopfamily[i], 0, relation->n_key == 1 ? &is_array : NULL, NIL};
		Var		   *var = makeVar(rti, relation->key[i], key->parttypid[i],
								  key->parttypmod[i], key->parttypcoll[i], 0);
		Node	   *found = resolve(&r, level, rti, (Node *) var);

		if (found == NULL)
		{
			tuple = NIL;
			break;
		}
		if (is_array)
			target->array = found;
		else
			tuple = lappend(tuple, found);
	}
	RelationClose(rel);
	if (tuple != NIL)
		target->tuples = list_make1(tuple);
	target->is_sampled = rte->tablesample != NULL;
}

typedef struct Substitute
{
	Level	   *level;
	List	   *row;			/* of the VALUES lists; NIL = there are none */
	Oid			family;
	bool		failed;
} Substitute;

/* Vars of an inserted value become what they stand for. */
static Node *
substitute(Node *node, void *context)
{
	Substitute *s = context;
	Node	   *found = NULL;

	if (node == NULL || s->failed)
		return node;
	if (IsA(node, Var))
	{
		Var		   *var = (Var *) node;
		Resolve		r = {s->family, 0, NULL, NIL};

		if (s->row && var->varlevelsup == 0)
			found = list_nth(s->row, var->varattno - 1);
		else
			found = resolve(&r, s->level, 0, node);
		s->failed |= found == NULL || ps_value_depends_on_rows(found);
		return found;
	}
	s->failed |= IsA(node, SubLink) || IsA(node, Query);
	return expression_tree_mutator(node, substitute, context);
}

/* The values of key column `attno` in an INSERT, one per row; NIL = unknown. */
static List *
insert_values(Level *level, AttrNumber attno, Oid family)
{
	TargetEntry *tle = NULL;
	List	   *rows = list_make1(NIL);
	List	   *values = NIL;
	ListCell   *cell;

	foreach(cell, level->query->targetList)
	{
		if (((TargetEntry *) lfirst(cell))->resno == attno &&
				!((TargetEntry *) lfirst(cell))->resjunk)
			tle = lfirst(cell);
	}
	if (tle == NULL)
		return list_make1(makeNullConst(INT4OID, -1, InvalidOid));
	foreach(cell, level->query->rtable)
	{
		RangeTblEntry *rte = lfirst(cell);

		if (rte->rtekind == RTE_VALUES && level->query->jointree->fromlist != NIL)
			rows = rte->values_lists;
	}
	foreach(cell, rows)
	{
		Substitute	s = {level, lfirst(cell), family, false};
		Node	   *value = substitute((Node *) tle->expr, &s);

		if (s.failed || ps_value_depends_on_rows(value))
			return NIL;
		values = lappend(values, value);
	}
	return values;
}

/* How many rows an INSERT has that VALUES lists; 1 without. */
static int
insert_rows(Query *query)
{
	ListCell   *cell;

	foreach(cell, query->rtable)
	{
		RangeTblEntry *rte = lfirst(cell);

		if (rte->rtekind == RTE_VALUES && query->jointree->fromlist != NIL)
			return list_length(rte->values_lists);
	}
	return 1;
}

/* INSERT .. SELECT of rows whose key is one of several. */
static void
find_by_elements(Level *level, AttrNumber attno, Oid family, PsTarget *target)
{
	TargetEntry *tle = get_tle_by_resno(level->query->targetList, attno);
	bool		is_array = false;
	Resolve		r = {family, 0, &is_array, NIL};
	Node	   *found = tle ? resolve(&r, level, 0, (Node *) tle->expr) : NULL;

	if (found && is_array)
		target->array = found;
}

static void
find_by_insert(Level *level, const PsRelation *relation, PsTarget *target)
{
	Relation	rel;
	PartitionKey key = ps_key_of(target->parent, &rel);
	int			n_rows = insert_rows(level->query);
	List	   *columns[PS_KEY_COLUMNS_MAX];
	bool		is_known = true;

	for (int i = 0; i < relation->n_key; i++)
	{
		columns[i] = insert_values(level, relation->key[i], key->partopfamily[i]);
		is_known &= columns[i] != NIL;
	}
	if (!is_known && relation->n_key == 1)
		find_by_elements(level, relation->key[0], key->partopfamily[0], target);
	RelationClose(rel);
	for (int row = 0; is_known && row < n_rows; row++)
	{
		List	   *tuple = NIL;

		for (int i = 0; i < relation->n_key; i++)
			tuple = lappend(tuple, list_length(columns[i]) == 1 ? linitial(columns[i]) :
							list_nth(columns[i], row));
		target->tuples = lappend(target->tuples, tuple);
	}
}

static Oid
checked_as(Query *query, RangeTblEntry *rte)
{
#ifdef PS_PERMISSION_INFOS
	if (rte->perminfoindex == 0)
		return InvalidOid;
	return getRTEPermissionInfo(query->rteperminfos, rte)->checkAsUser;
#else
	return rte->checkAsUser;
#endif
}

/*
 * Does an UPDATE assign a column of the key, and to which tuple?  (ON CONFLICT DO
 * UPDATE cannot move a row to another partition: PostgreSQL refuses that.)
 */
static void
find_moves(Level *level, Index rti, const PsRelation *relation, PsTarget *target)
{
	Relation	rel;
	PartitionKey key = ps_key_of(target->parent, &rel);
	List	   *tuple = NIL;

	for (int i = 0; i < relation->n_key; i++)
		target->is_moved |= is_assigned(level->query, relation->key[i]);
	for (int i = 0; target->is_moved && i < relation->n_key; i++)
	{
		Substitute	s = {level, NIL, key->partopfamily[i], false};
		TargetEntry *tle = get_tle_by_resno(level->query->targetList, relation->key[i]);
		Node	   *value = tle ? (Node *) tle->expr :
			(Node *) makeVar(rti, relation->key[i], key->parttypid[i], key->parttypmod[i],
							 key->parttypcoll[i], 0);

		value = substitute(value, &s);
		if (s.failed || ps_value_depends_on_rows(value) || contain_volatile_functions(value))
			break;
		tuple = lappend(tuple, value);
	}
	RelationClose(rel);
	if (list_length(tuple) == relation->n_key)
		target->moved_to = tuple;
}

static void
add_target(PsMention *mention, Level *level, Index rti, RangeTblEntry *rte,
		   const PsRelation *found)
{
	PsRelation	relation = *found;
	PsTarget   *target = palloc0(sizeof(PsTarget));
	Query	   *query = level->query;

	target->relid = relation.relid;
	target->parent = relation.parent;
	target->shard = relation.shard;
	target->user = checked_as(query, rte);
	target->is_written = rti == query->resultRelation;
	target->is_locked = get_parse_rowmark(query, rti) != NULL;
	if (target->is_written && query->commandType == CMD_UPDATE)
		find_moves(level, rti, &relation, target);
	if (target->is_written && query->commandType == CMD_INSERT)
		find_by_insert(level, &relation, target);
	else
		find_by_facts(level, rti, &relation, target);
	mention->targets = lappend(mention->targets, target);
}

/* Is this entry the OLD or NEW of a view, kept for permissions only? */
static bool
is_used(Query *query, Index rti)
{
	return rti == query->resultRelation ||
		bms_is_member(rti, relids_below((Node *) query->jointree));
}

PsMention *
ps_key_find(Query *query)
{
	Search		search = {palloc0(sizeof(PsMention)), NULL, NIL};
	ListCell   *cell;
	ListCell   *entry;

	walk_level(&search, query, NULL, 0);
	foreach(cell, search.levels)
	{
		Level	   *level = lfirst(cell);
		Index		rti = 0;

		foreach(entry, level->query->rtable)
		{
			RangeTblEntry *rte = lfirst(entry);
			const PsRelation *relation;

			rti++;
			if (rte->rtekind != RTE_RELATION || !is_used(level->query, rti))
				continue;
			relation = ps_relation(rte->relid);
			if (relation)
				add_target(search.mention, level, rti, rte, relation);
			else
				search.mention->has_other = true;
		}
	}
	return search.mention;
}
