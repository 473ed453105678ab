/*
 * moved.h
 *		What is moved, was moved, and how long it took: payshard.job_log and
 *		payshard.move_log, of which payshard.jobs is made.
 *
 * The order itself stands in the map (ground/move.h); these are notes.
 */
#ifndef PS_KEEP_MOVED_H
#define PS_KEEP_MOVED_H

#include "postgres.h"
#include "ground/state.h"
#include "utils/timestamp.h"

/*
 * ps_moved_look
 *		What a new map says of jobs: those that begin or are over; and, of the
 *		shards of which this node is primary, what is to be copied.  Needs a
 *		transaction.
 */
extern void ps_moved_look(const PsMap *map);

/*
 * ps_moved_note
 *		A shard has arrived at `node` in the current transaction: begun when, with
 *		how many bytes and rows, and how long commits waited at most.
 */
extern void ps_moved_note(uint64 job, int shard, uint32 node, TimestampTz begun,
						  uint64 bytes, long rows, int64 pause_us);

#endif
