/*
 * queue.c
 *		Which entries wait for which target, and who waits for them?
 *
 * A ring of bytes in shared memory, filled by committing backends in seq order
 * and read by one sender per target.  An item leaves the ring when every
 * attached target has acked it (a target is attached while it is in-sync or
 * joining for a shard of ours).  What is decided follows from who is
 * undecided: all below the first entry of the first undecided backend.
 *
 * Locking: queue.lock for everything but the bytes of items between a
 * sender's cursor and head: these are immutable and not reclaimed before that
 * sender's ack.  The map is installed under queue.lock held exclusively, so
 * what is read of it under queue.lock is one map (shared.h).
 *
 * The gate (J3, W8): who closes it is sure that nobody enqueues until he opens
 * it; who waits for it has taken no seq and may be cancelled.  A backend amid
 * a many-fragment entry (`writer`) is inside the gate.
 */
#include "postgres.h"

#include "compat.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/settings.h"
#include "port/pg_bitutils.h"
#include "port/pg_bswap.h"
#include "utils/wait_event.h"
#include "ground/wire.h"
#include "write/queue.h"

#define QUEUE (&ps_shared->queue)
#define RECORD_SEQ_OFFSET 6
#define RECORD_FIRST_OFFSET 22
#define PS_WAKE_MAX 256			/* woken without the lock by one ack */
#define ITEM_BYTES(record_bytes) (sizeof(PsQueueItem) + MAXALIGN(record_bytes))

static PsSharedWaiter *
my_waiter(void)
{
	return &ps_shared->waiters[ps_my_procno()];
}

/* Copies into and out of the ring at an offset, around its end. */
static void
ring_write(uint64 offset, const void *data, size_t bytes)
{
	size_t		at = offset % QUEUE->size;
	size_t		first = Min(bytes, QUEUE->size - at);

	memcpy(QUEUE->data + at, data, first);
	memcpy(QUEUE->data, (const char *) data + first, bytes - first);
}

static void
ring_read(uint64 offset, void *data, size_t bytes)
{
	size_t		at = offset % QUEUE->size;
	size_t		first = Min(bytes, QUEUE->size - at);

	memcpy(data, QUEUE->data + at, first);
	memcpy((char *) data + first, QUEUE->data, bytes - first);
}

/* Call with the lock held: moves tail to the oldest byte still needed. */
static void
reclaim(void)
{
	uint64		tail = QUEUE->head;

	for (int i = 1; i < PS_NODES_MAX; i++)
		if (ps_shared->peers[i].attached)
			tail = Min(tail, ps_shared->peers[i].acked_offset);
	if (tail > QUEUE->tail)
		QUEUE->tail = tail;
}

/* Members of the touched shards: in-sync, or in-sync and joining. */
static PsNodeSet
members(const PsEntry *entry, bool with_joining)
{
	PsNodeSet	set = 0;

	for (int i = 0; i < entry->n_touched; i++)
	{
		const PsMapShard *shard = &ps_shared->map.shards[entry->touched[i].shard];

		set |= shard->in_sync;
		if (with_joining)
			set |= shard->joining;
	}
	return set & ~PS_NODE_BIT(ps_shared->self);
}

/* Is this node, in this incarnation, still primary in the same terms? */
static bool
still_primary(const PsEntry *entry)
{
	if (pg_atomic_read_u64(&ps_shared->incarnation) != entry->incarnation)
		return false;
	for (int i = 0; i < entry->n_touched; i++)
	{
		const PsMapShard *shard = &ps_shared->map.shards[entry->touched[i].shard];

		if (shard->primary != ps_shared->self || shard->term != entry->touched[i].term ||
			shard->waits != 0)
			return false;
	}
	return true;
}

static bool
has_copies(const PsEntry *entry)
{
	for (int i = 0; i < entry->n_touched; i++)
		if (pg_popcount64(ps_shared->map.shards[entry->touched[i].shard].in_sync) < ps_min_in_sync)
			return false;
	return true;
}

/* Called without the lock. */
static void
too_few_copies(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("too few copies in sync to commit"),
			 errdetail("payshard.min_in_sync is %d, and a shard of this transaction has fewer placements in sync.", ps_min_in_sync),
			 errhint("Nothing was done. Take the missing node back (see payshard.placements), or lower payshard.min_in_sync.")));
}

/* Called without the lock. */
static void
gate_timed_out(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("could not commit within payshard.gate_timeout (%d ms)", ps_gate_timeout_ms),
			 errdetail("Commits on this node wait for a change of the map or for a full queue."),
			 errhint("Nothing was done; retry the transaction. See payshard.replication.")));
}

/* Waits for queue.changed; called without the lock, prepared to sleep. */
static void
wait_changed(PsTime deadline)
{
	if (ps_now() > deadline)
	{
		ConditionVariableCancelSleep();
		gate_timed_out();
	}
	(void) ConditionVariableTimedSleep(&QUEUE->changed, 100, PG_WAIT_EXTENSION);
}

/* Takes the lock when this backend may enqueue; checks W2 under it. */
static void
enter(const PsEntry *entry)
{
	PsTime		deadline = ps_deadline(ps_gate_timeout_ms);
	bool		is_primary;

	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	if (QUEUE->gate_closed > 0 || QUEUE->writer >= 0)
	{
		ConditionVariablePrepareToSleep(&QUEUE->changed);
		while (still_primary(entry) && (QUEUE->gate_closed > 0 || QUEUE->writer >= 0))
		{
			LWLockRelease(&QUEUE->lock);
			wait_changed(deadline);
			LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
		}
		ConditionVariableCancelSleep();
	}
	is_primary = still_primary(entry);
	if (is_primary && has_copies(entry) && !my_waiter()->linked)
		return;
	/* linked: the outcome of this backend's last commit is unknown; recovery
	 * with a new incarnation is under way */
	is_primary &= !my_waiter()->linked;
	LWLockRelease(&QUEUE->lock);
	if (is_primary)
		too_few_copies();
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the payshard map changed under this transaction"),
			 errdetail("A shard it wrote has another primary, or this node has a new incarnation."),
			 errhint("Nothing was done; retry the transaction.")));
}

/* Call with the lock held: one fragment into the ring, when there is room. */
static bool
append(StringInfo record, uint64 seq, uint64 first_seq, PsNodeSet targets)
{
	PsQueueItem item = {record->len, 0, seq, targets};
	uint64		be;
	size_t		bytes = ITEM_BYTES(record->len);

	if (targets == 0)
		return true;
	if (QUEUE->size - (QUEUE->head - QUEUE->tail) < bytes)
		reclaim();
	if (QUEUE->size - (QUEUE->head - QUEUE->tail) < bytes)
		return false;
	be = pg_hton64(seq);
	memcpy(record->data + RECORD_SEQ_OFFSET, &be, sizeof(be));
	be = pg_hton64(first_seq);
	memcpy(record->data + RECORD_FIRST_OFFSET, &be, sizeof(be));
	ring_write(QUEUE->head, &item, sizeof(item));
	ring_write(QUEUE->head + sizeof(item), record->data, record->len);
	QUEUE->head += bytes;
	return true;
}

/*
 * Call with the lock held: which of the targets' senders sleep?  Who has a
 * batch in flight, and may send no other, finds the entry when that has landed:
 * so entries gather, and nobody is woken in vain.
 */
static PsNodeSet
sleeping(PsNodeSet targets)
{
	PsNodeSet	set = 0;

	for (uint32 i = 1; targets >> i; i++)
		if (PS_HAS_NODE(targets, i) && ps_shared->peers[i].wants)
		{
			ps_shared->peers[i].wants = false;
			set |= PS_NODE_BIT(i);
		}
	return set;
}

static void
wake(PsNodeSet senders)
{
	for (uint32 i = 1; senders >> i; i++)
		if (PS_HAS_NODE(senders, i))
			ps_wake_sender(i);
}

/*
 * Called without the lock: somebody wants this backend to stop amid its entry.
 * An ERROR also when it is to end: who catches it takes the entry back (W7), which
 * the FATAL error that follows would not.
 */
static void
stop_amid_entry(void)
{
	bool		is_cancel = !ProcDiePending;

	if (!QueryCancelPending && !ProcDiePending)
		return;
	ConditionVariableCancelSleep();
	if (is_cancel)
		QueryCancelPending = false;
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("canceling commit due to user request"),
			 errdetail("The transaction is aborted on all nodes.")));
}

/*
 * The rest of a many-fragment entry: others stay out while room is awaited.
 * Interrupts are held; the ERRORs let them in again.
 * A slow target is waited for as long as it takes anything in (W9).
 */
static void
append_rest(PsEntry *entry, int done, PsNodeSet targets)
{
	PsSharedWaiter *waiter = my_waiter();
	PsTime		deadline = ps_deadline(ps_gate_timeout_ms);
	PsNodeSet	asleep;

	QUEUE->writer = ps_my_procno();
	HOLD_INTERRUPTS();
	ConditionVariablePrepareToSleep(&QUEUE->changed);
	while (done < entry->n_fragments)
	{
		if (append(entry->fragments[done], waiter->first_seq + done, waiter->first_seq, targets))
		{
			done++;
			deadline = ps_deadline(ps_gate_timeout_ms);
			continue;
		}
		asleep = sleeping(targets);
		LWLockRelease(&QUEUE->lock);
		wake(asleep);
		stop_amid_entry();
		wait_changed(deadline);
		LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
		if (!still_primary(entry))
			break;				/* ps_queue_outcome will say LOST */
	}
	/* a new incarnation may have another writer by now */
	if (QUEUE->writer == ps_my_procno())
		QUEUE->writer = -1;
	ConditionVariableCancelSleep();
	RESUME_INTERRUPTS();
}

void
ps_queue_put(PsEntry *entry, bool *begun)
{
	PsSharedWaiter *waiter = my_waiter();
	PsNodeSet	targets;
	PsNodeSet	asleep;
	int			done = 0;

	*begun = false;
	for (int i = 0; i < entry->n_fragments; i++)
		if (ITEM_BYTES(entry->fragments[i]->len) > QUEUE->size / 2)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("a row is too large for payshard.queue_size"),
					 errdetail("Its change has %d bytes; payshard.queue_size is %d kB.",
							   entry->fragments[i]->len, ps_queue_size_kb),
					 errhint("Raise payshard.queue_size to more than twice the size of the largest row.")));
	PS_FAULT("commit.before_enqueue");
	enter(entry);
	targets = members(entry, true);
	waiter->first_seq = QUEUE->last_seq + 1;
	waiter->last_seq = QUEUE->last_seq + entry->n_fragments;
	waiter->await = members(entry, false);
	waiter->latch = MyLatch;
	QUEUE->last_seq = waiter->last_seq;
	dlist_push_tail(&QUEUE->undecided, &waiter->link);
	waiter->linked = true;
	*begun = true;
	while (done < entry->n_fragments &&
		   append(entry->fragments[done], waiter->first_seq + done, waiter->first_seq, targets))
		done++;
	if (done < entry->n_fragments)
		append_rest(entry, done, targets);
	asleep = sleeping(targets);
	LWLockRelease(&QUEUE->lock);
	wake(asleep);
	if (entry->n_fragments > 1)
		ConditionVariableBroadcast(&QUEUE->changed);
}

bool
ps_queue_put_abort(PsEntry *entry)
{
	PsSharedWaiter *waiter = my_waiter();
	StringInfoData record;
	PsNodeSet	targets;
	PsNodeSet	asleep;
	bool		put;
	uint16		shards[1] = {entry->touched[0].shard};
	uint64		terms[1] = {entry->touched[0].term};

	initStringInfo(&record);
	ps_record_end(&record, ps_record_begin(&record, PS_RECORD_ABORT, 0, 2, 0, 1, shards, terms, 1));
	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	if (QUEUE->writer == ps_my_procno())
		QUEUE->writer = -1;
	if ((!waiter->linked || !still_primary(entry)) && PS_RULE("W7.own"))
	{
		/* its seq may be that of another entry by now; the outcome will tell */
		LWLockRelease(&QUEUE->lock);
		pfree(record.data);
		return true;
	}
	targets = members(entry, true);
	/* not amid another's fragments: seqs ascend in the ring */
	put = QUEUE->writer < 0 &&
		append(&record, QUEUE->last_seq + 1, waiter->first_seq, targets);
	if (put)
	{
		waiter->last_seq = ++QUEUE->last_seq;
		waiter->await = targets;
	}
	asleep = sleeping(targets);
	LWLockRelease(&QUEUE->lock);
	pfree(record.data);
	wake(asleep);
	ConditionVariableBroadcast(&QUEUE->changed);
	return put;
}

bool
ps_queue_seems_acked(void)
{
	return *(volatile PsNodeSet *) &my_waiter()->await == 0;
}

PsOutcome
ps_queue_outcome(PsEntry *entry, bool for_abort)
{
	PsSharedWaiter *waiter = my_waiter();
	PsOutcome	outcome;

	/* shared: of what is written below, all is this backend's own */
	LWLockAcquire(&QUEUE->lock, LW_SHARED);
	if (!waiter->linked || !still_primary(entry))
		outcome = PS_OUTCOME_LOST;
	else
	{
		PsNodeSet	await = members(entry, for_abort);

		for (uint32 i = 1; await >> i; i++)
			if (PS_HAS_NODE(await, i) && ps_shared->peers[i].acked_seq >= waiter->last_seq)
				await &= ~PS_NODE_BIT(i);
		waiter->await = await;
		outcome = await != 0 ? PS_OUTCOME_WAIT :
			for_abort || has_copies(entry) ? PS_OUTCOME_ACKED : PS_OUTCOME_FEW;
	}
	LWLockRelease(&QUEUE->lock);
	return outcome;
}

void
ps_queue_resolve(void)
{
	PsSharedWaiter *waiter = my_waiter();
	bool		someone_drains;

	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	if (waiter->linked)
		dlist_delete(&waiter->link);
	waiter->linked = false;
	waiter->await = 0;
	someone_drains = QUEUE->gate_closed > 0 && dlist_is_empty(&QUEUE->undecided);
	LWLockRelease(&QUEUE->lock);
	if (someone_drains)
		ConditionVariableBroadcast(&QUEUE->changed);
}

void
ps_queue_map_adopted(const PsMap *map)
{
	PsNodeSet	targets = 0;
	dlist_iter	iter;

	for (int s = 0; s < map->n_shards; s++)
		if (map->shards[s].primary == ps_shared->self)
			targets |= map->shards[s].in_sync | map->shards[s].joining;
	targets &= ~PS_NODE_BIT(ps_shared->self);
	for (uint32 i = 1; i < PS_NODES_MAX; i++)
	{
		PsSharedPeer *peer = &ps_shared->peers[i];

		if (PS_HAS_NODE(targets, i) == peer->attached)
			continue;
		peer->attached = !peer->attached;
		peer->has_lost = false;
		peer->attach_seq = QUEUE->last_seq;
		peer->acked_seq = QUEUE->last_seq;
		peer->acked_offset = QUEUE->head;
		if (peer->sender)
			SetLatch(peer->sender);
	}
	/* who has become primary of more asks for a lease */
	for (uint32 i = 1; i < PS_NODES_MAX && !ps_lease_held(); i++)
		if (ps_shared->peers[i].sender)
			ps_hurry_sender(i);
	reclaim();
	dlist_foreach(iter, &QUEUE->undecided)
		SetLatch(dlist_container(PsSharedWaiter, link, iter.cur)->latch);
}

void
ps_queue_reset(void)
{
	dlist_mutable_iter iter;

	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	dlist_foreach_modify(iter, &QUEUE->undecided)
	{
		PsSharedWaiter *waiter = dlist_container(PsSharedWaiter, link, iter.cur);

		dlist_delete(&waiter->link);
		waiter->linked = false;
		SetLatch(waiter->latch);
	}
	QUEUE->head = QUEUE->tail = QUEUE->last_seq = 0;
	QUEUE->writer = -1;
	for (uint32 i = 1; i < PS_NODES_MAX; i++)
	{
		/*
		 * Of the old incarnation's seqs nothing may be told under the new one:
		 * a node that believed them would take our next entries for journaled.
		 */
		ps_shared->peers[i].attached = false;
		ps_shared->peers[i].attach_seq = 0;
		ps_shared->peers[i].acked_seq = 0;
		ps_shared->peers[i].acked_offset = 0;
		ps_shared->peers[i].applied_seq = 0;
	}
	ps_queue_map_adopted(&ps_shared->map);
	LWLockRelease(&QUEUE->lock);
	ConditionVariableBroadcast(&QUEUE->changed);
}

bool
ps_queue_close_gate(PsTime deadline)
{
	bool		through = false;

	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	QUEUE->gate_closed++;
	LWLockRelease(&QUEUE->lock);
	ConditionVariablePrepareToSleep(&QUEUE->changed);
	for (;;)
	{
		LWLockAcquire(&QUEUE->lock, LW_SHARED);
		through = QUEUE->writer < 0;
		LWLockRelease(&QUEUE->lock);
		if (through || ps_now() > deadline)
			break;
		(void) ConditionVariableTimedSleep(&QUEUE->changed, 100, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return through;
}

void
ps_queue_open_gate(void)
{
	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	QUEUE->gate_closed--;
	LWLockRelease(&QUEUE->lock);
	ConditionVariableBroadcast(&QUEUE->changed);
}

bool
ps_queue_is_decided(uint64 seq)
{
	bool		decided;

	LWLockAcquire(&QUEUE->lock, LW_SHARED);
	decided = dlist_is_empty(&QUEUE->undecided) ||
		dlist_container(PsSharedWaiter, link, dlist_head_node(&QUEUE->undecided))->first_seq > seq;
	LWLockRelease(&QUEUE->lock);
	return decided;
}

bool
ps_queue_drain(PsTime deadline)
{
	bool		empty = false;

	ConditionVariablePrepareToSleep(&QUEUE->changed);
	for (;;)
	{
		LWLockAcquire(&QUEUE->lock, LW_SHARED);
		empty = dlist_is_empty(&QUEUE->undecided);
		LWLockRelease(&QUEUE->lock);
		if (empty || ps_now() > deadline)
			break;
		(void) ConditionVariableTimedSleep(&QUEUE->changed, 100, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return empty;
}

uint64
ps_queue_last_seq(void)
{
	uint64		seq;

	LWLockAcquire(&QUEUE->lock, LW_SHARED);
	seq = QUEUE->last_seq;
	LWLockRelease(&QUEUE->lock);
	return seq;
}

void
ps_queue_wake_all(void)
{
	dlist_iter	iter;

	LWLockAcquire(&QUEUE->lock, LW_SHARED);
	dlist_foreach(iter, &QUEUE->undecided)
		SetLatch(dlist_container(PsSharedWaiter, link, iter.cur)->latch);
	LWLockRelease(&QUEUE->lock);
}

bool
ps_queue_has_waiters(void)
{
	bool		has;

	LWLockAcquire(&QUEUE->lock, LW_SHARED);
	has = !dlist_is_empty(&QUEUE->undecided);
	LWLockRelease(&QUEUE->lock);
	return has;
}

void
ps_queue_cursor_start(uint32 node, PsQueueCursor *cursor)
{
	PsSharedPeer *peer = &ps_shared->peers[node];

	LWLockAcquire(&QUEUE->lock, LW_SHARED);
	cursor->incarnation = pg_atomic_read_u64(&ps_shared->incarnation);
	cursor->attached = peer->attached;
	cursor->attach_seq = peer->attach_seq;
	cursor->offset = peer->acked_offset;
	cursor->sent_seq = peer->attach_seq;
	LWLockRelease(&QUEUE->lock);
}

bool
ps_queue_cursor_valid(uint32 node, const PsQueueCursor *cursor)
{
	PsSharedPeer *peer = &ps_shared->peers[node];
	bool		valid;

	LWLockAcquire(&QUEUE->lock, LW_SHARED);
	valid = cursor->incarnation == pg_atomic_read_u64(&ps_shared->incarnation) &&
		cursor->attached == peer->attached && cursor->attach_seq == peer->attach_seq;
	LWLockRelease(&QUEUE->lock);
	return valid;
}

void
ps_queue_take(uint32 node, PsQueueCursor *cursor, StringInfo buf, int max_bytes,
			  PsQueueTake *take)
{
	PsSharedPeer *peer = &ps_shared->peers[node];
	PsQueueCursor before = *cursor;
	uint64		head;
	int			start = buf->len;

	LWLockAcquire(&QUEUE->lock, LW_SHARED);
	take->epoch = pg_atomic_read_u64(&ps_shared->epoch);
	take->decided_seq = dlist_is_empty(&QUEUE->undecided) ? QUEUE->last_seq :
		dlist_container(PsSharedWaiter, link, dlist_head_node(&QUEUE->undecided))->first_seq - 1;
	head = peer->attached ? QUEUE->head : cursor->offset;
	LWLockRelease(&QUEUE->lock);

	take->n_records = 0;
	while (cursor->offset < head && buf->len - start < max_bytes)
	{
		PsQueueItem item;

		ring_read(cursor->offset, &item, sizeof(item));
		if (PS_HAS_NODE(item.targets, node) && item.seq > cursor->sent_seq)
		{
			enlargeStringInfo(buf, item.bytes);
			ring_read(cursor->offset + sizeof(item), buf->data + buf->len, item.bytes);
			buf->len += item.bytes;
			cursor->sent_seq = item.seq;
			take->n_records++;
		}
		cursor->offset += ITEM_BYTES(item.bytes);
	}
	/* not a target any more: what was read may have been overwritten meanwhile */
	if (take->n_records > 0 && !ps_queue_cursor_valid(node, cursor))
	{
		buf->len = start;
		take->n_records = 0;
		*cursor = before;
	}
	take->last_seq = cursor->sent_seq;
	take->end_offset = cursor->offset;
}

/* Call with the lock held: who waited for this ack only?  Up to `max` latches. */
static int
find_acked(uint32 node, uint64 seq, Latch **latches, int max)
{
	dlist_iter	iter;
	int			n = 0;

	dlist_foreach(iter, &QUEUE->undecided)
	{
		PsSharedWaiter *waiter = dlist_container(PsSharedWaiter, link, iter.cur);

		if (waiter->first_seq > seq)
			break;
		if (waiter->last_seq > seq || !PS_HAS_NODE(waiter->await, node))
			continue;
		waiter->await &= ~PS_NODE_BIT(node);
		if (waiter->await != 0)
			continue;
		if (n < max)
			latches[n++] = waiter->latch;
		else
			SetLatch(waiter->latch);
	}
	return n;
}

bool
ps_queue_is_empty(uint32 node, const PsQueueCursor *cursor)
{
	PsSharedPeer *peer = &ps_shared->peers[node];
	bool		empty;

	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	empty = !peer->attached || cursor->offset >= QUEUE->head;
	peer->wants = empty;
	LWLockRelease(&QUEUE->lock);
	return empty;
}

void
ps_queue_passed(uint32 node, const PsQueueCursor *cursor)
{
	PsSharedPeer *peer = &ps_shared->peers[node];

	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	if (peer->attached && cursor->incarnation == pg_atomic_read_u64(&ps_shared->incarnation) &&
		cursor->attach_seq == peer->attach_seq && peer->acked_seq >= cursor->sent_seq)
	{
		peer->acked_offset = Max(peer->acked_offset, cursor->offset);
		reclaim();
	}
	LWLockRelease(&QUEUE->lock);
}

bool
ps_queue_hello(uint32 node, const PsQueueCursor *cursor, uint64 journaled,
			   uint64 applied_seq, uint64 lsn)
{
	PsSharedPeer *peer = &ps_shared->peers[node];
	bool		has_lost;

	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	has_lost = peer->attached && peer->attach_seq == cursor->attach_seq &&
		journaled < peer->acked_seq;
	if (has_lost)
		peer->has_lost = true;
	LWLockRelease(&QUEUE->lock);
	if (has_lost)
		return false;
	ps_queue_acked(node, cursor, journaled, 0, applied_seq, lsn);
	return true;
}

void
ps_queue_acked(uint32 node, const PsQueueCursor *cursor, uint64 seq, uint64 end_offset,
			   uint64 applied_seq, uint64 lsn)
{
	PsSharedPeer *peer = &ps_shared->peers[node];
	Latch	   *latches[PS_WAKE_MAX];
	int			n;
	bool		freed;

	LWLockAcquire(&QUEUE->lock, LW_EXCLUSIVE);
	if (cursor->incarnation != pg_atomic_read_u64(&ps_shared->incarnation))
	{
		/* a late answer: the seqs of this incarnation are others */
		LWLockRelease(&QUEUE->lock);
		return;
	}
	peer->acked_seq = Max(peer->acked_seq, seq);
	peer->acked_offset = Max(peer->acked_offset, end_offset);
	peer->applied_seq = applied_seq;
	peer->lsn = Max(peer->lsn, lsn);
	n = find_acked(node, seq, latches, lengthof(latches));
	reclaim();
	freed = QUEUE->writer >= 0;
	LWLockRelease(&QUEUE->lock);
	/* not under the lock: they want it next */
	for (int i = 0; i < n; i++)
		SetLatch(latches[i]);
	if (freed)
		ConditionVariableBroadcast(&QUEUE->changed);
}
