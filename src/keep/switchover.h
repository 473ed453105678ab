/*
 * switchover.h
 *		Another node becomes primary, and nobody notices but by a pause (J5).
 */
#ifndef PS_KEEP_SWITCHOVER_H
#define PS_KEEP_SWITCHOVER_H

#include "compat.h"
#include "ground/state.h"

/*
 * ps_switch_shards
 *		Node `to` becomes primary of shards (flags, of this node) for which it is
 *		in sync.  Needs a transaction that has written none of them.
 *
 * Returns for how long writes to them waited at most, in ms; 0 when no flag is set.
 * Errors: 55000 when the shards are not this node's, or not open, or `to` is not
 * fit; 55P03 when somebody writes them for too long; 08006 when a node does not
 * answer; 57P03 without a majority.  Nothing has changed then; only when the
 * outcome of the proposal could not be found out this node takes a new
 * incarnation (F1).
 */
extern double ps_switch_shards(const bool *shards, uint32 to);

PS_DECLARE(payshard_peer_switch);

#endif
