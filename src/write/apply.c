/*
 * apply.c
 *		Which journaled entries are decided, and in which order are they
 *		executed here (W5)?
 *
 * One process; for each origin in turn: (a) hold the map, (b) hold the origin's
 * apply lock, (c) apply decided entries in seq order, many per transaction, (d)
 * record dirty keys for placements that are out (J1), (e) write the position and
 * prune the journal.  All in one local transaction, whose commit need not be
 * flushed: what it loses in a crash is still in the journal.
 *
 * A partition that a user keeps locked: the transaction is given up, and the
 * next one waits for that lock before (a).  Waiting after it would keep all maps
 * out, and then all payments.
 *
 * "Decided" never goes beyond what is journaled here: a joining node may hear
 * that a seq is decided before it has it.
 *
 * What is skipped because the placement is out was perhaps committed while it
 * was not: its key is noted as dirty for this node itself, or the copy that
 * takes the placement back would not bring it (J2).
 *
 * A shard's feed says from where on its placement follows a stream: entries up
 * to there, and those of earlier terms, are in the copy it got (J2, J3): a node
 * that was switched over from goes on with its stream for other shards, and entries
 * of it may still wait here.  While the copy is under way,
 * entries for that shard, and so all that follow in the stream, wait.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/outage.h"
#include "node/relation.h"
#include "node/runs.h"
#include "node/settings.h"
#include "node/stats.h"
#include "node/tables.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "tcop/tcopprot.h"
#include "utils/datum.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "write/apply.h"
#include "write/dirty.h"
#include "write/journal.h"
#include "write/target.h"

#define PS_APPLY_BATCHES 64		/* journal rows per transaction */
#define PS_APPLY_NAP_MS 500
#define PS_APPLY_RETRY_MS 500

/* From where on a shard's placement follows which stream. */
typedef struct Feed
{
	uint32		origin;			/* 0 = everything from the start */
	uint64		incarnation;
	uint64		seq;
	uint64		term;			/* of the shard, when the copy was made */
	bool		copying;
} Feed;

static Feed feeds[PS_SHARDS_MAX];
static uint64 feeds_generation = 0; /* of the copy above; 0 = not read yet */

typedef enum Verdict
{
	APPLY,
	SKIP,						/* not ours, or in the copy */
	NOTE,						/* not now, but a later copy must bring it */
	STALL,						/* not before the copy is complete */
} Verdict;

static void
read_feeds(void)
{
	uint64		generation = pg_atomic_read_u64(&ps_shared->feed_generation);
	bool		isnull;

	if (feeds_generation == generation)
		return;
	memset(feeds, 0, sizeof(feeds));
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute("SELECT shard, origin, incarnation, seq, copying, term FROM payshard.feed", true, 0);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		int			shard = DatumGetInt32(SPI_getbinval(row, desc, 1, &isnull));

		if (shard < 0 || shard >= PS_SHARDS_MAX)
			continue;
		feeds[shard].origin = DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull));
		feeds[shard].incarnation = DatumGetInt64(SPI_getbinval(row, desc, 3, &isnull));
		feeds[shard].seq = DatumGetInt64(SPI_getbinval(row, desc, 4, &isnull));
		feeds[shard].copying = DatumGetBool(SPI_getbinval(row, desc, 5, &isnull));
		feeds[shard].term = DatumGetInt64(SPI_getbinval(row, desc, 6, &isnull));
	}
	PopActiveSnapshot();
	SPI_finish();
	feeds_generation = generation;
}

/* What is to be done with a shard's operations in an entry of that term? */
static Verdict
judge(int shard, uint64 term, uint32 origin, uint64 incarnation, uint64 seq)
{
	PsMapShard	state;
	const Feed *feed = &feeds[shard];
	PsPlacementState placement;

	if (!ps_map_shard(shard, &state))
		return SKIP;
	placement = ps_map_placement(&state, ps_map_self());
	if (placement == PS_PLACEMENT_NONE)
		return SKIP;
	if (placement == PS_PLACEMENT_OUT)
		return NOTE;
	if ((term < feed->term && PS_RULE("J2.term")) ||
		(feed->origin == origin && feed->incarnation == incarnation && seq <= feed->seq))
		return feed->copying ? NOTE : SKIP;
	if (feed->copying)
		return STALL;
	return APPLY;
}

static bool
must_stall(uint32 origin, uint64 incarnation, const PsRecord *record)
{
	for (int i = 0; i < record->n_shards; i++)
		if (judge(ps_record_shard(record, i), ps_record_term(record, i), origin, incarnation,
				  record->seq) == STALL)
			return true;
	return false;
}

/*
 * An unknown table: was it dropped, or is the DDL that makes it still prepared
 * here?  Who writes a table has had it prepared on all nodes before, so when
 * no DDL is under way and it is still unknown, it was dropped.  Not to be waited
 * for: we hold the map.
 */
static bool
is_dropped(uint32 table_id)
{
	Oid			catalog = ps_table_oid(PS_TABLE_DISTRIBUTED);
	bool		known;

	if (!ConditionalLockRelationOid(catalog, ShareLock))
		return false;
	known = OidIsValid(ps_relation_by_id(table_id));
	UnlockRelationOid(catalog, ShareLock);
	return !known;
}

/* The term in which an entry writes a shard; 0 when it does not say. */
static uint64
term_of(const PsRecord *record, int shard)
{
	for (int i = 0; i < record->n_shards; i++)
		if (ps_record_shard(record, i) == shard)
			return ps_record_term(record, i);
	return 0;
}

static void
apply_ops(PsTargets *targets, uint32 origin, uint64 incarnation, const PsRecord *record)
{
	PsReader	reader;
	PsOp		op;
	uint64		seq = record->seq;

	/* an entry of our own of which nobody knows whether it has committed here */
	ps_targets_again(targets, origin == ps_map_self() && ps_runs_end(incarnation) == 0);
	ps_reader_init(&reader, record->ops, record->ops_bytes);
	while (ps_op_next(&reader, &op))
	{
		Verdict		verdict = judge(op.shard, term_of(record, op.shard), origin, incarnation, seq);

		if (verdict == NOTE && PS_RULE("J2"))
			ps_dirty_record_op(ps_map_self(), &op);
		if (verdict != APPLY)
			continue;
		if (!ps_target_change(targets, &op) && !is_dropped(op.table_id) &&
			!ps_target_change(targets, &op))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("distributed table %u is not on this node yet", op.table_id),
					 errdetail("Journal entry " UINT64_FORMAT " of node \"%s\" writes it.",
							   seq, ps_map_node_name(origin))));
	}
	if (reader.bad)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("journal entry " UINT64_FORMAT " of node \"%s\" is damaged",
						seq, ps_map_node_name(origin))));
}

/*
 * On the origin itself (F1): has its own transaction committed?  One that is
 * just ending (W7 in a live server) is waited for.  The id of a transaction of
 * which a crash left nothing in the WAL is given out again: it then says
 * nothing of the entry, which cannot have committed.
 */
static bool
is_committed_here(uint32 origin, uint64 incarnation, const PsRecord *record)
{
	TransactionId xid = XidFromFullTransactionId(FullTransactionIdFromU64(record->xid));

	if (origin != ps_map_self() ||
		(PS_RULE("F1") && record->xid >= ps_runs_end(incarnation)))
		return false;
	if (TransactionIdIsInProgress(xid))
		XactLockTableWait(xid, NULL, NULL, XLTW_None);
	return TransactionIdDidCommit(xid);
}

/*
 * One journal row: its records after `applied` up to `limit`.  *whole: up to
 * where entries are through to their last fragments.
 */
static uint64
apply_batch(PsTargets *targets, uint32 origin, uint64 incarnation, uint64 applied, uint64 limit,
			const PsAborted *aborted, bytea *records, uint64 *whole, bool *stop)
{
	PsReader	reader;
	PsRecord	record;

	ps_reader_init(&reader, VARDATA_ANY(records), VARSIZE_ANY_EXHDR(records));
	while (ps_record_next(&reader, &record))
	{
		if (record.seq <= applied)
			continue;
		if (record.seq > limit ||
			(record.kind == PS_RECORD_ENTRY && must_stall(origin, incarnation, &record)))
		{
			*stop = true;
			/* what lies between was not for this node: seqs ascend */
			return record.seq > limit ? limit : applied;
		}
		if (record.kind == PS_RECORD_ENTRY && !ps_journal_is_aborted(aborted, record.ref_seq) &&
			!is_committed_here(origin, incarnation, &record))
		{
			apply_ops(targets, origin, incarnation, &record);
			ps_dirty_record_ops(record.ops, record.ops_bytes);
		}
		applied = record.seq;
		*whole = record.flags & PS_RECORD_MORE ? record.ref_seq - 1 : applied;
		ps_stat_add(PS_STAT_APPLY_RECORDS, 1);
	}
	if (reader.bad)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the journal of node \"%s\" is damaged after " UINT64_FORMAT,
						ps_map_node_name(origin), applied)));
	return applied;
}

/*
 * Journal rows that are not wholly applied: records, in order; n of them, not
 * detoasted: one at a time is in memory.
 */
static struct varlena **
read_batches(uint32 origin, uint64 incarnation, uint64 applied, int max, int *n)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[4] = {INT4OID, INT8OID, INT8OID, INT4OID};
	Datum		values[4] = {Int32GetDatum(origin), Int64GetDatum(incarnation),
	Int64GetDatum(applied), Int32GetDatum(max)};
	MemoryContext caller = CurrentMemoryContext;
	struct varlena **batches;
	bool		isnull;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (plan == NULL)
	{
		plan = SPI_prepare_cursor("SELECT records FROM payshard.journal WHERE origin = $1 AND incarnation = $2 "
								  "AND last_seq > $3 ORDER BY last_seq LIMIT $4", 4, types,
								  CURSOR_OPT_GENERIC_PLAN);
		SPI_keepplan(plan);
	}
	SPI_execute_plan(plan, values, NULL, true, 0);
	*n = SPI_processed;
	batches = MemoryContextAlloc(caller, sizeof(struct varlena *) * (*n + 1));
	for (int i = 0; i < *n; i++)
	{
		Datum		value = SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull);
		MemoryContext spi = MemoryContextSwitchTo(caller);

		batches[i] = (struct varlena *) DatumGetPointer(datumCopy(value, false, -1));
		MemoryContextSwitchTo(spi);
	}
	PopActiveSnapshot();
	SPI_finish();
	return batches;
}

uint64
ps_apply_journal(uint32 origin, uint64 incarnation, uint64 applied, uint64 limit,
				 int max_batches)
{
	PsAborted	aborted = ps_journal_aborted(origin, incarnation);
	int			n;
	struct varlena **batches = read_batches(origin, incarnation, applied, max_batches, &n);
	PsTargets  *targets;
	bool		stop = false;
	uint64		from = applied;
	uint64		whole = 0;

	read_feeds();
	targets = ps_targets_begin(false);
	for (int i = 0; i < n && !stop; i++)
	{
		bytea	   *records = PG_DETOAST_DATUM(batches[i]);

		applied = apply_batch(targets, origin, incarnation, applied, limit, &aborted,
							  records, &whole, &stop);
		if (records != (bytea *) batches[i])
			pfree(records);
	}
	ps_targets_end(targets);
	if (!stop && n < max_batches)
		applied = Max(applied, limit);	/* the rest was not for this node */
	ps_journal_prune(origin, incarnation, from, applied, whole);
	return applied;
}

/* How far this origin's stream may be applied now. */
static uint64
apply_limit(PsSharedOrigin *origin)
{
	uint64		journaled = pg_atomic_read_u64(&origin->journaled_seq);
	uint64		decided = pg_atomic_read_u64(&origin->decided_seq);
	uint64		hold = pg_atomic_read_u64(&origin->hold_seq);
	uint64		limit = PS_RULE("W5") ? Min(journaled, decided) : journaled;

	return hold != 0 ? Min(limit, hold - 1) : limit;
}

/* Per origin: the partition that its last try has found locked by somebody. */
static Oid	locked[PS_NODES_MAX];

/*
 * Waits for it, for a moment: other origins have their turns.  Before the map is
 * held: whoever adopts a map waits for all who hold it, and all others for him.
 */
static void
await_partition(uint32 id)
{
	if (!OidIsValid(locked[id]))
		return;
	ps_target_await(locked[id]);
	locked[id] = InvalidOid;
}

/*
 * May the first entry of a new incarnation be applied?  With the position it closes the
 * older ones, so that these are settled first (F1): a shard that does not wait for them
 * may be open at the origin already.
 */
static bool
may_begin(uint32 id)
{
	return ps_map_is_settled(id) || !PS_RULE("F1.order");
}

/* One transaction for one origin; true = there may be more to do at once. */
static bool
apply_origin(uint32 id)
{
	PsSharedOrigin *origin = &ps_shared->origins[id];
	uint64		incarnation = pg_atomic_read_u64(&origin->incarnation);
	uint64		limit = apply_limit(origin);
	uint64		position_incarnation;
	uint64		applied;
	uint64		now_applied;

	if (incarnation == 0 || limit <= pg_atomic_read_u64(&origin->applied_seq))
		return false;
	StartTransactionCommand();
	await_partition(id);
	ps_map_lock();
	ps_journal_lock_apply(id);
	PS_FAULT("apply.before");
	applied = ps_position_read(id, &position_incarnation);
	if (position_incarnation > incarnation || !ps_map_is_member(id, incarnation) ||
		(position_incarnation < incarnation && !may_begin(id)))
	{
		CommitTransactionCommand();
		return false;
	}
	if (position_incarnation < incarnation)
		applied = 0;
	now_applied = ps_apply_journal(id, incarnation, applied, limit, PS_APPLY_BATCHES);
	if (now_applied != applied || position_incarnation != incarnation)
		ps_position_write(id, incarnation, now_applied, pg_atomic_read_u64(&origin->lsn));
	PS_FAULT("apply.before_commit");
	CommitTransactionCommand();
	ps_stat_add(PS_STAT_APPLY_TRANSACTIONS, 1);
	PS_FAULT("apply.after_commit");
	if (pg_atomic_read_u64(&origin->incarnation) == incarnation)
	{
		pg_atomic_write_u64(&origin->applied_seq, now_applied);
		pg_memory_barrier();
		/* a hello may have come in between: this says nothing of its stream */
		if (pg_atomic_read_u64(&origin->incarnation) != incarnation)
			pg_atomic_write_u64(&origin->applied_seq, 0);
	}
	return now_applied > applied;
}

/* One origin; an error is logged, and *failed set: it is tried again later. */
static bool
try_origin(uint32 id, bool *failed)
{
	MemoryContext old = CurrentMemoryContext;
	volatile bool more = false;

	PG_TRY();
	{
		more = apply_origin(id);
	}
	PG_CATCH();
	{
		Oid			relid = ps_target_locked();
		bool		is_waiting = geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE;

		MemoryContextSwitchTo(old);
		if (is_waiting && OidIsValid(relid))
			locked[id] = relid;
		if (!is_waiting)
			EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		*failed = !is_waiting;
		more = is_waiting;
		feeds_generation = 0;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
	return more;
}

static void
applier_gone(int code, Datum arg)
{
	if (ps_shared->applier == MyLatch)
		ps_shared->applier = NULL;
}

static void
init_process(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(ps_database, NULL, 0);
	if (ps_shared->applier != NULL)
		proc_exit(0);			/* the keeper was restarted, this process was not */
	before_shmem_exit(applier_gone, 0);
	ps_shared->applier = MyLatch;
	SetConfigOption("synchronous_commit", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("session_replication_role", "replica", PGC_SUSET, PGC_S_OVERRIDE);
	/* the journal is short-lived: its size says nothing about what lies dead in it */
	SetConfigOption("enable_seqscan", "off", PGC_SUSET, PGC_S_OVERRIDE);
	SetConfigOption("enable_bitmapscan", "off", PGC_SUSET, PGC_S_OVERRIDE);
	pgstat_report_activity(STATE_RUNNING, "applying journal entries");
}

/*
 * Lets decided entries gather: one transaction for many costs less than a
 * transaction for each, and nobody reads them here.  Not on the latch, which is
 * set for each batch.
 */
static void
gather(void)
{
	if (ps_apply_delay_ms > 0)
		(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ps_apply_delay_ms,
						 PG_WAIT_EXTENSION);
}

void
payshard_apply_main(Datum arg)
{
	MemoryContext turn;

	init_process();
	turn = AllocSetContextCreate(TopMemoryContext, "payshard apply", ALLOCSET_DEFAULT_SIZES);
	while (!ShutdownRequestPending)
	{
		bool		failed = false;
		bool		more = false;

		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		ps_outage_beat();
		for (uint32 id = 1; id < PS_NODES_MAX; id++)
			more |= try_origin(id, &failed);
		CHECK_FOR_INTERRUPTS();
		if (more && !failed)
			continue;
		gather();
		pgstat_report_stat(false);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 failed ? PS_APPLY_RETRY_MS : PS_APPLY_NAP_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	proc_exit(0);
}
