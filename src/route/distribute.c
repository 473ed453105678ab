/*
 * distribute.c
 *		How does a table become distributed, and ordinary again?
 *
 * create_distributed_table, everything in one transaction on all nodes
 * (allnodes.c):
 *	(a) lock the table, check it (distributable.c), write DDL for each node
 *		(sql: table_ddl_before, table_ddl_after) from the catalog;
 *	(b) move the old table out of the way, into a schema of its own;
 *	(c) make the new one, and register it, on all nodes;
 *	(d) load each row on the nodes that hold its shard in sync (rows.c);
 *	(e) drop the old table;
 *	(f) what must not see rows that are only moved: triggers, capture, then
 *		policies and grants.
 * undistribute_table is the way back: the new table is an ordinary one here,
 * rows come from the primaries, and the others drop theirs.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "node/map.h"
#include "node/relation.h"
#include "node/settings.h"
#include "node/tables.h"
#include "route/allnodes.h"
#include "route/distributable.h"
#include "route/distribute.h"
#include "route/rows.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PS_FUNCTION(payshard_create_distributed_table);
PS_FUNCTION(payshard_undistribute_table);
PS_FUNCTION(payshard_shard_for);
PS_FUNCTION(payshard_nodes_for);
PS_FUNCTION(payshard_peer_register);
PS_FUNCTION(payshard_peer_unregister);

#define PS_PARTITION_BASE_MAX (NAMEDATALEN - 1 - 5)	/* "_1023" */

/* A table on its way to or from being distributed. */
typedef struct Job
{
	Oid			relid;			/* the old table */
	char	   *name;			/* qualified */
	uint32		table_id;
	char	   *partitions;		/* names of partitions without "_<shard>" */
	char	   *keys;			/* key columns as the text of an array */
	char	   *colocation;
	int			n_shards;
	bool		plain;			/* the new one is an ordinary table */
	char	   *floors;			/* jsonb: highest value in use, by column */
} Job;

static Oid	saved_user;
static int	saved_context;

/* From here on with all rights, until rights_back(); an error ends it, too. */
static void
rights_all(void)
{
	GetUserIdAndSecContext(&saved_user, &saved_context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, saved_context | SECURITY_LOCAL_USERID_CHANGE);
}

static void
rights_back(void)
{
	SetUserIdAndSecContext(saved_user, saved_context);
}

/* One value as text, palloc'd by the caller's context; NULL when null or no row. */
static char *
query_text(const char *sql)
{
	MemoryContext outer = CurrentMemoryContext;
	char	   *text = NULL;

	SPI_connect();
	if (SPI_execute(sql, false, 1) >= 0 && SPI_processed == 1)
	{
		char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		text = value ? MemoryContextStrdup(outer, value) : NULL;
	}
	SPI_finish();
	return text;
}

static char *
qualified(Oid relid)
{
	return quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
									  get_rel_name(relid));
}

static char *
literal(const char *text)
{
	return text ? quote_literal_cstr(text) : pstrdup("NULL");
}

/* DDL text for a node, what comes before the rows. */
static char *
script_before(const Job *job, uint32 node)
{
	return query_text(psprintf("SELECT payshard.table_ddl_before(%u, %s, %s, %d, %d, %s, %s)",
							   job->relid, literal(job->partitions), literal(job->keys),
								job->n_shards,
							   job->plain ? 0 : (int) node, literal(job->floors),
								job->plain ? "true" : "false"));
}

static char *
script_after(const Job *job)
{
	return query_text(psprintf("SELECT payshard.table_ddl_after(%u, %s, %d, %s)",
							   job->relid, literal(job->partitions), job->n_shards,
								job->plain ? "true" : "false"));
}

static char *
script_register(const Job *job)
{
	return psprintf("SELECT payshard.peer_register(%u, %s, %s, %s);", job->table_id,
					literal(job->name), literal(job->keys), literal(job->colocation));
}

/* One script at one other node, not awaited. */
static void
send_script(int i, const char *script)
{
	PsArg		args[1] = {ps_arg_text(script)};

	ps_allnodes_send(i, "SELECT payshard.peer_ddl($1, '', 'pg_catalog, pg_temp')", 1, args);
}

static void
run_script_on_others(const char *script)
{
	for (int i = 0; i < ps_allnodes_count(); i++)
		send_script(i, script);
	for (int i = 0; i < ps_allnodes_count(); i++)
		PQclear(ps_allnodes_await(i));
}

/* A number for a new table that no table has had on any node. */
static uint32
new_table_id(void)
{
	uint32		id;

	do
	{
		id = (ps_map_self() << 24) |
			((uint32) strtoul(query_text("SELECT pg_catalog.nextval('payshard.table_number')"), NULL, 10) & 0xFFFFFF);
	} while (OidIsValid(ps_relation_by_id(id)));
	return id;
}

/* Names of partitions: <schema>_<table>, or shortened and with the table's id. */
static char *
partition_base(Oid relid, uint32 table_id)
{
	char	   *base = psprintf("%s_%s", get_namespace_name(get_rel_namespace(relid)),
								get_rel_name(relid));
	Oid			schema = get_namespace_oid(PS_DATA_SCHEMA, false);
	int			length = (int) strlen(base);

	if (length <= PS_PARTITION_BASE_MAX && !OidIsValid(get_relname_relid(psprintf("%s_0", base),
																		 schema)))
		return base;
	length = pg_mbcliplen(base, length, PS_PARTITION_BASE_MAX - 9);
	return psprintf("%.*s_%08x", length, base, table_id);
}

static bool
has_rows(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	bool		has = table_scan_getnextslot(scan, ForwardScanDirection, slot);

	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return has;
}

/* (b): the old table and all that carries a name in its schema move away. */
static char *
move_away(const Job *job)
{
	char	   *schema = psprintf("payshard_old_%u", job->relid);

	ps_allnodes_script_here(psprintf("CREATE SCHEMA %s; ALTER TABLE %s SET SCHEMA %s", schema, job->name, schema));
	return schema;
}

/* (e) */
static void
drop_old(const Job *job, const char *schema)
{
	ps_allnodes_script_here(psprintf("DROP TABLE %s.%s; DROP SCHEMA %s", schema,
									 quote_identifier(get_rel_name(job->relid)), schema));
}

/* (a), the part that only reads. */
static void
fill_job(Job *job, Oid relid, ArrayType *keys)
{
	Oid			output;
	bool		is_varlena;

	getTypeOutputInfo(TEXTARRAYOID, &output, &is_varlena);
	job->relid = relid;
	job->name = qualified(relid);
	job->plain = false;
	job->n_shards = ps_map_n_shards();
	job->table_id = new_table_id();
	job->partitions = partition_base(relid, job->table_id);
	job->keys = OidOutputFunctionCall(output, PointerGetDatum(keys));
	job->colocation = query_text(psprintf("SELECT string_agg(format_type(a.atttypid, NULL), ',' ORDER BY k.n) "
										  "FROM unnest(%s::text[]) WITH ORDINALITY k(name, n) "
										  "JOIN pg_catalog.pg_attribute a ON a.attrelid = %u AND a.attname = k.name",
										  literal(job->keys), relid));
	job->floors = query_text(psprintf("SELECT payshard.sequence_floors(%u)", relid));
}

/* Is it an error of what is there and what is not: a schema, a role, a type? */
static bool
is_of_names(int code)
{
	return ERRCODE_TO_CATEGORY(code) == ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION ||
		code == ERRCODE_UNDEFINED_SCHEMA;
}

/*
 * (c) at one other node.  What the table needs there and is not, or what has its name,
 * is said in its words, without the script that met it.
 */
static void
await_made(const Job *job, int i)
{
	MemoryContext caller = CurrentMemoryContext;

	PG_TRY();
	{
		PQclear(ps_allnodes_await(i));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		if (!is_of_names(geterrcode()))
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("table \"%s\" cannot be made on node \"%s\"", get_rel_name(job->relid),
						ps_map_node_name(ps_allnodes_node(i))),
				 errdetail("There: %s. Nothing was changed on any node.", error->message),
				 errhint("A table needs the same schema, owner, types, functions and extensions on every node, and its name free on the others.")));
	}
	PG_END_TRY();
}

/* (b) to (f) */
static void
distribute(const Job *job)
{
	char	   *after = script_after(job);
	char	   *here = script_before(job, ps_map_self());
	char	   *schema;
	Oid			fresh;

	for (int i = 0; i < ps_allnodes_count(); i++)
		send_script(i, psprintf("%s\n%s", script_before(job, ps_allnodes_node(i)), script_register(job)));
	schema = move_away(job);
	ps_allnodes_script_here(here);
	ps_allnodes_script_here(script_register(job));
	fresh = ps_relation_by_id(job->table_id);
	for (int i = 0; i < ps_allnodes_count(); i++)
		await_made(job, i);
	ps_rows_spread(job->relid, fresh);
	drop_old(job, schema);
	run_script_on_others(after);
	ps_allnodes_script_here(after);
}

/* create_distributed_table(relation, variadic key_columns) */
Datum
payshard_create_distributed_table(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	ArrayType  *keys = PG_GETARG_ARRAYTYPE_P(1);
	PsMap	   *map;
	Job			job = {0};

	ps_map_require_serving();
	ps_require_table_owner(relid);
	LockRelationOid(relid, AccessExclusiveLock);
	ps_require_table_owner(relid);
	map = ps_map_copy();
	rights_all();
	ps_require_distributable(relid, keys, map);
	rights_back();
	if (has_rows(relid))
		ps_require_all_in_sync(map);
	ps_allnodes_begin(psprintf("SELECT payshard.create_distributed_table(%s, VARIADIC %s)", literal(qualified(relid)),
							   literal(OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(keys)))));
	ps_allnodes_pin_map();
	rights_all();
	fill_job(&job, relid, keys);
	distribute(&job);
	rights_back();
	PG_RETURN_VOID();
}

static void
require_superuser(const char *what)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", what),
				 errhint("Only nodes call it on each other, as a superuser.")));
}

/* Everybody's caches forget what they know of a table and its partitions. */
static void
invalidate(Oid relid)
{
	List	   *oids = find_all_inheritors(relid, NoLock, NULL);
	ListCell   *cell;

	foreach(cell, oids)
		CacheInvalidateRelcacheByRelid(lfirst_oid(cell));
	CommandCounterIncrement();
}

/* peer_register(table_id, relation, key_columns, colocation) */
Datum
payshard_peer_register(PG_FUNCTION_ARGS)
{
	Oid			types[4] = {INT8OID, TEXTOID, NAMEARRAYOID, TEXTOID};
	Datum		args[4];

	require_superuser("peer_register");
	for (int i = 0; i < 4; i++)
		args[i] = PG_GETARG_DATUM(i);
	SPI_connect();
	SPI_execute_with_args("INSERT INTO payshard.distributed_table (table_id, relid, key_columns, colocation) "
						  "VALUES ($1, $2::regclass, $3, $4)", 4, types, args, NULL, false, 0);
	SPI_finish();
	CommandCounterIncrement();
	/* ps_relation_by_id may not be asked: it could have cached "no" */
	invalidate(DatumGetObjectId(DirectFunctionCall1(to_regclass, PG_GETARG_DATUM(1))));
	PG_RETURN_VOID();
}

bool
ps_distribute_has_tables(void)
{
	bool		has;

	rights_all();
	has = query_text("SELECT 1 FROM payshard.distributed_table") != NULL;
	rights_back();
	return has;
}

void
ps_distribute_unregister(uint32 table_id)
{
	Oid			type = INT8OID;
	Datum		arg = Int64GetDatum(table_id);
	Oid			relid = ps_relation_by_id(table_id);

	SPI_connect();
	SPI_execute_with_args("DELETE FROM payshard.distributed_table WHERE table_id = $1", 1, &type, &arg, NULL, false, 0);
	SPI_finish();
	CommandCounterIncrement();
	if (OidIsValid(relid))
		invalidate(relid);
}

/* peer_unregister(table_id) */
Datum
payshard_peer_unregister(PG_FUNCTION_ARGS)
{
	require_superuser("peer_unregister");
	ps_distribute_unregister((uint32) PG_GETARG_INT64(0));
	PG_RETURN_VOID();
}

/* The highest value in use by column, over all nodes of the transaction. */
static char *
floors_everywhere(const char *name, Oid relid)
{
	StringInfoData all;

	initStringInfo(&all);
	appendStringInfo(&all, "SELECT coalesce(jsonb_object_agg(key, top), '{}') FROM (SELECT key, max(value::bigint) AS top "
					 "FROM (SELECT payshard.sequence_floors(%u) AS j", relid);
	for (int i = 0; i < ps_allnodes_count(); i++)
	{
		PsArg		arg = ps_arg_text(name);
		PGresult   *result;

		ps_allnodes_send(i, "SELECT payshard.sequence_floors($1::regclass)", 1, &arg);
		result = ps_allnodes_await(i);
		appendStringInfo(&all, " UNION ALL SELECT %s::jsonb", quote_literal_cstr(PQgetvalue(result, 0, 0)));
		PQclear(result);
	}
	appendStringInfoString(&all, ") f, jsonb_each_text(f.j) GROUP BY key) m");
	return query_text(all.data);
}

static void
require_distributed(Oid relid)
{
	const PsRelation *table = ps_relation(relid);

	if (table == NULL || table->shard != -1)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" is not a distributed table", get_rel_name(relid)),
				 errdetail(table ? "It is a partition of one." : "It is an ordinary relation of this node."),
				 errhint("See payshard.tables for all distributed tables.")));
}

/* The way back: (b) to (f) with an ordinary table as the new one. */
static void
undistribute(Job *job)
{
	Oid			schema_oid = get_rel_namespace(job->relid);
	char	   *name = get_rel_name(job->relid);
	char	   *schema;
	char	   *after;
	char	   *here;

	run_script_on_others(psprintf("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE", job->name));
	job->floors = floors_everywhere(job->name, job->relid);
	after = script_after(job);
	here = script_before(job, 0);
	schema = move_away(job);
	ps_allnodes_script_here(here);
	ps_rows_gather(job->relid, job->name, get_relname_relid(name, schema_oid));
	ps_distribute_unregister(job->table_id);
	drop_old(job, schema);
	run_script_on_others(psprintf("SELECT payshard.peer_unregister(%u); DROP TABLE %s", job->table_id, job->name));
	ps_allnodes_script_here(after);
}

/* undistribute_table(relation) */
Datum
payshard_undistribute_table(PG_FUNCTION_ARGS)
{
	Oid			relid = PG_GETARG_OID(0);
	Job			job = {0};

	ps_map_require_serving();
	ps_require_table_owner(relid);
	require_distributed(relid);
	rights_all();
	ps_require_undistributable(relid);
	rights_back();
	ps_require_all_open(ps_map_copy());
	ps_allnodes_begin(psprintf("SELECT payshard.undistribute_table(%s)", literal(qualified(relid))));
	ps_allnodes_pin_map();
	LockRelationOid(relid, AccessExclusiveLock);
	require_distributed(relid);
	rights_all();
	job.relid = relid;
	job.name = qualified(relid);
	job.plain = true;
	job.n_shards = ps_map_n_shards();
	job.table_id = ps_relation(relid)->table_id;
	undistribute(&job);
	rights_back();
	PG_RETURN_VOID();
}

/* The job that makes an existing distributed table once more, elsewhere. */
static void
fill_job_again(Job *job, Oid relid, uint32 table_id)
{
	char	   *first = get_rel_name(ps_relation_partition(relid, 0));

	job->relid = relid;
	job->name = qualified(relid);
	job->plain = false;
	job->n_shards = ps_map_n_shards();
	job->table_id = table_id;
	first[strlen(first) - 2] = '\0';	/* "_0" */
	job->partitions = first;
	job->keys = query_text(psprintf("SELECT key_columns FROM payshard.distributed_table WHERE table_id = %u", table_id));
	job->colocation = query_text(psprintf("SELECT colocation FROM payshard.distributed_table WHERE table_id = %u", table_id));
}

/* Makes one table at the i-th other node, unless it is there. */
static void
make_at(int i, uint32 table_id, Oid relid)
{
	Job			job = {0};
	PsArg		arg = ps_arg_int8(table_id);
	PGresult   *result;
	bool		is_there;

	ps_allnodes_send(i, "SELECT FROM payshard.distributed_table WHERE table_id = $1", 1, &arg);
	result = ps_allnodes_await(i);
	is_there = PQntuples(result) > 0;
	PQclear(result);
	if (is_there)
		return;
	fill_job_again(&job, relid, table_id);
	job.floors = query_text(psprintf("SELECT payshard.sequence_floors(%u)", relid));
	for (int other = 0; other < ps_allnodes_count(); other++)
	{
		PsArg		name = ps_arg_text(job.name);

		if (other == i)
			continue;
		ps_allnodes_send(other, "SELECT payshard.sequence_floors($1::regclass)", 1, &name);
		result = ps_allnodes_await(other);
		job.floors = query_text(psprintf("SELECT jsonb_object_agg(key, greatest(a.value::bigint, (%s::jsonb->>key)::bigint)) "
										 "FROM jsonb_each_text(%s) a", literal(PQgetvalue(result, 0, 0)),
											literal(job.floors)));
		PQclear(result);
	}
	send_script(i, psprintf("%s\n%s\n%s", script_before(&job, ps_allnodes_node(i)), script_register(&job),
							script_after(&job)));
	PQclear(ps_allnodes_await(i));
}

void
ps_distribute_all_to(uint32 node)
{
	MemoryContext outer = CurrentMemoryContext;
	List	   *oids = NIL;
	ListCell   *cell;

	ps_allnodes_begin(psprintf("-- all distributed tables on node %u", node));
	rights_all();
	SPI_connect();
	SPI_execute("SELECT relid::oid::bigint FROM payshard.distributed_table ORDER BY table_id", true, 0);
	for (uint64 row = 0; row < SPI_processed; row++)
	{
		bool		isnull;
		Oid			relid = (Oid) DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[row],
															  SPI_tuptable->tupdesc, 1, &isnull));
		MemoryContext old = MemoryContextSwitchTo(outer);

		oids = lappend_oid(oids, relid);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	foreach(cell, oids)
		for (int i = 0; i < ps_allnodes_count(); i++)
			if (ps_allnodes_node(i) == node)
				make_at(i, ps_relation(lfirst_oid(cell))->table_id, lfirst_oid(cell));
	rights_back();
}

/* A key value of any type as one of the key column's. */
static Datum
key_value(FunctionCallInfo fcinfo, int arg, Oid relid, AttrNumber attnum)
{
	Oid			from = get_fn_expr_argtype(fcinfo->flinfo, arg);
	Oid			to;
	int32		typmod;
	Oid			collation;
	Oid			function;
	Oid			ioparam;
	char	   *text;
	bool		is_varlena;

	get_atttypetypmodcoll(relid, attnum, &to, &typmod, &collation);
	if (from == to)
		return PG_GETARG_DATUM(arg);
	if (from == UNKNOWNOID)
		text = DatumGetCString(PG_GETARG_DATUM(arg));
	else
	{
		getTypeOutputInfo(from, &function, &is_varlena);
		text = OidOutputFunctionCall(function, PG_GETARG_DATUM(arg));
	}
	getTypeInputInfo(to, &function, &ioparam);
	return OidInputFunctionCall(function, text, ioparam, typmod);
}

/* The shard of (relation, variadic key). */
static int
shard_of_args(FunctionCallInfo fcinfo)
{
	Oid			relid;
	PsRelation	table;
	Datum		values[PS_KEY_COLUMNS_MAX] = {0};
	bool		nulls[PS_KEY_COLUMNS_MAX] = {false};

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("the relation must not be null")));
	relid = PG_GETARG_OID(0);
	require_distributed(relid);
	table = *ps_relation(relid);
	if (get_fn_expr_variadic(fcinfo->flinfo) || PG_NARGS() - 1 != table.n_key)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the key of table \"%s\" has %d columns", get_rel_name(relid), table.n_key),
				 errhint("Give one value for each of them, in their order.")));
	for (int i = 0; i < table.n_key; i++)
	{
		if (PG_ARGISNULL(i + 1))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a distribution key is never null")));
		values[i] = key_value(fcinfo, i + 1, relid, table.key[i]);
	}
	return ps_relation_shard(relid, values, nulls);
}

/* shard_for(relation, variadic key) */
Datum
payshard_shard_for(PG_FUNCTION_ARGS)
{
	ps_map_require_cluster();
	PG_RETURN_INT32(shard_of_args(fcinfo));
}

/* nodes_for(shard), nodes_for(relation, variadic key) */
Datum
payshard_nodes_for(PG_FUNCTION_ARGS)
{
	static const char *const states[] = {"none", "out", "joining", "in_sync"};
	ReturnSetInfo *info = (ReturnSetInfo *) fcinfo->resultinfo;
	PsMapShard	shard;
	int			n;

	ps_map_require_cluster();
	n = PG_NARGS() == 1 ? PG_GETARG_INT32(0) : shard_of_args(fcinfo);
	if (!ps_map_shard(n, &shard))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no shard %d", n),
				 errdetail("Shards are numbered 0 to %d.", ps_map_n_shards() - 1),
				 errhint("See payshard.shards.")));
	InitMaterializedSRF(fcinfo, 0);
	for (uint32 id = 0; id < PS_NODES_MAX; id++)
	{
		/* the primary first: it takes the turn of id 0, which no node has */
		uint32		node = id == 0 ? shard.primary : id;
		Datum		values[3];
		bool		nulls[3] = {false};

		if ((id != 0 && id == shard.primary) || !PS_HAS_NODE(shard.placements, node))
			continue;
		values[0] = CStringGetTextDatum(ps_map_node_name(node));
		values[1] = BoolGetDatum(node == shard.primary);
		values[2] = CStringGetTextDatum(states[ps_map_placement(&shard, node)]);
		tuplestore_putvalues(info->setResult, info->setDesc, values, nulls);
	}
	return (Datum) 0;
}
