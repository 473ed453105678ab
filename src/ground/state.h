/*
 * state.h
 *		What the map says: nodes, shards, placements, and their bytes (M1, M4).
 *		The steps from one map to the next are in step.h.
 *
 * Ground floor: pure functions of their arguments; no catalog, no libpq, no
 * shared memory, never throws.
 */
#ifndef PS_GROUND_STATE_H
#define PS_GROUND_STATE_H

#include "ground/base.h"
#include "lib/stringinfo.h"

#define PS_MAP_VERSION 2
#define PS_REASON_MAX 128

typedef enum PsNodeState
{
	PS_NODE_UP = 1,				/* takes part */
	PS_NODE_FAILED = 2,			/* failed over away from, or a stranger: votes
								 * are void until it has a new incarnation */
} PsNodeState;

typedef enum PsPlacementState
{
	PS_PLACEMENT_NONE = 0,		/* the node does not hold the shard */
	PS_PLACEMENT_OUT = 1,
	PS_PLACEMENT_JOINING = 2,
	PS_PLACEMENT_IN_SYNC = 3,
} PsPlacementState;

typedef struct PsMapNode
{
	uint32		id;				/* 1 .. PS_NODES_MAX - 1 */
	char		name[PS_NAME_MAX];
	char		zone[PS_NAME_MAX];
	uint32		weight;			/* 0 = witness */
	uint8		state;			/* PsNodeState */
	uint64		incarnation;	/* of this start; 0 = never started */
	uint64		former;			/* of the start before; 0 = there was none */
	uint64		settled;		/* all its incarnations up to this one are
								 * settled: nothing of theirs is undecided */
	uint32		leader;			/* node that settles the rest, 0 = none is needed */
	uint64		boot;			/* mark of its last start, 0 = none (M3) */
	uint64		system_id;		/* its data directory, by pg_control */
	bool		is_leaving;		/* being removed: gets no placement, and goes
								 * when it has none */
	bool		is_resting;		/* in maintenance: expected to be down */
	uint8		has_leases;		/* 1: in this incarnation it serves under leases only
								 * (Q1); 0: payshard.lease_timeout is 0 there */
} PsMapNode;

typedef struct PsMapShard
{
	uint32		primary;		/* node id */
	uint64		term;			/* changes with the primary; from 1 */
	PsNodeSet	waits;			/* origins to be settled before it opens (F4);
								 * empty = OPEN, else RECOVERING */
	PsNodeSet	placements;		/* all that hold or should hold the shard */
	PsNodeSet	in_sync;		/* never empty; within placements */
	PsNodeSet	joining;		/* within placements, none of them in_sync */
	PsNodeSet	arriving;		/* within placements: added, and never in sync
								 * since: they have nothing, or what they have
								 * is of an earlier time */
	PsNodeSet	leaving;		/* within placements, not all of them, none of
								 * them arriving: to be dropped (move.h) */
	uint32		heir;			/* wanted as primary when its placement is in
								 * sync, 0 = no wish */
	uint64		job;			/* epoch of the map that ordered the last three,
								 * 0 = nothing is to be moved */
} PsMapShard;

typedef struct PsMap
{
	uint64		epoch;			/* from 1 */
	uint64		cluster_id;
	char		cluster[PS_NAME_MAX];
	int64		changed_at;		/* TimestampTz (us since 2000) by the proposer's clock */
	uint32		changed_by;		/* node that proposed it */
	char		reason[PS_REASON_MAX];	/* why, in words */
	uint32		ring_version;
	uint32		vnodes;
	uint32		load_percent;
	uint32		copies;			/* wanted per shard */
	uint64		next_incarnation;	/* never reused */
	int			n_nodes;
	int			n_shards;
	PsMapNode	nodes[PS_NODES_MAX];	/* n_nodes, sorted by id */
	PsMapShard	shards[PS_SHARDS_MAX];	/* n_shards */
} PsMap;

/* Why a step is refused; NULL = done.  A phrase, for a DETAIL. */
typedef const char *PsRefusal;

/*
 * ps_map_put, ps_map_read
 *		The map as bytes (version, then fields big-endian in the order of
 *		the struct, then CRC-32C), and back.
 *
 * read checks everything that check does.  Returns NULL or what is wrong.
 */
extern void ps_map_put(StringInfo buf, const PsMap *map);
extern PsRefusal ps_map_read(PsMap *map, const void *data, size_t bytes);

/* All invariants stated at the fields above; NULL when they hold. */
extern PsRefusal ps_map_check(const PsMap *map);

/*
 * ps_map_node, ps_map_node_by_name, ps_map_placement
 *		Finds a node (NULL = no such node); says what a node is to a shard.
 */
extern PsMapNode *ps_map_node(PsMap *map, uint32 id);
extern PsMapNode *ps_map_node_by_name(PsMap *map, const char *name);
extern PsPlacementState ps_map_placement(const PsMapShard *shard,
										 uint32 node);

/* All nodes of the map. */
extern PsNodeSet ps_map_voters(const PsMap *map);
/* All nodes with weight. */
extern PsNodeSet ps_map_data_nodes(const PsMap *map);
/* All nodes that are UP. */
extern PsNodeSet ps_map_up_nodes(const PsMap *map);
/*
 * The ring's answer for those nodes of a set that have weight and are not being
 * removed: n_shards rows of `copies` ids as ps_ring_place has them, palloc'd.
 */
extern uint32 *ps_map_ring(const PsMap *map, PsNodeSet among);
/* Without anything left to be moved a shard has no job. */
extern void ps_map_end_job(PsMapShard *shard);
/* Is `set` more than half of `voters`? */
extern bool ps_map_is_majority(PsNodeSet set, PsNodeSet voters);

#endif
