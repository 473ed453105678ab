/*
 * lease.c
 *		May this node serve its shards now (Q1); may it depose another that may?
 *
 * Why it holds.  Say node A serves at time t by promises of a majority, and a
 * map that deposes A is chosen before t.  The two majorities share a voter v.
 * (a) v is not A: v accepted before it promised: then it would not have
 * promised (`accepted`), unless A knew that map; or while its promise ran: it
 * does not; or after: then A's time, counted from sending, had run out first.
 * (b) v is A: it gave its lease up before it accepted (`barred_epoch`).
 *
 * A voter forgets its promises in a crash: it deposes nobody until the longest
 * that it may have given has passed since the server's start (`bound_until`).
 * payshard.acceptor keeps how long that is; it becomes shorter only when no promise of
 * a longer one can last, or the second of two quick restarts would not know of it.
 *
 * A promise says "as primary of what you are by our common map": a batch is only
 * answered OK when both have the same.  Who becomes primary of more asks anew
 * (`since_epoch`).  Voters change one at a time, and no faster than promises
 * run out where two changes could make disjoint majorities.
 *
 * Locking: lease.lock, a spinlock, for everything but `until`.
 *
 * Source: C. Gray, D. Cheriton, "Leases", SOSP 1989; the clock from sending on,
 * and the margin for clocks that do not run alike, as there.
 */
#include "postgres.h"

#include <time.h>

#include "miscadmin.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/outage.h"
#include "node/settings.h"
#include "port/pg_bitutils.h"
#include "utils/wait_event.h"

#define LEASE (&ps_shared->lease)
#define PS_LEASE_MARGIN 10		/* a tenth: clocks do not run alike */
#define PS_LEASE_PATIENCE_MS 2000	/* at least: without leases, too, a map that was accepted
								 * here is adopted in a moment */

static uint64
timeout_us(void)
{
	return (uint64) ps_lease_timeout_ms * 1000;
}

void
ps_lease_init(PsSharedLease *lease)
{
	memset(lease, 0, sizeof(*lease));
	SpinLockInit(&lease->lock);
	pg_atomic_init_u64(&lease->until, 0);
	lease->started_us = ps_clock_us();
	lease->bound_until = PG_UINT64_MAX; /* until the acceptor is read */
	lease->accepted_epoch = PG_UINT64_MAX;
	lease->accepted_deposes = ~UINT64CONST(0);
}

/*
 * With the lock held: the lease is to last until then.  An answer that comes late
 * makes it last longer in the past, when nobody knew of it: it was lost before.
 */
static void
note_lost(uint64 until)
{
	uint64		was = pg_atomic_read_u64(&LEASE->until);
	uint64		now = ps_clock_us();

	if (until > now)
		LEASE->lost_us = 0;
	else if (LEASE->lost_us == 0)
		LEASE->lost_us = Min(was, now);
}

/*
 * With the lock held: until when may this node serve?  By the promises of so
 * many others that it is, with itself, in a majority.
 */
static void
work_out(void)
{
	int			others = pg_popcount64(LEASE->others);
	int			needed = (others + 1) / 2;
	uint64		until = 0;

	if (pg_atomic_read_u64(&ps_shared->incarnation) == 0 || LEASE->barred_epoch > LEASE->epoch)
		until = 0;
	else if (others < 2 || ps_lease_timeout_ms == 0)
		until = PS_LEASE_FOR_EVER;
	else
		for (int i = 1; i < PS_NODES_MAX; i++)
		{
			int			as_long = 0;

			if (!PS_HAS_NODE(LEASE->others, i) || LEASE->granted_until[i] <= until)
				continue;
			for (int j = 1; j < PS_NODES_MAX; j++)
				as_long += PS_HAS_NODE(LEASE->others, j) &&
					LEASE->granted_until[j] >= LEASE->granted_until[i];
			if (as_long >= needed)
				until = LEASE->granted_until[i];
		}
	note_lost(until);
	pg_atomic_write_u64(&LEASE->until, until);
}

/* With the lock held: as ps_lease_lost_us. */
static uint64
lost_since(void)
{
	uint64		until = pg_atomic_read_u64(&LEASE->until);

	if (until > ps_clock_us())
		return 0;
	/* before it took its incarnation it served nothing: the map tells */
	return Max(LEASE->lost_us != 0 ? LEASE->lost_us : until,
			   pg_atomic_read_u64(&ps_shared->started_us));
}

bool
ps_lease_granted(uint32 voter, uint64 incarnation, uint64 epoch,
				 uint64 sent_us, uint32 promised_ms)
{
	uint64		us = (uint64) promised_ms * 1000;
	uint64		lost;
	bool		is_news;

	SpinLockAcquire(&LEASE->lock);
	lost = lost_since();
	if (promised_ms > 0 && epoch >= LEASE->since_epoch &&
		incarnation == pg_atomic_read_u64(&ps_shared->incarnation))
	{
		LEASE->granted_until[voter] = Max(LEASE->granted_until[voter],
										  sent_us + us - us / PS_LEASE_MARGIN);
		work_out();
	}
	is_news = lost != 0 && ps_lease_held();
	SpinLockRelease(&LEASE->lock);
	/* whatever else gives a lease is a map or an incarnation, and told by these */
	if (is_news)
	{
		ConditionVariableBroadcast(&ps_shared->map_changed);
		ps_outage_node(lost, PS_OUTAGE_NO_LEASE);
	}
	return is_news;
}

uint64
ps_lease_lost_us(void)
{
	uint64		lost;

	SpinLockAcquire(&LEASE->lock);
	lost = lost_since();
	SpinLockRelease(&LEASE->lock);
	return lost;
}

void
ps_lease_reset(void)
{
	SpinLockAcquire(&LEASE->lock);
	memset(LEASE->granted_until, 0, sizeof(LEASE->granted_until));
	work_out();
	SpinLockRelease(&LEASE->lock);
}

/* Is this node primary of a shard that it was not primary of before? */
static bool
has_gained(const PsMap *old, const PsMap *map)
{
	for (int s = 0; s < map->n_shards; s++)
		if (map->shards[s].primary == ps_shared->self && old->shards[s].primary != ps_shared->self)
			return true;
	return false;
}

/* Nodes that have failed or lose a primary from one map to the next. */
static PsNodeSet
deposed(PsMap *map, PsMap *next)
{
	PsNodeSet	set = 0;

	for (int i = 0; i < map->n_nodes; i++)
	{
		PsMapNode  *node = ps_map_node(next, map->nodes[i].id);

		if (map->nodes[i].state == PS_NODE_UP && (node == NULL || node->state == PS_NODE_FAILED))
			set |= PS_NODE_BIT(map->nodes[i].id);
	}
	for (int s = 0; s < map->n_shards && s < next->n_shards; s++)
		if (map->shards[s].primary != next->shards[s].primary)
			set |= PS_NODE_BIT(map->shards[s].primary);
	return set;
}

void
ps_lease_map_adopted(const PsMap *old, const PsMap *map)
{
	PsNodeSet	others = ps_map_voters(map) & ~PS_NODE_BIT(ps_shared->self);
	bool		is_anew = old == NULL || has_gained(old, map) || others != LEASE->others;
	PsNodeSet	lost = old == NULL ? 0 : deposed((PsMap *) old, (PsMap *) map);

	SpinLockAcquire(&LEASE->lock);
	/* What a promise was withheld for has come, or its turn comes again. */
	for (int i = 1; i < PS_NODES_MAX; i++)
		if (PS_HAS_NODE(lost, i))
			LEASE->withheld_until[i] = 0;
	LEASE->epoch = map->epoch;
	if (others != LEASE->others)
		LEASE->voters_since = ps_clock_us();
	LEASE->others = others;
	if (is_anew)
	{
		LEASE->since_epoch = map->epoch;
		memset(LEASE->granted_until, 0, sizeof(LEASE->granted_until));
	}
	work_out();
	SpinLockRelease(&LEASE->lock);
}

void
ps_lease_acceptor_loaded(uint64 accepted_epoch, uint32 promised_ms)
{
	SpinLockAcquire(&LEASE->lock);
	if (LEASE->bound_until == PG_UINT64_MAX)
	{
		LEASE->bound_until = LEASE->started_us + (uint64) promised_ms * 1000;
		/* a map may have been accepted since that was read */
		if (LEASE->accepted_epoch == PG_UINT64_MAX)
			LEASE->accepted_epoch = accepted_epoch;
	}
	SpinLockRelease(&LEASE->lock);
}

uint32
ps_lease_promise(uint32 asker, uint64 incarnation)
{
	uint64		now = ps_clock_us();
	bool		may;

	if (ps_lease_timeout_ms == 0 || ps_map_incarnation() == 0)
		return 0;
	SpinLockAcquire(&LEASE->lock);
	/* who has started again since is another, by the map (M3) */
	may = (now >= LEASE->withheld_until[asker] || incarnation != LEASE->withheld_from[asker]) &&
		(LEASE->accepted_epoch <= LEASE->epoch || !PS_HAS_NODE(LEASE->accepted_deposes, asker));
	if (may)
		LEASE->promised_until[asker] = now + timeout_us();
	SpinLockRelease(&LEASE->lock);
	return may ? ps_lease_timeout_ms : 0;
}

uint32
ps_lease_bound_ms(uint32 node)
{
	uint64		now = ps_clock_us();
	uint64		until;

	SpinLockAcquire(&LEASE->lock);
	until = Max(LEASE->promised_until[node], LEASE->bound_until);
	SpinLockRelease(&LEASE->lock);
	return until <= now ? 0 : Min((until - now) / 1000 + 1, PG_INT32_MAX);
}

bool
ps_lease_is_bound(void)
{
	uint64		now = ps_clock_us();
	bool		bound;

	SpinLockAcquire(&LEASE->lock);
	bound = now < LEASE->bound_until;
	SpinLockRelease(&LEASE->lock);
	return bound;
}

/* With the lock held: it is to be deposed, its promises are to run out. */
static void
withhold(uint32 node, uint64 incarnation, uint64 now)
{
	LEASE->withheld_until[node] = now + 2 * timeout_us();
	LEASE->withheld_from[node] = incarnation;
}

void
ps_lease_withhold(uint32 node, uint64 incarnation)
{
	uint64		now = ps_clock_us();

	SpinLockAcquire(&LEASE->lock);
	withhold(node, incarnation, now);
	SpinLockRelease(&LEASE->lock);
}

/* With the lock held: this node serves nothing before it has adopted `epoch`. */
static void
give_up(uint64 epoch)
{
	LEASE->barred_epoch = Max(LEASE->barred_epoch, epoch);
	work_out();
}

/* With the lock held: is any of the promises to a set of the map's nodes still running? */
static bool
is_bound(const PsMap *map, PsNodeSet set, uint64 now)
{
	bool		bound = set != 0 && now < LEASE->bound_until;

	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];

		if (!PS_HAS_NODE(set, node->id) || now >= LEASE->promised_until[node->id])
			continue;
		withhold(node->id, node->incarnation, now);
		bound = true;
	}
	return bound;
}

bool
ps_lease_may_accept(const PsMap *next, uint32 proposer, bool is_empty)
{
	PsMap	   *map = ps_map_copy();
	PsNodeSet	self = PS_NODE_BIT(ps_map_self());
	PsNodeSet	lose;
	bool		has_new_voters;
	bool		is_blind;
	bool		may = true;
	uint64		now = ps_clock_us();

	if (map == NULL)
		return false;
	lose = deposed(map, (PsMap *) next);
	has_new_voters = ps_map_voters(map) != ps_map_voters(next);
	/* of maps in between, not known here, anybody may be deposed by this one */
	is_blind = has_new_voters || next->epoch > map->epoch + 1;
	SpinLockAcquire(&LEASE->lock);
	if (!is_empty && PS_RULE("Q1"))
		may = !is_bound(map, lose & ~self & ~PS_NODE_BIT(proposer), now) &&
			!(has_new_voters && map->n_nodes > 2 &&
			  now < Max(LEASE->voters_since + timeout_us(), LEASE->bound_until));
	if (may)
	{
		LEASE->accepted_epoch = next->epoch;
		LEASE->accepted_deposes = is_blind ? ~UINT64CONST(0) : lose;
		if (is_blind || (lose & self) != 0)
			give_up(next->epoch);
	}
	SpinLockRelease(&LEASE->lock);
	pfree(map);
	return may;
}

void
ps_lease_before_propose(const PsMap *next)
{
	PsMap	   *map = ps_map_copy();

	if (map && (next->epoch > map->epoch + 1 ||
				PS_HAS_NODE(deposed(map, (PsMap *) next), ps_map_self())))
	{
		SpinLockAcquire(&LEASE->lock);
		give_up(next->epoch);
		SpinLockRelease(&LEASE->lock);
	}
	if (map)
		pfree(map);
}

uint64
ps_lease_granted_ms(uint32 node)
{
	uint64		now = ps_clock_us();
	uint64		granted;

	SpinLockAcquire(&LEASE->lock);
	granted = LEASE->granted_until[node];
	SpinLockRelease(&LEASE->lock);
	return granted > now ? (granted - now) / 1000 : 0;
}

bool
ps_lease_missed_for(int ms)
{
	uint64		until = pg_atomic_read_u64(&LEASE->until);
	uint64		since = Max(until, LEASE->missed_since);
	uint64		now = ps_clock_us();

	if (until > now || ps_map_incarnation() == 0)
	{
		LEASE->missed_since = now;
		return false;
	}
	return now > since + (uint64) ms * 1000;
}

/* The lease has not come, or this node starts anew. */
static void
refuse(bool is_restarted)
{
	if (is_restarted)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("this node took a new incarnation while the statement waited for a lease"),
				 errhint("Retry the transaction.")));
	ereport(ERROR,
			(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
			 errmsg("this node has no lease to serve its shards"),
			 errdetail("It has not heard from a majority of the nodes for payshard.lease_timeout (%d ms): another node may have taken over.", ps_lease_timeout_ms),
			 errhint("Nothing was done. Retry, at another node if it lasts; see payshard.leases.")));
}

bool
ps_lease_require(void)
{
	uint64		epoch = ps_map_epoch();
	uint64		incarnation = ps_map_incarnation();
	uint64		deadline;
	uint64		now;

	if (likely(ps_lease_held()) || !PS_RULE("Q1"))
		return false;
	deadline = ps_clock_us() + Max(timeout_us(), PS_LEASE_PATIENCE_MS * 1000);
	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	while (!ps_lease_held() && (now = ps_clock_us()) < deadline &&
		   incarnation == ps_map_incarnation())
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, (deadline - now) / 1000 + 1,
										   PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	if (incarnation != ps_map_incarnation() || !ps_lease_held())
		refuse(incarnation != ps_map_incarnation());
	return epoch != ps_map_epoch();
}
