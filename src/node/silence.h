/*
 * silence.h
 *		When did another node stop to answer this one, and when was it back?
 *
 * Noted by the sender to that node in shared memory, made durable by the
 * keeper (event.h): what is in the log are intervals, never samples.  A silence begins at
 * a time of day, which names it, and is as long as node/clock.h says.
 */
#ifndef PS_NODE_SILENCE_H
#define PS_NODE_SILENCE_H

#include "postgres.h"
#include "utils/timestamp.h"

/*
 * ps_silence_begin
 *		It does not answer: since its last answer.  Nothing happens while a
 *		silence is under way, or when it has never answered.
 */
extern void ps_silence_begin(uint32 node);

/* It takes part again. */
extern void ps_silence_end(uint32 node);

/* Begin of the silence under way; 0 = there is none. */
extern TimestampTz ps_silence_now(uint32 node);

/* How long it lasts, ms; 0 = there is none. */
extern int64 ps_silence_ms(uint32 node);

/* The last silence that is over; false = there was none. */
extern bool ps_silence_former(uint32 node, TimestampTz *from, TimestampTz *to);

#endif
