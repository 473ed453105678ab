/*
 * target.h
 *		Row changes on this node's placements, by primary key, without triggers.
 */
#ifndef PS_WRITE_TARGET_H
#define PS_WRITE_TARGET_H

#include "postgres.h"
#include "ground/wire.h"

typedef struct PsTargets PsTargets;

/*
 * ps_targets_begin, ps_targets_end
 *		Opens and closes a set of tables for changes in one transaction.
 *
 * may_wait: false for who holds the map, which nobody may hold while he waits for
 * a user: a partition that somebody has locked then is an ERROR 55P03, and
 * ps_target_locked tells, once, which; its table counts as well.
 */
extern PsTargets *ps_targets_begin(bool may_wait);
extern void ps_targets_end(PsTargets *targets);
extern Oid	ps_target_locked(void);

/*
 * ps_target_await
 *		Before the map is held: waits for the lock of such a partition, in the
 *		queue that locks have, but not for long; ERROR 55P03 then.
 */
extern void ps_target_await(Oid relid);

/* From now on a change may be one that was made here before (F1): that is no divergence. */
extern void ps_targets_again(PsTargets *targets, bool is_again);

/*
 * ps_target_change
 *		Makes one row change.  What it finds there should be what the origin
 *		had; a row that is missing or already there is put right and kept in
 *		payshard.divergent_rows with a WARNING: it is never silent.
 *
 * Returns false when the table is not on this node (yet).
 */
extern bool ps_target_change(PsTargets *targets, const PsOp *op);

/*
 * ps_target_empty
 *		Deletes up to `max` rows of a partition; returns how many there were, or
 *		-1 when somebody has locked it: the caller may hold the map.
 */
extern int	ps_target_empty(Oid partition, int max);

/* Deletes the row of a key, if there is one (J3). */
extern bool ps_target_delete_key(PsTargets *targets, uint32 table_id, int shard,
								 const uint8 *key, size_t bytes);

#endif
