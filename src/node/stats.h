/*
 * stats.h
 *		Cumulative counters of this node since its server started or since
 *		payshard.stat_reset(): atomics in shared memory, one each.
 */
#ifndef PS_NODE_STATS_H
#define PS_NODE_STATS_H

#include "postgres.h"
#include "node/clock.h"
#include "utils/timestamp.h"

/* In the order of the columns of payshard.stat_commits. */
typedef enum PsStat
{
	PS_STAT_COMMITS,			/* local commits that other nodes journaled first */
	PS_STAT_ABORTS,				/* aborted everywhere after enqueueing (W7) */
	PS_STAT_UNKNOWN,			/* 08007 told to a client */
	PS_STAT_WAIT_US,			/* commits' wait for other nodes, all together */
	PS_STAT_WAIT_US_MAX,		/* the longest */
	PS_STAT_BATCHES,			/* with records, sent */
	PS_STAT_RECORDS,			/* sent, once per target */
	PS_STAT_BYTES,				/* of batches sent */
	PS_STAT_APPLY_TRANSACTIONS,
	PS_STAT_APPLY_RECORDS,
	PS_STAT_RESET_AT,			/* TimestampTz */
	PS_STAT_COUNT
} PsStat;

extern void ps_stat_add(PsStat stat, uint64 n);
extern uint64 ps_stat_read(PsStat stat);

/* One commit has waited for other nodes since `start`. */
extern void ps_stat_waited(PsTime start);
/* One batch of n records has been sent; nothing is counted when n is 0. */
extern void ps_stat_sent(uint64 n, uint64 bytes);
/* All counters start again. */
extern void ps_stat_reset(void);

#endif
