/*
 * copy.c
 *		What does COPY do with a distributed table?
 *
 * COPY .. TO reads the heap, and so would give what this node holds, which is
 * not the table.  It becomes COPY (SELECT columns FROM the table) TO, which is
 * routed like any SELECT; for a partition that is read directly too.
 * COPY .. FROM stays as it is: rows of which this node is not the primary are
 * refused by the capture trigger (25006), and nothing is stored.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/namespace.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "node/relation.h"
#include "route/copy.h"
#include "route/route.h"
#include "tcop/utility.h"
#include "utils/rel.h"

static ProcessUtility_hook_type previous_utility = NULL;

static Node *
column_target(const char *name)
{
	ColumnRef  *column = makeNode(ColumnRef);
	ResTarget  *target = makeNode(ResTarget);

	column->fields = list_make1(makeString(pstrdup(name)));
	column->location = -1;
	target->val = (Node *) column;
	target->location = -1;
	return (Node *) target;
}

/* The columns COPY would give: all that are not generated, or those named. */
static List *
column_targets(CopyStmt *copy, Oid relid)
{
	List	   *targets = NIL;
	Relation	rel;
	TupleDesc	desc;
	ListCell   *cell;

	foreach(cell, copy->attlist)
		targets = lappend(targets, column_target(strVal(lfirst(cell))));
	if (targets != NIL)
		return targets;
	rel = table_open(relid, AccessShareLock);
	desc = RelationGetDescr(rel);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped && !column->attgenerated)
			targets = lappend(targets, column_target(NameStr(column->attname)));
	}
	table_close(rel, AccessShareLock);
	return targets;
}

/* COPY t TO becomes COPY (SELECT .. FROM t) TO. */
static PlannedStmt *
as_select(PlannedStmt *pstmt, Oid relid)
{
	CopyStmt   *copy;
	SelectStmt *select = makeNode(SelectStmt);

	pstmt = copyObject(pstmt);
	copy = (CopyStmt *) pstmt->utilityStmt;
	select->targetList = column_targets(copy, relid);
	select->fromClause = list_make1(copy->relation);
	copy->relation = NULL;
	copy->attlist = NIL;
	copy->query = (Node *) select;
	return pstmt;
}

static void
on_utility(PlannedStmt *pstmt, const char *source, bool read_only, ProcessUtilityContext context,
		   ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	CopyStmt   *copy = (CopyStmt *) pstmt->utilityStmt;

	if (IsA(copy, CopyStmt) && !copy->is_from && copy->relation != NULL && !ps_route_is_off())
	{
		Oid			relid = RangeVarGetRelid(copy->relation, AccessShareLock, true);

		if (OidIsValid(relid) && ps_relation(relid) != NULL)
			pstmt = as_select(pstmt, relid);
	}
	if (previous_utility)
		previous_utility(pstmt, source, read_only, context, params, env, dest, qc);
	else
		standard_ProcessUtility(pstmt, source, read_only, context, params, env, dest, qc);
}

void
ps_copy_install(void)
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
}
