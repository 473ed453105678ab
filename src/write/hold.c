/*
 * hold.c
 *		Who uses a shard here, and who must wait before he does (J5)?
 *
 *	user							switchover
 *	(a) notes that it uses s		(1) notes that s is held
 *	(b) barrier						(2) barrier
 *	(c) is s held? then takes		(3) does anybody use s?  then waits
 *		(a) back and waits
 *	(d) looks who is primary of s
 *
 * Of two that come at once, one at least sees the other.  (d) after (a): a
 * switchover that was over before (a) is seen in the map, one that comes later
 * waits for this user.
 *
 * Used is until the statement has been checked (route.c) or, when it writes or
 * locks rows, until the end of the transaction.  Whoever has written is let in
 * everywhere while others are awaited: it may hold rows that one of those needs.
 * When all are through the hold is closed, which is tried the same way: (1) closed,
 * (2) barrier, (3) somebody came in between: open again.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "node/clock.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/shared.h"
#include "compat.h"
#include "storage/proc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "write/hold.h"

#define HOLD (&ps_shared->hold)
#define WORD(shard) ((shard) / 64)
#define BIT(shard) (UINT64CONST(1) << ((shard) % 64))
#define PS_LOOK_MS 100
#define PS_SLEEP_MS 5

static uint64 entered[PS_HOLD_WORDS];
static uint64 kept[PS_HOLD_WORDS];
static bool any_entered = false;
static bool any_kept = false;
static bool is_switcher = false;

static volatile uint64 *
my_uses(void)
{
	return ps_shared->waiters[ps_my_procno()].uses;
}

static bool
is_held(int shard)
{
	return HOLD->n_held > 0 && HOLD->held[shard];
}

static bool
must_wait(int shard)
{
	return is_held(shard) && (!any_kept || HOLD->is_closed);
}

static void
wake_switcher(void)
{
	if (HOLD->n_held > 0)
		ConditionVariableBroadcast(&HOLD->left);
}

static void
enter(int shard)
{
	volatile uint64 *uses = my_uses();

	entered[WORD(shard)] |= BIT(shard);
	any_entered = true;
	uses[WORD(shard)] = entered[WORD(shard)];
	pg_memory_barrier();
}

static void
held_too_long(int shard)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("shard %d is being switched over for longer than payshard.gate_timeout (%d ms)",
					shard, ps_gate_timeout_ms),
			 errhint("Nothing was done; retry the transaction. See payshard.shards.")));
}

/* (c): until it is held no more. */
static void
await(int shard)
{
	PsTime		deadline = ps_deadline(ps_gate_timeout_ms);

	while (must_wait(shard))
	{
		ps_hold_leave();
		ConditionVariablePrepareToSleep(&ps_shared->map_changed);
		while (must_wait(shard) && ps_now() < deadline)
			(void) ConditionVariableTimedSleep(&ps_shared->map_changed,
											   any_kept ? PS_SLEEP_MS : PS_LOOK_MS,
											   PG_WAIT_EXTENSION);
		ConditionVariableCancelSleep();
		if (must_wait(shard))
			held_too_long(shard);
		enter(shard);
	}
}

void
ps_hold_enter(int shard)
{
	if (shard < 0 || shard >= PS_SHARDS_MAX || (entered[WORD(shard)] & BIT(shard)) || is_switcher)
		return;
	enter(shard);
	if (unlikely(must_wait(shard)) && PS_RULE("J5.hold"))
		await(shard);
}

void
ps_hold_keep(void)
{
	if (!any_entered)
		return;
	memcpy(kept, entered, sizeof(kept));
	any_kept = true;
}

void
ps_hold_leave(void)
{
	volatile uint64 *uses;

	if (!any_entered)
		return;
	uses = my_uses();
	for (int i = 0; i < PS_HOLD_WORDS; i++)
	{
		if (entered[i] == kept[i])
			continue;
		entered[i] = kept[i];
		uses[i] = kept[i];
	}
	any_entered = any_kept;
	wake_switcher();
}

void
ps_hold_at_end(void)
{
	if (!any_entered)
		return;
	memset(kept, 0, sizeof(kept));
	any_kept = false;
	ps_hold_leave();
}

bool
ps_hold_is_inside(const bool *shards)
{
	for (int s = 0; s < PS_SHARDS_MAX; s++)
		if (shards[s] && (kept[WORD(s)] & BIT(s)))
			return true;
	return false;
}

int
ps_hold_next_kept(int shard)
{
	if (!any_kept)
		return -1;
	for (int s = shard + 1; s < PS_SHARDS_MAX; s++)
		if (kept[WORD(s)] & BIT(s))
			return s;
	return -1;
}

/* ------------------------------------------------------------ switchover */

static bool
take_place(void)
{
	bool		is_free;

	LWLockAcquire(&ps_shared->queue.lock, LW_EXCLUSIVE);
	is_free = HOLD->switcher == 0;
	if (is_free)
		HOLD->switcher = MyProcPid;
	LWLockRelease(&ps_shared->queue.lock);
	return is_free;
}

bool
ps_hold_begin(const bool *shards, PsTime deadline)
{
	int			n = 0;

	/* what this transaction has looked at is of no interest now */
	ps_hold_leave();
	ConditionVariablePrepareToSleep(&HOLD->left);
	while (!take_place())
	{
		if (ps_now() > deadline)
		{
			ConditionVariableCancelSleep();
			return false;
		}
		(void) ConditionVariableTimedSleep(&HOLD->left, PS_SLEEP_MS, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	is_switcher = true;
	HOLD->is_closed = false;
	for (int s = 0; s < PS_SHARDS_MAX; s++)
	{
		HOLD->held[s] = shards[s];
		n += shards[s];
	}
	HOLD->n_held = n;
	pg_memory_barrier();
	return true;
}

void
ps_hold_end(void)
{
	if (!is_switcher)
		return;
	is_switcher = false;
	HOLD->n_held = 0;
	pg_memory_barrier();
	LWLockAcquire(&ps_shared->queue.lock, LW_EXCLUSIVE);
	HOLD->switcher = 0;
	LWLockRelease(&ps_shared->queue.lock);
	ConditionVariableBroadcast(&ps_shared->map_changed);
	ConditionVariableBroadcast(&HOLD->left);
}

/* The pid of somebody inside one of the shards; 0 = nobody is. */
static int
find_user(const uint64 *wanted)
{
	for (int i = 0; i < ps_shared->n_waiters; i++)
	{
		volatile uint64 *uses = ps_shared->waiters[i].uses;

		for (int w = 0; w < PS_HOLD_WORDS && i != ps_my_procno(); w++)
			if (uses[w] & wanted[w])
			{
				int			pid = ProcGlobal->allProcs[i].pid;

				return pid != 0 ? pid : -1;	/* just ending */
			}
	}
	return 0;
}

int
ps_hold_close(const bool *shards)
{
	uint64		wanted[PS_HOLD_WORDS] = {0};
	int			pid;

	for (int s = 0; s < PS_SHARDS_MAX; s++)
		if (shards[s])
			wanted[WORD(s)] |= BIT(s);
	HOLD->is_closed = true;
	pg_memory_barrier();
	pid = find_user(wanted);
	if (pid != 0)
		HOLD->is_closed = false;
	return pid;
}

void
ps_hold_sleep(void)
{
	ConditionVariablePrepareToSleep(&HOLD->left);
	(void) ConditionVariableTimedSleep(&HOLD->left, PS_SLEEP_MS, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}
