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
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/clauses.h"
#include "parser/parse_coerce.h"
#include "parser/parsetree.h"
#include "route/key.h"
#include "route/value.h"
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
	List	   *inner;			/* levels of subqueries in its range table */
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

/* Anything in an expression that is not the same for all rows? */
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
			!IsA(linitial(op_expr->args), Var) || depends_on_rows(lsecond(op_expr->args), NULL))
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

		add_fact(level, linitial(op->args), lsecond(op->args), op->opno, false, within);
	}
	else if (IsA(quals, ScalarArrayOpExpr) && ((ScalarArrayOpExpr *) quals)->useOr)
	{
		ScalarArrayOpExpr *any = (ScalarArrayOpExpr *) quals;

		add_fact(level, linitial(any->args), lsecond(any->args), any->opno, true, within);
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

typedef struct Resolve
{
	Oid			family;			/* hash operator family of the key column */
	int			depth;
	bool	   *is_array;		/* out: the answer is an array of keys */
} Resolve;

static Node *resolve(Resolve *r, Level *level, Index target, Node *expr);
static List *insert_values(Level *level, AttrNumber attno, Oid family);

static Node *
strip(Node *expr)
{
	while (expr && IsA(expr, RelabelType))
		expr = (Node *) ((RelabelType *) expr)->arg;
	return expr;
}

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
		Node	   *left = strip(fact->left);
		Node	   *right = strip(fact->right);
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
			if (r->is_array == NULL || depends_on_rows(other, NULL) ||
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
	column = (Var *) strip((Node *) tle->expr);
	if (inside->query->hasTargetSRFs && expression_returns_set((Node *) column))
		return NULL;
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

		if (tle->resjunk || !equal(strip((Node *) tle->expr), var) ||
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
	Var		   *var = (Var *) strip(expr);
	RangeTblEntry *rte;
	Node	   *found;

	if (r->depth >= RESOLVE_DEPTH_MAX)
		return NULL;
	if (is_integer_cast((Node *) var))
	{
		FuncExpr   *cast = makeNode(FuncExpr);

		*cast = *(FuncExpr *) var;
		found = resolve(r, level, target, linitial(cast->args));
		cast->args = list_make1(found);
		return found ? (Node *) cast : NULL;
	}
	if (!IsA(var, Var))
	{
		if (depends_on_rows(expr, NULL) || contain_volatile_functions(expr))
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
	if (var->varattno <= 0)
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
			found = resolve_outside(r, level, var);
	}
	r->depth--;
	return found;
}

/* ------------------------------------------------------------ targets */

static PartitionKey
key_of(Oid parent, Relation *rel)
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
	PartitionKey key = key_of(target->parent, &rel);
	List	   *tuple = NIL;

	for (int i = 0; i < relation->n_key; i++)
	{
		bool		is_array = false;
		Resolve		r = {key->partopfamily[i], 0, relation->n_key == 1 ? &is_array : NULL};
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
		Resolve		r = {s->family, 0, NULL};

		if (s->row && var->varlevelsup == 0)
			found = list_nth(s->row, var->varattno - 1);
		else
			found = resolve(&r, s->level, 0, node);
		s->failed |= found == NULL || depends_on_rows(found, NULL);
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

		if (s.failed || depends_on_rows(value, NULL))
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

static void
find_by_insert(Level *level, const PsRelation *relation, PsTarget *target)
{
	Relation	rel;
	PartitionKey key = key_of(target->parent, &rel);
	int			n_rows = insert_rows(level->query);
	List	   *columns[PS_KEY_COLUMNS_MAX];
	bool		is_known = true;

	for (int i = 0; i < relation->n_key; i++)
	{
		columns[i] = insert_values(level, relation->key[i], key->partopfamily[i]);
		is_known &= columns[i] != NIL;
	}
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

/* Does the statement assign a column of the key of an existing row? */
static bool
moves_rows(Query *query, const PsRelation *relation)
{
	for (int i = 0; i < relation->n_key; i++)
	{
		ListCell   *cell;

		if (query->commandType != CMD_INSERT && is_assigned(query, relation->key[i]))
			return true;
		if (query->onConflict == NULL)
			continue;
		foreach(cell, query->onConflict->onConflictSet)
		{
			if (((TargetEntry *) lfirst(cell))->resno == relation->key[i])
				return true;
		}
	}
	return false;
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
	if (target->is_written && query->commandType != CMD_DELETE && query->commandType != CMD_MERGE)
		target->is_moved = moves_rows(query, &relation);
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

/* ------------------------------------------------------------ shards */

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
ps_key_shards(PsTarget *target, ParamListInfo params, bool is_final, Bitmapset **shards)
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
	key = key_of(target->parent, &rel);
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
	RelationClose(rel);
	return answer;
}

/* ------------------------------------------------------------ fixing */

/* Must its value be taken once, here? */
static bool
is_computed(Node *expr)
{
	return !depends_on_rows(expr, NULL) && contain_mutable_functions(expr);
}

/* A key column of an INSERT with VALUES: every row gets its constant. */
static void
fix_rows(RangeTblEntry *rte, TargetEntry *tle, ParamListInfo params)
{
	Var		   *var = (Var *) strip((Node *) tle->expr);
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
ps_key_fix(Query *query, ParamListInfo params)
{
	ListCell   *cell;

	fix_level(query, params);
	foreach(cell, query->cteList)
		ps_key_fix((Query *) ((CommonTableExpr *) lfirst(cell))->ctequery, params);
}
