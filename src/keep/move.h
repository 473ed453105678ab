/*
 * move.h
 *		Placements move (J5): payshard.rebalance_start, _wait, _stop, remove_node,
 *		and what lost nodes held.  The duty is declared in duties.h.
 */
#ifndef PS_KEEP_MOVE_H
#define PS_KEEP_MOVE_H

#include "compat.h"
#include "keep/duties.h"

/* Gives shards of this node to their heirs; main_arg: none. */
extern PGDLLEXPORT void payshard_move_main(Datum arg) pg_attribute_noreturn();

PS_DECLARE(payshard_rebalance_start);
PS_DECLARE(payshard_rebalance_wait);
PS_DECLARE(payshard_rebalance_stop);
PS_DECLARE(payshard_remove_node);

#endif
