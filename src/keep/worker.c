/*
 * worker.c
 *		Which background processes run, and what does the keeper do, in which
 *		order?
 *
 * keeper (one): starts with the server; once this database is a node, takes
 * an incarnation (M3), starts the apply process and one sender per other node,
 * then does its duties at each wake-up (a map was adopted, a sender missed a
 * peer, a second has passed).  A duty that throws is logged and tried again at
 * the next wake-up; it leaves nothing half done that it does not find again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "keep/duties.h"
#include "keep/proposer.h"
#include "keep/worker.h"
#include "miscadmin.h"
#include "node/identity.h"
#include "node/map.h"
#include "node/outage.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "node/tables.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "route/allnodes.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#define PS_KEEPER_NAP_MS 1000
#define PS_KEEPER_HASTE_MS 100	/* while something is under way */

/* A duty: does what is due now; true = call again soon. */
typedef bool (*Duty) (void);

/* In this order: nothing is kept before the node has started. */
static const struct
{
	const char *name;
	Duty		run;
}			duties[] = {
	{"start", ps_duty_start},
	{"processes", ps_duty_processes},
	{"watch", ps_duty_watch},
	{"recover", ps_duty_recover},
	{"leave", ps_duty_leave},
	{"ddl", ps_allnodes_resolve},
	{"notes", ps_duty_notes},
	{"rejoin", ps_duty_rejoin},
	{"move", ps_duty_move},
	{"sweep", ps_duty_sweep},
	{"record", ps_duty_record},
};

void
ps_keeper_register(void)
{
	BackgroundWorker worker = {0};

	strlcpy(worker.bgw_name, "payshard keeper", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "payshard keeper", BGW_MAXLEN);
	strlcpy(worker.bgw_library_name, "payshard", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "payshard_keeper_main", BGW_MAXLEN);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	RegisterBackgroundWorker(&worker);
}

static void
keeper_gone(int code, Datum arg)
{
	ps_shared->keeper = NULL;
}

/* Runs one duty in a transaction of its own; errors are logged. */
static bool
run_duty(int i)
{
	volatile bool again = false;
	MemoryContext old = CurrentMemoryContext;

	PG_TRY();
	{
		StartTransactionCommand();
		pgstat_report_activity(STATE_RUNNING, duties[i].name);
		if (ps_extension_exists())
			again = duties[i].run();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		again = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	pgstat_report_activity(STATE_IDLE, NULL);
	return again;
}

/* Nobody wakes the keeper when a node has been silent for too long: it looks just then. */
static long
nap_ms(bool haste)
{
	if (haste)
		return PS_KEEPER_HASTE_MS;
	return Min(PS_KEEPER_NAP_MS, ps_suspicion_due_ms());
}

void
payshard_keeper_main(Datum arg)
{
	MemoryContext loop = AllocSetContextCreate(TopMemoryContext, "payshard keeper", ALLOCSET_DEFAULT_SIZES);

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(ps_database, NULL, 0);
	before_shmem_exit(keeper_gone, 0);
	ps_shared->keeper = MyLatch;

	while (!ShutdownRequestPending)
	{
		bool		haste = false;

		MemoryContextSwitchTo(loop);
		ps_outage_beat();
		for (int i = 0; i < lengthof(duties); i++)
			haste |= run_duty(i);
		MemoryContextReset(loop);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, nap_ms(haste),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	proc_exit(0);
}
