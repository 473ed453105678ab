/*
 * outage.c
 *		Since when, and until when, could payments of a shard not be
 *		acknowledged by this node?
 *
 * Times are moments (node/clock.h), which never jump, and become times of day when an
 * outage is over.
 *
 * Locking: doors are atomics.  Of two payments that are acknowledged at the same
 * moment both may report the same outage, which then is one; a payment that has failed and
 * one that is acknowledged at the same moment may leave a try behind, which the next
 * one that is acknowledged takes away, or time does.
 */
#include "postgres.h"

#include "node/clock.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/outage.h"
#include "node/silence.h"
#include "utils/timestamp.h"

#define OUTAGES (&ps_shared->outages)
#define PS_FROZEN_MS 1000
#define PS_SAME_MS 250			/* ends this near each other are one */
#define WORD(shard) ((shard) / 64)
#define BIT(shard) (UINT64CONST(1) << ((shard) % 64))

static const char *const names[] = {
	[PS_OUTAGE_HELD] = "held",
	[PS_OUTAGE_FAILING] = "failing",
	[PS_OUTAGE_NO_LEASE] = "no lease",
	[PS_OUTAGE_FROZEN] = "frozen",
};

void
ps_outage_init(PsSharedOutages *outages)
{
	pg_atomic_init_u64(&outages->beat_us, 0);
	for (int s = 0; s < PS_SHARDS_MAX; s++)
	{
		pg_atomic_init_u64(&outages->doors[s].acked_us, 0);
		pg_atomic_init_u64(&outages->doors[s].tried_us, 0);
		pg_atomic_init_u64(&outages->doors[s].failed_us, 0);
		pg_atomic_init_u32(&outages->doors[s].cause, 0);
	}
	SpinLockInit(&outages->lock);
	outages->n_ended = outages->n_taken = 0;
}

const char *
ps_outage_name(PsOutageCause cause)
{
	return names[cause];
}

static bool
is_near(TimestampTz a, TimestampTz b)
{
	return Abs(a - b) <= PS_SAME_MS * INT64CONST(1000);
}

/*
 * With the lock held: shards that stood still together are one outage, unless the
 * keeper has taken that already.  When there is no room the newest one takes it in:
 * too much is said then, not too little.
 */
static void
merge_or_add(const PsOutage *outage)
{
	PsOutage   *into = NULL;

	for (int i = OUTAGES->n_ended - 1; i >= OUTAGES->n_taken && into == NULL; i--)
		if (OUTAGES->ended[i].cause == outage->cause &&
			is_near(OUTAGES->ended[i].since, outage->since) &&
			is_near(OUTAGES->ended[i].until, outage->until))
			into = &OUTAGES->ended[i];
	if (into == NULL && OUTAGES->n_ended < PS_OUTAGES_MAX)
	{
		OUTAGES->ended[OUTAGES->n_ended++] = *outage;
		return;
	}
	if (into == NULL)
		into = &OUTAGES->ended[PS_OUTAGES_MAX - 1];
	into->since = Min(into->since, outage->since);
	into->until = Max(into->until, outage->until);
	for (int w = 0; w < PS_HOLD_WORDS; w++)
		into->shards[w] |= outage->shards[w];
}

static void
add(const PsOutage *outage)
{
	if (!PS_RULE("S3.outages"))
		return;
	SpinLockAcquire(&OUTAGES->lock);
	merge_or_add(outage);
	SpinLockRelease(&OUTAGES->lock);
	ps_wake_keeper();
}

/* Of one shard; nothing when it was too short. */
static void
add_shard(int shard, uint64 from_us, uint64 until_us, PsOutageCause cause)
{
	PsOutage	outage = {0};

	if (until_us < from_us || until_us - from_us < PS_OUTAGE_MS * 1000)
		return;
	outage.since = ps_time_of_day(from_us);
	outage.until = ps_time_of_day(until_us);
	outage.cause = cause;
	outage.shards[WORD(shard)] = BIT(shard);
	add(&outage);
}

void
ps_outage_acked(int shard, uint64 begun_us)
{
	PsSharedDoor *door = &OUTAGES->doors[shard];
	uint64		now = ps_clock_us();
	uint64		acked = pg_atomic_read_u64(&door->acked_us);
	uint64		tried = pg_atomic_read_u64(&door->tried_us);
	uint64		failed = pg_atomic_read_u64(&door->failed_us);
	PsOutageCause cause = PS_OUTAGE_HELD;

	pg_atomic_write_u64(&door->acked_us, now);
	if (tried != 0)
	{
		cause = pg_atomic_read_u32(&door->cause);
		pg_atomic_write_u64(&door->tried_us, 0);
		if (begun_us > failed + PS_OUTAGE_IDLE_MS * 1000)
			add_shard(shard, Max(tried, acked), failed, cause);
		else
			begun_us = Min(begun_us, tried);
	}
	add_shard(shard, Max(begun_us, acked), now, cause);
}

void
ps_outage_tried(int shard, uint64 begun_us, PsOutageCause cause)
{
	PsSharedDoor *door = &OUTAGES->doors[shard];
	uint64		tried = pg_atomic_read_u64(&door->tried_us);
	uint64		failed = pg_atomic_read_u64(&door->failed_us);

	/* nobody had tried for long: that one is over */
	if (tried != 0 && begun_us > failed + PS_OUTAGE_IDLE_MS * 1000)
	{
		add_shard(shard, Max(tried, pg_atomic_read_u64(&door->acked_us)), failed,
				  pg_atomic_read_u32(&door->cause));
		tried = 0;
	}
	pg_atomic_write_u64(&door->failed_us, ps_clock_us());
	if (tried != 0)
		return;
	pg_atomic_write_u32(&door->cause, cause);
	pg_atomic_write_u64(&door->tried_us, Max(begun_us, pg_atomic_read_u64(&door->acked_us)));
}

/* Shards that this node is primary of, with a copy in sync on another (0: all); false = none. */
static bool
own_shards(uint64 *shards, uint32 copy)
{
	bool		has = false;

	LWLockAcquire(&ps_shared->map_lock, LW_SHARED);
	for (int s = 0; ps_shared->map_loaded && s < ps_shared->map.n_shards; s++)
		if (ps_shared->map.shards[s].primary == ps_shared->self &&
			(copy == 0 || PS_HAS_NODE(ps_shared->map.shards[s].in_sync, copy)))
		{
			shards[WORD(s)] |= BIT(s);
			has = true;
		}
	LWLockRelease(&ps_shared->map_lock);
	return has;
}

void
ps_outage_node(uint64 from_us, PsOutageCause cause)
{
	PsOutage	outage = {0};

	if (ps_map_incarnation() == 0 || ps_clock_us() < from_us + PS_OUTAGE_MS * 1000 ||
		!own_shards(outage.shards, 0))
		return;
	outage.since = ps_time_of_day(from_us);
	outage.until = GetCurrentTimestamp();
	outage.cause = cause;
	add(&outage);
}

void
ps_outage_copy(uint32 node, TimestampTz since, TimestampTz until)
{
	PsOutage	outage = {0};

	outage.since = since;
	outage.until = until;
	outage.cause = PS_OUTAGE_HELD;
	if (ps_map_incarnation() != 0 && until >= since + PS_OUTAGE_MS * INT64CONST(1000) &&
		own_shards(outage.shards, node))
		add(&outage);
}

void
ps_outage_beat(void)
{
	uint64		now = ps_clock_us();
	uint64		before = pg_atomic_exchange_u64(&OUTAGES->beat_us, now);

	if (before != 0 && now > before + PS_FROZEN_MS * 1000)
		ps_outage_node(before, PS_OUTAGE_FROZEN);
}

int
ps_outage_ended(PsOutage *outages, int max)
{
	int			n;

	SpinLockAcquire(&OUTAGES->lock);
	/* the last one is never taken: it can take others in */
	n = Min(OUTAGES->n_ended, Min(max, PS_OUTAGES_MAX - 1));
	OUTAGES->n_taken = n;
	memcpy(outages, OUTAGES->ended, sizeof(PsOutage) * n);
	SpinLockRelease(&OUTAGES->lock);
	return n;
}

void
ps_outage_forget(int n)
{
	SpinLockAcquire(&OUTAGES->lock);
	OUTAGES->n_ended -= n;
	OUTAGES->n_taken = 0;
	memmove(OUTAGES->ended, OUTAGES->ended + n, sizeof(PsOutage) * OUTAGES->n_ended);
	SpinLockRelease(&OUTAGES->lock);
}

/* One shard into a list of those that stand still. */
static int
gather(PsOutage *outages, int n, int max, int shard, TimestampTz since, PsOutageCause cause)
{
	int			i = 0;

	while (i < n && !(outages[i].cause == cause && is_near(outages[i].since, since)))
		i++;
	if (i == max)
		return n;				/* the next look finds it */
	if (i == n)
	{
		memset(&outages[n], 0, sizeof(PsOutage));
		outages[n].since = since;
		outages[n++].cause = cause;
	}
	outages[i].since = Min(outages[i].since, since);
	outages[i].shards[WORD(shard)] |= BIT(shard);
	return n;
}

/* Shards whose copy on some node is in sync, and silent. */
static int
gather_silent(PsOutage *outages, int n, int max)
{
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
	{
		TimestampTz since = ps_silence_now(id);
		uint64		shards[PS_HOLD_WORDS] = {0};

		if (since == 0 || ps_silence_ms(id) < PS_OUTAGE_MS || !own_shards(shards, id))
			continue;
		for (int s = 0; s < PS_SHARDS_MAX; s++)
			if (shards[WORD(s)] & BIT(s))
				n = gather(outages, n, max, s, since, PS_OUTAGE_HELD);
	}
	return n;
}

int
ps_outage_lasting(PsOutage *outages, int max)
{
	uint64		now = ps_clock_us();
	uint64		lost = ps_lease_lost_us();
	int			n = 0;

	for (int s = 0; s < PS_SHARDS_MAX; s++)
	{
		PsSharedDoor *door = &OUTAGES->doors[s];
		uint64		tried = pg_atomic_read_u64(&door->tried_us);
		uint64		failed = pg_atomic_read_u64(&door->failed_us);
		PsOutageCause cause = pg_atomic_read_u32(&door->cause);
		uint64		from = Max(tried, pg_atomic_read_u64(&door->acked_us));

		if (tried == 0)
			continue;
		if (now > failed + PS_OUTAGE_IDLE_MS * 1000)
		{
			if (pg_atomic_compare_exchange_u64(&door->tried_us, &tried, 0))
				add_shard(s, from, failed, cause);
		}
		else if (failed > from + PS_OUTAGE_MS * 1000)
			n = gather(outages, n, max, s, ps_time_of_day(from), cause);
	}
	if (ps_map_incarnation() != 0)
		n = gather_silent(outages, n, max);
	if (n < max && lost != 0 && ps_map_incarnation() != 0 && now > lost + PS_OUTAGE_MS * 1000)
	{
		memset(&outages[n], 0, sizeof(PsOutage));
		if (own_shards(outages[n].shards, 0))
		{
			outages[n].since = ps_time_of_day(lost);
			outages[n++].cause = PS_OUTAGE_NO_LEASE;
		}
	}
	return PS_RULE("S3.outages") ? n : 0;
}
