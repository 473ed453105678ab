/*
 * stats.c
 *		How often, how much and how long since the last reset?
 *
 * Everyone on the upper floors counts; only watch/ reads.  Counters are not
 * one snapshot: each is right, and two of them may be of different moments.
 */
#include "postgres.h"

#include "node/shared.h"
#include "node/stats.h"

void
ps_stat_add(PsStat stat, uint64 n)
{
	pg_atomic_fetch_add_u64(&ps_shared->stats[stat], n);
}

uint64
ps_stat_read(PsStat stat)
{
	return pg_atomic_read_u64(&ps_shared->stats[stat]);
}

void
ps_stat_waited(PsTime start)
{
	uint64		us = ps_now() - start;
	uint64		longest = ps_stat_read(PS_STAT_WAIT_US_MAX);

	ps_stat_add(PS_STAT_WAIT_US, us);
	while (us > longest &&
		   !pg_atomic_compare_exchange_u64(&ps_shared->stats[PS_STAT_WAIT_US_MAX], &longest, us))
		;
}

void
ps_stat_sent(uint64 n, uint64 bytes)
{
	if (n == 0)
		return;
	ps_stat_add(PS_STAT_BATCHES, 1);
	ps_stat_add(PS_STAT_RECORDS, n);
	ps_stat_add(PS_STAT_BYTES, bytes);
}

void
ps_stat_reset(void)
{
	for (int i = 0; i < PS_STAT_COUNT; i++)
		pg_atomic_write_u64(&ps_shared->stats[i], 0);
	pg_atomic_write_u64(&ps_shared->stats[PS_STAT_RESET_AT], GetCurrentTimestamp());
}
