/*
 * cluster.c
 *		How does a cluster come into being, and how do nodes come and go?
 *
 * create_cluster makes this database node 1 in one local transaction.
 * add_node, on any node: (a) ask the new one who it is and what it lacks; (b)
 * invite it: identity, foreign servers and an empty vote; (c) define it on all
 * others; (b) and (c) are transactions at all nodes, committed when all have
 * answered; (d) a map with it as a voter; (e) await that it has started, that is
 * taken an incarnation; (f) place shards.  Dying among the commits leaves
 * definitions which the next try finds and uses; the node is a member from (d) on.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "access/twophase.h"
#include "ground/ring.h"
#include "ground/step.h"
#include "keep/cluster.h"
#include "keep/failover.h"
#include "keep/fit.h"
#include "keep/proposer.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/identity.h"
#include "node/map.h"
#include "node/settings.h"
#include "postmaster/postmaster.h"
#include "route/distribute.h"
#include "storage/latch.h"
#include "utils/wait_event.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/inval.h"
#include "utils/syscache.h"

PS_FUNCTION(payshard_create_cluster);
PS_FUNCTION(payshard_add_node);
PS_FUNCTION(payshard_set_node);
PS_FUNCTION(payshard_peer_check_settings);
PS_FUNCTION(payshard_peer_invite);
PS_FUNCTION(payshard_peer_define);
PS_FUNCTION(payshard_peer_learn);
PS_FUNCTION(payshard_fdw_validator);

#define PS_JOIN_TIMEOUT_MS 30000

/* An argument as C string, "" when null. */
static char *
text_arg(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? pstrdup("") : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* Appends an option as a connection string has it. */
static void
append_option(StringInfo buf, const char *keyword, const char *value)
{
	appendStringInfo(buf, "%s%s='", buf->len ? " " : "", keyword);
	for (const char *c = value; *c; c++)
	{
		if (*c == '\'' || *c == '\\')
			appendStringInfoChar(buf, '\\');
		appendStringInfoChar(buf, *c);
	}
	appendStringInfoChar(buf, '\'');
}

/* The conninfo by which this server reaches itself, as a default. */
static char *
own_conninfo(void)
{
	StringInfoData buf;
	char	   *host = pstrdup(Unix_socket_directories);
	char	   *comma = strchr(host, ',');

	if (comma)
		*comma = '\0';
	initStringInfo(&buf);
	append_option(&buf, "host", host[0] ? host : "localhost");
	append_option(&buf, "port", psprintf("%d", PostPortNumber));
	append_option(&buf, "dbname", get_database_name(MyDatabaseId));
	return buf.data;
}

static void
run_sql(const char *sql)
{
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "could not execute: %s", sql);
}

/* Splits a conninfo string into options of the server and of the mapping. */
static void
conninfo_options(const char *conninfo, StringInfo server, StringInfo mapping)
{
	PQconninfoOption *options = ps_fit_parse(conninfo);

	for (PQconninfoOption *o = options; o->keyword; o++)
	{
		bool		secret = strcmp(o->keyword, "user") == 0 || strncmp(o->keyword, "pass", 4) == 0;
		StringInfo	buf = secret ? mapping : server;

		if (o->val && o->val[0])
			appendStringInfo(buf, "%s%s %s", buf->len ? ", " : "",
							 quote_identifier(o->keyword), quote_literal_cstr(o->val));
	}
	PQconninfoFree(options);
}

/* CREATE SERVER and, where the string names a user, USER MAPPING (S2). */
static void
define_server(const char *name, const char *conninfo, Oid peer_role)
{
	StringInfoData server;
	StringInfoData mapping;
	const char *id = quote_identifier(psprintf("%s%s", PS_SERVER_PREFIX, name));
	const char *role = quote_identifier(GetUserNameFromId(peer_role, false));

	initStringInfo(&server);
	initStringInfo(&mapping);
	conninfo_options(conninfo, &server, &mapping);
	if (OidIsValid(get_foreign_server_oid(psprintf("%s%s", PS_SERVER_PREFIX, name), true)))
		run_sql(psprintf("DROP SERVER %s CASCADE", id));
	run_sql(psprintf("CREATE SERVER %s FOREIGN DATA WRAPPER payshard%s%s%s", id,
					 server.len ? " OPTIONS (" : "", server.data, server.len ? ")" : ""));
	if (mapping.len)
		run_sql(psprintf("CREATE USER MAPPING FOR %s SERVER %s OPTIONS (%s)", role, id, mapping.data));
}

/* This database becomes node `name` of a cluster: identity and vote. */
static void
become_node(uint64 cluster_id, uint32 node_id, const char *name)
{
	Oid			types[3] = {INT8OID, INT4OID, TEXTOID};
	Datum args[3] = {Int64GetDatum(cluster_id), Int32GetDatum(node_id), CStringGetTextDatum(name)};

	run_sql("DELETE FROM payshard.node_self; DELETE FROM payshard.acceptor");
	SPI_execute_with_args("INSERT INTO payshard.node_self (cluster_id, node_id, name, peer_role, boot) "
						  "VALUES ($1, $2, $3, current_user, 0)", 3, types, args, NULL, false, 0);
	SPI_execute_with_args("INSERT INTO payshard.acceptor (cluster_id, promised, accepted_ballot) "
						  "VALUES ($1, 0, 0)", 1, types, args, NULL, false, 0);
}

/* Was invited before, in vain: its vote stays as it is. */
static void
become_another(uint32 node_id, const char *name)
{
	Oid			types[2] = {INT4OID, TEXTOID};
	Datum		args[2] = {Int32GetDatum(node_id), CStringGetTextDatum(name)};

	SPI_execute_with_args("UPDATE payshard.node_self SET node_id = $1, name = $2",
						  2, types, args, NULL, false, 0);
}

/* The id that this database gets when the current transaction commits; 0 = none. */
static uint32 becoming = 0;

static void
at_end(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && becoming != 0)
	{
		ps_shared->self = becoming;
		ps_wake_keeper();
	}
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		becoming = 0;
}

/* From the commit on this database is node `id`; the keeper starts it. */
static void
start_at_commit(uint32 id)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(at_end, NULL);
	registered = true;
	becoming = id;
}

static void
require_no_cluster(void)
{
	PsIdentity	identity;

	if (ps_identity_read(&identity))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("this database is already node \"%s\" of a payshard cluster", identity.name),
				 errdetail("A database is a node of one cluster, under one name."),
				 errhint("To start anew, run DROP EXTENSION payshard CASCADE and CREATE EXTENSION payshard.")));
}

/* create_cluster(name, shards, replicas, node, conninfo, zone, weight, load_percent) */
Datum
payshard_create_cluster(PG_FUNCTION_ARGS)
{
	char	   *cluster = text_arg(fcinfo, 0);
	int			shards = PG_ARGISNULL(1) ? 0 : PG_GETARG_INT32(1);
	int			replicas = PG_ARGISNULL(2) ? 0 : PG_GETARG_INT32(2);
	char	   *name = text_arg(fcinfo, 3);
	char	   *conninfo = PG_ARGISNULL(4) ? own_conninfo() : text_arg(fcinfo, 4);
	PsMap	   *map = palloc0(sizeof(PsMap));
	PsMapNode	first = {0};
	StringInfoData bytes;
	PsRefusal	refusal;
	uint64		cluster_id;
	Oid			types[1] = {BYTEAOID};
	Datum		args[1];

	ps_fit_require_superuser("create_cluster");
	ps_fit_require_settings();
	require_no_cluster();
	ps_fit_require_name(cluster, "cluster");
	ps_fit_require_name(name, "node");
	ps_fit_require_zone(text_arg(fcinfo, 5));
	ps_fit_require_weight(PG_ARGISNULL(6) ? 1 : PG_GETARG_INT32(6));
	if (!pg_strong_random(&cluster_id, sizeof(cluster_id)))
		elog(ERROR, "could not generate random values");
	cluster_id = (cluster_id >> 1) | 1; /* a positive bigint */
	strlcpy(first.name, name, PS_NAME_MAX);
	strlcpy(first.zone, text_arg(fcinfo, 5), PS_NAME_MAX);
	first.weight = PG_ARGISNULL(6) ? 1 : PG_GETARG_INT32(6);
	first.system_id = GetSystemIdentifier();
	refusal = ps_step_create(map, cluster, cluster_id, shards, replicas,
							 PG_ARGISNULL(7) ? PS_RING_LOAD_DEFAULT : PG_GETARG_INT32(7), &first);
	if (refusal)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a cluster with %d shards and %d replicas cannot be created", shards, replicas),
				 errdetail("%s", ps_refusal_sentence(refusal)),
				 errhint("Shards: a power of two, 1 to %d. Replicas: 1 to %d. Load: 100 to %d percent.",
						 PS_SHARDS_MAX, PS_COPIES_MAX, PS_RING_LOAD_MAX)));
	ps_fit_require_own(name, conninfo);
	map->changed_at = GetCurrentTimestamp();
	map->changed_by = map->nodes[0].id;
	initStringInfo(&bytes);
	ps_map_put(&bytes, map);

	SPI_connect();
	become_node(cluster_id, map->nodes[0].id, name);
	define_server(name, conninfo, GetUserId());
	args[0] = PointerGetDatum(cstring_to_text_with_len(bytes.data, bytes.len));
	SPI_execute_with_args("UPDATE payshard.acceptor SET promised = 1, accepted_ballot = 1, value = $1",
						  1, types, args, NULL, false, 0);
	SPI_finish();
	ps_map_adopt(bytes.data, bytes.len);
	start_at_commit(map->nodes[0].id);
	PG_RETURN_VOID();
}

/* peer_check_settings(): ERROR 55000 when this server cannot be a node. */
Datum
payshard_peer_check_settings(PG_FUNCTION_ARGS)
{
	ps_fit_require_superuser("peer_check_settings");
	ps_fit_require_settings();
	PG_RETURN_VOID();
}

/* The connection string of a node, from its foreign server. */
static char *
conninfo_of(const char *name)
{
	StringInfoData buf;
	ForeignServer *server = GetForeignServerByName(psprintf("%s%s", PS_SERVER_PREFIX, name), false);
	List	   *options = list_copy(server->options);
	ListCell   *cell;

	if (SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(ps_identity_peer_role()),
							  ObjectIdGetDatum(server->serverid)))
		options = list_concat(options,
							  GetUserMapping(ps_identity_peer_role(), server->serverid)->options);
	initStringInfo(&buf);
	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		append_option(&buf, option->defname, defGetString(option));
	}
	return buf.data;
}

/* What add_node is about. */
typedef struct NewNode
{
	char	   *name;
	char	   *conninfo;
	PsMapNode	node;
	uint32		id;
	uint64		former_boot;	/* > 0: an empty server takes a member's place */
	bool		has_identity;	/* that server is a node already */
} NewNode;

/* Runs a command, or a function that returns nothing of interest; ERROR when it fails. */
static void
call_or_error(PGconn *conn, const char *name, const char *sql, int n_args, PsArg *args)
{
	PGresult *result =
		ps_conn_call(conn, sql, n_args, args, false, ps_deadline(ps_call_timeout_ms));

	if (result == NULL || (PQresultStatus(result) != PGRES_TUPLES_OK &&
						   PQresultStatus(result) != PGRES_COMMAND_OK))
		ps_conn_throw(result, conn, name, sql);
	PQclear(result);
}

/* (a): is the server free to become this node? */
static void
require_free(const PsServer *server, NewNode *new, PsMap *map)
{
	PsMapNode  *member = server->cluster_id == map->cluster_id ?
		ps_map_node_by_name(map, server->name) : NULL;

	new->has_identity = server->cluster_id != 0;
	new->node.system_id = server->system_id;
	if (new->has_identity && server->cluster_id != map->cluster_id)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("the database of node \"%s\" belongs to another payshard cluster", new->name),
				 errdetail("It is node \"%s\" there.", server->name),
				 errhint("To take it in here, run DROP EXTENSION payshard CASCADE and CREATE EXTENSION payshard there first.")));
	if (member && strcmp(server->name, new->name) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("the database of node \"%s\" is node \"%s\" already", new->name, server->name),
				 errdetail("A database is a node of one cluster, under one name."),
				 errhint("See payshard.nodes.")));
	if (new->has_identity && member == NULL && server->has_started)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("the database of node \"%s\" was node \"%s\" of this cluster", new->name, server->name),
				 errdetail("It was removed, and keeps what it knew."),
				 errhint("To take it in anew, drop its distributed tables, run DROP EXTENSION payshard CASCADE and CREATE EXTENSION payshard there.")));
	if (server->system_id == GetSystemIdentifier())
		ereport(WARNING,
				(errmsg("node \"%s\" has the same system identifier as this one", new->name),
				 errdetail("It was made as a copy of this server, or is this server.")));
}

/* (b): the new node learns who it is, who the others are, and the map. */
static void
invite(PGconn *conn, NewNode *new, PsMap *map)
{
	StringInfoData names;
	StringInfoData bytes;
	PsArg		args[5];

	initStringInfo(&names);
	appendStringInfoString(&names, "[");
	for (int i = 0; i <= map->n_nodes; i++)
	{
		const char *name = i < map->n_nodes ? map->nodes[i].name : new->name;
		const char *conninfo = i < map->n_nodes ? conninfo_of(name) : new->conninfo;

		if (i < map->n_nodes && strcmp(name, new->name) == 0)
			continue;
		appendStringInfoString(&names, names.len > 1 ? ", [" : "[");
		escape_json(&names, name);
		appendStringInfoString(&names, ", ");
		escape_json(&names, conninfo);
		appendStringInfoString(&names, "]");
	}
	appendStringInfoString(&names, "]");
	initStringInfo(&bytes);
	ps_map_put(&bytes, map);
	args[0] = ps_arg_int8((int64) map->cluster_id);
	args[1] = ps_arg_int8(new->id);
	args[2] = ps_arg_text(new->name);
	args[3] = ps_arg_text(names.data);
	args[4] = ps_arg_bytes(bytes.data, bytes.len);
	call_or_error(conn, new->name, "SELECT payshard.peer_invite($1, $2::int, $3, $4::jsonb, $5)", 5, args);
}

/* (c) at one member: not committed yet. */
static void
define_at(const PsMapNode *node, NewNode *new)
{
	PsArg		args[2] = {ps_arg_text(new->name), ps_arg_text(new->conninfo)};
	PGconn	   *conn = ps_peer(node->id, node->name, ps_deadline(ps_call_timeout_ms));

	if (conn == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" cannot be reached", node->name),
				 errdetail("It has to learn how to reach node \"%s\".", new->name),
				 errhint("All nodes must be up when a node is added.")));
	call_or_error(conn, node->name, "BEGIN", 0, NULL);
	call_or_error(conn, node->name, "SELECT payshard.peer_define($1, $2)", 2, args);
}

/*
 * (b) and (c): all members, this one too, learn how to reach the new node, and
 * it learns who it is; each in a transaction, committed when all have done it.
 */
static void
introduce(PGconn *conn, NewNode *new, PsMap *map)
{
	PG_TRY();
	{
		for (int i = 0; i < map->n_nodes; i++)
			if (map->nodes[i].id != new->id)
				define_at(&map->nodes[i], new);
		call_or_error(conn, new->name, "BEGIN", 0, NULL);
		invite(conn, new, map);
		for (int i = 0; i < map->n_nodes; i++)
			if (map->nodes[i].id != new->id)
				call_or_error(ps_peer_open(map->nodes[i].id), map->nodes[i].name, "COMMIT", 0, NULL);
		call_or_error(conn, new->name, "COMMIT", 0, NULL);
	}
	PG_CATCH();
	{
		/* closed connections roll back what was not committed */
		for (int i = 0; i < map->n_nodes; i++)
			ps_peer_drop(map->nodes[i].id);
		PG_RE_THROW();
	}
	PG_END_TRY();
	/* this node's was committed by a connection, too: our caches must see it */
	AcceptInvalidationMessages();
}

/*
 * A member's data directory is gone and a new, empty one takes its place: it
 * starts as a stranger (M3), which must be primary of nothing.
 */
static void
require_replaceable(const PsMap *map, const PsMapNode *member, const NewNode *new)
{
	if (new->has_identity)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("node \"%s\" is in the cluster already", new->name),
				 errdetail("The connection string leads to that node itself, or to another one of the cluster."),
				 errhint("To replace a lost data directory, give the connection string of a server on which CREATE EXTENSION payshard has just been run.")));
	if (ps_failover_answers(member))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("node \"%s\" is in the cluster already", new->name),
				 errdetail("It answers; only a node whose data directory is lost is replaced."),
				 errhint("Choose another name; or stop that server first, if it is to be replaced.")));
	for (int s = 0; s < map->n_shards; s++)
		if (map->shards[s].primary == member->id)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("node \"%s\" is still primary of shard %d", new->name, s),
					 errdetail("An empty server cannot take the place of a primary."),
					 errhint("Call payshard.failover('%s') first.", new->name)));
}

static PsRefusal
step_add(PsMap *map, void *arg)
{
	NewNode    *new = arg;
	uint32		id;
	PsRefusal	refusal;

	if (ps_map_node_by_name(map, new->name))
		return NULL;			/* chosen in an earlier round */
	refusal = ps_step_add_node(map, &new->node, &id);
	if (refusal == NULL && id != new->id)
		return "Another node was added at the same time; retry.";
	return refusal;
}

static PsRefusal
step_place(PsMap *map, void *arg)
{
	return ps_step_place(map, *(bool *) arg);
}

/* (e): waits until the new node has taken its incarnation. */
static void
await_started(NewNode *new)
{
	PsTime		deadline = ps_deadline(PS_JOIN_TIMEOUT_MS);

	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	for (;;)
	{
		PsMap	   *map = ps_map_copy();
		PsMapNode  *node = ps_map_node(map, new->id);

		if (node && node->boot != 0 && node->boot != new->former_boot)
			break;
		pfree(map);
		if (ps_now() > deadline)
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("node \"%s\" is added but has not started in time", new->name),
					 errdetail("Its keeper process has not taken an incarnation within %d ms.", PS_JOIN_TIMEOUT_MS),
					 errhint("See the log of that server; when it has started, call payshard.add_node() again.")));
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, 200, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

static bool
has_distributed_tables(void)
{
	bool		has;

	SPI_connect();
	SPI_execute("SELECT FROM payshard.distributed_table", true, 1);
	has = SPI_processed > 0;
	SPI_finish();
	return has;
}

/* The id that a new node gets. */
static uint32
free_id(PsMap *map)
{
	uint32		id = 1;

	if (map->n_nodes >= PS_NODES_MAX - 1)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("there are as many nodes as can be"),
				 errdetail("A cluster has at most %d nodes.", PS_NODES_MAX - 1),
				 errhint("Remove a node with payshard.remove_node() first.")));
	while (ps_map_node(map, id))
		id++;
	return id;
}

/* add_node(name, conninfo, zone, weight) -> node id */
Datum
payshard_add_node(PG_FUNCTION_ARGS)
{
	NewNode		new = {0};
	PsMap	   *map;
	PsMapNode  *member;
	PsServer	server = {0};
	PGconn	   *conn;
	bool		has_rows;

	ps_fit_require_superuser("add_node");
	ps_map_require_serving();
	new.name = text_arg(fcinfo, 0);
	new.conninfo = text_arg(fcinfo, 1);
	ps_fit_require_name(new.name, "node");
	ps_fit_require_zone(text_arg(fcinfo, 2));
	ps_fit_require_weight(PG_GETARG_INT32(3));
	strlcpy(new.node.name, new.name, PS_NAME_MAX);
	strlcpy(new.node.zone, text_arg(fcinfo, 2), PS_NAME_MAX);
	new.node.weight = PG_GETARG_INT32(3);
	map = ps_map_copy();
	member = ps_map_node_by_name(map, new.name);
	new.former_boot = member ? member->boot : 0;
	new.id = member ? member->id : free_id(map);
	conn = ps_fit_connect(new.name, new.conninfo, ps_identity_peer_role());
	PG_TRY();
	{
		ps_fit_require_server(conn, new.name, &server);
		require_free(&server, &new, map);
		if (new.former_boot > 0)
			require_replaceable(map, member, &new);
		introduce(conn, &new, map);
	}
	PG_FINALLY();
	{
		ps_conn_close(conn);
	}
	PG_END_TRY();
	ps_propose_or_error(step_add, &new, psprintf("add node %s", new.name), PS_JOIN_TIMEOUT_MS);
	await_started(&new);
	has_rows = has_distributed_tables();
	if (has_rows)
		ps_distribute_all_to(new.id);
	ps_propose_or_error(step_place, &has_rows, psprintf("place shards after adding node %s", new.name),
						PS_JOIN_TIMEOUT_MS);
	PG_RETURN_INT32(new.id);
}

typedef struct NodeStep
{
	uint32		id;
	uint32		weight;
	char	   *zone;
} NodeStep;

static PsRefusal
step_set(PsMap *map, void *arg)
{
	NodeStep   *set = arg;

	return ps_step_set_node(map, set->id, set->weight, set->zone);
}

/* set_node(name, weight, zone): null = as it is */
Datum
payshard_set_node(PG_FUNCTION_ARGS)
{
	char	   *name = text_arg(fcinfo, 0);
	NodeStep	step = {0};
	PsMapNode  *node;

	ps_fit_require_superuser("set_node");
	ps_map_require_serving();
	node = ps_failover_member(ps_map_copy(), name);
	step.id = node->id;
	step.weight = PG_ARGISNULL(1) ? node->weight : PG_GETARG_INT32(1);
	step.zone = PG_ARGISNULL(2) ? node->zone : text_arg(fcinfo, 2);
	ps_fit_require_weight(step.weight);
	ps_fit_require_zone(step.zone);
	ps_propose_or_error(step_set, &step, psprintf("setting of node %s", name), PS_JOIN_TIMEOUT_MS);
	PG_RETURN_VOID();
}

/* peer_invite(cluster_id, node_id, name, members jsonb, map) */
Datum
payshard_peer_invite(PG_FUNCTION_ARGS)
{
	int64		cluster_id = PG_GETARG_INT64(0);
	char	   *name = text_arg(fcinfo, 2);
	bytea	   *map = PG_GETARG_BYTEA_PP(4);
	PsIdentity	identity;
	Oid			type = JSONBOID;
	Datum		arg = PG_GETARG_DATUM(3);

	ps_fit_require_superuser("peer_invite");
	ps_fit_require_settings();
	if (ps_identity_read(&identity) &&
		(identity.cluster_id != (uint64) cluster_id ||
		 (identity.boot != 0 && (strcmp(identity.name, name) != 0 ||
								 identity.node_id != PG_GETARG_INT32(1)))))
		require_no_cluster();
	SPI_connect();
	if (identity.cluster_id == 0)
		become_node(cluster_id, PG_GETARG_INT32(1), name);
	else if (identity.boot == 0)
		become_another(PG_GETARG_INT32(1), name);
	if (SPI_execute_with_args("SELECT m->>0, m->>1 FROM jsonb_array_elements($1) m",
							  1, &type, &arg, NULL, false, 0) == SPI_OK_SELECT)
	{
		SPITupleTable *members = SPI_tuptable;

		for (uint64 i = 0; i < members->numvals; i++)
			define_server(SPI_getvalue(members->vals[i], members->tupdesc, 1),
						  SPI_getvalue(members->vals[i], members->tupdesc, 2), GetUserId());
	}
	SPI_finish();
	ps_map_adopt(VARDATA_ANY(map), VARSIZE_ANY_EXHDR(map));
	start_at_commit(PG_GETARG_INT32(1));
	PG_RETURN_VOID();
}

/* peer_define(name, conninfo): how to reach a node */
Datum
payshard_peer_define(PG_FUNCTION_ARGS)
{
	ps_fit_require_superuser("peer_define");
	SPI_connect();
	define_server(text_arg(fcinfo, 0), text_arg(fcinfo, 1), ps_identity_peer_role());
	SPI_finish();
	PG_RETURN_VOID();
}

/* peer_learn(map) -> was it newer? */
Datum
payshard_peer_learn(PG_FUNCTION_ARGS)
{
	bytea	   *map = PG_GETARG_BYTEA_PP(0);

	ps_map_require_cluster();
	PG_RETURN_BOOL(ps_map_adopt(VARDATA_ANY(map), VARSIZE_ANY_EXHDR(map)));
}

/* The validator of the foreign data wrapper: libpq's options, hint lists them. */
Datum
payshard_fdw_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	PQconninfoOption *known = PQconndefaults();
	ListCell   *cell;

	if (known == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);
		StringInfoData valid;
		PQconninfoOption *o;

		if (strcmp(option->defname, PS_PASSWORD_REQUIRED) == 0)
		{
			if (!defGetBoolean(option) && !superuser())
				ereport(ERROR,
						(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						 errmsg("password_required = false is for superusers"),
						 errhint("Ask a superuser to set it in the server or the user mapping.")));
			continue;
		}
		initStringInfo(&valid);
		for (o = known; o->keyword; o++)
		{
			if (strcmp(o->keyword, option->defname) == 0)
				break;
			if (o->dispchar[0] != 'D')
				appendStringInfo(&valid, "%s%s", valid.len ? ", " : "", o->keyword);
		}
		if (o->keyword == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("invalid option \"%s\"", option->defname),
					 errhint("Valid options in this context are: %s.", valid.data)));
	}
	PQconninfoFree(known);
	PG_RETURN_VOID();
}
