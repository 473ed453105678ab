/*
 * rejoin.c
 *		How does a placement that is out, or new, get in sync (J1 to J4)?
 *
 * OUT -> JOINING -> IN_SYNC, for all shards of this primary that one node has
 * out, at once, by one process; then for those that arrive there by a move, a few
 * at a time (payshard.move_shards), so that each is through soon and the gate is
 * shut for a moment only:
 *
 * (a) the node learns the map;
 * (b) the node notes that it is to follow our stream (join.c);
 * (c) gate shut, drained: every transaction up to seq n has its outcome; a
 *	   snapshot, which shows these and nothing else;
 * (d) a map in which it is joining: what is enqueued from here on goes to it;
 * (e) as soon as that is adopted here, the gate opens;
 * (f) the copy: the rows of all dirty keys as of the snapshot, one transaction
 *	   over there; then it applies its journal after n;
 * (g) gate shut, drained, up to seq m; the node is told to apply nothing beyond;
 *	   a snapshot; the gate opens.  When it has applied all up to m, a snapshot
 *	   over there shows the same transactions; digests are compared;
 * (h) gate shut, everything journaled there: a map in which it is in sync; the
 *	   gate opens when that is adopted here, or else is known not to be (W8).
 *
 * All that can be done before the gate is shut is done before: connections, the
 * first use of each function, most of what is to be applied.
 *
 * What arrives gets all rows, whatever the node believes to have of it: it may
 * have held the shard before, and nobody has noted what changed since.
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
#include "keep/moved.h"
#include "keep/process.h"
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
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "write/digest.h"
#include "write/journal.h"
#include "write/queue.h"

PS_FUNCTION(payshard_rebuild_node);

#define PS_DRAIN_TIMEOUT_MS 5000
#define PS_REJOIN_TIMEOUT_MS 60000
#define PS_COPY_SILENCES 12		/* call_timeouts between two messages of a copy, at most */
#define PS_APPLIED_SLICE_MS 2000	/* between two looks whether apply goes on */
#define PS_HOLD_TRIES 100		/* verify() may hold the node, too: for moments */
#define PS_CAUGHT_UP_MS 30		/* apply over there is no further behind */

typedef struct PlacementJoin
{
	uint32		node;
	char		name[PS_NAME_MAX];
	PGconn	   *conn;
	int			shards[PS_SHARDS_MAX];
	int			n;
	bool		flags[PS_SHARDS_MAX];	/* the same, as the steps want it */
	bool		is_new;			/* they arrive */
	uint64		jobs[PS_SHARDS_MAX];	/* by place in shards: ordered by */
	uint64		incarnation;	/* ours, during which all this holds */
	uint64		copied_seq;		/* what the copy shows: n */
	TimestampTz begun;
	PsTime		shut_at;		/* the gate; while gate_is_shut */
	int64		pause_us;		/* longest time for which it was shut */
	PsCopyStats stats;
} PlacementJoin;

static PlacementJoin join;
static bool gate_is_shut = false;
static bool outcome_is_open = false;	/* amid (h) */

static void
shut_gate(void)
{
	if (!PS_RULE("J3") || gate_is_shut)
		return;
	gate_is_shut = true;
	join.shut_at = ps_now();
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
	if (!gate_is_shut)
		return;
	ps_queue_open_gate();
	gate_is_shut = false;
	join.pause_us = Max(join.pause_us, ps_now() - join.shut_at);
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

/* Shards of ours that the node has out: those that arrive, or the others. */
static void
collect_shards(const PsMap *map, bool is_new, int max)
{
	join.n = 0;
	join.is_new = is_new;
	memset(join.flags, 0, sizeof(join.flags));
	for (int s = 0; s < map->n_shards && join.n < max; s++)
	{
		const PsMapShard *shard = &map->shards[s];

		if (shard->primary != ps_map_self() || shard->waits != 0 ||
			ps_map_placement(shard, join.node) != PS_PLACEMENT_OUT ||
			PS_HAS_NODE(shard->arriving, join.node) != is_new)
			continue;
		join.flags[s] = true;
		join.jobs[join.n] = shard->job;
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
step_unjoin(PsMap *map, void *arg)
{
	return ps_step_unjoin(map, ps_map_self(), join.node);
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
		(void) ps_propose(step_unjoin, NULL, psprintf("node %s starts to join again", join.name),
						  ps_call_timeout_ms, &refusal);
		break;
	}
	map = ps_map_copy();
	collect_shards(map, false, PS_SHARDS_MAX);
	if (join.n == 0)
		collect_shards(map, true, ps_move_shards);
}

/* (a), and (f): the node acts by its own map, which is to be no older than ours. */
static void
teach_map(void)
{
	StringInfoData bytes;
	PsArg		arg;

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

/* (b) */
static void
announce_join(void)
{
	PsArg		args[4];

	args[0] = ps_arg_text(ps_int_array(join.shards, join.n));
	args[1] = ps_arg_int8(ps_map_self());
	args[2] = ps_arg_int8((int64) join.incarnation);
	args[3] = ps_arg_int8((int64) ps_queue_last_seq());
	PS_FAULT("rejoin.before_begin");
	PQclear(call("SELECT payshard.peer_join_begin($1::int[], $2::int, $3, $4)", 4, args));
}

/* (c), when a map is about to be proposed. */
static void
shut_and_look(void)
{
	if (ActiveSnapshotSet())
		return;					/* in an earlier round: shut since */
	shut_gate();
	/* not the transaction's own, which connecting to a node may have taken before */
	PushActiveSnapshot(GetLatestSnapshot());
	join.copied_seq = ps_queue_last_seq();
	PS_FAULT("rejoin.before_join");
}

/* (c) to (e); leaves with our snapshot active. */
static void
start_joining(void)
{
	PsRefusal	refusal;

	ps_propose_warm();
	CommitTransactionCommand();
	StartTransactionCommand();
	(void) ps_propose_gated(step_join,
							psprintf("node %s joins node %s", join.name, ps_map_node_name(ps_map_self())),
							ps_call_timeout_ms, &refusal, shut_and_look, open_gate);
	open_gate();
	if (refusal)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot join now", join.name),
				 errdetail("%s", ps_refusal_sentence(refusal))));
	PS_FAULT("rejoin.after_join");
}

/*
 * Is the node still joining, by our map?  If it has been left out, or nothing is
 * to arrive there any more, it does not get what is enqueued: all was for nothing.
 */
static bool
is_joining(void)
{
	PsMap	   *map = ps_map_copy();
	bool		is = ps_map_incarnation() == join.incarnation;

	for (int i = 0; i < join.n; i++)
		is &= map->shards[join.shards[i]].primary == ps_map_self() &&
			PS_HAS_NODE(map->shards[join.shards[i]].joining, join.node);
	pfree(map);
	return is || !PS_RULE("J3.joining");
}

static void
require_joining(void)
{
	if (!is_joining())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is not to join any more", join.name),
				 errdetail("The map has changed while it was copied to.")));
}

/* (f) */
static void
copy_rows(void)
{
	PsCopyStats *stats = &join.stats;
	PsCopyOrder order = {.conn = join.conn, .node = join.node, .name = join.name,
	.shards = join.shards, .n_shards = join.n, .full = join.is_new, .look = require_joining};
	PsArg		args[4] = {ps_arg_text(ps_int_array(join.shards, join.n)),
		ps_arg_int8(ps_map_self()), ps_arg_int8((int64) join.incarnation),
	ps_arg_int8((int64) join.copied_seq)};

	PS_FAULT("rejoin.before_copy");
	teach_map();
	command("BEGIN");
	/* it has locked rows by then: if we are stopped it ends this by itself */
	command(psprintf("SET LOCAL idle_in_transaction_session_timeout = %d",
					 PS_COPY_SILENCES * ps_call_timeout_ms));
	memset(stats, 0, sizeof(*stats));
	ps_copy_shards(&order, stats);
	PS_FAULT("rejoin.after_copy");
	/* from here on it holds its map: it is not to wait for us if we are stopped */
	command(psprintf("SET LOCAL idle_in_transaction_session_timeout = %d", ps_call_timeout_ms));
	PQclear(call("SELECT payshard.peer_join_copied($1::int[], $2::int, $3, $4)", 4, args));
	command("COMMIT");
	PS_FAULT("rejoin.after_copied");
	ereport(LOG,
			(errmsg("payshard: node \"%s\" got %ld rows for %ld dirty keys, and all rows of %d of %d shards",
					join.name, stats->rows, stats->keys, stats->full_shards, join.n)));
}

/* Where the queue ends now: what is enqueued later lies behind. */
static uint64
queue_head(void)
{
	uint64		head;

	LWLockAcquire(&ps_shared->queue.lock, LW_SHARED);
	head = ps_shared->queue.head;
	LWLockRelease(&ps_shared->queue.lock);
	return head;
}

/* Waits until the node has journaled all that was enqueued for it up to there. */
static void
await_journaled(uint64 head)
{
	PsSharedPeer *peer = &ps_shared->peers[join.node];
	PsTime		deadline = ps_deadline(PS_DRAIN_TIMEOUT_MS);

	for (;;)
	{
		bool		done;

		LWLockAcquire(&ps_shared->queue.lock, LW_SHARED);
		done = peer->attached && peer->acked_offset >= head;
		LWLockRelease(&ps_shared->queue.lock);
		if (done || !PS_RULE("J4.journaled"))
			return;
		if (ps_now() > deadline)
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

/* What the node has journaled, and as it told last applied, of our stream. */
static void
look_at_peer(uint64 *acked, uint64 *applied)
{
	LWLockAcquire(&ps_shared->queue.lock, LW_SHARED);
	*acked = ps_shared->peers[join.node].acked_seq;
	*applied = ps_shared->peers[join.node].applied_seq;
	LWLockRelease(&ps_shared->queue.lock);
}

/*
 * Waits until the node has applied our stream as far as it has it, at most up to a
 * seq; as long as it goes on, since what has gathered during a long copy takes its
 * time.
 */
static void
await_applied(uint64 upto)
{
	PsTime		deadline = ps_deadline(PS_REJOIN_TIMEOUT_MS / 2);
	uint64		acked;
	uint64		applied;
	uint64		former;
	PsArg		args[4];

	look_at_peer(&acked, &former);
	acked = Min(acked, upto);
	args[0] = ps_arg_int8(ps_map_self());
	args[1] = ps_arg_int8((int64) join.incarnation);
	args[2] = ps_arg_int8((int64) acked);
	args[3] = ps_arg_int8(PS_APPLIED_SLICE_MS);
	for (;;)
	{
		PGresult   *result = call("SELECT payshard.peer_await_applied($1::int, $2, $3, $4::int)", 4, args);
		bool		ok = PQgetvalue(result, 0, 0)[0] == 't';
		uint64		unused;

		PQclear(result);
		if (ok)
			return;
		look_at_peer(&unused, &applied);
		if (applied > former)
			deadline = ps_deadline(PS_REJOIN_TIMEOUT_MS / 2);
		former = applied;
		if (ps_now() > deadline)
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("node \"%s\" has not applied its journal in time to get in sync", join.name)));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 50,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Most of the waiting is done before the gate is shut. */
static void
catch_up(void)
{
	for (int round = 0; round < 20; round++)
	{
		PsTime		begun = ps_now();

		await_applied(PG_UINT64_MAX);
		if (!ps_has_passed(begun, PS_CAUGHT_UP_MS))
			break;
	}
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

/* The node is to apply nothing of ours beyond a seq; 0: all again. */
static bool
hold_apply(uint64 seq)
{
	PsArg		args[3];
	PGresult   *result;
	bool		ok;

	args[0] = ps_arg_int8(ps_map_self());
	args[1] = ps_arg_int8((int64) join.incarnation);
	args[2] = ps_arg_int8(seq == 0 ? 0 : (int64) seq + 1);
	result = call("SELECT payshard.peer_hold($1::int, $2, $3)", 3, args);
	ok = PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	return ok;
}

/*
 * (g) up to the opened gate: our snapshot is active, and the node stops at what it
 * shows.  Returns the seq; *head: where the queue ended.
 */
static uint64
stop_at_one_moment(uint64 *head)
{
	for (int tries = 0; tries < PS_HOLD_TRIES; tries++)
	{
		uint64		seq;

		shut_gate();
		seq = ps_queue_last_seq();
		*head = queue_head();
		if (hold_apply(seq))
		{
			begin_snapshot();
			open_gate();
			return seq;
		}
		open_gate();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("the copies on node \"%s\" are being compared by another session", join.name)));
}

/* (g): are both sides equal at one moment? */
static bool
is_equal(void)
{
	char	   *ours;
	char	   *its;
	bool		equal;
	uint64		head;
	uint64		seq;

	PS_FAULT("rejoin.before_digest");
	require_joining();
	catch_up();
	(void) hold_apply(0);		/* its first use */
	seq = stop_at_one_moment(&head);
	await_journaled(head);
	await_applied(seq);
	command("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
	/* the statement's snapshot is there before it lets the node go on */
	(void) hold_apply(0);
	its = its_digests();
	ours = own_digests();
	command("COMMIT");
	equal = strcmp(ours, its) == 0;
	if (!equal)
	{
		require_joining();
		ps_event_write("divergence", join.node, 0, "digests differ after its dirty keys were copied");
		ereport(LOG, (errmsg("payshard: digests differ"), errdetail("ours:\n%sits:\n%s", ours, its)));
	}
	equal |= !PS_RULE("J4");
	end_snapshot();
	return equal;
}

/* For payshard.jobs: what was moved. */
static void
note_moved(void)
{
	for (int i = 0; i < join.n && join.is_new; i++)
		ps_moved_note(join.jobs[i], join.shards[i], join.node, join.begun,
					  join.stats.shard_bytes[i], join.stats.shard_rows[i], join.pause_us);
}

/* (h), when the map is about to be proposed: from here on its outcome must be known. */
static void
shut_for_good(void)
{
	if (outcome_is_open)
		return;					/* in an earlier round: shut since */
	shut_gate();
	await_journaled(queue_head());
	if (!PS_RULE("W8"))
		open_gate();
	PS_FAULT("rejoin.before_in_sync");
	outcome_is_open = true;
}

/* (h): tries until the outcome is known. */
static bool
get_in_sync(void)
{
	PsRefusal	refusal = NULL;

	StartTransactionCommand();
	ps_propose_warm();
	await_journaled(queue_head());
	(void) ps_propose_gated(step_in_sync,
							psprintf("node %s in sync with node %s", join.name,
									 ps_map_node_name(ps_map_self())),
							PS_REJOIN_TIMEOUT_MS, &refusal, shut_for_good, open_gate);
	open_gate();
	outcome_is_open = false;
	PS_FAULT("rejoin.after_in_sync");
	if (refusal == NULL)
		note_moved();
	CommitTransactionCommand();
	if (refusal)
		ereport(LOG, (errmsg("payshard: node \"%s\" is not in sync: %s", join.name, refusal)));
	else
		ereport(LOG, (errmsg("payshard: node \"%s\" is in sync for %d shards; commits waited %.1f ms at most",
							 join.name, join.n, join.pause_us / 1000.0)));
	return refusal == NULL;
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

/*
 * The one process for this node, or none: a keeper that has just started does not
 * know of one that runs.  The lock is the session's, as advisory ones are, and of
 * a type that no SQL function locks.
 */
static void
take_place(uint32 node)
{
	LOCKTAG		tag = {
		.locktag_field1 = MyDatabaseId,
		.locktag_field2 = PS_LOCK_SPACE,
		.locktag_field3 = PS_LOCK_REJOIN + node,
		.locktag_type = LOCKTAG_USERLOCK,
		.locktag_lockmethodid = USER_LOCKMETHOD,
	};

	if (LockAcquire(&tag, ExclusiveLock, true, true) == LOCKACQUIRE_NOT_AVAIL)
		proc_exit(0);
}

static void
init_process(uint32 node)
{
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(ps_database, NULL, 0);
	take_place(node);
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
	(void) get_in_sync();
	return true;
}

/* The copies differ: the node notes that it needs all rows. */
static void
order_full_copy(void)
{
	PsArg		shards = ps_arg_text(ps_int_array(join.shards, join.n));

	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("payshard: node \"%s\" differs after its dirty keys were copied", join.name),
			 errdetail("Shards %s.", ps_int_array(join.shards, join.n)),
			 errhint("It gets a full copy.")));
	PQclear(call("INSERT INTO payshard.full_copy SELECT unnest($1::int[]), 'differed' "
				 "ON CONFLICT (shard) DO UPDATE SET reason = 'differed'", 1, &shards));
}

/*
 * (a) to (h) for what is out now; false when nothing is, or it is to be tried
 * again later.  Begins in a transaction, ends outside one.
 */
static bool
join_batch(MemoryContext work)
{
	bool		equal;

	join.begun = GetCurrentTimestamp();
	join.pause_us = 0;
	leave_leftovers();
	if (join.n == 0 || join.incarnation == 0 || join.incarnation != ps_map_incarnation() ||
		takes_over_join())
		return false;
	PS_FAULT("rejoin.before_teach");
	teach_map();
	announce_join();
	start_joining();
	MemoryContextSwitchTo(work);
	copy_rows();
	end_snapshot();
	MemoryContextSwitchTo(work);
	equal = is_equal();
	MemoryContextSwitchTo(work);
	if (!equal)
	{
		order_full_copy();
		return false;			/* the keeper starts us again */
	}
	return get_in_sync();
}

void
payshard_rejoin_main(Datum arg)
{
	MemoryContext work;

	init_process(DatumGetUInt32(arg));
	work = CurrentMemoryContext;
	StartTransactionCommand();
	MemoryContextSwitchTo(work);
	open_connection();
	for (int batch = 0; batch < PS_SHARDS_MAX && join_batch(work); batch++)
	{
		MemoryContextReset(work);
		StartTransactionCommand();
		MemoryContextSwitchTo(work);
	}
	ps_conn_close(join.conn);
	proc_exit(0);
}

/* Was the node heard within the timeout? */
static bool
is_heard(uint32 id)
{
	return !ps_has_passed(ps_suspicion_heard(id), ps_peer_timeout_ms);
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
	static PsProcess processes[PS_NODES_MAX];
	PsMap	   *map;
	bool		again = false;

	if (ps_map_incarnation() == 0 || (map = ps_map_copy()) == NULL)
		return false;
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
			ps_process_start("payshard_rejoin_main", psprintf("rejoin %s", node->name), node->id,
							 &processes[node->id]);
			again = true;
			break;
		}
	}
	return again;
}

/*
 * What was heard of a node that is none any more: its id may be given to another, whose
 * WAL begins elsewhere (M3).
 */
static void
forget_strangers(const PsMap *map)
{
	int			ids[PS_NODES_MAX];
	bool		is_node[PS_NODES_MAX] = {false};

	for (int i = 0; i < map->n_nodes; i++)
	{
		ids[i] = map->nodes[i].id;
		is_node[map->nodes[i].id] = true;
	}
	SPI_execute(psprintf("DELETE FROM payshard.position WHERE origin <> ALL ('%s')",
						 ps_int_array(ids, map->n_nodes)), false, 0);
	LWLockAcquire(&ps_shared->queue.lock, LW_EXCLUSIVE);
	for (int id = 1; id < PS_NODES_MAX; id++)
		if (!is_node[id])
		{
			pg_atomic_write_u64(&ps_shared->origins[id].lsn, 0);
			ps_shared->peers[id].lsn = 0;
		}
	LWLockRelease(&ps_shared->queue.lock);
}

/*
 * What a new map makes of notes on this node: keys that are dirty for a placement
 * which is in sync, or is none, are not any more; and a shard that this node does
 * not hold is to be emptied (sweep.c), with all notes.  The map is held meanwhile:
 * under the next one the placement may be out again, with new notes.
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
			if (PS_HAS_NODE(map->shards[s].in_sync, map->nodes[i].id) ||
				!PS_HAS_NODE(map->shards[s].placements, map->nodes[i].id))
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
	SPI_execute(psprintf("DELETE FROM payshard.full_copy WHERE reason IN ('not held', 'to be emptied') AND shard = ANY ('%s')",
						 ps_int_array(held, n_held)), false, 0);
	SPI_execute(psprintf("INSERT INTO payshard.full_copy SELECT unnest('%s'::int[]), 'to be emptied' "
						 "ON CONFLICT (shard) DO UPDATE SET reason = 'to be emptied' "
						 "WHERE full_copy.reason NOT IN ('not held', 'to be emptied')",
						 ps_int_array(not_held, n_not_held)), false, 0);
	SPI_execute(psprintf("DELETE FROM payshard.dirty_key WHERE shard = ANY ('%s')",
						 ps_int_array(not_held, n_not_held)), false, 0);
	forget_strangers(map);
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
