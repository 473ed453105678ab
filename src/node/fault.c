/*
 * fault.c
 *		Which fault points are armed, and what happens there?
 *
 * Compiled to nothing unless PAYSHARD_FAULTS is defined.  A point is armed
 * with an action and a count: the n-th hit from now on is the one that acts
 * (1 = the next), and the point is disarmed by acting; a pause lasts until
 * somebody disarms it.
 */
#include "postgres.h"

#include "node/fault.h"

#ifdef PAYSHARD_FAULTS

#include "compat.h"
#include "miscadmin.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

#define PS_FAULTS_MAX 32
#define PS_FAULT_NAME 64

typedef struct PsSharedFault
{
	char		point[PS_FAULT_NAME];	/* "" = free */
	char		action[16];
	int			count;			/* hits left until it acts */
	bool		paused;			/* somebody waits here */
} PsSharedFault;

typedef struct PsSharedFaults
{
	slock_t		mutex;
	pg_atomic_uint32 armed;		/* how many: the fast path */
	ConditionVariable changed;
	PsSharedFault faults[PS_FAULTS_MAX];
} PsSharedFaults;

static PsSharedFaults *shared_faults = NULL;
static shmem_request_hook_type prev_request_hook = NULL;
static shmem_startup_hook_type prev_startup_hook = NULL;

static void
request(void)
{
	if (prev_request_hook)
		prev_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(PsSharedFaults)));
}

static void
startup(void)
{
	bool		found;

	if (prev_startup_hook)
		prev_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared_faults = ShmemInitStruct("payshard faults", sizeof(PsSharedFaults), &found);
	if (!found)
	{
		memset(shared_faults, 0, sizeof(PsSharedFaults));
		SpinLockInit(&shared_faults->mutex);
		pg_atomic_init_u32(&shared_faults->armed, 0);
		ConditionVariableInit(&shared_faults->changed);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
ps_fault_install(void)
{
	prev_request_hook = shmem_request_hook;
	shmem_request_hook = request;
	prev_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup;
}

/* Call with the mutex held. */
static PsSharedFault *
find(const char *point)
{
	for (int i = 0; i < PS_FAULTS_MAX; i++)
		if (strcmp(shared_faults->faults[i].point, point) == 0)
			return &shared_faults->faults[i];
	return NULL;
}

/* Call with the mutex held. */
static void
disarm(PsSharedFault *fault)
{
	memset(fault, 0, sizeof(*fault));
	pg_atomic_fetch_sub_u32(&shared_faults->armed, 1);
}

static bool
still_paused(const char *point)
{
	bool		paused;

	SpinLockAcquire(&shared_faults->mutex);
	paused = find(point) != NULL;
	SpinLockRelease(&shared_faults->mutex);
	return paused;
}

static void
pause_here(const char *point)
{
	ConditionVariablePrepareToSleep(&shared_faults->changed);
	while (still_paused(point))
		(void) ConditionVariableTimedSleep(&shared_faults->changed, 1000, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

void
ps_fault_hit(const char *point)
{
	char		action[16] = "";
	PsSharedFault *fault;

	if (shared_faults == NULL || pg_atomic_read_u32(&shared_faults->armed) == 0)
		return;
	SpinLockAcquire(&shared_faults->mutex);
	fault = find(point);
	if (fault && !fault->paused && --fault->count <= 0)
	{
		strlcpy(action, fault->action, sizeof(action));
		if (strcmp(action, "pause") == 0)
			fault->paused = true;
		else
			disarm(fault);
	}
	SpinLockRelease(&shared_faults->mutex);

	if (action[0] == '\0')
		return;
	ereport(LOG, (errmsg("payshard fault point \"%s\": %s", point, action)));
	if (strcmp(action, "pause") == 0)
		pause_here(point);
	else if (strcmp(action, "panic") == 0)
		ereport(PANIC, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("fault point \"%s\"", point)));
	else if (strcmp(action, "disconnect") == 0)
		ereport(FATAL, (errcode(ERRCODE_ADMIN_SHUTDOWN),
						errmsg("fault point \"%s\"", point)));
	else
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("fault point \"%s\"", point)));
}

PS_FUNCTION(payshard_fault_arm);
PS_FUNCTION(payshard_fault_disarm);
PS_FUNCTION(payshard_fault_paused);

/* arm(point text, action text, count int) */
Datum
payshard_fault_arm(PG_FUNCTION_ARGS)
{
	char	   *point = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *action = text_to_cstring(PG_GETARG_TEXT_PP(1));
	PsSharedFault *fault;

	SpinLockAcquire(&shared_faults->mutex);
	fault = find(point);
	if (fault == NULL && (fault = find("")) != NULL)
		pg_atomic_fetch_add_u32(&shared_faults->armed, 1);
	if (fault)
	{
		strlcpy(fault->point, point, PS_FAULT_NAME);
		strlcpy(fault->action, action, sizeof(fault->action));
		fault->count = PG_GETARG_INT32(2);
		fault->paused = false;
	}
	SpinLockRelease(&shared_faults->mutex);
	if (fault == NULL)
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("too many fault points are armed")));
	PG_RETURN_VOID();
}

/* disarm(point text) -> was it armed? */
Datum
payshard_fault_disarm(PG_FUNCTION_ARGS)
{
	char	   *point = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PsSharedFault *fault;

	SpinLockAcquire(&shared_faults->mutex);
	fault = find(point);
	if (fault)
		disarm(fault);
	SpinLockRelease(&shared_faults->mutex);
	ConditionVariableBroadcast(&shared_faults->changed);
	PG_RETURN_BOOL(fault != NULL);
}

/* paused(point text) -> does somebody wait there? */
Datum
payshard_fault_paused(PG_FUNCTION_ARGS)
{
	char	   *point = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PsSharedFault *fault;
	bool		paused;

	SpinLockAcquire(&shared_faults->mutex);
	fault = find(point);
	paused = fault && fault->paused;
	SpinLockRelease(&shared_faults->mutex);
	PG_RETURN_BOOL(paused);
}

#endif
