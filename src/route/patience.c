/*
 * patience.c
 *		How long does a statement wait for a failover?
 *
 * Nothing was done for the shard when these are called: no lock is held at the
 * other node, nothing is lost by waiting.  Locks of this session's transaction
 * here are held on; the wait is bounded and can be cancelled.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "node/clock.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "route/patience.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "write/hold.h"

#define PS_LOOK_MS 50
#define PS_MOMENT_MS 500

/* What the statement has waited so far, in all its parts; its start tells it apart. */
static TimestampTz budget_of = 0;
static long spent_ms = 0;

PsTime
ps_patience_end(void)
{
	/* outside a block the messages of one statement have one transaction */
	TimestampTz start = IsTransactionBlock() ? GetCurrentStatementStartTimestamp() :
		GetCurrentTransactionStartTimestamp();

	if (start != budget_of)
		spent_ms = 0;
	budget_of = start;
	return ps_deadline(Max(ps_failover_wait_ms - spent_ms, 0));
}

void
ps_patience_spend(PsTime since)
{
	spent_ms += (ps_now() - since) / 1000;
}

/* Open, with a primary that is believed to live? */
static bool
is_served(int shard)
{
	PsMapShard	state;

	return !ps_map_shard(shard, &state) ||
		(state.waits == 0 && ps_suspicion(state.primary, NULL) == NULL);
}

static void
await_served(int shard)
{
	PsTime		since;
	PsTime		deadline;

	since = ps_now();
	deadline = ps_patience_end();
	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	while (!is_served(shard) && ps_now() < deadline)
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, PS_LOOK_MS, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	ps_patience_spend(since);
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("shard %d was being recovered when the transaction began", shard),
				 errhint("Retry the transaction.")));
}

void
ps_await_shard(int shard)
{
	if (unlikely(!is_served(shard)) && ps_failover_wait_ms > 0)
		await_served(shard);
	ps_hold_enter(shard);
}

static bool
has_moved(List *shards, uint32 node)
{
	ListCell   *cell;
	PsMapShard	state;

	foreach(cell, shards)
	{
		if (ps_map_shard(lfirst_int(cell), &state) && (state.primary == node || state.waits != 0))
			return false;
	}
	return shards != NIL;
}

bool
ps_await_move(List *shards, uint32 node)
{
	PsTime		deadline = ps_deadline(PS_MOMENT_MS);
	bool		moved;

	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	while (!(moved = has_moved(shards, node)) && ps_now() < deadline)
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, PS_LOOK_MS, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	return moved;
}
