/*
 * clock.h
 *		How much time has passed; when is it up?
 *
 * Whatever is waited for is measured here, and never by the time of day, which
 * somebody may set: a deadline would come at once, or hours late.  The time of day
 * is for what people read: events, the history of maps.
 */
#ifndef PS_NODE_CLOCK_H
#define PS_NODE_CLOCK_H

#include "postgres.h"
#include "datatype/timestamp.h"

/* A moment, us on CLOCK_BOOTTIME; 0 = none.  Means nothing on another machine. */
typedef int64 PsTime;

#define PS_TIME_NEVER PG_INT64_MAX

/* Microseconds on CLOCK_BOOTTIME, which also counts while the machine sleeps. */
extern uint64 ps_clock_us(void);

extern PsTime ps_now(void);
/* The moment in so many milliseconds. */
extern PsTime ps_deadline(int ms);
/* Milliseconds left until then, rounded up; 0 when it is over. */
extern long ps_ms_left(PsTime deadline);
/* Have so many milliseconds passed since?  True when since = 0. */
extern bool ps_has_passed(PsTime since, int64 ms);

/*
 * ps_time_of_day, ps_moment_of
 *		For people, when the time of day was that moment; and what the server knows by the
 *		time of day only: the moment of it, which is not after now.  By how the two clocks
 *		stand now: each call may differ by a little from the last, and by more once somebody
 *		has set the time of day.
 */
extern TimestampTz ps_time_of_day(PsTime then);
extern PsTime ps_moment_of(TimestampTz then);

#endif
