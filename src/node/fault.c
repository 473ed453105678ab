/*
 * fault.c
 *		Which fault points are armed, and what happens there?
 *
 * Compiled to nothing unless PAYSHARD_FAULTS is defined.  A point is armed
 * with an action and a count: the n-th hit from now on is the one that acts
 * (1 = the next), and the point is disarmed by acting; a pause lasts until
 * somebody disarms it (or a background process is told to end).  What is to be
 * armed before SQL can be spoken stands in the file payshard_fault.conf in the
 * data directory, lines of "point action count", read and removed at start.
 *
 * A rule of the protocol that a negative control wants switched off is armed
 * under its name with the action "off"; it stays until disarmed.
 *
 * Where a point may stand: never with an LWLock or a spinlock held (a pause
 * would stop the server).  In a critical section or in a commit callback every
 * action but the pause is a PANIC.
 */
#include "postgres.h"

#include "node/fault.h"

#ifdef PAYSHARD_FAULTS

#include <unistd.h>

#include "compat.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "storage/spin.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

#define PS_FAULTS_MAX 32
#define PS_FAULT_NAME 64
#define PS_FAULT_FILE "payshard_fault.conf"

typedef struct PsSharedFault
{
	char		point[PS_FAULT_NAME];	/* "" = free */
	char		action[16];
	int			count;			/* hits left until it acts */
	bool		paused;			/* somebody waits here */
	uint64		id;				/* of this arming: tells it from the next */
} PsSharedFault;

typedef struct PsSharedFaults
{
	slock_t		mutex;
	pg_atomic_uint32 armed;		/* how many: the fast path */
	uint64		last_id;
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

/* Call with the mutex held. */
static PsSharedFault *
find(const char *point)
{
	for (int i = 0; i < PS_FAULTS_MAX; i++)
		if (strcmp(shared_faults->faults[i].point, point) == 0)
			return &shared_faults->faults[i];
	return NULL;
}

/* False when there is no room. */
static bool
arm(const char *point, const char *action, int count)
{
	PsSharedFault *fault;

	SpinLockAcquire(&shared_faults->mutex);
	fault = find(point);
	if (fault == NULL && (fault = find("")) != NULL)
		pg_atomic_fetch_add_u32(&shared_faults->armed, 1);
	if (fault)
	{
		strlcpy(fault->point, point, PS_FAULT_NAME);
		strlcpy(fault->action, action, sizeof(fault->action));
		fault->count = count;
		fault->paused = false;
		fault->id = ++shared_faults->last_id;
	}
	SpinLockRelease(&shared_faults->mutex);
	return fault != NULL;
}

/* Arms what the file says; in the postmaster, in the data directory. */
static void
arm_from_file(void)
{
	FILE	   *file = fopen(PS_FAULT_FILE, "r");
	char		point[PS_FAULT_NAME];
	char		action[16];
	int			count;

	if (file == NULL)
		return;
	while (fscanf(file, "%63s %15s %d", point, action, &count) == 3)
		(void) arm(point, action, count);
	fclose(file);
	unlink(PS_FAULT_FILE);
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
		arm_from_file();
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
static void
disarm(PsSharedFault *fault)
{
	memset(fault, 0, sizeof(*fault));
	pg_atomic_fetch_sub_u32(&shared_faults->armed, 1);
}

static bool
still_paused(const char *point, uint64 id)
{
	PsSharedFault *fault;
	bool		paused;

	SpinLockAcquire(&shared_faults->mutex);
	fault = find(point);
	paused = fault != NULL && fault->id == id;
	SpinLockRelease(&shared_faults->mutex);
	return paused;
}

static void
pause_here(const char *point, uint64 id)
{
	ConditionVariablePrepareToSleep(&shared_faults->changed);
	while (still_paused(point, id) && !ShutdownRequestPending)
		(void) ConditionVariableTimedSleep(&shared_faults->changed, 1000, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

/* Is it this hit's turn to act?  Copies the action. */
static bool
take_turn(const char *point, char *action, size_t size, uint64 *id)
{
	PsSharedFault *fault;
	bool		acts;

	SpinLockAcquire(&shared_faults->mutex);
	fault = find(point);
	acts = fault && !fault->paused && --fault->count <= 0;
	if (acts)
	{
		strlcpy(action, fault->action, size);
		*id = fault->id;
		if (strcmp(action, "pause") == 0)
			fault->paused = true;
		else if (strcmp(action, "full") != 0)
			disarm(fault);
	}
	SpinLockRelease(&shared_faults->mutex);
	return acts;
}

void
ps_fault_hit(const char *point)
{
	char		action[16];
	uint64		id;

	if (shared_faults == NULL || pg_atomic_read_u32(&shared_faults->armed) == 0 ||
		!take_turn(point, action, sizeof(action), &id))
		return;
	ereport(LOG, (errmsg("payshard fault point \"%s\": %s", point, action)));
	if (strcmp(action, "pause") == 0)
		pause_here(point, id);
	else if (strcmp(action, "panic") == 0)
		ereport(PANIC, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("fault point \"%s\"", point)));
	else if (strcmp(action, "disconnect") == 0)
		ereport(FATAL, (errcode(ERRCODE_ADMIN_SHUTDOWN),
						errmsg("fault point \"%s\"", point)));
	else if (strcmp(action, "full") == 0)
		ereport(ERROR, (errcode(ERRCODE_DISK_FULL),
						errmsg("fault point \"%s\"", point)));
	else
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR),
						errmsg("fault point \"%s\"", point)));
}

bool
ps_fault_rule(const char *rule)
{
	bool		is_off;

	if (shared_faults == NULL || pg_atomic_read_u32(&shared_faults->armed) == 0)
		return true;
	SpinLockAcquire(&shared_faults->mutex);
	is_off = find(rule) != NULL;
	SpinLockRelease(&shared_faults->mutex);
	return !is_off;
}

/* "point.node" */
static void
put_name(char *name, const char *point, const char *node)
{
	snprintf(name, PS_FAULT_NAME, "%s.%s", point, node);
}

void
ps_fault_hit_at(const char *point, const char *node)
{
	char		name[PS_FAULT_NAME];

	ps_fault_hit(point);
	put_name(name, point, node);
	ps_fault_hit(name);
}

bool
ps_fault_rule_at(const char *rule, const char *node)
{
	char		name[PS_FAULT_NAME];

	put_name(name, rule, node);
	return ps_fault_rule(rule) && ps_fault_rule(name);
}

PS_FUNCTION(payshard_fault_arm);
PS_FUNCTION(payshard_fault_disarm);
PS_FUNCTION(payshard_fault_paused);

PS_FUNCTION(payshard_fault_armed);

/* arm(point text, action text, count int) */
Datum
payshard_fault_arm(PG_FUNCTION_ARGS)
{
	char	   *point = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char	   *action = text_to_cstring(PG_GETARG_TEXT_PP(1));

	if (strlen(point) == 0 || strlen(point) >= PS_FAULT_NAME || strlen(action) >= 16)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("\"%s\" or \"%s\" is too long or empty", point, action)));
	if (!arm(point, action, PG_GETARG_INT32(2)))
		ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						errmsg("too many fault points are armed")));
	PG_RETURN_VOID();
}

/* disarm(point text) -> was it armed? */
Datum
payshard_fault_disarm(PG_FUNCTION_ARGS)
{
	char	   *point = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PsSharedFault *fault = NULL;

	SpinLockAcquire(&shared_faults->mutex);
	if (point[0] != '\0')
		fault = find(point);
	if (fault)
		disarm(fault);
	SpinLockRelease(&shared_faults->mutex);
	ConditionVariableBroadcast(&shared_faults->changed);
	PG_RETURN_BOOL(fault != NULL);
}

/* Is the point armed, and, if asked, does somebody wait there? */
static bool
look(const char *point, bool for_paused)
{
	PsSharedFault *fault;
	bool		yes;

	SpinLockAcquire(&shared_faults->mutex);
	fault = find(point);
	yes = fault != NULL && (!for_paused || fault->paused);
	SpinLockRelease(&shared_faults->mutex);
	return yes;
}

/* paused(point text) -> does somebody wait there? */
Datum
payshard_fault_paused(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(look(text_to_cstring(PG_GETARG_TEXT_PP(0)), true));
}

/* armed(point text) -> has it not acted yet, or does somebody wait there? */
Datum
payshard_fault_armed(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(look(text_to_cstring(PG_GETARG_TEXT_PP(0)), false));
}

#endif
