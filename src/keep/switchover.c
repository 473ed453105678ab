/*
 * switchover.c
 *		How does another node become primary without an error for anybody (J5)?
 *
 * At the primary of the shards, by one process at a time:
 *
 * (a) connections and plans are made, the members apply what there is;
 * (b) the shards are held: who would write them waits, who has is awaited
 *	   (hold.c); it takes too long: they are let go, and it is tried again;
 * (c) every transaction up to the last seq has its outcome;
 * (d) every in-sync member of the shards has applied that, durably;
 * (e) a map in which the other node is primary, and nobody in sync whom (d) has not
 *	   awaited; as soon as it is adopted here who waited goes on, at the new primary.
 *
 * (d) before (e): the new primary's stream and ours are applied independently of
 * each other; what is left of ours would be applied over newer rows, or be missing
 * in what is read.  Durably: what a crash of a member brings back of ours, no stream
 * of the new primary would wait for.  So nothing waits for this node in the map:
 * nothing of it is undecided.
 *
 * Other shards go on: their entries do not touch these, and the map changes nothing
 * for them.
 *
 * Died before (e): nothing has happened, the hold dies with the server.  Amid (e)
 * this node must not serve before it knows the outcome (W8): it has given up its
 * lease (lease.c), and when the process cannot find out, a new incarnation is taken.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "ground/step.h"
#include "keep/proposer.h"
#include "keep/switchover.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/identity.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "write/hold.h"
#include "write/queue.h"

PS_FUNCTION(payshard_peer_switch);

#define PS_PROPOSE_MS 10000
#define PS_CATCH_UP_MS 10000

/* One switchover of this process. */
typedef struct Switch
{
	bool		shards[PS_SHARDS_MAX];
	uint32		to;
	uint64		incarnation;	/* ours */
	PsNodeSet	drained;		/* members that have applied all (d) */
	PsTime		deadline;		/* of it all */
	PsTime held_at;
	bool		is_proposed;	/* and the outcome is not known */
	double		pause_ms;		/* longest hold */
} Switch;

static Switch job;

static const char already[] = "it is so";
static const char has_more[] = "a copy has come in sync meanwhile";

/* ------------------------------------------------------------ looking */

static void
not_possible(PsRefusal why)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("cannot switch over to node \"%s\" now", ps_map_node_name(job.to)),
			 errdetail("%s", ps_refusal_sentence(why)),
			 errhint("The shards stay where they are. See payshard.placements and payshard.shards.")));
}

/* The step; in an earlier round it may have been chosen already. */
static PsRefusal
step_switch(PsMap *map, void *arg)
{
	PsMapNode  *self = ps_map_node(map, ps_map_self());
	PsNodeSet	members = 0;
	bool		is_done = true;

	for (int s = 0; s < map->n_shards; s++)
		if (job.shards[s])
		{
			is_done &= map->shards[s].primary == job.to;
			members |= map->shards[s].in_sync;
		}
	if (is_done)
		return already;
	if (self == NULL || self->incarnation != job.incarnation)
		return "this node has taken a new incarnation";
	/* what it has of ours, not applied yet, would come after the new primary's */
	if (members & ~PS_NODE_BIT(self->id) & ~job.drained)
		return has_more;
	return ps_step_switch(map, ps_map_self(), job.to, job.shards);
}

/* What the step would refuse is refused before anybody waits. */
static void
require_possible(void)
{
	PsMap	   *map = ps_map_copy();
	PsRefusal	why;

	job.drained = ~(PsNodeSet) 0;	/* will have been */
	if (ps_suspicion(job.to, NULL) != NULL)
		not_possible("the node does not answer");
	if (ps_hold_is_inside(job.shards))
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("a transaction cannot switch over shards that it has written"),
				 errhint("Commit first.")));
	why = step_switch(map, NULL);
	if (why && why != already)
		not_possible(why);
	pfree(map);
}

/* In-sync members of the shards, without this node. */
static PsNodeSet
members(void)
{
	PsMap	   *map = ps_map_copy();
	PsNodeSet	set = 0;

	for (int s = 0; s < map->n_shards; s++)
		if (job.shards[s])
			set |= map->shards[s].in_sync;
	pfree(map);
	return set & ~PS_NODE_BIT(ps_map_self());
}

/* ------------------------------------------------------------ waiting */

/*
 * Has member `id` applied our stream, as far as it has it, up to `upto`?  Waits for
 * that until the deadline.
 */
static bool
await_applied(uint32 id, uint64 upto, PsTime deadline)
{
	char	   *name = ps_map_node_name(id);
	PGconn	   *conn = ps_peer(id, name, deadline);
	long		left = ps_ms_left(deadline);
	PGresult   *result;
	uint64		acked;
	bool		ok;
	PsArg		args[4];

	if (conn == NULL || left <= 0)
		return false;
	LWLockAcquire(&ps_shared->queue.lock, LW_SHARED);
	acked = ps_shared->peers[id].acked_seq;
	LWLockRelease(&ps_shared->queue.lock);
	ps_hurry_sender(id);
	args[0] = ps_arg_int8(ps_map_self());
	args[1] = ps_arg_int8((int64) job.incarnation);
	args[2] = ps_arg_int8((int64) Min(acked, upto));
	args[3] = ps_arg_int8(left);
	result = ps_conn_call(conn, "SELECT payshard.peer_await_applied($1::int, $2, $3, $4::int)", 4, args,
						  false, deadline + ps_call_timeout_ms * INT64CONST(1000));
	ok = result && PQresultStatus(result) == PGRES_TUPLES_OK && PQgetvalue(result, 0, 0)[0] == 't';
	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK)
		ps_peer_drop(id);
	PQclear(result);
	return ok;
}

/* (a), (d): all members; NULL, or the name of one that has not. */
static char *
await_members(uint64 upto, PsTime deadline)
{
	PsNodeSet	set = members();

	for (uint32 id = 1; id < PS_NODES_MAX; id++)
	{
		/* who has left meanwhile is not needed */
		if (PS_HAS_NODE(set, id) && !await_applied(id, upto, deadline) &&
			PS_HAS_NODE(members(), id))
			return ps_map_node_name(id);
	}
	return NULL;
}

static void
release(void)
{
	if (job.held_at != 0)
	{
		double		ms = (ps_now() - job.held_at) / 1000.0;

		job.pause_ms = Max(job.pause_ms, ms);
	}
	job.held_at = 0;
	ps_hold_end();
}

/* An ERROR, or the end of the process. */
static void
gone(int code, Datum arg)
{
	if (job.is_proposed)
	{
		pg_atomic_write_u32(&ps_shared->needs_recovery, 1);
		ps_map_set_incarnation(0);
		ps_wake_keeper();
	}
	job.is_proposed = false;
	release();
	ps_propose_end_turn();
}

/* (b): one try.  0, or the pid that is in the way. */
static int
hold(PsTime deadline)
{
	int			pid;

	if (!ps_hold_begin(job.shards, deadline))
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("another switchover of node \"%s\" has not ended in time",
						ps_map_node_name(ps_map_self())),
				 errhint("Retry.")));
	job.held_at = ps_now();
	while ((pid = ps_hold_close(job.shards)) != 0 && ps_now() < deadline)
	{
		ps_hold_sleep();
		CHECK_FOR_INTERRUPTS();
	}
	return pid;
}

/* (c) and (d); NULL, or the name of a member that has not applied all in time. */
static char *
await_all(PsTime deadline)
{
	uint64		seq = ps_queue_last_seq();

	while (!ps_queue_is_decided(seq) && ps_now() < deadline)
	{
		ps_hold_sleep();
		CHECK_FOR_INTERRUPTS();
	}
	if (!ps_queue_is_decided(seq))
		return ps_map_node_name(ps_map_self());
	job.drained = members();
	return PS_RULE("J5.applied") ? await_members(seq, deadline) : NULL;
}

static void
too_slow(int pid, const char *name)
{
	if (pid != 0)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("cannot switch over: a transaction that writes the shards has not ended"),
				 errdetail("It is that of process %d on node \"%s\".", pid, ps_map_node_name(ps_map_self())),
				 errhint("The shards stay where they are. End it, or raise payshard.switchover_timeout.")));
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("cannot switch over: node \"%s\" has not applied everything in time", name),
			 errhint("The shards stay where they are. See payshard.replication, and raise payshard.switchover_pause.")));
}

/* (b) to (d): returns with the shards held, and nothing left of ours. */
static void
hold_and_drain(void)
{
	for (;;)
	{
		PsTime		pause_end = ps_deadline(ps_switchover_pause_ms);
		int			pid = hold(Min(pause_end, job.deadline));
		char	   *name = NULL;

		PS_FAULT("switch.held");
		if (pid == 0 && (name = await_all(pause_end)) == NULL)
			return;
		release();
		if (ps_now() >= job.deadline)
			too_slow(pid, name);
		/* those that waited have their turn */
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ps_switchover_pause_ms / 2, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		(void) await_members(PG_UINT64_MAX, ps_deadline(PS_CATCH_UP_MS));
	}
}

/* ------------------------------------------------------------ doing */

/* What was waited for holds for the incarnation in which it was. */
static void
about_to_propose(void)
{
	if (!job.is_proposed && ps_map_incarnation() != job.incarnation)
		not_possible("this node has taken a new incarnation");
	job.is_proposed = true;
}

/* (e): returns NULL or why not. */
static PsRefusal
propose(void)
{
	PsRefusal	refusal;
	char	   *reason = psprintf("switchover from node %s to node %s", ps_map_node_name(ps_map_self()),
								  ps_map_node_name(job.to));

	/* not to be interrupted: the outcome would not be known */
	HOLD_INTERRUPTS();
	PS_FAULT("switch.before_propose");
	(void) ps_propose_gated(step_switch, reason, PS_PROPOSE_MS, &refusal, about_to_propose,
							release);
	job.is_proposed = false;
	PS_FAULT("switch.after_propose");
	RESUME_INTERRUPTS();
	return refusal == already ? NULL : refusal;
}

static void
switch_over(void)
{
	PsRefusal	refusal;

	PS_FAULT("switch.begin");
	ps_propose_warm();
	(void) await_members(PG_UINT64_MAX, ps_deadline(PS_CATCH_UP_MS));
	ps_propose_take_turn();
	do
	{
		hold_and_drain();
		PS_FAULT("switch.drained");
		refusal = propose();
		release();
	} while (refusal == has_more && ps_now() < job.deadline);
	if (refusal)
		not_possible(refusal);
}

static int
count_shards(void)
{
	int			n = 0;

	for (int s = 0; s < PS_SHARDS_MAX; s++)
		n += job.shards[s];
	return n;
}

double
ps_switch_shards(const bool *shards, uint32 to)
{
	ps_map_require_serving();
	memset(&job, 0, sizeof(job));
	memcpy(job.shards, shards, sizeof(bool) * ps_map_n_shards());
	job.to = to;
	job.incarnation = ps_map_incarnation();
	job.deadline = ps_deadline(ps_switchover_timeout_ms);
	if (count_shards() == 0)
		return 0;
	require_possible();
	PG_ENSURE_ERROR_CLEANUP(gone, (Datum) 0);
	{
		switch_over();
	}
	PG_END_ENSURE_ERROR_CLEANUP(gone, (Datum) 0);
	ereport(LOG,
			(errmsg("payshard: switched %d shards over to node \"%s\": writes to them waited up to %.0f ms",
					count_shards(), ps_map_node_name(to), job.pause_ms)));
	return job.pause_ms;
}

/* peer_switch(shards, target) -> ms of pause */
Datum
payshard_peer_switch(PG_FUNCTION_ARGS)
{
	const int  *numbers;
	int			n;
	bool	   *shards = palloc0(sizeof(bool) * PS_SHARDS_MAX);

	ps_require_peer();
	ps_map_require_cluster();
	numbers = ps_map_shards_of(PG_GETARG_ARRAYTYPE_P(0), &n);
	for (int i = 0; i < n; i++)
		shards[numbers[i]] = true;
	PG_RETURN_FLOAT8(ps_switch_shards(shards, PG_GETARG_INT32(1)));
}
