/*
 * join.h
 *		A joining placement's part in its join (J2 to J4): functions that the
 *		primary's rejoin process calls on the node that joins.
 *
 *	payshard.peer_join_begin(shards, origin, incarnation, seq)
 *		after some seq from this one on, the shards follow this stream, once they
 *		are copied
 *	payshard.peer_join_keys(shards)
 *		-> setof (shard, table_id, key): what the copy must bring besides the
 *		primary's dirty keys; table_id 0 = everything
 *	payshard.peer_copy(ops)
 *		rows: 'T' empties a table's partition, 'D' removes a key, 'I' inserts
 *	payshard.peer_join_copied(shards, origin, incarnation, seq)
 *		the copy is complete, and shows all up to that seq; to be called in the
 *		transaction that made it
 *	payshard.peer_take_dirty(node, shard, table_id, key)
 *		one dirty key of another node that is out, as the primary knows it (J3)
 *	payshard.peer_digest(shards) -> setof (shard, rows, digest)
 *	payshard.peer_await_applied(origin, incarnation, seq, timeout_ms)
 *		-> is all that is journaled of the stream up to seq applied?
 */
#ifndef PS_WRITE_JOIN_H
#define PS_WRITE_JOIN_H

#include "compat.h"

PS_DECLARE(payshard_peer_join_begin);
PS_DECLARE(payshard_peer_join_keys);
PS_DECLARE(payshard_peer_copy);
PS_DECLARE(payshard_peer_join_copied);
PS_DECLARE(payshard_peer_await_applied);
PS_DECLARE(payshard_peer_take_dirty);
PS_DECLARE(payshard_peer_digest);

#endif
