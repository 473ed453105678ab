/*
 * process.c
 *		How does the keeper start other processes, and not too often?
 *
 * None restarts by itself: the keeper, which knows why one is needed, looks at
 * each of its wake-ups whether it is there.
 */
#include "postgres.h"

#include "keep/process.h"
#include "miscadmin.h"
#include "node/lease.h"
#include "utils/memutils.h"

#define PS_RESTART_MS 1000

void
ps_process_start(const char *function, const char *name, uint32 arg, PsProcess *process)
{
	BackgroundWorker worker = {0};
	MemoryContext old;
	pid_t		pid;

	if (process->handle && GetBackgroundWorkerPid(process->handle, &pid) != BGWH_STOPPED)
		return;
	if (process->started_us != 0 &&
		ps_clock_us() < process->started_us + PS_RESTART_MS * UINT64CONST(1000))
		return;
	process->started_us = ps_clock_us();
	snprintf(worker.bgw_name, BGW_MAXLEN, "payshard %s", name);
	snprintf(worker.bgw_type, BGW_MAXLEN, "payshard %s", name);
	strlcpy(worker.bgw_library_name, "payshard", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, function, BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = UInt32GetDatum(arg);
	worker.bgw_notify_pid = MyProcPid;
	/* the handle lives as long as the keeper */
	if (process->handle)
		pfree(process->handle);
	process->handle = NULL;
	old = MemoryContextSwitchTo(TopMemoryContext);
	if (!RegisterDynamicBackgroundWorker(&worker, &process->handle))
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("could not start process \"%s\"", worker.bgw_name),
				 errhint("Raise max_worker_processes.")));
	MemoryContextSwitchTo(old);
}
