/*
 * copy.c
 *		What does COPY do with a distributed table?
 *
 * COPY .. TO reads the heap, and so would give what this node holds, which is
 * not the table.  It becomes COPY (SELECT columns FROM the table) TO, which is
 * routed like any SELECT; for a partition that is read directly too.
 * This is also where a transaction that has run other commands here is noted, as
 * it cannot commit together with another node (link/local.c).
 *
 * COPY .. FROM stays as it is: rows of which this node is not the primary are
 * refused by the capture trigger (25006), which becomes a 0A000 here, or 40001 when the map
 * has changed since it began.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "link/local.h"
#include "link/samemap.h"
#include "nodes/makefuncs.h"
#include "nodes/parsenodes.h"
#include "node/map.h"
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

/* Commands that change nothing at this node, or only what ends with the session. */
static bool
changes_nothing(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_TransactionStmt:
		case T_VariableSetStmt:
		case T_VariableShowStmt:
		case T_ConstraintsSetStmt:
		case T_DiscardStmt:
		case T_PrepareStmt:
		case T_ExecuteStmt:		/* what they run counts by itself */
		case T_DeallocateStmt:
		case T_ExplainStmt:
		case T_DoStmt:
		case T_CallStmt:
		case T_DeclareCursorStmt:
		case T_FetchStmt:
		case T_ClosePortalStmt:
			return true;
		case T_CopyStmt:
			return !((CopyStmt *) stmt)->is_from;
		case T_CreateStmt:
			return ((CreateStmt *) stmt)->relation->relpersistence == RELPERSISTENCE_TEMP;
		case T_CreateTableAsStmt:
			return ((CreateTableAsStmt *) stmt)->into->rel->relpersistence == RELPERSISTENCE_TEMP;
		default:
			return false;
	}
}

/* Is it a COPY of a distributed table, with a table and not a query? */
static bool
is_distributed(Node *stmt)
{
	CopyStmt   *copy = (CopyStmt *) stmt;
	Oid			relid;

	if (!IsA(copy, CopyStmt) || copy->relation == NULL)
		return false;
	relid = RangeVarGetRelid(copy->relation, AccessShareLock, true);
	if (!OidIsValid(relid) || ps_relation(relid) == NULL)
		return false;
	if (ps_map_self() == 0)
		ps_map_await_self();
	return !ps_route_is_off();
}

/* COPY .. FROM has met a row of another primary: the same error, said for COPY. */
static void
refuse_rows(const char *table, ErrorData *error)
{
	FlushErrorState();
	ps_samemap_require();
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("COPY into distributed table \"%s\" cannot store rows of other nodes yet", table),
			 errdetail("The data has a row whose shard this node is not the primary of; "
					   "nothing of it is stored. %s", error->detail ? error->detail : ""),
			 errhint("Use INSERT with rows of one node per statement; or load an ordinary table "
					 "and distribute it then.")));
}

/* COPY .. FROM, as the server does it, with our words for what cannot be done. */
static void
copy_from(PlannedStmt *pstmt, const char *source, bool read_only, ProcessUtilityContext context,
		  ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	const char *table = ((CopyStmt *) pstmt->utilityStmt)->relation->relname;
	MemoryContext caller = CurrentMemoryContext;

	ps_samemap_note();
	PG_TRY();
	{
		if (previous_utility)
			previous_utility(pstmt, source, read_only, context, params, env, dest, qc);
		else
			standard_ProcessUtility(pstmt, source, read_only, context, params, env, dest, qc);
	}
	PG_CATCH();
	{
		if (XactReadOnly || geterrcode() != ERRCODE_READ_ONLY_SQL_TRANSACTION)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		refuse_rows(table, CopyErrorData());
	}
	PG_END_TRY();
}

static void
on_utility(PlannedStmt *pstmt, const char *source, bool read_only, ProcessUtilityContext context,
		   ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	if (!changes_nothing(pstmt->utilityStmt))
		ps_local_note();
	if (is_distributed(pstmt->utilityStmt))
	{
		CopyStmt   *copy = (CopyStmt *) pstmt->utilityStmt;

		if (copy->is_from)
		{
			copy_from(pstmt, source, read_only, context, params, env, dest, qc);
			return;
		}
		pstmt = as_select(pstmt, RangeVarGetRelid(copy->relation, AccessShareLock, true));
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
