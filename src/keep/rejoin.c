/*
 * rejoin.c
 *		How does a placement that is out, or new, get in sync (J1 to J4)?
 *
 * OUT -> JOINING -> IN_SYNC, for all shards of this primary that one node has
 * out, at once, by one process:
 *
 * (a) the node learns the map;
 * (b) gate shut, drained: every transaction up to seq n has its outcome;
 * (c) the node notes that it follows our stream after n (join.c);
 * (d) a map in which it is joining: what is enqueued from here on goes to it;
 * (e) a snapshot; the gate opens;
 * (f) the copy: the rows of all dirty keys as of the snapshot, one transaction
 *	   over there; then it applies its journal after n;
 * (g) gate shut, drained, everything applied there: a snapshot here and one
 *	   there show the same transactions; the gate opens; digests are compared;
 * (h) gate shut, everything journaled there: a map in which it is in sync; the
 *	   gate opens when the outcome of that is known (W8).
 *
 * Died anywhere: whoever comes next finds the placement OUT or JOINING, and
 * starts again.  Amid (h) with unknown outcome this node must not enqueue
 * before it knows: the process that cannot find out makes the node take a new
 * incarnation.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "ground/step.h"
#include "keep/copy.h"
#include "keep/failover.h"
#include "keep/fit.h"
#include "keep/proposer.h"
#include "keep/rejoin.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/event.h"
#include "node/map.h"
#include "node/suspicion.h"
#include "node/settings.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "write/digest.h"
#include "write/queue.h"

PS_FUNCTION(payshard_rebuild_node);

#define PS_DRAIN_TIMEOUT_MS 5000
#define PS_REJOIN_TIMEOUT_MS 60000

typedef struct PlacementJoin
{
	uint32		node;
	char		name[PS_NAME_MAX];
	PGconn	   *conn;
	int			shards[PS_SHARDS_MAX];
	int			n;
	bool		flags[PS_SHARDS_MAX];	/* the same, as the steps want it */
	uint64		incarnation;	/* ours, during which all this holds */
} PlacementJoin;

static PlacementJoin join;
static bool gate_is_shut = false;
static bool outcome_is_open = false;	/* amid (h) */

static void
shut_gate(void)
{
	if (!PS_RULE("J3"))
		return;
	gate_is_shut = true;
	if (!ps_queue_close_gate(ps_deadline(PS_DRAIN_TIMEOUT_MS)) ||
		!ps_queue_drain(ps_deadline(PS_DRAIN_TIMEOUT_MS)))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("transactions on this node did not end in time for node \"%s\" to join", join.name)));
	if (ps_map_incarnation() != join.incarnation)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node has taken a new incarnation while node \"%s\" was joining", join.name)));
}

static void
open_gate(void)
{
	if (gate_is_shut)
		ps_queue_open_gate();
	gate_is_shut = false;
}

static void
rejoin_gone(int code, Datum arg)
{
	if (outcome_is_open)
	{
		pg_atomic_write_u32(&ps_shared->needs_recovery, 1);
		ps_map_set_incarnation(0);
		ps_wake_keeper();
	}
	open_gate();
}

/* One statement on the node; ERROR unless it yields rows or is a command. */
static PGresult *
call(const char *sql, int n_args, PsArg *args)
{
	PGresult *result =
		ps_conn_call(join.conn, sql, n_args, args, false, ps_deadline(PS_REJOIN_TIMEOUT_MS));

	if (result == NULL || (PQresultStatus(result) != PGRES_TUPLES_OK &&
						   PQresultStatus(result) != PGRES_COMMAND_OK))
		ps_conn_throw(result, join.conn, join.name, sql);
	return result;
}

static void
command(const char *sql)
{
	PQclear(call(sql, 0, NULL));
}

/* Shards of ours that the node has in one of the given states. */
static void
collect_shards(const PsMap *map, PsPlacementState a, PsPlacementState b)
{
	join.n = 0;
	memset(join.flags, 0, sizeof(join.flags));
	for (int s = 0; s < map->n_shards; s++)
	{
		PsPlacementState state = ps_map_placement(&map->shards[s], join.node);

		if (map->shards[s].primary != ps_map_self() || map->shards[s].waits != 0 ||
			(state != a && state != b))
			continue;
		join.flags[s] = true;
		join.shards[join.n++] = s;
	}
}

static PsRefusal
step_join(PsMap *map, void *arg)
{
	return ps_step_join(map, ps_map_self(), join.node, join.flags);
}

static PsRefusal
step_in_sync(PsMap *map, void *arg)
{
	bool		all_in = true;

	for (int i = 0; i < join.n; i++)
		all_in &= ps_map_placement(&map->shards[join.shards[i]], join.node) == PS_PLACEMENT_IN_SYNC;
	if (all_in)
		return NULL;			/* chosen in an earlier round */
	return ps_step_in_sync(map, ps_map_self(), join.node, join.flags);
}

static PsRefusal
step_leave(PsMap *map, void *arg)
{
	return ps_step_leave(map, ps_map_self(), join.node);
}

/* What an earlier process left JOINING starts again as OUT. */
static void
leave_leftovers(void)
{
	PsMap	   *map = ps_map_copy();
	PsRefusal	refusal;

	for (int s = 0; s < map->n_shards; s++)
	{
		if (map->shards[s].primary != ps_map_self() ||
			ps_map_placement(&map->shards[s], join.node) != PS_PLACEMENT_JOINING)
			continue;
		(void) ps_propose(step_leave, NULL, psprintf("node %s starts to join again", join.name),
						  ps_call_timeout_ms, &refusal);
		break;
	}
	collect_shards(ps_map_copy(), PS_PLACEMENT_OUT, PS_PLACEMENT_OUT);
}

/* (a) */
static void
teach_map(void)
{
	StringInfoData bytes;
	PsArg		arg;

	PS_FAULT("rejoin.before_teach");
	initStringInfo(&bytes);
	ps_map_put(&bytes, ps_map_copy());
	arg = ps_arg_bytes(bytes.data, bytes.len);
	PQclear(call("SELECT payshard.peer_learn($1)", 1, &arg));
}

/* A transaction of our own whose snapshot is taken now. */
static void
begin_snapshot(void)
{
	StartTransactionCommand();
	XactIsoLevel = XACT_REPEATABLE_READ;
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end_snapshot(void)
{
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/* (b) to (e); leaves with our snapshot active. */
static void
start_joining(void)
{
	PsArg		args[4];

	shut_gate();
	args[0] = ps_arg_text(ps_int_array(join.shards, join.n));
	args[1] = ps_arg_int8(ps_map_self());
	args[2] = ps_arg_int8((int64) join.incarnation);
	args[3] = ps_arg_int8((int64) ps_queue_last_seq());
	PS_FAULT("rejoin.before_begin");
	PQclear(call("SELECT payshard.peer_join_begin($1::int[], $2::int, $3, $4)", 4, args));
	PS_FAULT("rejoin.before_join");
	ps_propose_or_error(
		step_join, NULL,
		psprintf("node %s joins node %s", join.name, ps_map_node_name(ps_map_self())),
		ps_call_timeout_ms);
	PS_FAULT("rejoin.after_join");
	CommitTransactionCommand();
	begin_snapshot();
	open_gate();
}

/* (f) */
static void
copy_rows(bool full)
{
	PsCopyStats stats = {0};
	PsArg		arg = ps_arg_text(ps_int_array(join.shards, join.n));

	PS_FAULT("rejoin.before_copy");
	command("BEGIN");
	ps_copy_shards(join.conn, join.node, join.name, join.shards, join.n, full, &stats);
	PS_FAULT("rejoin.after_copy");
	PQclear(call("SELECT payshard.peer_join_copied($1::int[])", 1, &arg));
	command("COMMIT");
	PS_FAULT("rejoin.after_copied");
	ereport(LOG,
			(errmsg("payshard: node \"%s\" got %ld rows for %ld dirty keys, and all rows of %d of %d shards",
					join.name, stats.rows, stats.keys, stats.full_shards, join.n)));
}

/* Waits until the node has journaled all that is enqueued for it. */
static void
await_journaled(void)
{
	PsSharedPeer *peer = &ps_shared->peers[join.node];
	TimestampTz deadline = ps_deadline(PS_DRAIN_TIMEOUT_MS);

	for (;;)
	{
		bool		done;

		LWLockAcquire(&ps_shared->queue.lock, LW_SHARED);
		done = peer->attached && peer->acked_offset >= ps_shared->queue.head;
		LWLockRelease(&ps_shared->queue.lock);
		if (done || !PS_RULE("J4.journaled"))
			return;
		if (GetCurrentTimestamp() > deadline)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("node \"%s\" has not journaled everything in time to get in sync", join.name)));
		ps_wake_sender(join.node);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Waits until the node has applied our stream up to a seq that it has. */
static void
await_applied(void)
{
	PsArg		args[4];
	PGresult   *result;
	bool		ok;
	uint64		acked;

	LWLockAcquire(&ps_shared->queue.lock, LW_SHARED);
	acked = ps_shared->peers[join.node].acked_seq;
	LWLockRelease(&ps_shared->queue.lock);
	args[0] = ps_arg_int8(ps_map_self());
	args[1] = ps_arg_int8((int64) join.incarnation);
	args[2] = ps_arg_int8((int64) acked);
	args[3] = ps_arg_int8(PS_REJOIN_TIMEOUT_MS / 2);
	result = call("SELECT payshard.peer_await_applied($1::int, $2, $3, $4::int)", 4, args);
	ok = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	if (!ok)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" has not applied its journal in time to get in sync", join.name)));
}

/* Digests of one side as text, one line per shard. */
static char *
own_digests(void)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < join.n; i++)
	{
		PsDigest	digest;
		char		text[PS_DIGEST_TEXT_BYTES];

		ps_digest_shard(join.shards[i], &digest);
		ps_digest_text(&digest, text);
		appendStringInfo(&buf, "%d %s\n", join.shards[i], text);
	}
	return buf.data;
}

static char *
its_digests(void)
{
	StringInfoData buf;
	PsArg		arg = ps_arg_text(ps_int_array(join.shards, join.n));
	PGresult   *result = call("SELECT shard, digest FROM payshard.peer_digest($1::int[]) ORDER BY shard", 1, &arg);

	initStringInfo(&buf);
	for (int i = 0; i < PQntuples(result); i++)
		appendStringInfo(&buf, "%s %s\n", PQgetvalue(result, i, 0), PQgetvalue(result, i, 1));
	PQclear(result);
	return buf.data;
}

/* (g): are both sides equal at one moment? */
static bool
is_equal(void)
{
	char	   *ours;
	char	   *its;

	PS_FAULT("rejoin.before_digest");
	/* most of it before the gate is shut */
	await_applied();
	shut_gate();
	await_journaled();
	await_applied();
	command("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
	command("SELECT 1");
	begin_snapshot();
	open_gate();
	its = its_digests();
	ours = own_digests();
	command("COMMIT");
	if (strcmp(ours, its) != 0)
		ps_event_write("divergence", join.node, 0, "digests differ after its dirty keys were copied");
	if (strcmp(ours, its) != 0)
		ereport(LOG, (errmsg("payshard: digests differ"), errdetail("ours:\n%sits:\n%s", ours, its)));
	{
		bool		equal = strcmp(ours, its) == 0 || !PS_RULE("J4");

		end_snapshot();
		return equal;
	}
}

/* (h): tries until the outcome is known. */
static void
get_in_sync(void)
{
	PsRefusal	refusal = NULL;

	shut_gate();
	await_journaled();
	if (!PS_RULE("W8"))
		open_gate();
	StartTransactionCommand();
	PS_FAULT("rejoin.before_in_sync");
	outcome_is_open = true;
	(void) ps_propose(step_in_sync, NULL, psprintf("node %s in sync with node %s", join.name,
												   ps_map_node_name(ps_map_self())),
					  PS_REJOIN_TIMEOUT_MS, &refusal);
	outcome_is_open = false;
	PS_FAULT("rejoin.after_in_sync");
	open_gate();
	CommitTransactionCommand();
	if (refusal)
		ereport(LOG, (errmsg("payshard: node \"%s\" is not in sync: %s", join.name, refusal)));
	else
		ereport(LOG, (errmsg("payshard: node \"%s\" is in sync for %d shards", join.name, join.n)));
}

static void
open_connection(void)
{
	char	   *error;

	join.conn = ps_conn_open(join.name, InvalidOid, "rejoin", ps_deadline(ps_call_timeout_ms), &error);
	if (join.conn == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" cannot be reached: %s", join.name, error)));
}

static void
init_process(uint32 node)
{
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(ps_database, NULL, 0);
	before_shmem_exit(rejoin_gone, 0);
	join.node = node;
	join.incarnation = ps_map_incarnation();
	strlcpy(join.name, ps_map_node_name(node), sizeof(join.name));
	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "payshard rejoin", ALLOCSET_DEFAULT_SIZES));
	pgstat_report_activity(STATE_RUNNING, psprintf("taking back node %s", join.name));
}

/* Goes on with the join that another primary has begun; it never does (J3). */
static bool
takes_over_join(void)
{
	if (PS_RULE("J3.joining") || join.n == 0)
		return false;
	ps_propose_or_error(step_join, NULL, "join of another primary", ps_call_timeout_ms);
	CommitTransactionCommand();
	get_in_sync();
	return true;
}

void
payshard_rejoin_main(Datum arg)
{
	bool		equal;
	MemoryContext work;

	init_process(DatumGetUInt32(arg));
	work = CurrentMemoryContext;
	StartTransactionCommand();
	MemoryContextSwitchTo(work);
	open_connection();
	leave_leftovers();
	if (join.n == 0 || join.incarnation == 0 || takes_over_join())
		proc_exit(0);
	teach_map();
	start_joining();
	MemoryContextSwitchTo(work);
	copy_rows(false);
	end_snapshot();
	MemoryContextSwitchTo(work);
	equal = is_equal();
	MemoryContextSwitchTo(work);
	if (!equal)
	{
		PsArg		shards = ps_arg_text(ps_int_array(join.shards, join.n));

		ereport(WARNING,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("payshard: node \"%s\" differs after its dirty keys were copied", join.name),
				 errdetail("Shards %s.", ps_int_array(join.shards, join.n)),
				 errhint("It gets a full copy.")));
		PQclear(call("INSERT INTO payshard.full_copy SELECT unnest($1::int[]), 'differed' "
					 "ON CONFLICT (shard) DO UPDATE SET reason = 'differed'", 1, &shards));
		proc_exit(1);			/* the keeper starts us again */
	}
	get_in_sync();
	ps_conn_close(join.conn);
	proc_exit(0);
}

/* A process that takes one node back. */
typedef struct Process
{
	BackgroundWorkerHandle *handle;
	TimestampTz started_at;
} Process;

static void
start_process(uint32 node, const char *name, Process *process)
{
	BackgroundWorker worker = {0};
	pid_t		pid;

	if (process->handle && GetBackgroundWorkerPid(process->handle, &pid) != BGWH_STOPPED)
		return;
	if (!TimestampDifferenceExceeds(process->started_at, GetCurrentTimestamp(), 1000))
		return;
	process->started_at = GetCurrentTimestamp();
	snprintf(worker.bgw_name, BGW_MAXLEN, "payshard rejoin %s", name);
	snprintf(worker.bgw_type, BGW_MAXLEN, "payshard rejoin %s", name);
	strlcpy(worker.bgw_library_name, "payshard", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "payshard_rejoin_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = UInt32GetDatum(node);
	worker.bgw_notify_pid = MyProcPid;
	(void) RegisterDynamicBackgroundWorker(&worker, &process->handle);
}

/* Was the node heard within the timeout? */
static bool
is_heard(uint32 id)
{
	return !TimestampDifferenceExceeds(pg_atomic_read_u64(&ps_shared->peers[id].heard_at),
									   GetCurrentTimestamp(), ps_peer_timeout_ms);
}

/* Has it fallen so often that it is given a pause?  Said once in each. */
static bool
has_pause(const PsMapNode *node)
{
	static uint32 said[PS_NODES_MAX];
	uint32		falls = ps_suspicion_falls(node->id);
	uint32		left_ms = ps_auto_failover ? ps_suspicion_pause_ms(node->id) : 0;

	if (left_ms > 0 && said[node->id] != falls)
		ereport(LOG,
				(errmsg("payshard: node \"%s\" has fallen %u times lately: it joins again in %u s",
						node->name, falls, left_ms / 1000 + 1)));
	said[node->id] = left_ms > 0 ? falls : 0;
	return left_ms > 0;
}

bool
ps_duty_rejoin(void)
{
	static Process processes[PS_NODES_MAX];
	MemoryContext old;
	PsMap	   *map;
	bool		again = false;

	if (ps_map_incarnation() == 0 || (map = ps_map_copy()) == NULL)
		return false;
	old = MemoryContextSwitchTo(TopMemoryContext);
	for (int i = 0; i < map->n_nodes; i++)
	{
		PsMapNode  *node = &map->nodes[i];

		if (node->id == ps_map_self() || node->state != PS_NODE_UP || !is_heard(node->id) ||
			has_pause(node))
			continue;
		for (int s = 0; s < map->n_shards; s++)
		{
			PsPlacementState state = ps_map_placement(&map->shards[s], node->id);

			if (map->shards[s].primary != ps_map_self() || map->shards[s].waits != 0 ||
				(state != PS_PLACEMENT_OUT && state != PS_PLACEMENT_JOINING))
				continue;
			start_process(node->id, node->name, &processes[node->id]);
			again = true;
			break;
		}
	}
	MemoryContextSwitchTo(old);
	return again;
}

/*
 * What a new map makes of notes on this node: keys that are dirty for a
 * placement which is in sync are not any more, and of a shard that this node
 * does not hold it has nothing.  The map is held meanwhile: under the next one
 * the placement may be out again, with new notes.
 */
bool
ps_duty_notes(void)
{
	static uint64 done_epoch = 0;
	PsMap	   *map;
	int			held[PS_SHARDS_MAX];
	int			not_held[PS_SHARDS_MAX];
	int			n_held = 0;
	int			n_not_held = 0;

	if (ps_map_incarnation() == 0 || ps_map_epoch() == done_epoch)
		return false;
	ps_map_lock();
	map = ps_map_copy();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	for (int i = 0; i < map->n_nodes; i++)
	{
		int			in_sync[PS_SHARDS_MAX];
		int			n = 0;

		for (int s = 0; s < map->n_shards; s++)
			if (PS_HAS_NODE(map->shards[s].in_sync, map->nodes[i].id))
				in_sync[n++] = s;
		SPI_execute(psprintf("DELETE FROM payshard.dirty_key WHERE node = %u AND node <> %u AND shard = ANY ('%s')",
							 map->nodes[i].id, ps_map_self(), ps_int_array(in_sync, n)), false, 0);
	}
	for (int s = 0; s < map->n_shards; s++)
	{
		PsPlacementState state = ps_map_placement(&map->shards[s], ps_map_self());

		if (state == PS_PLACEMENT_IN_SYNC)
			held[n_held++] = s;
		else if (state == PS_PLACEMENT_NONE)
			not_held[n_not_held++] = s;
	}
	SPI_execute(psprintf("DELETE FROM payshard.full_copy WHERE reason = 'not held' AND shard = ANY ('%s')",
						 ps_int_array(held, n_held)), false, 0);
	SPI_execute(psprintf("INSERT INTO payshard.full_copy SELECT unnest('%s'::int[]), 'not held' ON CONFLICT DO NOTHING",
						 ps_int_array(not_held, n_not_held)), false, 0);
	PopActiveSnapshot();
	SPI_finish();
	done_epoch = map->epoch;
	return false;
}

typedef struct RebuildStep
{
	uint32		id;
} RebuildStep;

static PsRefusal
step_rebuild(PsMap *map, void *arg)
{
	return ps_step_rebuild(map, ((RebuildStep *) arg)->id);
}

/* Shards of which the node holds a placement and is not primary, as "{...}". */
static char *
secondaries_of(const PsMap *map, uint32 id)
{
	int			shards[PS_SHARDS_MAX];
	int			n = 0;

	for (int s = 0; s < map->n_shards; s++)
		if (map->shards[s].primary != id &&
			ps_map_placement(&map->shards[s], id) != PS_PLACEMENT_NONE)
			shards[n++] = s;
	return ps_int_array(shards, n);
}

/* ERROR when no placement of the node would be copied. */
static void
require_rebuildable(const PsMap *map, const PsMapNode *node)
{
	for (int s = 0; s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];

		if (shard->primary != node->id && PS_HAS_NODE(shard->in_sync | shard->joining, node->id))
			return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("node \"%s\" cannot be rebuilt now", node->name),
			 errdetail("It is a secondary in sync, or joining, of no shard."),
			 errhint("Shards of which it is primary are not rebuilt; see payshard.placements.")));
}

/* rebuild_node(node): its secondaries get full copies */
Datum
payshard_rebuild_node(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PsMap	   *map;
	PsMapNode  *node;
	RebuildStep step;
	PGconn	   *conn;
	PGresult   *result;
	PsArg		args[1];

	ps_fit_require_superuser("rebuild_node");
	ps_map_require_serving();
	map = ps_map_copy();
	node = ps_failover_member(map, name);
	require_rebuildable(map, node);
	step.id = node->id;
	conn = ps_peer(node->id, name, ps_deadline(ps_call_timeout_ms));
	if (conn == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" cannot be reached", name),
				 errdetail("It has to note which of its shards get a full copy."),
				 errhint("Start that server, and call payshard.rebuild_node() again.")));
	/* first: the join may start as soon as the map says OUT */
	args[0] = ps_arg_text(secondaries_of(map, node->id));
	result = ps_conn_call(conn, "INSERT INTO payshard.full_copy SELECT unnest($1::int[]), 'rebuild' "
						  "ON CONFLICT (shard) DO UPDATE SET reason = 'rebuild'", 1, args, false,
						  ps_deadline(ps_call_timeout_ms));
	if (result == NULL || PQresultStatus(result) != PGRES_COMMAND_OK)
		ps_conn_throw(result, conn, name, NULL);
	PQclear(result);
	ps_propose_or_error(step_rebuild, &step, psprintf("rebuild of node %s", name), PS_REJOIN_TIMEOUT_MS);
	PG_RETURN_VOID();
}
