/*
 * verify.c
 *		Are all copies of all shards equal, while payments go on?
 *
 * Each primary compares its own shards, at one decided seq:
 * (a) gate shut, drained: every transaction up to seq n has its outcome;
 * (b) the other nodes are told not to apply our entries beyond n, for now;
 * (c) a snapshot here; the gate opens: it was shut for one round trip;
 * (d) the others apply up to n, take a snapshot, and are released;
 * (e) all digest what their snapshot shows, side by side.
 *
 * Before all that our partitions are locked against TRUNCATE and DDL, which
 * snapshots do not hide.  (c) before (b), and a node could have applied an entry that our snapshot
 * does not show.  Gate, holds and connections are given back on any way out.
 */
#include "postgres.h"

#include "access/xact.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/map.h"
#include "node/relation.h"
#include "node/identity.h"
#include "node/settings.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "watch/out.h"
#include "watch/verify.h"
#include "write/digest.h"
#include "write/queue.h"

PS_FUNCTION(payshard_verify);
PS_FUNCTION(payshard_peer_verify);

#define PS_VERIFY_DRAIN_MS 5000
#define PS_VERIFY_APPLY_MS 60000
#define PS_VERIFY_DIGEST_MS (24 * 3600 * 1000)

/* One other node with in-sync placements of ours. */
typedef struct Copy
{
	uint32		node;
	char	   *name;
	PGconn	   *conn;
	uint64		acked_seq;		/* what it has for certain at (a) */
	PGresult   *digests;		/* in the order in which we go through ours */
	int			next;			/* the row of digests that should come next */
} Copy;

typedef struct Comparison
{
	PsMap	   *map;
	uint64		incarnation;
	uint64		seq;			/* n */
	bool		is_gate_shut;
	int			shards[PS_SHARDS_MAX];	/* ours, open */
	int			n_shards;
	Copy		copies[PS_NODES_MAX];
	int			n_copies;
} Comparison;

/* Gives back what a comparison holds; also when the process ends. */
static void
give_back(int code, Datum arg)
{
	Comparison *c = (Comparison *) DatumGetPointer(arg);

	if (c->is_gate_shut)
		ps_queue_open_gate();
	c->is_gate_shut = false;
	for (int i = 0; i < c->n_copies; i++)
	{
		PQclear(c->copies[i].digests);
		ps_conn_close(c->copies[i].conn);
		c->copies[i].digests = NULL;
		c->copies[i].conn = NULL;
	}
}

static char *
shard_list(const Comparison *c)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < c->n_shards; i++)
		appendStringInfo(&buf, "%s%d", i ? "," : "{", c->shards[i]);
	appendStringInfoString(&buf, c->n_shards ? "}" : "{}");
	return buf.data;
}

/* Which shards, which other nodes; connects to these. */
static void
prepare(Comparison *c)
{
	PsNodeSet	set = 0;

	for (int s = 0; s < c->map->n_shards; s++)
	{
		const PsMapShard *shard = &c->map->shards[s];

		if (shard->primary != ps_map_self() || shard->waits != 0)
			continue;
		c->shards[c->n_shards++] = s;
		set |= shard->in_sync;
	}
	set &= ~PS_NODE_BIT(ps_map_self());
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
	{
		Copy	   *copy = &c->copies[c->n_copies];
		char	   *error;

		if (!PS_HAS_NODE(set, id))
			continue;
		copy->node = id;
		copy->name = ps_map_node_name(id);
		copy->conn = ps_conn_open(copy->name, InvalidOid, "verify",
								  ps_deadline(ps_call_timeout_ms), &error);
		if (copy->conn == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("node \"%s\" cannot be reached: %s", copy->name, error),
					 errdetail("It has copies in sync of shards whose primary is this node.")));
		c->n_copies++;
	}
}

/* Sends one statement to all copies, then takes in all answers. */
static void
ask_all(Comparison *c, const char *sql, int n_args, PsArg *args, int timeout_ms, bool keep)
{
	for (int i = 0; i < c->n_copies; i++)
		(void) ps_conn_send(c->copies[i].conn, sql, n_args, args, false);
	for (int i = 0; i < c->n_copies; i++)
	{
		Copy	   *copy = &c->copies[i];
		PGresult   *result = ps_conn_result(copy->conn, ps_deadline(timeout_ms));

		if (result == NULL || (PQresultStatus(result) != PGRES_TUPLES_OK &&
							   PQresultStatus(result) != PGRES_COMMAND_OK))
			ps_conn_throw(result, copy->conn, copy->name, sql);
		if (keep)
			copy->digests = result;
		else
			PQclear(result);
	}
}

/* One call that answers true, with arguments of its own for each copy. */
static void
ask_one(Copy *copy, const char *sql, int n_args, PsArg *args, int timeout_ms)
{
	PGresult   *result = ps_conn_call(copy->conn, sql, n_args, args, false,
									  ps_deadline(timeout_ms));
	bool		yes;

	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK)
		ps_conn_throw(result, copy->conn, copy->name, sql);
	yes = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	if (!yes)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("node \"%s\" cannot be compared now", copy->name),
				 errdetail("Another comparison runs there, or it has not applied its journal in time, or a node has restarted."),
				 errhint("Retry; see payshard.replication.")));
}

/* (a) */
static void
shut_gate(Comparison *c)
{
	c->is_gate_shut = true;
	if (!ps_queue_close_gate(ps_deadline(PS_VERIFY_DRAIN_MS)) ||
		!ps_queue_drain(ps_deadline(PS_VERIFY_DRAIN_MS)))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("commits on this node did not end in time for a comparison"),
				 errhint("Retry; see payshard.replication.")));
	if (ps_map_incarnation() != c->incarnation)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node has taken a new incarnation meanwhile"),
				 errhint("Retry.")));
	c->seq = ps_queue_last_seq();
	LWLockAcquire(&ps_shared->queue.lock, LW_SHARED);
	for (int i = 0; i < c->n_copies; i++)
		c->copies[i].acked_seq = ps_shared->peers[c->copies[i].node].acked_seq;
	LWLockRelease(&ps_shared->queue.lock);
}

/* (b) to (d): our snapshot is the active one afterwards. */
static void
take_snapshots(Comparison *c)
{
	PsArg		args[4];

	shut_gate(c);
	args[0] = ps_arg_int8(ps_map_self());
	args[1] = ps_arg_int8((int64) c->incarnation);
	args[2] = ps_arg_int8((int64) c->seq + 1);
	for (int i = 0; i < c->n_copies; i++)
		ask_one(&c->copies[i], "SELECT payshard.peer_hold($1::int, $2, $3)", 3, args, ps_call_timeout_ms);
	PushActiveSnapshot(GetLatestSnapshot());
	ps_queue_open_gate();
	c->is_gate_shut = false;
	for (int i = 0; i < c->n_copies; i++)
	{
		args[2] = ps_arg_int8((int64) c->copies[i].acked_seq);
		args[3] = ps_arg_int8(PS_VERIFY_APPLY_MS);
		ask_one(&c->copies[i], "SELECT payshard.peer_await_applied($1::int, $2, $3, $4::int)", 4, args,
				PS_VERIFY_APPLY_MS + ps_call_timeout_ms);
	}
	ask_all(c, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", 0, NULL, ps_call_timeout_ms, false);
	args[2] = ps_arg_int8(0);
	/* the statement's snapshot is there before the hold is released in it */
	ask_all(c, "SELECT payshard.peer_hold($1::int, $2, $3)", 3, args, ps_call_timeout_ms, false);
}

static bool
is_row_of(const PGresult *result, int row, int shard, uint32 table_id)
{
	return ps_result_int8(result, row, 0) == shard && ps_result_int8(result, row, 1) == table_id;
}

/* The row of one copy for a shard and table; -1 = it has no such table. */
static int
find_digest(Copy *copy, int shard, uint32 table_id)
{
	int			n = PQntuples(copy->digests);

	for (int tries = 0; tries < n; tries++)
	{
		int			row = (copy->next + tries) % n;

		if (is_row_of(copy->digests, row, shard, table_id))
		{
			copy->next = (row + 1) % n;
			return row;
		}
	}
	return -1;
}

static void
put_row(PsOut *out, int shard, const char *node, Oid table, int64 rows,
		const char *digest, bool equal)
{
	ps_out_int(out, shard);
	ps_out_text(out, node);
	ps_out_text(out, quote_qualified_identifier(get_namespace_name(get_rel_namespace(table)),
												get_rel_name(table)));
	ps_out_int(out, rows);
	ps_out_text(out, digest);
	ps_out_bool(out, equal);
	ps_out_row(out);
}

/* One shard of one table: our row, and one for each copy in sync. */
static void
put_rows(PsOut *out, Comparison *c, int shard, Oid table, uint32 table_id)
{
	char		ours[PS_DIGEST_TEXT_BYTES];
	PsDigest	digest = {0};

	ps_digest_partition(ps_relation_partition(table, shard), &digest);
	ps_digest_text(&digest, ours);
	put_row(out, shard, ps_map_node_name(ps_map_self()), table, digest.rows, ours, true);
	for (int i = 0; i < c->n_copies; i++)
	{
		Copy	   *copy = &c->copies[i];
		int			row;

		if (!PS_HAS_NODE(c->map->shards[shard].in_sync, copy->node))
			continue;
		row = find_digest(copy, shard, table_id);
		if (row < 0)
			put_row(out, shard, copy->name, table, 0, NULL, digest.rows == 0);
		else
			put_row(out, shard, copy->name, table, ps_result_int8(copy->digests, row, 2),
					PQgetvalue(copy->digests, row, 3),
					ps_result_int8(copy->digests, row, 2) == (int64) digest.rows &&
					strcmp(PQgetvalue(copy->digests, row, 3), ours) == 0);
	}
}

static void
compare(Comparison *c, PsOut *out)
{
	PsArg		arg;
	int			n_tables;
	Oid		   *tables;

	prepare(c);
	PushActiveSnapshot(GetTransactionSnapshot());
	tables = ps_digest_tables(&n_tables);
	PopActiveSnapshot();
	for (int t = 0; t < n_tables; t++)
		for (int i = 0; i < c->n_shards; i++)
			LockRelationOid(ps_relation_partition(tables[t], c->shards[i]), AccessShareLock);
	take_snapshots(c);
	arg = ps_arg_text(shard_list(c));
	ask_all(c, "SELECT * FROM payshard.peer_table_digests($1::int[])", 1, &arg, PS_VERIFY_DIGEST_MS, true);
	for (int t = 0; t < n_tables; t++)
		for (int i = 0; i < c->n_shards; i++)
			put_rows(out, c, c->shards[i], tables[t], ps_relation(tables[t])->table_id);
	PopActiveSnapshot();
}

Datum
payshard_peer_verify(PG_FUNCTION_ARGS)
{
	Comparison *c = palloc0(sizeof(Comparison));
	PsOut		out;

	ps_require_peer();
	ps_map_require_serving();
	c->map = ps_map_copy();
	c->incarnation = ps_map_incarnation();
	ps_out_begin(&out, fcinfo);
	PG_ENSURE_ERROR_CLEANUP(give_back, PointerGetDatum(c));
	{
		compare(c, &out);
	}
	PG_END_ENSURE_ERROR_CLEANUP(give_back, PointerGetDatum(c));
	give_back(0, PointerGetDatum(c));
	return (Datum) 0;
}

/* Rows for the shards that could not be compared: neither equal nor not. */
static void
put_unknown(PsOut *out, const PsMap *map, uint32 primary, bool only_recovering)
{
	for (int s = 0; s < map->n_shards; s++)
	{
		if (map->shards[s].primary != primary || (only_recovering && map->shards[s].waits == 0))
			continue;
		ps_out_int(out, s);
		ps_out_node(out, map, primary);
		for (int i = 0; i < 4; i++)
			ps_out_null(out);
		ps_out_row(out);
	}
}

/* What one primary says. */
static void
put_answer(PsOut *out, PGconn *conn, const char *name, const char *sql)
{
	PGresult   *result = ps_conn_result(conn, ps_deadline(PS_VERIFY_DIGEST_MS));

	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK)
		ps_conn_throw(result, conn, name, sql);
	for (int row = 0; row < PQntuples(result); row++)
	{
		ps_out_int(out, ps_result_int8(result, row, 0));
		ps_out_text(out, PQgetvalue(result, row, 1));
		ps_out_text(out, PQgetvalue(result, row, 2));
		ps_out_int(out, ps_result_int8(result, row, 3));
		ps_out_text(out, PQgetisnull(result, row, 4) ? NULL : PQgetvalue(result, row, 4));
		ps_out_bool(out, PQgetvalue(result, row, 5)[0] == 't');
		ps_out_row(out);
	}
	PQclear(result);
}

/* The coordinator's connections are a Comparison's copies, too. */
static void
ask_primaries(Comparison *c, PsOut *out)
{
	const char *sql = "SELECT * FROM payshard.peer_verify()";
	PsNodeSet	primaries = 0;

	for (int s = 0; s < c->map->n_shards; s++)
		primaries |= PS_NODE_BIT(c->map->shards[s].primary);
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
	{
		Copy	   *copy = &c->copies[c->n_copies];
		char	   *error;

		if (!PS_HAS_NODE(primaries, id))
			continue;
		copy->node = id;
		copy->name = ps_map_node_name(id);
		copy->conn = ps_conn_open(copy->name, InvalidOid, "verify",
								  ps_deadline(ps_call_timeout_ms), &error);
		put_unknown(out, c->map, id, copy->conn != NULL);
		if (copy->conn == NULL)
			continue;
		c->n_copies++;
	}

	for (int i = 0; i < c->n_copies; i++)
		(void) ps_conn_send(c->copies[i].conn, sql, 0, NULL, false);
	for (int i = 0; i < c->n_copies; i++)
		put_answer(out, c->copies[i].conn, c->copies[i].name, sql);
}

Datum
payshard_verify(PG_FUNCTION_ARGS)
{
	Comparison *c = palloc0(sizeof(Comparison));
	PsOut		out;

	ps_map_require_serving();
	c->map = ps_map_copy();
	ps_out_begin(&out, fcinfo);
	PG_ENSURE_ERROR_CLEANUP(give_back, PointerGetDatum(c));
	{
		ask_primaries(c, &out);
	}
	PG_END_ENSURE_ERROR_CLEANUP(give_back, PointerGetDatum(c));
	give_back(0, PointerGetDatum(c));
	return (Datum) 0;
}
