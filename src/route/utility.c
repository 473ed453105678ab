/*
 * utility.c
 *		What happens when a user changes a distributed table by DDL (R4)?
 *
 * verdict.c says whether the statement is about distributed tables and can run
 * on all nodes.  If so:
 *	(a) the transaction on all nodes begins (allnodes.c);
 *	(b) where the shape of rows changes: writers are locked out on all nodes,
 *		and what they have committed is awaited in all copies, for rows travel
 *		in the shape they were written in;
 *	(c) the statement runs here, as the server runs it;
 *	(d) it is checked that the table can still be distributed (a new foreign
 *		key, a dropped primary key);
 *	(e) its text runs on the others, as the same user with the same search_path.
 * A distributed table that would go by another way than DROP TABLE (DROP
 * SCHEMA .. CASCADE, DROP OWNED) is refused in the object access hook.
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/namespace.h"
#include "miscadmin.h"
#include "node/map.h"
#include "node/relation.h"
#include "node/shared.h"
#include "node/tables.h"
#include "route/allnodes.h"
#include "route/distributable.h"
#include "route/distribute.h"
#include "route/utility.h"
#include "route/verdict.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "access/xact.h"

#define PS_DDL_DRAIN_MS 10000

static ProcessUtility_hook_type previous_utility = NULL;
static object_access_hook_type previous_access = NULL;

/* Settings that change what a statement's text means. */
static const char *const meaning_settings[] = {
	"timezone", "datestyle", "intervalstyle", "standard_conforming_strings"
};

/* The text of one statement out of what the client sent. */
static char *
statement_text(const PlannedStmt *pstmt, const char *source)
{
	if (pstmt->stmt_location < 0)
		return pstrdup(source);
	if (pstmt->stmt_len <= 0)
		return pstrdup(source + pstmt->stmt_location);
	return pnstrdup(source + pstmt->stmt_location, pstmt->stmt_len);
}

static void
refuse_statement(Node *stmt, const PsVerdict *verdict)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("%s of distributed table \"%s\" is not supported", GetCommandTagName(CreateCommandTag(stmt)),
					get_rel_name(linitial_oid(verdict->tables))),
			 errdetail_internal("%s", verdict->refused),
			 verdict->hint ? errhint("%s", verdict->hint) : 0));
}

/* Qualified names of tables, separated by commas. */
static char *
table_names(List *tables)
{
	StringInfoData buf;
	ListCell   *cell;

	initStringInfo(&buf);
	foreach(cell, tables)
	{
		char	   *schema = get_namespace_name(get_rel_namespace(lfirst_oid(cell)));

		appendStringInfo(&buf, "%s%s", buf.len ? ", " : "",
						 quote_qualified_identifier(schema, get_rel_name(lfirst_oid(cell))));
	}
	return buf.data;
}

/* DDL text at all other nodes, with all rights. */
static void
script_on_others(const char *script)
{
	PsArg		arg = ps_arg_text(script);

	ps_allnodes_run("SELECT payshard.peer_ddl($1, '', 'pg_catalog, pg_temp')", 1, &arg);
}

/* (b) */
static void
arrest_rows(const PsVerdict *verdict)
{
	/* the tables alone: partitions must stay open to who applies entries */
	char	   *lock = psprintf("LOCK TABLE ONLY %s IN SHARE MODE", table_names(verdict->tables));

	ps_allnodes_script_here(lock);
	script_on_others(lock);
	ps_allnodes_await_applied(PS_DDL_DRAIN_MS);
}

/* (e) */
static void
forward(const char *text)
{
	PsArg		args[3] = {ps_arg_text(text), ps_arg_text(GetUserNameFromId(GetUserId(), false)),
	ps_arg_text(GetConfigOption("search_path", false, false))};

	for (int i = 0; i < lengthof(meaning_settings); i++)
	{
		PsArg		setting[2] = {ps_arg_text(meaning_settings[i]),
		ps_arg_text(GetConfigOption(meaning_settings[i], false, false))};

		ps_allnodes_run("SELECT set_config($1, $2, true)", 2, setting);
	}
	ps_allnodes_run("SELECT payshard.peer_ddl($1, $2::name, $3)", 3, args);
}

/* Names of key columns as the server knows them now. */
static void
refresh_keys(uint32 table_id)
{
	char	   *script = psprintf("UPDATE payshard.distributed_table d SET key_columns = "
								  "(SELECT array_agg(a.attname ORDER BY k.n) FROM pg_partitioned_table p, "
								  "unnest(p.partattrs::int2[]) WITH ORDINALITY k(attnum, n), pg_attribute a "
								  "WHERE p.partrelid = d.relid AND a.attrelid = d.relid AND a.attnum = k.attnum) "
								  "WHERE d.table_id = %u", table_id);

	ps_allnodes_script_here(script);
	script_on_others(script);
}

/* The tables are about to be dropped: they are distributed no more. */
static void
unregister(List *table_ids)
{
	ListCell   *cell;

	foreach(cell, table_ids)
	{
		char	   *script = psprintf("SELECT payshard.peer_unregister(%u)", (uint32) lfirst_oid(cell));

		ps_allnodes_script_here(script);
		script_on_others(script);
	}
}

static void
require_rights(const PsVerdict *verdict)
{
	ListCell   *cell;

	if (verdict->is_shared)
		return;
	foreach(cell, verdict->tables)
		ps_require_table_owner(lfirst_oid(cell));
}

/* (c): as the server runs it, with us looking away. */
static void
run_here(PlannedStmt *pstmt, const char *source, bool read_only, ProcessUtilityContext context,
		 ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	ps_allnodes_enter();
	PG_TRY();
	{
		if (previous_utility)
			previous_utility(pstmt, source, read_only, context, params, env, dest, qc);
		else
			standard_ProcessUtility(pstmt, source, read_only, context, params, env, dest, qc);
	}
	PG_FINALLY();
	{
		ps_allnodes_leave();
	}
	PG_END_TRY();
}

/* (d): the tables that are still there. */
static void
require_still_distributable(const PsVerdict *verdict)
{
	ListCell   *cell;

	CommandCounterIncrement();
	if (!verdict->is_drop)
		foreach(cell, verdict->tables)
			ps_require_still_distributable(lfirst_oid(cell));
}

/* DROP EXTENSION payshard would leave distributed tables without their shards. */
static void
require_extension_unused(DropStmt *stmt)
{
	ListCell   *cell;

	if (stmt->removeType != OBJECT_EXTENSION)
		return;
	foreach(cell, stmt->objects)
		if (strcmp(strVal(lfirst(cell)), "payshard") == 0 && ps_extension_exists() &&
			ps_distribute_has_tables())
			ereport(ERROR,
					(errcode(ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST),
					 errmsg("cannot drop extension payshard while there are distributed tables"),
					 errhint("Drop them, or call payshard.undistribute_table() for each, first.")));
}

static void
on_utility(PlannedStmt *pstmt, const char *source, bool read_only, ProcessUtilityContext context,
		   ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	PsVerdict	verdict = {0};
	List	   *table_ids = NIL;
	ListCell   *cell;
	char	   *text;

	if (ps_shared && !ps_allnodes_is_internal() && IsTransactionState() &&
		context != PROCESS_UTILITY_SUBCOMMAND)
		ps_verdict(pstmt->utilityStmt, &verdict);
	if (verdict.tables != NIL && ps_map_self() == 0)
		ps_map_await_self();
	/* a node that is cut off from its cluster may go */
	if (IsA(pstmt->utilityStmt, DropStmt) && ps_shared && ps_map_incarnation() != 0)
		require_extension_unused((DropStmt *) pstmt->utilityStmt);
	if (verdict.tables == NIL)
	{
		if (previous_utility)
			previous_utility(pstmt, source, read_only, context, params, env, dest, qc);
		else
			standard_ProcessUtility(pstmt, source, read_only, context, params, env, dest, qc);
		return;
	}
	if (verdict.refused)
		refuse_statement(pstmt->utilityStmt, &verdict);
	require_rights(&verdict);
	foreach(cell, verdict.tables)
		table_ids = lappend_oid(table_ids, ps_relation(lfirst_oid(cell))->table_id);
	text = statement_text(pstmt, source);
	ps_allnodes_begin(text);
	if (verdict.changes_shape)
		arrest_rows(&verdict);
	if (verdict.is_drop)
		unregister(table_ids);
	run_here(pstmt, source, read_only, context, params, env, dest, qc);
	require_still_distributable(&verdict);
	forward(text);
	if (verdict.changes_key)
		refresh_keys((uint32) linitial_oid(table_ids));
}

static void
on_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (previous_access)
		previous_access(access, class_id, object_id, sub_id, arg);
	if (access != OAT_DROP || class_id != RelationRelationId || sub_id != 0)
		return;
	if (ps_shared == NULL || ps_shared->self == 0 || ps_allnodes_is_internal() ||
		ps_relation(object_id) == NULL)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("distributed table \"%s\" cannot be dropped this way",
					get_rel_name(ps_relation(object_id)->parent)),
			 errdetail("It would go on this node only."),
			 errhint("Use DROP TABLE, or payshard.undistribute_table(), first.")));
}

void
ps_utility_install(void)
{
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = on_utility;
	previous_access = object_access_hook;
	object_access_hook = on_access;
}
