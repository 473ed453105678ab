/*
 * allnodes.c
 *		How does DDL happen on all nodes or on none (R4)?
 *
 * On the node where it was issued (the coordinator):
 *	(a) BEGIN on every other node; there and here, in the order of node ids,
 *		lock payshard.distributed_table (one DDL at a time) and insert the row of
 *		this transaction into payshard.ddl_log;
 *	(b) the DDL, everywhere;
 *	(c) PRE_COMMIT: PREPARE TRANSACTION on the others;
 *	(d) the local commit: the row in ddl_log is the decision;
 *	(e) COMMIT PREPARED on the others, awaited, so that who issued it finds it
 *		on any node.
 * Dying between (c) and (e) leaves prepared transactions.  Their node's keeper
 * asks the coordinator (peer_ddl_outcome): a row committed there: commit.  No
 * row: it inserts one that says "no", which waits for a coordinator that is
 * still under way and makes one that comes later fail; then rolls back.
 * The row is inserted in (a), before anything is prepared: a resolver that
 * finds none is never early.
 *
 * The prepared transaction keeps the lock on payshard.distributed_table: whoever
 * meets an unknown table id waits for that lock and looks again.
 *
 * A deadlock between nodes ends by lock_timeout in the remote sessions.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "node/clock.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/shared.h"
#include "node/tables.h"
#include "route/allnodes.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PS_FUNCTION(payshard_peer_ddl);
PS_FUNCTION(payshard_peer_acked_seq);

#define PS_DDL_TIMEOUT_MS (24 * 3600 * 1000)
#define PS_DDL_LOCK_TIMEOUT_MS 10000
#define PS_GID_MAX 128
#define PS_GID_PREFIX "payshard_ddl_"
#define PS_RESOLVE_AFTER_S 5

typedef struct Remote
{
	uint32		node;
	char		name[PS_NAME_MAX];
	PGconn	   *conn;			/* NULL = closed */
	bool		is_busy;		/* a statement is under way */
	bool		may_be_prepared;
} Remote;

static struct
{
	bool		is_active;		/* else the rest is not valid */
	bool		is_doomed;		/* part of it was rolled back to a savepoint */
	SubTransactionId first_subid;	/* in which it began */
	SubTransactionId last_subid;	/* in which a statement was sent last */
	char		gid[PS_GID_MAX];
	int			n_remotes;
	Remote		remotes[PS_NODES_MAX];
	PsMap	   *pinned;			/* in TopTransactionContext, or NULL */
} ddl;

/* Depth of DDL of our own; reset at the end of the transaction. */
static int	internal_depth = 0;

bool
ps_allnodes_is_active(void)
{
	return ddl.is_active;
}

int
ps_allnodes_count(void)
{
	return ddl.is_active ? ddl.n_remotes : 0;
}

uint32
ps_allnodes_node(int i)
{
	return ddl.remotes[i].node;
}

bool
ps_allnodes_is_internal(void)
{
	return internal_depth > 0;
}

void
ps_allnodes_enter(void)
{
	internal_depth++;
}

void
ps_allnodes_leave(void)
{
	internal_depth--;
}

/* Sends without awaiting; the node is named when it is gone. */
static void
send_raw(Remote *remote, const char *sql, int n_args, const PsArg *args)
{
	if (remote->conn == NULL || !ps_conn_send(remote->conn, sql, n_args, args, false))
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" is gone", remote->name),
				 errdetail("All nodes must be up when a distributed table is made or changed.")));
	remote->is_busy = true;
	ddl.last_subid = GetCurrentSubTransactionId();
}

PGresult *
ps_allnodes_await(int i)
{
	Remote	   *remote = &ddl.remotes[i];
	PGresult   *result;
	ExecStatusType status;

	if (!remote->is_busy)
		return NULL;
	result = ps_conn_result(remote->conn, ps_deadline(PS_DDL_TIMEOUT_MS));
	remote->is_busy = false;
	status = result ? PQresultStatus(result) : PGRES_FATAL_ERROR;
	if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK)
		ps_conn_throw(result, remote->conn, remote->name, NULL);
	return result;
}

void
ps_allnodes_send(int i, const char *sql, int n_args, const PsArg *args)
{
	PQclear(ps_allnodes_await(i));
	send_raw(&ddl.remotes[i], sql, n_args, args);
}

void
ps_allnodes_run(const char *sql, int n_args, const PsArg *args)
{
	for (int i = 0; i < ps_allnodes_count(); i++)
		ps_allnodes_send(i, sql, n_args, args);
	for (int i = 0; i < ps_allnodes_count(); i++)
		PQclear(ps_allnodes_await(i));
}

/* One statement at one node, awaited. */
static void
run_at(int i, const char *sql, int n_args, const PsArg *args)
{
	ps_allnodes_send(i, sql, n_args, args);
	PQclear(ps_allnodes_await(i));
}

static void
open_remote(Remote *remote, const PsMapNode *node)
{
	char	   *why = NULL;

	remote->node = node->id;
	strlcpy(remote->name, node->name, PS_NAME_MAX);
	remote->is_busy = false;
	remote->may_be_prepared = false;
	remote->conn = ps_conn_open(node->name, InvalidOid, "ddl", ps_deadline(ps_call_timeout_ms), &why);
	if (remote->conn == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" cannot be reached", node->name),
				 errdetail("%s", why),
				 errhint("All nodes must be up when a distributed table is made or changed.")));
}

/* The local half of (a), as the extension's owner. */
static void
begin_here(const char *statement)
{
	Oid			types[3] = {TEXTOID, NAMEOID, TEXTOID};
	Datum		args[3];
	NameData	role;

	namestrcpy(&role, GetUserNameFromId(GetUserId(), false));
	args[0] = CStringGetTextDatum(ddl.gid);
	args[1] = NameGetDatum(&role);
	args[2] = CStringGetTextDatum(statement);
	LockRelationOid(ps_table_oid(PS_TABLE_DISTRIBUTED), ShareRowExclusiveLock);
	SPI_connect();
	SPI_execute_with_args("INSERT INTO payshard.ddl_log (gid, committed, role, statement) VALUES ($1, true, $2, $3)",
						  3, types, args, NULL, false, 0);
	SPI_finish();
}

/* The remote half of (a). */
static void
begin_there(int i, const char *statement)
{
	PsArg		args[3];

	run_at(i, "BEGIN ISOLATION LEVEL READ COMMITTED", 0, NULL);
	run_at(i, psprintf("SET LOCAL lock_timeout = %d", PS_DDL_LOCK_TIMEOUT_MS), 0, NULL);
	args[0] = ps_arg_text(ddl.gid);
	args[1] = ps_arg_text(GetUserNameFromId(GetUserId(), false));
	args[2] = ps_arg_text(statement);
	run_at(i, "SELECT payshard.peer_ddl_begin($1, $2::name, $3)", 3, args);
}

/* One more statement of a transaction that has begun. */
static void
log_again(const char *statement)
{
	static const char *const sql = "UPDATE payshard.ddl_log SET statement = statement || E';\\n' || $2 WHERE gid = $1";
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		values[2] = {CStringGetTextDatum(ddl.gid), CStringGetTextDatum(statement)};
	PsArg		args[2] = {ps_arg_text(ddl.gid), ps_arg_text(statement)};

	SPI_connect();
	SPI_execute_with_args(sql, 2, types, values, NULL, false, 0);
	SPI_finish();
	ps_allnodes_run(sql, 2, args);
}

/* (a), in the order of node ids. */
static void
begin_all(const char *statement, const PsMap *map)
{
	bool		is_done_here = false;

	for (int i = 0; i < map->n_nodes; i++)
		if (map->nodes[i].id != ps_map_self())
			open_remote(&ddl.remotes[ddl.n_remotes++], &map->nodes[i]);
	for (int i = 0; i < ddl.n_remotes; i++)
	{
		if (!is_done_here && ddl.remotes[i].node > ps_map_self())
		{
			begin_here(statement);
			is_done_here = true;
		}
		begin_there(i, statement);
	}
	if (!is_done_here)
		begin_here(statement);
}

void
ps_allnodes_begin(const char *statement)
{
	Oid			user;
	int			context;

	ps_map_require_serving();
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	if (ddl.is_active)
		log_again(statement);
	else
	{
		PsMap	   *map = ps_map_copy();

		ddl.is_active = true;
		ddl.is_doomed = false;
		ddl.first_subid = ddl.last_subid = GetCurrentSubTransactionId();
		ddl.n_remotes = 0;
		ddl.pinned = NULL;
		snprintf(ddl.gid, PS_GID_MAX, PS_GID_PREFIX "%u_" UINT64_FORMAT "_" UINT64_FORMAT,
				 ps_map_self(), ps_map_incarnation(),
					U64FromFullTransactionId(GetTopFullTransactionId()));
		begin_all(statement, map);
		pfree(map);
	}
	SetUserIdAndSecContext(user, context);
}

void
ps_allnodes_pin_map(void)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	if (ddl.pinned == NULL)
		ddl.pinned = ps_map_copy();
	MemoryContextSwitchTo(old);
}

/* Do both maps place all shards on the same nodes, in sync? */
static bool
is_same_placement(const PsMap *a, const PsMap *b)
{
	if (a->n_nodes != b->n_nodes || a->n_shards != b->n_shards)
		return false;
	for (int i = 0; i < a->n_shards; i++)
		if (a->shards[i].primary != b->shards[i].primary ||
			a->shards[i].in_sync != b->shards[i].in_sync ||
			a->shards[i].placements != b->shards[i].placements)
			return false;
	return true;
}

/* Runs script text with internal_depth raised. */
static void
execute_script(const char *script)
{
	internal_depth++;
	PG_TRY();
	{
		SPI_connect();
		if (SPI_execute(script, false, 0) < 0)
			elog(ERROR, "could not execute DDL");
		SPI_finish();
	}
	PG_FINALLY();
	{
		internal_depth--;
	}
	PG_END_TRY();
	CommandCounterIncrement();
}

void
ps_allnodes_script_here(const char *script)
{
	Oid			user;
	int			context;
	int			nest = NewGUCNestLevel();

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	execute_script(script);
	AtEOXact_GUC(true, nest);
	SetUserIdAndSecContext(user, context);
}

/* peer_ddl(script, role, search_path); role '' = as we are */
Datum
payshard_peer_ddl(PG_FUNCTION_ARGS)
{
	char	   *script = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *role = NameStr(*PG_GETARG_NAME(1));
	char	   *path = text_to_cstring(PG_GETARG_TEXT_PP(2));
	Oid			user;
	int			context;
	int			nest = NewGUCNestLevel();

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for peer_ddl"),
				 errhint("Only nodes call it on each other, as a superuser.")));
	GetUserIdAndSecContext(&user, &context);
	(void) set_config_option("search_path", path, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (role[0])
		SetUserIdAndSecContext(get_role_oid(role, false), context | SECURITY_LOCAL_USERID_CHANGE);
	execute_script(script);
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(true, nest);
	PG_RETURN_VOID();
}

/* peer_acked_seq(node): the last entry of this node that `node` has journaled */
Datum
payshard_peer_acked_seq(PG_FUNCTION_ARGS)
{
	int			node = PG_GETARG_INT32(0);
	uint64		seq;

	if (node <= 0 || node >= PS_NODES_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%d is no node", node)));
	LWLockAcquire(&ps_shared->queue.lock, LW_SHARED);
	seq = ps_shared->peers[node].acked_seq;
	LWLockRelease(&ps_shared->queue.lock);
	PG_RETURN_INT64(seq);
}

static void
not_applied(const char *name, uint32 origin)
{
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("node \"%s\" has not applied in time what node \"%s\" has committed", name, ps_map_node_name(origin)),
			 errdetail("Rows on their way must have arrived before a distributed table changes its columns."),
			 errhint("See payshard.replication, and retry.")));
}

/* Does `node` hold copies of shards whose primary is `origin`? */
static bool
follows(const PsMap *map, uint32 node, uint32 origin)
{
	for (int i = 0; i < map->n_shards; i++)
		if (map->shards[i].primary == origin && PS_HAS_NODE(map->shards[i].in_sync, node))
			return node != origin;
	return false;
}

/* One number from the i-th remote, or from here (-1). */
static int64
ask_at(int i, const char *sql)
{
	PGresult   *result;
	int64		answer;
	bool		isnull;

	if (i >= 0)
	{
		ps_allnodes_send(i, sql, 0, NULL);
		result = ps_allnodes_await(i);
		answer = ps_result_int8(result, 0, 0);
		PQclear(result);
		return answer;
	}
	SPI_connect();
	if (SPI_execute(sql, false, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "no answer to: %s", sql);
	answer = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_finish();
	return answer;
}

static uint32
node_at(int i)
{
	return i < 0 ? ps_map_self() : ddl.remotes[i].node;
}

/*
 * The follower has applied what the origin has committed to it.  Not up to the
 * origin's last seq: that may be of shards which the follower does not have.
 */
static void
await_follower(int follower, int origin, int timeout_ms)
{
	int64		incarnation = ask_at(origin, "SELECT payshard.incarnation()");
	int64		seq = ask_at(origin, psprintf("SELECT payshard.peer_acked_seq(%u)", node_at(follower)));

	if (seq != 0 &&
		!ask_at(follower, psprintf("SELECT payshard.peer_await_applied(%u, " INT64_FORMAT ", " INT64_FORMAT ", %d)::int::int8",
								   node_at(origin), incarnation, seq, timeout_ms)))
		not_applied(ps_map_node_name(node_at(follower)), node_at(origin));
}

void
ps_allnodes_await_applied(int timeout_ms)
{
	PsMap	   *map = ps_map_copy();
	Oid			user;
	int			context;

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	for (int origin = -1; origin < ddl.n_remotes; origin++)
		for (int i = -1; i < ddl.n_remotes; i++)
			if (follows(map, node_at(i), node_at(origin)))
				await_follower(i, origin, timeout_ms);
	SetUserIdAndSecContext(user, context);
	pfree(map);
}

/* Closes all connections: what is not prepared is rolled back there. */
static void
close_all(void)
{
	for (int i = 0; i < ddl.n_remotes; i++)
		ps_conn_close(ddl.remotes[i].conn);
	ddl.is_active = false;
	ddl.n_remotes = 0;
	ddl.pinned = NULL;
}

/* (c) */
void
ps_allnodes_pre_commit(XactEvent event, void *arg)
{
	if (!ddl.is_active)
		return;
	if (event == XACT_EVENT_PRE_PREPARE)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction with DDL on distributed tables"),
				 errhint("Use COMMIT.")));
	if (event != XACT_EVENT_PRE_COMMIT)
		return;
	if (ddl.is_doomed)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("DDL on distributed tables was partly rolled back to a savepoint"),
				 errdetail("The whole transaction is rolled back, on all nodes."),
				 errhint("Run it without savepoints and exception blocks around the DDL.")));
	if (ddl.pinned)
	{
		ps_map_lock();
		if (!is_same_placement(ddl.pinned, ps_map_copy()))
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("the placement of shards has changed while the rows were moved"),
					 errhint("Retry.")));
	}
	PS_FAULT("ddl.before_prepare");
	for (int i = 0; i < ddl.n_remotes; i++)
	{
		PQclear(ps_allnodes_await(i));
		ddl.remotes[i].may_be_prepared = true;
		send_raw(&ddl.remotes[i], psprintf("PREPARE TRANSACTION '%s'", ddl.gid), 0, NULL);
	}
	for (int i = 0; i < ddl.n_remotes; i++)
		PQclear(ps_allnodes_await(i));
	ForceSyncCommit();
	PS_FAULT("ddl.after_prepare");
}

/* (e), or its opposite; never throws: what fails is left to the keepers. */
static void
finish_prepared(bool is_commit)
{
	char		sql[PS_GID_MAX + 32];
	PsTime		deadline = ps_deadline(ps_call_timeout_ms);

	snprintf(sql, sizeof(sql), "%s PREPARED '%s'", is_commit ? "COMMIT" : "ROLLBACK", ddl.gid);
	for (int i = 0; i < ddl.n_remotes; i++)
	{
		Remote	   *remote = &ddl.remotes[i];

		if (!remote->may_be_prepared || remote->conn == NULL ||
			PQstatus(remote->conn) != CONNECTION_OK)
			continue;
		if (remote->is_busy)
			PQclear(ps_conn_result(remote->conn, deadline));
		remote->is_busy = ps_conn_send(remote->conn, sql, 0, NULL, false);
	}
	for (int i = 0; i < ddl.n_remotes; i++)
	{
		Remote	   *remote = &ddl.remotes[i];
		PGresult   *result;

		if (!remote->may_be_prepared || !remote->is_busy)
			continue;
		result = ps_conn_result(remote->conn, deadline);
		if (is_commit && (result == NULL || PQresultStatus(result) != PGRES_COMMAND_OK))
			ereport(WARNING,
					(errmsg("node \"%s\" has not confirmed the commit of DDL yet", remote->name),
					 errdetail("It is prepared there as \"%s\"; that node will ask this one for the outcome.", ddl.gid)));
		PQclear(result);
	}
}

void
ps_allnodes_at_end(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	internal_depth = 0;
	if (!ddl.is_active)
		return;
	if (event == XACT_EVENT_COMMIT)
		PS_FAULT("ddl.after_commit");
	finish_prepared(event == XACT_EVENT_COMMIT);
	close_all();
}

void
ps_allnodes_subxact(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	if (!ddl.is_active)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		/* ids rise: what began in it, or in one inside it, is the parent's now */
		ddl.first_subid = ddl.first_subid >= id ? parent : ddl.first_subid;
		ddl.last_subid = ddl.last_subid >= id ? parent : ddl.last_subid;
	}
	else if (event == SUBXACT_EVENT_ABORT_SUB && ddl.first_subid >= id)
		close_all();			/* it began in what is rolled back */
	else if (event == SUBXACT_EVENT_ABORT_SUB && ddl.last_subid >= id)
		ddl.is_doomed = true;
}

/* Asks the coordinator: 1 = commit, 0 = roll back, -1 = not known now. */
static int
ask_outcome(const char *gid)
{
	uint32		node = 0;
	char	   *why;
	PGconn	   *conn;
	PGresult   *result;
	PsArg		arg = ps_arg_text(gid);
	int			outcome = -1;

	if (sscanf(gid, PS_GID_PREFIX "%u_", &node) != 1 || node == 0 || node >= PS_NODES_MAX)
		return -1;
	conn = ps_conn_open(ps_map_node_name(node), InvalidOid, "ddl", ps_deadline(ps_call_timeout_ms),
						&why);
	if (conn == NULL)
		return -1;
	result = ps_conn_call(conn, "SELECT payshard.peer_ddl_outcome($1)", 1, &arg, false,
						  ps_deadline(ps_call_timeout_ms));
	if (result && PQresultStatus(result) == PGRES_TUPLES_OK && !PQgetisnull(result, 0, 0))
		outcome = PQgetvalue(result, 0, 0)[0] == 't' ? 1 : 0;
	PQclear(result);
	ps_conn_close(conn);
	return outcome;
}

bool
ps_allnodes_resolve(void)
{
	List	   *gids = NIL;
	ListCell   *cell;
	bool		is_any_left = false;
	MemoryContext outer = CurrentMemoryContext;

	if (ps_map_self() == 0 || max_prepared_xacts == 0)
		return false;
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute(psprintf("SELECT gid FROM pg_catalog.pg_prepared_xacts "
						 "WHERE database = pg_catalog.current_database() AND gid LIKE 'payshard\\_ddl\\_%%' "
						 "AND prepared < pg_catalog.clock_timestamp() - interval '%d s'", PS_RESOLVE_AFTER_S),
				true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		char	   *gid = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

		gids = lappend(gids, MemoryContextStrdup(outer, gid));
	}
	MemoryContextSwitchTo(outer);
	gids = list_copy(gids);
	PopActiveSnapshot();
	SPI_finish();
	foreach(cell, gids)
	{
		char	   *gid = lfirst(cell);
		int			outcome = ask_outcome(gid);

		if (outcome >= 0)
		{
			ereport(LOG,
					(errmsg("%s DDL of another node that was left prepared: \"%s\"",
							outcome ? "committing" : "rolling back", gid)));
			FinishPreparedTransaction(gid, outcome == 1);
		}
		else
			is_any_left = true;
	}
	return is_any_left;
}
