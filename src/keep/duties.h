/*
 * duties.h
 *		The keeper's duties, in the order in which worker.c calls them.
 *
 * Each runs in a transaction of its own, does what is due, and returns whether
 * it wants to be called again soon.
 */
#ifndef PS_KEEP_DUTIES_H
#define PS_KEEP_DUTIES_H

#include "postgres.h"

extern bool ps_duty_start(void);	/* start.c: identity, boot, incarnation (M3) */
extern bool ps_duty_processes(void);	/* start.c: apply process and senders */
extern bool ps_duty_watch(void);	/* watchman.c: automatic failover */
extern bool ps_duty_recover(void);	/* failover.c: origins this node leads (F1-F5) */
extern bool ps_duty_leave(void);	/* heartbeat.c: silent secondaries (W6) */
extern bool ps_duty_notes(void);	/* rejoin.c: what a new map makes of notes */
extern bool ps_duty_rejoin(void);	/* rejoin.c: placements that are out (J) */
extern bool ps_duty_move(void);	/* move.c: placements come and go (J5) */
extern bool ps_duty_sweep(void);	/* sweep.c: rows of shards not held any more */
extern bool ps_duty_record(void);	/* record.c: silences, missed history (S3) */

#endif
