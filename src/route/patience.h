/*
 * patience.h
 *		How long does a statement wait for a failover?
 *
 * A shard that is being recovered, or whose primary is suspected to be gone,
 * will be served again soon: a statement that has done nothing for it yet waits
 * for that, at most payshard.failover_wait.
 */
#ifndef PS_ROUTE_PATIENCE_H
#define PS_ROUTE_PATIENCE_H

#include "postgres.h"
#include "node/clock.h"
#include "nodes/pg_list.h"
#include "utils/timestamp.h"

/*
 * Until when may this statement wait now: what it has waited in all its parts
 * counts, which ps_patience_spend is told.
 */
extern PsTime ps_patience_end(void);
extern void ps_patience_spend(PsTime since);

/*
 * ps_await_shard
 *		Waits until the shard is open and this node does not suspect its primary,
 *		or the time is up.  To be called before the statement's snapshot is
 *		taken.  Then no switchover takes the shard away before ExecutorStart has
 *		looked at it (hold.h).  ERROR 40001 where it waited and the transaction has one already
 *		(REPEATABLE READ): what was settled meanwhile would be missed.
 */
extern void ps_await_shard(int shard);

/*
 * ps_await_move
 *		Waits until `node`, which cannot be reached, is primary of none of the
 *		shards and they are open, or a moment has passed: then the caller may
 *		try again to reach it.  Returns whether they have moved.
 */
extern bool ps_await_move(List *shards, uint32 node);

#endif
