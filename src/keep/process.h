/*
 * process.h
 *		Background processes that the keeper keeps running, or starts for a task.
 */
#ifndef PS_KEEP_PROCESS_H
#define PS_KEEP_PROCESS_H

#include "postgres.h"
#include "postmaster/bgworker.h"

/* One process, in the keeper's memory; zeroed at first. */
typedef struct PsProcess
{
	BackgroundWorkerHandle *handle;
	uint64		started_us;		/* on the lease's clock; 0 = never */
} PsProcess;

/*
 * ps_process_start
 *		Starts a process unless it runs, or was started less than a second ago.
 *
 * function: of this library, gets `arg`.  name: "payshard <name>" in
 * pg_stat_activity.  A WARNING when there is no room for it.
 */
extern void ps_process_start(const char *function, const char *name, uint32 arg,
							 PsProcess *process);

#endif
