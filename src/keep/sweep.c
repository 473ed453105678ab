/*
 * sweep.c
 *		What is left here of shards that this node does not hold, and how does it
 *		go?
 *
 * payshard.full_copy names the shards: "to be emptied" from the map on in which
 * they are not held (rejoin.c), "not held" when nothing is left.  In chunks of
 * PS_SWEEP_ROWS rows, a transaction each, in which the map is held: a chunk never
 * meets a placement that has been given back, which is copied as a whole anyhow.
 * Killed anywhere: the note is still there.
 *
 * Rows are deleted, not truncated: a transaction that began to read here while the
 * shard was held goes on seeing them.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "keep/process.h"
#include "keep/sweep.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/relation.h"
#include "node/settings.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"
#include "write/digest.h"
#include "write/target.h"

#define PS_SWEEP_ROWS 1000
#define PS_SWEEP_NAP_MS 20		/* after each chunk: payments come first */

/* A shard that is to be emptied; -1 = none. */
static int
next_shard(void)
{
	int			shard = -1;
	bool		isnull;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute("SELECT shard FROM payshard.full_copy WHERE reason = 'to be emptied' ORDER BY 1", true, 0);
	for (uint64 i = 0; i < SPI_processed && shard < 0; i++)
	{
		PsMapShard	state;
		HeapTuple	row = SPI_tuptable->vals[i];
		int			s = DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));

		if (ps_map_shard(s, &state) && ps_map_placement(&state, ps_map_self()) == PS_PLACEMENT_NONE)
			shard = s;
	}
	PopActiveSnapshot();
	SPI_finish();
	return shard;
}

static void
note_empty(int shard)
{
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute(psprintf("UPDATE payshard.full_copy SET reason = 'not held' "
						 "WHERE shard = %d AND reason = 'to be emptied'", shard), false, 0);
	PopActiveSnapshot();
	SPI_finish();
}

/*
 * One chunk; false when nothing is to be done any more, or not now: nobody waits
 * for a user's lock of a table while he holds the map, the keeper starts us again.
 */
static bool
sweep_chunk(void)
{
	int			shard;
	int			n_tables;
	int			n = 0;
	Oid		   *tables;

	ps_map_lock();
	shard = next_shard();
	if (shard < 0)
		return false;
	PS_FAULT("sweep.chunk");
	PushActiveSnapshot(GetTransactionSnapshot());
	tables = ps_digest_tables(&n_tables);
	PopActiveSnapshot();
	for (int i = 0; i < n_tables && n == 0; i++)
		n = ps_target_empty(ps_relation_partition(tables[i], shard), PS_SWEEP_ROWS);
	if (n == 0)
		note_empty(shard);
	return n >= 0;
}

void
payshard_sweep_main(Datum arg)
{
	bool		more = true;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(ps_database, NULL, 0);
	pgstat_report_activity(STATE_RUNNING, "emptying shards that are not held any more");
	while (more && ps_map_incarnation() != 0)
	{
		StartTransactionCommand();
		more = sweep_chunk();
		CommitTransactionCommand();
		pgstat_report_stat(false);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PS_SWEEP_NAP_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	proc_exit(0);
}

bool
ps_duty_sweep(void)
{
	static PsProcess process;

	if (ps_map_incarnation() != 0 && next_shard() >= 0)
		ps_process_start("payshard_sweep_main", "sweep", 0, &process);
	return false;
}
