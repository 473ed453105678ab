/*
 * names.c
 *		Which table and which constraint does an error about a partition mean?
 *
 * A violated constraint is reported by the server in the names of the partition
 * and its index: "payshard_data"."public_accounts_7", "public_accounts_7_pkey".
 * Users and their ORMs know public.accounts and accounts_pkey.  So an error of
 * class 23 that names a partition is thrown again with the parent's names, in
 * its fields and in its message; nothing else of it changes.
 *
 * It is caught where statements run, so that PL/pgSQL's handlers see the same.  The
 * transaction is not aborted yet then, and catalogs can be read: the server throws
 * these errors with no page locked.  At other nodes it is done there (link/conn.c
 * carries the fields).  A deferred foreign key that fails in COMMIT is thrown outside
 * of all statements: it keeps the partition's name for the table.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_constraint.h"
#include "compat.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "node/relation.h"
#include "node/tables.h"
#include "route/names.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static ExecutorRun_hook_type previous_run = NULL;
static ExecutorFinish_hook_type previous_finish = NULL;
static ProcessUtility_hook_type previous_utility = NULL;

/* What a table or an index among the partitions is a part of; InvalidOid = nothing. */
static Oid
parent_of(const char *name)
{
	Oid			schema = get_namespace_oid(PS_DATA_SCHEMA, true);
	Oid			relid = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;

	if (!OidIsValid(relid) || !get_rel_relispartition(relid))
		return InvalidOid;
	return get_partition_parent(relid, true);
}

static bool
is_name_byte(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
}

/* `text` from offset `from` on with each whole word `old` replaced; palloc'd. */
static char *
with_word(const char *text, size_t from, const char *old, const char *new)
{
	size_t		length = strlen(old);
	StringInfoData out;

	initStringInfo(&out);
	appendBinaryStringInfo(&out, text, (int) from);
	for (const char *at = text + from; *at;)
	{
		bool		begins = at == text || !is_name_byte(at[-1]);

		if (begins && strncmp(at, old, length) == 0 && !is_name_byte(at[length]))
		{
			appendStringInfoString(&out, new);
			at += length;
		}
		else
			appendStringInfoChar(&out, *at++);
	}
	return out.data;
}

/* A message names, in double quotes, the table that a foreign key refers to, too. */
static char *
with_other_tables(char *message)
{
	for (char *open = strchr(message, '"'); open; open = strchr(open + 1, '"'))
	{
		char	   *end = strchr(open + 1, '"');
		char	   *name = end ? pnstrdup(open + 1, end - open - 1) : NULL;
		Oid			parent = name && strlen(name) < NAMEDATALEN ? parent_of(name) : InvalidOid;

		if (end == NULL)
			break;
		if (OidIsValid(parent))
		{
			size_t		before = open - message;

			message = with_word(message, before, name, get_rel_name(parent));
			end = strchr(message + before + 1, '"');
		}
		open = end;
	}
	return message;
}

/* Values of the user stand before the last parenthesis of a detail. */
static size_t
behind_values(const char *detail)
{
	const char *last = strrchr(detail, ')');

	return last ? last - detail : 0;
}

/*
 * The constraint that the user made, of which this one of a table is a part: that of
 * a partition, its index, or one of a foreign key's, which has one for each partition
 * that it refers to.
 */
static char *
users_constraint(Oid relid, const char *name)
{
	Oid			oid = get_relation_constraint_oid(relid, name, true);
	Oid			index = OidIsValid(oid) ? InvalidOid : parent_of(name);

	if (OidIsValid(index))
		return get_rel_name(index);
	while (OidIsValid(oid))
	{
		HeapTuple	tuple = SearchSysCache1(CONSTROID, ObjectIdGetDatum(oid));
		Form_pg_constraint form;

		if (!HeapTupleIsValid(tuple))
			break;
		form = (Form_pg_constraint) GETSTRUCT(tuple);
		oid = form->conparentid;
		name = pstrdup(NameStr(form->conname));
		ReleaseSysCache(tuple);
	}
	return pstrdup(name);
}

/* relid: what error->table_name names, of a distributed table. */
static void
rename_all(ErrorData *error, Oid relid)
{
	const char *old_table = error->table_name;
	const char *old_constraint = error->constraint_name;
	Oid			table = ps_relation(relid)->parent;

	error->schema_name = get_namespace_name(get_rel_namespace(table));
	error->table_name = get_rel_name(table);
	if (old_constraint)
	{
		error->constraint_name = users_constraint(relid, old_constraint);
		error->message = with_word(error->message, 0, old_constraint, error->constraint_name);
	}
	error->message = with_word(error->message, 0, old_table, error->table_name);
	error->message = with_other_tables(error->message);
	if (error->detail)
		error->detail = with_word(error->detail, behind_values(error->detail), old_table,
								  error->table_name);
}

/*
 * Is the error one of a partition, or of a foreign key?  What violates the
 * partition's own bounds stays as it is.
 */
static bool
is_ours(const ErrorData *error)
{
	if (error->schema_name == NULL || error->table_name == NULL)
		return false;
	if (error->sqlerrcode == ERRCODE_FOREIGN_KEY_VIOLATION)
		return true;
	return strcmp(error->schema_name, PS_DATA_SCHEMA) == 0 &&
		(error->constraint_name != NULL || error->sqlerrcode != ERRCODE_CHECK_VIOLATION);
}

/* To be called in PG_CATCH: throws the error again, in other names where it is ours. */
static void
throw_again(MemoryContext caller)
{
	ErrorData  *error;
	Oid			schema;
	Oid			relid;

	if (ERRCODE_TO_CATEGORY(geterrcode()) != ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION ||
		!IsTransactionState())
		PG_RE_THROW();
	MemoryContextSwitchTo(caller);
	error = CopyErrorData();
	if (!is_ours(error))
	{
		FreeErrorData(error);
		PG_RE_THROW();
	}
	FlushErrorState();
	HOLD_INTERRUPTS();
	schema = get_namespace_oid(error->schema_name, true);
	relid = OidIsValid(schema) ? get_relname_relid(error->table_name, schema) : InvalidOid;
	if (OidIsValid(relid) && ps_relation(relid) != NULL)
		rename_all(error, relid);
	RESUME_INTERRUPTS();
	ReThrowError(error);
}

static void
names_run(PS_EXECUTOR_RUN_ARGUMENTS)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		if (previous_run)
			previous_run(PS_EXECUTOR_RUN_PASS);
		else
			standard_ExecutorRun(PS_EXECUTOR_RUN_PASS);
	}
	PG_CATCH();
	{
		throw_again(caller);
	}
	PG_END_TRY();
}

/* Foreign keys are looked at here. */
static void
names_finish(QueryDesc *desc)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		if (previous_finish)
			previous_finish(desc);
		else
			standard_ExecutorFinish(desc);
	}
	PG_CATCH();
	{
		throw_again(caller);
	}
	PG_END_TRY();
}

static void
names_utility(PlannedStmt *pstmt, const char *source, bool read_only, ProcessUtilityContext context,
			  ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		if (previous_utility)
			previous_utility(pstmt, source, read_only, context, params, env, dest, qc);
		else
			standard_ProcessUtility(pstmt, source, read_only, context, params, env, dest, qc);
	}
	PG_CATCH();
	{
		throw_again(caller);
	}
	PG_END_TRY();
}

void
ps_names_install(void)
{
	previous_run = ExecutorRun_hook;
	ExecutorRun_hook = names_run;
	previous_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = names_finish;
	previous_utility = ProcessUtility_hook;
	ProcessUtility_hook = names_utility;
}
