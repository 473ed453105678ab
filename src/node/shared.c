/*
 * shared.c
 *		Where is the shared memory, and how is it set up?
 *
 * Everything in it is a cache or a meeting point: what must outlive a crash is
 * in tables.  After a crash of a backend the postmaster starts it afresh and
 * the keeper takes a new incarnation (F1).
 */
#include "postgres.h"

#include "compat.h"
#include "miscadmin.h"
#include "node/lease.h"
#include "node/outage.h"
#include "node/runs.h"
#include "node/settings.h"
#include "node/shared.h"
#include "storage/ipc.h"
#include "storage/shmem.h"

PsShared   *ps_shared = NULL;

static shmem_request_hook_type prev_request_hook = NULL;
static shmem_startup_hook_type prev_startup_hook = NULL;

static int
n_waiters(void)
{
	/* procnos reach beyond MaxBackends for prepared transactions' dummies */
	return MaxBackends + NUM_AUXILIARY_PROCS;
}

static Size
struct_bytes(void)
{
	return MAXALIGN(add_size(offsetof(PsShared, waiters),
							 mul_size(n_waiters(), sizeof(PsSharedWaiter))));
}

static Size
queue_bytes(void)
{
	return (Size) ps_queue_size_kb * 1024;
}

static void
request(void)
{
	if (prev_request_hook)
		prev_request_hook();
	RequestAddinShmemSpace(add_size(struct_bytes(), queue_bytes()));
	RequestNamedLWLockTranche("PayshardMap", 1);
	RequestNamedLWLockTranche("PayshardQueue", 1);
}

static void
init_struct(PsShared *shared)
{
	memset(shared, 0, struct_bytes());
	LWLockInitialize(&shared->map_lock,
					 GetNamedLWLockTranche("PayshardMap")->lock.tranche);
	LWLockInitialize(&shared->queue.lock,
					 GetNamedLWLockTranche("PayshardQueue")->lock.tranche);
	ConditionVariableInit(&shared->map_changed);
	for (int i = 0; i < PS_SHARDS_MAX; i++)
		pg_atomic_init_u64(&shared->opened_by[i], 0);
	pg_atomic_init_u64(&shared->epoch, 0);
	pg_atomic_init_u64(&shared->incarnation, 0);
	pg_atomic_init_u64(&shared->started_at, 0);
	pg_atomic_init_u64(&shared->started_us, 0);
	ps_lease_init(&shared->lease);
	pg_atomic_init_u32(&shared->is_judged, 0);
	pg_atomic_init_u64(&shared->event_id, 0);
	pg_atomic_init_u32(&shared->run_noted, 0);
	pg_atomic_init_u32(&shared->needs_recovery, 0);
	pg_atomic_init_u64(&shared->dirty_keys, 0);
	pg_atomic_init_u64(&shared->feed_generation, 1);
	for (int i = 0; i < PS_STAT_COUNT; i++)
		pg_atomic_init_u64(&shared->stats[i], i == PS_STAT_RESET_AT ? GetCurrentTimestamp() : 0);
	for (int i = 0; i < PS_NODES_MAX; i++)
	{
		pg_atomic_init_u64(&shared->peers[i].heard_at, 0);
		pg_atomic_init_u64(&shared->peers[i].waiting_since, 0);
		pg_atomic_init_u64(&shared->peers[i].silent_from, 0);
		pg_atomic_init_u64(&shared->peers[i].silent_us, 0);
		pg_atomic_init_u64(&shared->peers[i].former_from, 0);
		pg_atomic_init_u64(&shared->peers[i].former_to, 0);
		pg_atomic_init_u64(&shared->peers[i].answered_us, 0);
		pg_atomic_init_u64(&shared->peers[i].asked_us, 0);
		pg_atomic_init_u64(&shared->peers[i].refused_us, 0);
		pg_atomic_init_u64(&shared->peers[i].up_us, 0);
		pg_atomic_init_u64(&shared->peers[i].back_us, 0);
		pg_atomic_init_u64(&shared->peers[i].fell_us, 0);
		pg_atomic_init_u32(&shared->peers[i].falls, 0);
		pg_atomic_init_u64(&shared->origins[i].incarnation, 0);
		pg_atomic_init_u64(&shared->origins[i].journaled_seq, 0);
		pg_atomic_init_u64(&shared->origins[i].decided_seq, 0);
		pg_atomic_init_u64(&shared->origins[i].applied_seq, 0);
		pg_atomic_init_u64(&shared->origins[i].hold_seq, 0);
		pg_atomic_init_u64(&shared->origins[i].lsn, 0);
	}
	shared->queue.size = queue_bytes();
	shared->queue.writer = -1;
	dlist_init(&shared->queue.undecided);
	ConditionVariableInit(&shared->queue.changed);
	shared->queue.data = (char *) shared + struct_bytes();
	ConditionVariableInit(&shared->hold.left);
	ps_outage_init(&shared->outages);
	shared->n_waiters = n_waiters();
}

static void
startup(void)
{
	bool		found;

	if (prev_startup_hook)
		prev_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	ps_shared = ShmemInitStruct("payshard",
								add_size(struct_bytes(), queue_bytes()), &found);
	if (!found)
		init_struct(ps_shared);
	LWLockRelease(AddinShmemInitLock);
	if (!IsUnderPostmaster)
		ps_runs_begin();
}

void
ps_shared_install(void)
{
	prev_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	prev_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}

void
ps_wake_keeper(void)
{
	Latch	   *latch = ps_shared->keeper;

	if (latch)
		SetLatch(latch);
}

void
ps_wake_applier(void)
{
	Latch	   *latch = ps_shared->applier;

	if (latch)
		SetLatch(latch);
}

void
ps_wake_sender(uint32 node)
{
	Latch	   *latch = ps_shared->peers[node].sender;

	if (latch)
		SetLatch(latch);
}

void
ps_hurry_sender(uint32 node)
{
	ps_shared->peers[node].is_urgent = true;
	pg_memory_barrier();
	ps_wake_sender(node);
}
