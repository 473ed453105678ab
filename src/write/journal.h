/*
 * journal.h
 *		The durable entries of other primaries on this node (W3).
 */
#ifndef PS_WRITE_JOURNAL_H
#define PS_WRITE_JOURNAL_H

#include "postgres.h"
#include "ground/wire.h"

/* Heavyweight locks of the type LOCKTAG_USERLOCK: their space, and a node's number in it. */
#define PS_LOCK_SPACE 0x70617973	/* "pays" */
#define PS_LOCK_JOURNAL 0
#define PS_LOCK_APPLY PS_NODES_MAX
#define PS_LOCK_REJOIN (2 * PS_NODES_MAX)	/* keep/rejoin.c */
#define PS_LOCK_TURN (3 * PS_NODES_MAX)	/* keep/proposer.c */

/*
 * ps_journal_insert
 *		Journals a batch's records in the current transaction, ABORTs among
 *		them.  The caller holds the map and the origin's lock.
 */
extern void ps_journal_insert(uint32 origin, uint64 incarnation, const PsBatch *batch);

/*
 * ps_journal_split
 *		Makes room for a record that a batch has passed over, as it was not for this
 *		node: rows are executed by their last seq, and no row may reach over another.
 */
extern void ps_journal_split(uint32 origin, uint64 incarnation, uint64 seq);

/*
 * ps_journal_lock, ps_journal_lock_apply
 *		Until the end of the transaction: one writer, one applier per origin.
 */
extern void ps_journal_lock(uint32 origin);
extern void ps_journal_lock_apply(uint32 origin);

/* The last seq of a stream that is durable here, applied or not; 0 = none. */
extern uint64 ps_journal_last_seq(uint32 origin, uint64 incarnation);

/* How far a stream is applied here; its incarnation is told. */
extern uint64 ps_position_read(uint32 origin, uint64 *incarnation);
extern void ps_position_write(uint32 origin, uint64 incarnation, uint64 applied_seq, uint64 lsn);

/*
 * Aborted entries of a stream, by their first seqs: sorted, palloc'd.
 */
typedef struct PsAborted
{
	uint64	   *seqs;
	int			n;
} PsAborted;

extern PsAborted ps_journal_aborted(uint32 origin, uint64 incarnation);
extern bool ps_journal_is_aborted(const PsAborted *aborted, uint64 first_seq);

/*
 * Deletes what is applied after `from` (what was pruned before ends there) up
 * to seq, and the ABORTs of entries that begin up to whole_seq: of an entry that
 * is not through to its last fragment the ABORT is still needed.
 */
extern void ps_journal_prune(uint32 origin, uint64 incarnation, uint64 from, uint64 seq,
							 uint64 whole_seq);

/* What a commit makes durable is told to others only then. */
extern void ps_journal_feeds_changed(void);
extern void ps_journal_pending(uint32 origin, uint64 incarnation, uint64 last_seq);
extern void ps_journal_at_commit(void);
extern void ps_journal_at_abort(void);

#endif
