/*
 * apply.h
 *		Decided entries of other primaries, executed on this node (W5).
 */
#ifndef PS_WRITE_APPLY_H
#define PS_WRITE_APPLY_H

#include "compat.h"
#include "ground/wire.h"

/* The apply process; one per node. */
extern PGDLLEXPORT void payshard_apply_main(Datum arg) pg_attribute_noreturn();

/*
 * ps_apply_journal
 *		Applies, in the current transaction, the journaled entries of a stream
 *		after `applied` up to `limit`, at most max_batches batches of them, and
 *		prunes them.  The caller holds the map and the origin's apply lock, and
 *		writes the position.
 *
 * Returns the seq up to which all is applied: `limit` when nothing is left; less
 * when there is more, or when an entry has to wait for a copy (J3).
 */
extern uint64 ps_apply_journal(uint32 origin, uint64 incarnation, uint64 applied,
							   uint64 limit, int max_batches);


#endif
