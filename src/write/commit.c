/*
 * commit.c
 *		In which order does a commit happen here and elsewhere (W2 to W7)?
 *
 * PRE_COMMIT, all row locks held:
 *	(a) enqueue the write-set for all members of its shards; errors until here
 *		abort as usual, nothing was done;
 *	(b) wait until every in-sync member has journaled it, and this node has its
 *		lease (Q1); hold the map, and look whether this is still so;
 *	(c) record dirty keys for placements that are out in the map (J1);
 *	(d) from here any error is a PANIC, and the restart rolls forward (F1).
 * COMMIT: the entry is resolved, "decided" may pass it.
 *
 * Between (a) and (c) the transaction can still be aborted (W7): on cancel, on
 * payshard.commit_timeout, or when too few copies are left.  An abort is only
 * told to the client when every member that may hold the entry has journaled
 * an ABORT.  Where that cannot be had, or the shards were taken from this node,
 * the outcome is unknown (08007); in the first case the node serves nothing
 * more until it has recovered with a new incarnation (F1).
 *
 * Order of (b) and (c): dirty keys by the map at (a) would miss a member that
 * has left since.  (c) before the commit record: a crash between the two would
 * commit without them.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "link/session.h"
#include "miscadmin.h"
#include "node/clock.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/outage.h"
#include "node/settings.h"
#include "node/stats.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#include "write/capture.h"
#include "write/commit.h"
#include "write/dirty.h"
#include "write/hold.h"
#include "write/journal.h"
#include "write/queue.h"

/* Where this backend's commit stands. */
static enum
{
	COMMIT_IDLE,
	COMMIT_UNDECIDED,			/* enqueued */
	COMMIT_MUST,				/* after (d): critical section */
} stage = COMMIT_IDLE;

static uint64 begun_us = 0;		/* its begin, on the lease's clock; 0 = it has not begun */

/*
 * The write-set as records for the queue, in TopTransactionContext; the queue
 * puts in their seqs.
 */
static PsEntry *
encode_entry(const PsWriteSet *set)
{
	PsEntry    *entry = palloc0(sizeof(PsEntry));
	uint16	   *shards = palloc(sizeof(uint16) * set->n_touched);
	uint64	   *terms = palloc(sizeof(uint64) * set->n_touched);
	uint64		xid = U64FromFullTransactionId(GetTopFullTransactionId());

	for (int i = 0; i < set->n_touched; i++)
	{
		shards[i] = set->touched[i].shard;
		terms[i] = set->touched[i].term;
	}
	entry->incarnation = set->incarnation;
	entry->touched = set->touched;
	entry->n_touched = set->n_touched;
	entry->fragments = palloc(sizeof(StringInfo) * set->n_chunks);
	entry->n_fragments = set->n_chunks;
	for (int i = 0; i < set->n_chunks; i++)
	{
		uint8		flags = i < set->n_chunks - 1 ? PS_RECORD_MORE : 0;
		StringInfo	record = makeStringInfo();
		int			at = ps_record_begin(record, PS_RECORD_ENTRY, flags, 1, xid, 1,
										 shards, terms, set->n_touched);

		appendBinaryStringInfo(record, set->chunks[i]->data, set->chunks[i]->len);
		ps_record_end(record, at);
		entry->fragments[i] = record;
	}
	return entry;
}

/* Sleeps until something happens; ms as a limit. */
static void
nap(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

static void
outcome_unknown(const char *detail)
{
	ps_stat_add(PS_STAT_UNKNOWN, 1);
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("it is not known whether the transaction has committed"),
			 errdetail("%s", detail),
			 errhint("Look whether the payment is there before you send it again.")));
}

/* W7: takes the entry back everywhere, or says that it could not. */
static void
abort_everywhere(PsEntry *entry)
{
	PsTime		deadline = ps_deadline(ps_abort_timeout_ms);
	PsOutcome	outcome = PS_OUTCOME_WAIT;
	bool		put;

	if (!PS_RULE("W7"))
	{
		ps_queue_resolve();
		stage = COMMIT_IDLE;
		return;
	}
	PS_FAULT("commit.before_abort");
	put = ps_queue_put_abort(entry);
	while ((!put || (outcome = ps_queue_outcome(entry, true)) == PS_OUTCOME_WAIT) &&
		   ps_now() < deadline)
	{
		nap(put ? 100 : 5);
		if (!put)
			put = ps_queue_put_abort(entry);
	}
	PS_FAULT("commit.after_abort");
	if (outcome == PS_OUTCOME_ACKED)
	{
		ps_queue_resolve();
		ps_stat_add(PS_STAT_ABORTS, 1);
		stage = COMMIT_IDLE;
		return;
	}
	if (outcome == PS_OUTCOME_WAIT)
	{
		/* the gate closes with the incarnation; the keeper recovers (F1) */
		pg_atomic_write_u32(&ps_shared->needs_recovery, 1);
		ps_map_set_incarnation(0);
		ps_wake_keeper();
		outcome_unknown("Its abort could not be confirmed by the other nodes in time.");
	}
	outcome_unknown("Its shards have got another primary, or this node a new incarnation, before the abort was confirmed.");
}

/* The same amid an error: should that fail, too, the outcome is what must be told. */
static void
take_back(PsEntry *entry)
{
	PG_TRY();
	{
		abort_everywhere(entry);
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN)
			PG_RE_THROW();
		MemoryContextSwitchTo(TopTransactionContext);
		FlushErrorState();
		outcome_unknown("An error came while its abort was told to the other nodes.");
	}
	PG_END_TRY();
}

/*
 * Is it so that the transaction can only commit?  Then the map is held.  A look
 * that costs nothing comes first: most that are woken find their acks there.
 */
static PsOutcome
look(PsEntry *entry)
{
	PsOutcome	outcome;

	if (!ps_queue_seems_acked() && (outcome = ps_queue_outcome(entry, false)) != PS_OUTCOME_ACKED)
		return outcome;
	PS_FAULT("commit.after_acks");
	ps_map_lock();
	outcome = ps_queue_outcome(entry, false);
	if (outcome == PS_OUTCOME_ACKED && (ps_lease_held() || !PS_RULE("Q1")))
		return PS_OUTCOME_ACKED;
	ps_map_unlock();
	return outcome == PS_OUTCOME_ACKED ? PS_OUTCOME_WAIT : outcome;
}

/* A commit that waits for long, or fails, is an outage of its shards (S3). */
static void
note_tried(PsOutageCause cause)
{
	const PsWriteSet *set = ps_write_set();

	for (int i = 0; i < set->n_touched; i++)
		ps_outage_tried(set->touched[i].shard, begun_us, cause);
}

/* (b): returns when every in-sync member has it, with the map held. */
static void
await_members(PsEntry *entry)
{
	PsTime		deadline = ps_deadline(ps_commit_timeout_ms);
	PsTime		start = ps_now();
	PsTime		end_of_grace = 0;

	for (;;)
	{
		PsOutcome	outcome = look(entry);
		PsTime		now;

		if (outcome == PS_OUTCOME_ACKED || !PS_RULE("W4"))
		{
			ps_stat_waited(start);
			return;
		}
		if (outcome == PS_OUTCOME_LOST)
			outcome_unknown("Its shards have got another primary, or this node a new incarnation, while it committed.");
		if (outcome == PS_OUTCOME_FEW)
		{
			abort_everywhere(entry);
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("too few copies in sync to commit"),
					 errdetail("A copy was lost while the transaction committed; payshard.min_in_sync is %d.", ps_min_in_sync),
					 errhint("The transaction is aborted. Take the missing node back (see payshard.placements).")));
		}
		now = ps_now();
		if (QueryCancelPending && !ProcDiePending)
		{
			QueryCancelPending = false;
			abort_everywhere(entry);
			ereport(ERROR,
					(errcode(ERRCODE_QUERY_CANCELED),
					 errmsg("canceling commit due to user request"),
					 errdetail("The transaction is aborted on all nodes.")));
		}
		if (ProcDiePending && end_of_grace == 0)
			end_of_grace = ps_deadline(ps_shutdown_timeout_ms);
		if (now > deadline || (end_of_grace != 0 && now > end_of_grace))
		{
			abort_everywhere(entry);
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not commit in time"),
					 errdetail("The other copies of its shards did not answer, nor did a majority take them out. The transaction is aborted on all nodes."),
					 errhint("Retry when payshard.nodes shows a majority.")));
		}
		if (ps_clock_us() > begun_us + PS_OUTAGE_MS * 1000)
			note_tried(PS_OUTAGE_HELD);
		nap(ps_keepalive_ms);
	}
}

/*
 * (b) with the answer to an error that nobody expects there (out of memory):
 * the others have the entry, so that it must be taken back before it is told.
 */
static void
await_or_take_back(PsEntry *entry)
{
	PG_TRY();
	{
		PS_FAULT("commit.after_enqueue");
		await_members(entry);
	}
	PG_CATCH();
	{
		if (stage == COMMIT_UNDECIDED && geterrcode() != ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN)
			take_back(entry);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* (a): enqueue; an error amid it takes the entry back. */
static void
enqueue(PsEntry *entry)
{
	bool		begun = false;

	PG_TRY();
	{
		ps_queue_put(entry, &begun);
	}
	PG_CATCH();
	{
		if (begun)
		{
			HOLD_INTERRUPTS();
			stage = COMMIT_UNDECIDED;
			take_back(entry);
			RESUME_INTERRUPTS();
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	stage = COMMIT_UNDECIDED;
}

/* (c) and (d) */
static void
reach_point_of_no_return(PsEntry *entry, const PsWriteSet *set)
{
	PG_TRY();
	{
		PS_FAULT("commit.before_dirty");
		for (int i = 0; i < set->n_chunks; i++)
			ps_dirty_record_ops((const uint8 *) set->chunks[i]->data, set->chunks[i]->len);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(TopTransactionContext);
		error = CopyErrorData();
		FlushErrorState();
		ereport(PANIC,
				(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
				 errmsg("could not finish a commit that other nodes have: %s", error->message)));
	}
	PG_END_TRY();
	ForceSyncCommit();
	stage = COMMIT_MUST;
	START_CRIT_SECTION();
	PS_FAULT("commit.before_local");
}

static void
pre_commit(void)
{
	const PsWriteSet *set = ps_write_set();
	PsEntry    *entry;
	MemoryContext old;

	ps_session_pre_commit();
	if (set->n_touched == 0 || set->n_chunks == 0)
		return;
	begun_us = ps_clock_us();
	(void) ps_lease_require();	/* W2 looks at the terms again */
	old = MemoryContextSwitchTo(TopTransactionContext);
	entry = encode_entry(set);
	enqueue(entry);
	HOLD_INTERRUPTS();
	await_or_take_back(entry);
	reach_point_of_no_return(entry, set);
	RESUME_INTERRUPTS();
	MemoryContextSwitchTo(old);
}

static void
at_commit(void)
{
	const PsWriteSet *set = ps_write_set();

	if (stage == COMMIT_MUST)
	{
		PS_FAULT("commit.after_local");
		ps_queue_resolve();
		ps_stat_add(PS_STAT_COMMITS, 1);
		for (int i = 0; i < set->n_touched; i++)
			ps_outage_acked(set->touched[i].shard, begun_us);
		END_CRIT_SECTION();
	}
	stage = COMMIT_IDLE;
	begun_us = 0;
	ps_map_at_commit();
	ps_journal_at_commit();
}

static void
at_abort(void)
{
	/*
	 * COMMIT_UNDECIDED here means that the outcome is unknown: the waiter
	 * stays linked, so that "decided" does not pass its entry, until the
	 * queue starts a new incarnation.  That it must: whoever else ended this
	 * process or its shards, the entry is settled with the old one (F1).
	 */
	if (stage == COMMIT_UNDECIDED && ps_map_incarnation() == ps_write_set()->incarnation)
	{
		pg_atomic_write_u32(&ps_shared->needs_recovery, 1);
		ps_map_set_incarnation(0);
		ps_wake_keeper();
	}
	stage = COMMIT_IDLE;
	begun_us = 0;
	ps_map_at_abort();
	ps_journal_at_abort();
}

static void
on_xact(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			pre_commit();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (ps_write_set()->n_touched > 0 || ps_session_writes_at() != 0)
				ereport(ERROR,
						(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
						 errmsg("cannot PREPARE a transaction that has written distributed tables"),
						 errhint("Use COMMIT.")));
			break;
		case XACT_EVENT_COMMIT:
			at_commit();
			ps_session_at_end(true);
			ps_capture_at_end();
			ps_hold_at_end();
			break;
		case XACT_EVENT_ABORT:
			at_abort();
			ps_session_at_end(false);
			ps_capture_at_end();
			ps_hold_at_end();
			break;
		case XACT_EVENT_PREPARE:
			ps_session_at_end(true);
			ps_capture_at_end();
			ps_hold_at_end();
			break;
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			/* what the functions of a worker have read */
			ps_hold_at_end();
			break;
		default:
			break;
	}
}

static void
on_subxact(SubXactEvent event, SubTransactionId id, SubTransactionId parent, void *arg)
{
	ps_capture_subxact(event);
	ps_session_subxact(event, id);
}

static emit_log_hook_type previous_on_error = NULL;

/* When the statement began, as ps_clock_us; not long ago, or nobody has tried in between. */
static uint64
statement_us(void)
{
	PsTime		begun = ps_moment_of(GetCurrentStatementStartTimestamp());

	return (uint64) Max(begun, ps_now() - PS_OUTAGE_IDLE_MS * INT64CONST(1000));
}

/* Does such an error say that this node cannot take payments just now? */
static bool
is_outage(int code)
{
	int			class = ERRCODE_TO_CATEGORY(code);

	return class == ERRCODE_INSUFFICIENT_RESOURCES || class == ERRCODE_SYSTEM_ERROR ||
		code == ERRCODE_CANNOT_CONNECT_NOW || code == ERRCODE_DATA_CORRUPTED ||
		code == ERRCODE_INDEX_CORRUPTED;
}

/*
 * A statement or a commit fails, and with it the payment: where an error is logged is the
 * only place that sees all of them but those that a function has caught.
 */
static void
on_error(ErrorData *error)
{
	if (error->elevel >= ERROR && is_outage(error->sqlerrcode))
		for (int s = ps_hold_next_kept(-1); s >= 0; s = ps_hold_next_kept(s))
			ps_outage_tried(s, begun_us != 0 ? begun_us : statement_us(), PS_OUTAGE_FAILING);
	/* the server dies amid a commit: it will be rolled forward, or not */
	if (error->elevel >= PANIC && stage != COMMIT_IDLE)
		error->sqlerrcode = ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN;
	if (previous_on_error)
		previous_on_error(error);
}

void
ps_commit_install(void)
{
	previous_on_error = emit_log_hook;
	emit_log_hook = on_error;
	RegisterXactCallback(on_xact, NULL);
	RegisterSubXactCallback(on_subxact, NULL);
}
