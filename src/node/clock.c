/*
 * clock.c
 *		How much time has passed; when is it up?
 */
#include "postgres.h"

#include <time.h>

#include "node/clock.h"
#include "utils/timestamp.h"

uint64
ps_clock_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64) now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

PsTime
ps_now(void)
{
	return (PsTime) ps_clock_us();
}

PsTime
ps_deadline(int ms)
{
	return ps_now() + (int64) ms * 1000;
}

long
ps_ms_left(PsTime deadline)
{
	int64		left = deadline - ps_now();

	return left <= 0 ? 0 : (long) Min((left + 999) / 1000, PG_INT32_MAX);
}

bool
ps_has_passed(PsTime since, int64 ms)
{
	return since == 0 || ps_now() > since + ms * 1000;
}

TimestampTz
ps_time_of_day(PsTime then)
{
	return GetCurrentTimestamp() - (ps_now() - then);
}

PsTime
ps_moment_of(TimestampTz then)
{
	return ps_now() - Max(GetCurrentTimestamp() - then, 0);
}
