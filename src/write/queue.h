/*
 * queue.h
 *		Entries on their way from this primary to its targets (W2, W3).
 */
#ifndef PS_WRITE_QUEUE_H
#define PS_WRITE_QUEUE_H

#include "postgres.h"
#include "lib/stringinfo.h"
#include "node/clock.h"
#include "node/shared.h"
#include "utils/timestamp.h"

#define PS_TOUCHED_MAX PS_SHARDS_MAX

/* A shard that a transaction wrote, and the term in which it first did. */
typedef struct PsTouched
{
	uint16		shard;
	uint64		term;
} PsTouched;

/* What one transaction puts into the queue. */
typedef struct PsEntry
{
	uint64		incarnation;	/* of its first write */
	PsTouched  *touched;
	int			n_touched;
	StringInfo *fragments;		/* encoded records; seqs are patched in */
	int			n_fragments;
} PsEntry;

typedef enum PsOutcome
{
	PS_OUTCOME_WAIT,			/* some in-sync member has not acked */
	PS_OUTCOME_ACKED,			/* all have */
	PS_OUTCOME_FEW,				/* all have, but they are fewer than
								 * payshard.min_in_sync by now */
	PS_OUTCOME_LOST,			/* not ours to decide any more: another
								 * incarnation, or another primary */
} PsOutcome;

/* The roof's callback at adoption of a map: who is a target now? */
extern void ps_queue_map_adopted(const PsMap *map);

/* A new incarnation: seqs start at 1, nothing waits. */
extern void ps_queue_reset(void);

/*
 * ps_queue_put
 *		Takes the next seqs for an entry and hands it to the senders of all
 *		in-sync and joining members of its shards.  This backend is undecided
 *		from here until ps_queue_resolve.
 *
 * Waits for the gate and for room, at most payshard.gate_timeout,
 * interruptibly.  Errors, with nothing done unless *begun says so: 40001 when
 * a shard's term or our incarnation has ended, 57P03 when the gate stays
 * shut or fewer than payshard.min_in_sync copies would have it.
 */
extern void ps_queue_put(PsEntry *entry, bool *begun);

/*
 * Puts the ABORT of this backend's entry (W7); passes a closed gate.  False
 * when there is no room just now: to be called again.
 */
extern bool ps_queue_put_abort(PsEntry *entry);

/*
 * Has everybody acked whom this backend waits for?  A look without the lock: who
 * is woken asks ps_queue_outcome.
 */
extern bool ps_queue_seems_acked(void);

/* Where does this backend's entry (or ABORT: for_abort) stand? */
extern PsOutcome ps_queue_outcome(PsEntry *entry, bool for_abort);

/* The outcome of this backend's entry is known here: decided may pass it. */
extern void ps_queue_resolve(void);

/*
 * Gate: closed, nobody enqueues.  close waits until whoever writes now is
 * through; drain until nothing is undecided; false = not before the deadline.
 * Every close needs an open.
 */
extern bool ps_queue_close_gate(PsTime deadline);
extern void ps_queue_open_gate(void);
extern bool ps_queue_drain(PsTime deadline);
extern uint64 ps_queue_last_seq(void);

/* Has every transaction up to that seq its outcome? */
extern bool ps_queue_is_decided(uint64 seq);

/* A sender's place in the queue. */
typedef struct PsQueueCursor
{
	uint64		incarnation;
	bool		attached;
	uint64		attach_seq;		/* what hello must tell */
	uint64		offset;			/* next byte to look at */
	uint64		sent_seq;		/* last seq handed out; the next batch's prev */
} PsQueueCursor;

/* What a sender takes at once. */
typedef struct PsQueueTake
{
	uint64		epoch;			/* of the map under which it was taken */
	uint64		decided_seq;
	uint64		last_seq;		/* = cursor's sent_seq when nothing */
	uint32		n_records;
	uint64		end_offset;		/* to be given to ps_queue_acked */
} PsQueueTake;

/* Starts (again) at the oldest byte not acked, after `journaled`. */
extern void ps_queue_cursor_start(uint32 node, PsQueueCursor *cursor);
/* Is the cursor's stream still the one to send? */
extern bool ps_queue_cursor_valid(uint32 node, const PsQueueCursor *cursor);
/* Appends records for `node` to buf, up to about max_bytes. */
extern void ps_queue_take(uint32 node, PsQueueCursor *cursor, StringInfo buf,
						  int max_bytes, PsQueueTake *take);
/*
 * Nothing is in flight to `node`, and up to the cursor nothing else was for it: who
 * waits for it to have everything (J4) need not wait for its next answer.
 */
extern void ps_queue_passed(uint32 node, const PsQueueCursor *cursor);
/* Is nothing left to take?  Then whoever enqueues wakes the sender. */
extern bool ps_queue_is_empty(uint32 node, const PsQueueCursor *cursor);
/*
 * `node` has journaled all up to seq; wakes who waited for that.  Without effect
 * when the cursor is of an incarnation that has ended.
 */
extern void ps_queue_acked(uint32 node, const PsQueueCursor *cursor, uint64 seq, uint64 end_offset,
						   uint64 applied_seq, uint64 lsn);
/*
 * A node says what it has journaled of our stream: false when that is less
 * than it has acked, which means that it has lost data (M3).
 */
extern bool ps_queue_hello(uint32 node, const PsQueueCursor *cursor, uint64 journaled,
						   uint64 applied_seq, uint64 lsn);
/* Every backend amid its commit looks again: the lease is there (Q1). */
extern void ps_queue_wake_all(void);

/* Does anybody wait for an ack? */
extern bool ps_queue_has_waiters(void);

#endif
