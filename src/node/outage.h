/*
 * outage.h
 *		Since when, and until when, could payments of a shard not be
 *		acknowledged by this node, its primary, though the map says nothing of it
 *		(S3)?
 *
 * The one place to which whoever notices such a thing brings it:
 *
 * held			commits waited for the other copies (write/commit.c), or would have
 *				had to: the copy was silent (node/silence.c)
 * failing		payments failed, as the disk was full or a file could not be read
 *				(write/commit.c)
 * no lease		this node had none (node/lease.c)
 * frozen		none of its processes moved: it was stopped, or its machine was
 *				(its background processes)
 *
 * What waited or failed is of the shards that were tried: from the first payment that
 * had to wait or failed, but not before the last one that was acknowledged, until
 * the next one that is.  When nobody tries for PS_OUTAGE_IDLE_MS, it was over with
 * the last try: nobody knows more.  The rest is of all shards that this node
 * is primary of, or that have a copy there.  What is shorter than PS_OUTAGE_MS is none.
 *
 * Kept in shared memory, written down by the keeper (keep/record.c) as soon as it
 * can: a full disk delays that, and does not falsify it.
 */
#ifndef PS_NODE_OUTAGE_H
#define PS_NODE_OUTAGE_H

#include "postgres.h"
#include "node/shared.h"

#define PS_OUTAGE_MS 500
#define PS_OUTAGE_IDLE_MS 5000

typedef enum PsOutageCause
{
	PS_OUTAGE_HELD,
	PS_OUTAGE_FAILING,
	PS_OUTAGE_NO_LEASE,
	PS_OUTAGE_FROZEN,
	PS_OUTAGE_CAUSES			/* how many there are */
} PsOutageCause;

extern void ps_outage_init(PsSharedOutages *outages);

/* As incidents and events have it. */
extern const char *ps_outage_name(PsOutageCause cause);

/* A payment in this shard, whose commit began at begun_us, is acknowledged.  Never throws. */
extern void ps_outage_acked(int shard, uint64 begun_us);

/* One that began at begun_us waits for long, or has failed. */
extern void ps_outage_tried(int shard, uint64 begun_us, PsOutageCause cause);

/* This node could not serve from from_us until now. */
extern void ps_outage_node(uint64 from_us, PsOutageCause cause);

/*
 * Node `node`, which has copies of shards of this one, did not answer in between: where
 * one is still in sync nothing could be acknowledged without it.
 */
extern void ps_outage_copy(uint32 node, TimestampTz since, TimestampTz until);

/* A background process moves: to be called at each turn of its loop, at least twice a second. */
extern void ps_outage_beat(void);

/*
 * For the keeper.  ended: copies what is over, up to max; to be forgotten when it is
 * durable.  lasting: what lasts for PS_OUTAGE_MS or more, shards with the same begin
 * and cause together.
 */
extern int	ps_outage_ended(PsOutage *outages, int max);
extern void ps_outage_forget(int n);
extern int	ps_outage_lasting(PsOutage *outages, int max);

#endif
