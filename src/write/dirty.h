/*
 * dirty.h
 *		Primary keys changed while a placement is out (J1).
 */
#ifndef PS_WRITE_DIRTY_H
#define PS_WRITE_DIRTY_H

#include "postgres.h"
#include "ground/base.h"

/*
 * ps_dirty_record_ops
 *		Records, in the current transaction, the keys of operations for every
 *		placement of their shards that is not in sync in the newest map.
 *		The caller holds the map (ps_map_lock).
 *
 * Errors: 08P01 when the bytes are not operations.
 */
extern void ps_dirty_record_ops(const uint8 *ops, size_t bytes);

/* Records the keys of one operation for one node. */
struct PsOp;
extern void ps_dirty_record_op(uint32 node, const struct PsOp *op);

/* Records one key tuple, or with key = NULL all keys of the shard. */
extern void ps_dirty_record_key(uint32 node, int shard, uint32 table_id,
								const void *key, size_t bytes);

#endif
