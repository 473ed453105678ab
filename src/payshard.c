/*
 * payshard.c
 *		The roof: what is registered with the server, in which order.
 *
 * Loads only from shared_preload_libraries.  Each hook saves and calls the one
 * before it.  Callbacks of transactions run last-registered first: loaded
 * first, payshard runs last at PRE_COMMIT, which is what it wants, as nothing
 * should fail after it.
 */
#include "postgres.h"

#include "fmgr.h"
#include "keep/worker.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/shared.h"
#include "route/allnodes.h"
#include "route/names.h"
#include "route/route.h"
#include "route/utility.h"
#include "write/commit.h"
#include "write/queue.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("payshard must be loaded when the server starts"),
				 errdetail("It needs shared memory and background processes of its own."),
				 errhint("Set shared_preload_libraries = 'payshard' in postgresql.conf and restart the server.")));
	ps_settings_define();
	ps_shared_install();
	ps_fault_install();
	ps_map_adopted = ps_queue_map_adopted;
	/* run in reverse: DDL is prepared elsewhere before the write-set is enqueued,
	 * and committed there after the commit's critical section */
	RegisterXactCallback(ps_allnodes_at_end, NULL);
	ps_commit_install();
	RegisterXactCallback(ps_allnodes_pre_commit, NULL);
	RegisterSubXactCallback(ps_allnodes_subxact, NULL);
	ps_utility_install();
	ps_route_install();
	ps_names_install();
	ps_keeper_register();
}
