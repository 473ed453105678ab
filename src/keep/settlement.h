/*
 * settlement.h
 *		The leader's part in settling an origin (F1, F3 to F5).
 */
#ifndef PS_KEEP_SETTLEMENT_H
#define PS_KEEP_SETTLEMENT_H

#include "ground/state.h"

/*
 * ps_settle_origin
 *		Makes all in-sync members of the shards that wait for `origin` agree
 *		on what it has committed, and opens these shards.
 *
 * Needs a transaction.  May be called again after any failure, here or on
 * another node.  ERROR 08006 when a member cannot be reached: *absent is its
 * id then, 0 otherwise.
 */
extern void ps_settle_origin(const PsMap *map, uint32 origin, uint32 *absent);

#endif
