/*
 * ring.h
 *		Which nodes hold a shard: consistent hashing with bounded loads (P3).
 *
 * Ground floor: no catalog, no libpq, no shared memory, never throws.
 */
#ifndef PS_GROUND_RING_H
#define PS_GROUND_RING_H

#include "ground/base.h"

#define PS_RING_VERSION 1			/* a change of any answer needs a new one */
#define PS_RING_VNODES_DEFAULT 64	/* virtual nodes per unit of weight */
#define PS_RING_VNODES_MAX 1024
#define PS_RING_WEIGHT_MAX 100
#define PS_RING_LOAD_MAX 1000
#define PS_RING_LOAD_DEFAULT 110	/* bound on load, percent of fair share */

/* What the ring needs to know of a node. */
typedef struct PsRingNode
{
	uint32		id;				/* 1 .. PS_NODES_MAX - 1, each once */
	uint32		weight;			/* 0 = holds nothing (a witness) */
	const char *zone;			/* "" is a zone like any other */
} PsRingNode;

typedef struct PsRingConfig
{
	int			n_shards;		/* 1 .. PS_SHARDS_MAX */
	int			copies;			/* wanted per shard, 1 .. PS_COPIES_MAX */
	int			vnodes;			/* virtual nodes per unit of weight */
	int			load_percent;	/* c x 100, 100 .. PS_RING_LOAD_MAX: no node
								 * above ceil(c x fair share) */
} PsRingConfig;

/*
 * ps_ring_position_node, ps_ring_position_shard
 *		The place on the 64-bit ring of a node's virtual node `vnode`
 *		(0 .. weight * vnodes - 1), and of a shard.
 *
 * Integer mixers only: same answer on every machine.
 */
extern uint64 ps_ring_position_node(uint32 node_id, uint32 vnode);
extern uint64 ps_ring_position_shard(uint32 shard);

/*
 * ps_ring_place
 *		Chooses the copies of all shards.
 *
 * nodes: n_nodes entries, sorted by id.
 * out: n_shards * copies entries; row s holds shard s's node ids, the first
 * is the primary; 0 where there are fewer nodes with weight than copies.
 * Zones in a row are distinct while there are zones left.
 *
 * The bound holds for the placements and, separately, for the primaries of
 * every node.  A fair share is in proportion to weight as far as that is
 * possible: no node holds a shard twice; with zones >= copies no zone does,
 * and with fewer every zone holds every shard.  What a node or zone cannot
 * take, the others share.  (Three copies in zones of 2, 2 and 1 nodes: the
 * single node's fair share is all shards.)  Where shares had to be bent in
 * this way, the bound on primaries may be passed, as little as possible.
 *
 * Returns how many copies each shard got: min(copies, nodes with weight); or
 * -1 when an argument is out of range.  Same arguments, same answer, on every
 * machine and version: a change here moves customers' data.
 *
 * Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent Hashing with Bounded
 * Loads", SODA 2018.
 */
extern int	ps_ring_place(const PsRingNode *nodes, int n_nodes,
						  const PsRingConfig *config, uint32 *out);

#endif
