/*
 * verify.h
 *		Are all copies equal?  (Q3)
 *
 *	payshard.verify(), on any node
 *		asks the primary of every shard; -> setof (shard, node, table_name,
 *		rows, digest, equal)
 *	payshard.peer_verify(), on a primary
 *		compares its open shards with their other in-sync placements at one
 *		decided seq; -> the same rows
 */
#ifndef PS_WATCH_VERIFY_H
#define PS_WATCH_VERIFY_H

#include "compat.h"

PS_DECLARE(payshard_verify);
PS_DECLARE(payshard_peer_verify);

#endif
