/*
 * times.c
 *		When was each map chosen, though clocks of its proposers may be wrong?
 *
 * Epochs rise and so must their times.  Of the times that the proposers have noted the
 * most are believed that rise together: the longest sequence of them; the others,
 * of a clock that had jumped or runs otherwise, take the time of the next map that is believed, as
 * maps come in bunches; the last ones that of the one before.
 * What lies in the future is never believed.  Where two sequences are as long, the one
 * that ends earlier: a single jump forwards is found out by the next map.
 *
 * Source: C. Schensted, "Longest increasing and decreasing subsequences", 1961.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "node/map.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "watch/out.h"
#include "watch/times.h"

PS_FUNCTION(payshard_map_times);

#define PS_AHEAD_US INT64CONST(1000000) /* clocks that run right differ by less */

typedef struct MapTime
{
	int64		epoch;
	TimestampTz at;
	int			before;			/* index of the one before it in its sequence, or -1 */
} MapTime;

static MapTime *
read_times(int *n)
{
	MapTime    *times;

	if (SPI_execute("SELECT epoch, changed_at FROM payshard.map_history ORDER BY epoch", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read payshard.map_history");
	*n = (int) SPI_processed;
	times = palloc(sizeof(MapTime) * (*n + 1));
	for (int i = 0; i < *n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		bool		isnull;

		times[i].epoch = DatumGetInt64(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
		times[i].at = DatumGetTimestampTz(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
	}
	return times;
}

/* The first of the ends of sequences, ascending, that is later than this; n = none is. */
static int
find_later(const MapTime *times, const int *ends, int n, TimestampTz at)
{
	int			low = 0;
	int			high = n;

	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (times[ends[middle]].at > at)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Marks what is believed. */
static bool *
believe(MapTime *times, int n, TimestampTz now)
{
	bool	   *is_believed = palloc0(n + 1);
	int		   *ends = palloc(sizeof(int) * (n + 1));
	int			longest = 0;

	for (int i = 0; i < n; i++)
	{
		int			place;

		if (times[i].at > now + PS_AHEAD_US)
			continue;
		place = find_later(times, ends, longest, times[i].at);
		times[i].before = place > 0 ? ends[place - 1] : -1;
		ends[place] = i;
		longest = Max(longest, place + 1);
	}
	for (int i = longest > 0 ? ends[longest - 1] : -1; i >= 0; i = times[i].before)
		is_believed[i] = true;
	return is_believed;
}

/* map_times() */
Datum
payshard_map_times(PG_FUNCTION_ARGS)
{
	MapTime    *times;
	bool	   *is_believed;
	TimestampTz last = 0;
	int			n;
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	times = read_times(&n);
	is_believed = believe(times, n, GetCurrentTimestamp());
	for (int i = 0; i < n; i++)
	{
		int			k = i;

		while (k < n && !is_believed[k])
			k++;
		if (k < n)
			last = times[k].at;
		ps_out_int(&out, times[i].epoch);
		ps_out_time(&out, last);
		ps_out_row(&out);
	}
	PopActiveSnapshot();
	SPI_finish();
	return (Datum) 0;
}
