/*
 * hold.h
 *		Who uses a shard here, and who must wait before he does (J5)?
 *
 * Before another node becomes primary of an open shard, whoever writes it here is
 * to be through, and nobody else is to begin.  A transaction enters a shard before
 * it looks at the map for it.  A switchover holds shards: who would enter one
 * waits, at most payshard.gate_timeout; who is inside is awaited.
 */
#ifndef PS_WRITE_HOLD_H
#define PS_WRITE_HOLD_H

#include "postgres.h"
#include "node/clock.h"

/*
 * ps_hold_enter
 *		From here on no switchover takes the shard from this node, until
 *		ps_hold_leave, or the end of the transaction when ps_hold_keep was called
 *		since.  Waits while the shard is held; not for others that are awaited when
 *		this transaction has written here already: they could wait for it.
 *		Who waits gives up what it has entered and not kept.
 *
 * Costs a store and a memory barrier.  ERROR 57P03 when the shard is held for too
 * long.
 */
extern void ps_hold_enter(int shard);

/* What was entered is used until the end of the transaction: it is written. */
extern void ps_hold_keep(void);

/* What was entered and is not kept is not used any more. */
extern void ps_hold_leave(void);

/* The conductor's call (commit.c). */
extern void ps_hold_at_end(void);

/* The next shard (after -1: the first) that this transaction uses to its end; -1 = none. */
extern int	ps_hold_next_kept(int shard);

/*
 * ps_hold_begin
 *		Holds shards for a switchover, by flags.  One at a time on a node: waits
 *		for another one until the deadline; false = it did not end.
 * ps_hold_end
 *		Lets those that wait go on.  Does nothing when this process holds nothing;
 *		never throws.
 * ps_hold_close
 *		0: nobody is inside one of the held shards, or comes in before
 *		ps_hold_end; else the pid of one who is inside.
 * ps_hold_sleep
 *		Until somebody leaves, or a moment.
 */
extern bool ps_hold_begin(const bool *shards, PsTime deadline);
extern void ps_hold_end(void);
extern int	ps_hold_close(const bool *shards);
extern void ps_hold_sleep(void);

/* Is this transaction inside one of the shards, to the end? */
extern bool ps_hold_is_inside(const bool *shards);

#endif
