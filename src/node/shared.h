/*
 * shared.h
 *		The one struct in shared memory, its locks and their order.
 *
 * Locks, in the order in which they may be taken together:
 *	1. the relation lock on payshard.chosen_map (map.c): heavyweight, held to
 *	   the end of a transaction; shared by who journals, applies or commits,
 *	   exclusive by who adopts a map.
 *	2. queue.lock: sequence numbers, the queue's bytes, who waits for what.
 *	3. map_lock: the chosen map.
 * Atomics are read without a lock.
 */
#ifndef PS_NODE_SHARED_H
#define PS_NODE_SHARED_H

#include "postgres.h"
#include "ground/state.h"
#include "lib/ilist.h"
#include "node/stats.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

/* This node as a sender to one peer.  Index: the peer's node id. */
typedef struct PsSharedPeer
{
	pg_atomic_uint64 heard_at;	/* TimestampTz of the last answer; 0 = never */
	pg_atomic_uint64 waiting_since; /* TimestampTz since when an answer is owed;
								 * 0 = none is */
	pg_atomic_uint64 silent_from;	/* last answer before it stopped to; 0 = it
								 * answers, or never did (silence.h) */
	pg_atomic_uint64 former_from;	/* its last silence that is over */
	pg_atomic_uint64 former_to;
	Latch	   *sender;			/* queue.lock; NULL = no sender runs */
	bool		has_lost;		/* queue.lock: it came back without what it had
								 * acked; the keeper takes it out */
	bool		attached;		/* queue.lock: target of some shard of ours */
	uint64		attach_seq;		/* queue.lock: nothing up to here is for it */
	uint64		acked_seq;		/* queue.lock: journaled there, of this incarnation */
	uint64		acked_offset;	/* queue.lock: bytes up to here are not needed */
	uint64		applied_seq;	/* queue.lock: as it told us last */
	uint64		lsn;			/* queue.lock: highest WAL position heard */
} PsSharedPeer;

/* This node as a target of one origin.  Index: the origin's node id. */
typedef struct PsSharedOrigin
{
	pg_atomic_uint64 incarnation;	/* the stream's; 0 = none yet */
	pg_atomic_uint64 journaled_seq; /* durable here */
	pg_atomic_uint64 decided_seq;	/* the origin's word (W5) */
	pg_atomic_uint64 applied_seq;	/* applied here */
	pg_atomic_uint64 hold_seq;		/* apply only below this; 0 = no limit (Q3) */
	pg_atomic_uint64 lsn;			/* highest WAL position heard from it (M3) */
} PsSharedOrigin;

/* One backend between enqueueing and outcome.  Index: procno. */
typedef struct PsSharedWaiter
{
	dlist_node	link;			/* in queue.undecided, ascending by seq */
	bool		linked;
	uint64		first_seq;		/* of its entry; fragments are consecutive */
	uint64		last_seq;		/* what must be acked */
	PsNodeSet	await;			/* whose ack it waits for; 0 = it does not */
	Latch	   *latch;
} PsSharedWaiter;

/*
 * Entries on their way: a ring of bytes.  Offsets count bytes ever written;
 * modulo size they are places in the ring.  An item is a PsQueueItem, the
 * record as wire.h has it, padding to 8.
 */
typedef struct PsQueueItem
{
	uint32		bytes;			/* of the record */
	uint32		unused;
	uint64		seq;
	PsNodeSet	targets;
} PsQueueItem;

typedef struct PsSharedQueue
{
	LWLock		lock;
	uint64		size;			/* bytes in the ring */
	uint64		head;			/* offset of the next item */
	uint64		tail;			/* offset of the oldest item still needed */
	uint64		last_seq;		/* last given out in this incarnation */
	int			gate_closed;	/* how many keep it shut (J3, W8, F1) */
	int			writer;			/* procno amid a many-fragment entry, or -1 */
	dlist_head	undecided;		/* PsSharedWaiter, ascending by seq */
	ConditionVariable changed;	/* gate, writer, tail or undecided changed */
	char	   *data;			/* the ring */
} PsSharedQueue;

typedef struct PsShared
{
	LWLock		map_lock;
	bool		map_loaded;		/* map is valid */
	PsMap		map;			/* the newest chosen map this node has adopted */
	uint32		self;			/* this node's id; 0 = in no cluster */
	pg_atomic_uint64 epoch;		/* of map, 0 = none */
	pg_atomic_uint64 incarnation;	/* of this start; 0 = not taken yet, serve nothing */
	pg_atomic_uint64 started_at;	/* TimestampTz at which it was taken */
	ConditionVariable map_changed;	/* broadcast at each adoption */
	Latch	   *keeper;			/* map_lock; NULL = not running */
	Latch	   *applier;		/* map_lock */
	pg_atomic_uint32 run_noted; /* payshard.run_end has this run of the server */
	pg_atomic_uint32 needs_recovery;	/* W7: closed until recovered (F1) */
	pg_atomic_uint64 dirty_keys;	/* hint for views: keys recorded since start */
	pg_atomic_uint64 feed_generation;	/* payshard.feed changed; from 1 */
	pg_atomic_uint64 stats[PS_STAT_COUNT];	/* counters (stats.h) */
	PsSharedPeer peers[PS_NODES_MAX];
	PsSharedOrigin origins[PS_NODES_MAX];
	PsSharedQueue queue;
	PsSharedWaiter waiters[FLEXIBLE_ARRAY_MEMBER];
} PsShared;

extern PsShared *ps_shared;

/* Requests and sets it up; called once, from _PG_init. */
extern void ps_shared_install(void);

/* Set the latch of the keeper, of the apply process, of a peer's sender. */
extern void ps_wake_keeper(void);
extern void ps_wake_applier(void);
extern void ps_wake_sender(uint32 node);

#endif
