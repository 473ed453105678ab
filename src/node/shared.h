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
 *	4. lease.lock, outages.lock: spinlocks, nothing is taken under them.
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
#include "storage/spin.h"

#define PS_HOLD_WORDS (PS_SHARDS_MAX / 64)

/* This node as a sender to one peer.  Index: the peer's node id. */
typedef struct PsSharedPeer
{
	pg_atomic_uint64 heard_at;	/* TimestampTz of the last answer; 0 = never */
	pg_atomic_uint64 waiting_since; /* since when an answer is owed, on the lease's
								 * clock; 0 = none is */
	pg_atomic_uint64 silent_from;	/* last answer before it stopped to; 0 = it
								 * answers, or never did (silence.h) */
	pg_atomic_uint64 silent_us; /* answered_us, then */
	pg_atomic_uint64 former_from;	/* its last silence that is over */
	pg_atomic_uint64 former_to;
	pg_atomic_uint64 answered_us;	/* suspicion.h, this and the next six: its
									 * last answer to us */
	pg_atomic_uint64 asked_us;	/* its last batch that we took */
	pg_atomic_uint64 refused_us;	/* last time that it refused a connection */
	pg_atomic_uint64 up_us;		/* its incarnation is in the map since */
	pg_atomic_uint64 back_us;	/* a copy of it came into an in-sync set last */
	pg_atomic_uint64 fell_us;	/* it failed, or was left out, last */
	pg_atomic_uint32 falls;		/* how often lately */
	Latch	   *sender;			/* queue.lock; NULL = no sender runs */
	bool		wants;			/* queue.lock: the sender sleeps for want of
								 * entries; whoever enqueues one wakes it */
	volatile bool is_urgent;	/* the next batch goes out at once, even without
								 * entries; the sender takes it back */
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
	uint64		uses[PS_HOLD_WORDS];	/* shards it uses (hold.h); its own, with barriers */
} PsSharedWaiter;

/*
 * Shards of which another node is to be primary (hold.h).  Written by the process
 * that switches over, with barriers; others read.
 */
typedef struct PsSharedHold
{
	int			switcher;		/* queue.lock: pid of that process, 0 = none */
	volatile int n_held;		/* 0 = nothing is held */
	volatile bool is_closed;	/* nobody is awaited any more */
	volatile bool held[PS_SHARDS_MAX];
	ConditionVariable left;		/* somebody has left a shard */
} PsSharedHold;

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

/* Leases (Q1): this node's own, and what it has promised as a voter. */
typedef struct PsSharedLease
{
	pg_atomic_uint64 until;		/* this node may serve until then; 0 = may not.
								 * All times here: us on CLOCK_BOOTTIME */
	slock_t		lock;			/* the fields below, but started_us */
	uint64		started_us;		/* of the server */
	PsNodeSet	others;			/* voters of the adopted map, without this node */
	uint64		epoch;			/* of that map */
	uint64		since_epoch;	/* what was asked under an older map does not count */
	uint64		lost_us;		/* since when there is none; 0 = there is one, or was when
								 * `until` was worked out last */
	uint64		barred_epoch;	/* nothing is served before this map is adopted */
	uint64		missed_since;	/* the keeper's: when it saw a lease last */
	uint64		granted_until[PS_NODES_MAX];	/* by each voter, less the margin */
	uint64		promised_until[PS_NODES_MAX];	/* to each node */
	uint64		withheld_until[PS_NODES_MAX];	/* no new promise before, or before it loses, ... */
	uint64		withheld_from[PS_NODES_MAX];	/* ... to this incarnation */
	uint64		bound_until;	/* promises of the server's last run may last */
	uint64		voters_since;	/* when `others` changed */
	uint64		accepted_epoch; /* of the map accepted last, perhaps not chosen */
	PsNodeSet	accepted_deposes;	/* who loses by it */
} PsSharedLease;

/* Payments of one shard at this primary (outage.h); us on the lease's clock. */
typedef struct PsSharedDoor
{
	pg_atomic_uint64 acked_us;	/* the last one was acknowledged; 0 = none yet */
	pg_atomic_uint64 tried_us;	/* the first one after that which waits for long, or
								 * failed, began; 0 = there is none */
	pg_atomic_uint64 failed_us; /* the last such one waited, or failed */
	pg_atomic_uint32 cause;		/* of the first one (PsOutageCause) */
} PsSharedDoor;

#define PS_OUTAGES_MAX 128

/* Outages that are over and not in the log yet; of what shards: outage.h. */
typedef struct PsOutage
{
	TimestampTz since;
	TimestampTz until;			/* 0 = it lasts */
	uint32		cause;			/* PsOutageCause */
	uint64		shards[PS_HOLD_WORDS];
} PsOutage;

typedef struct PsSharedOutages
{
	pg_atomic_uint64 beat_us;	/* one of the background processes moved last; 0 = none yet */
	PsSharedDoor doors[PS_SHARDS_MAX];
	slock_t		lock;			/* the fields below */
	int			n_ended;
	int			n_taken;		/* so many of them the keeper is writing down */
	PsOutage	ended[PS_OUTAGES_MAX];
} PsSharedOutages;

typedef struct PsShared
{
	LWLock		map_lock;
	bool		map_loaded;		/* map is valid */
	PsMap		map;			/* the newest chosen map this node has adopted */
	/* map_lock to write: the full xid by which it was opened here last; 0 = at no time */
	pg_atomic_uint64 opened_by[PS_SHARDS_MAX];
	uint32		self;			/* this node's id; 0 = in no cluster */
	char		self_name[PS_NAME_MAX]; /* with map_lock; "" = not read yet */
	pg_atomic_uint64 epoch;		/* of map, 0 = none */
	pg_atomic_uint64 incarnation;	/* of this start; 0 = not taken yet, serve nothing */
	pg_atomic_uint64 started_at;	/* TimestampTz at which it was taken */
	pg_atomic_uint64 started_us;	/* the same on the clock of lease.h */
	ConditionVariable map_changed;	/* broadcast at each adoption */
	Latch	   *keeper;			/* map_lock; NULL = not running */
	Latch	   *applier;		/* map_lock */
	PsSharedLease lease;
	pg_atomic_uint32 is_judged; /* M3: compared with what peers heard, in this run of the server */
	pg_atomic_uint64 event_id;	/* of this node's event that was written last (event.c); 0 = not
								 * read yet */
	pg_atomic_uint32 run_noted; /* payshard.run_end has this run of the server */
	pg_atomic_uint32 needs_recovery;	/* W7: closed until recovered (F1) */
	pg_atomic_uint64 dirty_keys;	/* hint for views: keys recorded since start */
	pg_atomic_uint64 feed_generation;	/* payshard.feed changed; from 1 */
	pg_atomic_uint64 stats[PS_STAT_COUNT];	/* counters (stats.h) */
	PsSharedPeer peers[PS_NODES_MAX];
	PsSharedOrigin origins[PS_NODES_MAX];
	PsSharedQueue queue;
	PsSharedHold hold;
	PsSharedOutages outages;
	int			n_waiters;
	PsSharedWaiter waiters[FLEXIBLE_ARRAY_MEMBER];
} PsShared;

extern PsShared *ps_shared;

/* Requests and sets it up; called once, from _PG_init. */
extern void ps_shared_install(void);

/* Set the latch of the keeper, of the apply process, of a peer's sender. */
extern void ps_wake_keeper(void);
extern void ps_wake_applier(void);
extern void ps_wake_sender(uint32 node);

/* The sender tells at once what is decided, and asks for a lease. */
extern void ps_hurry_sender(uint32 node);

#endif
