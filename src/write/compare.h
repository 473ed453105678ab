/*
 * compare.h
 *		A placement's part in a comparison of copies (Q3): functions that the
 *		primary calls on the nodes that have its shards in sync.
 *
 *	payshard.peer_hold(origin, incarnation, below)
 *		from now on the origin's entries are applied here only below this seq,
 *		until the session ends or below = 0 is given; -> false when the origin
 *		has another incarnation by now, or another session holds it
 *	payshard.peer_table_digests(shards)
 *		-> setof (shard, table_id, rows, digest), by this statement's snapshot
 */
#ifndef PS_WRITE_COMPARE_H
#define PS_WRITE_COMPARE_H

#include "compat.h"

PS_DECLARE(payshard_peer_hold);
PS_DECLARE(payshard_peer_table_digests);

#endif
