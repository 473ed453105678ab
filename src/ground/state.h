/*
 * state.h
 *		What the map says, and every allowed step from one map to the next
 *		(M4, W6, F1, F2, F5, J3, J4).
 *
 * Ground floor: pure functions of their arguments; no catalog, no libpq, no
 * shared memory, never throws.  A step either yields the next map (epoch one
 * higher) or says why not and leaves the map as it was.
 *
 * A node:		UP  --failover-->  FAILED  --new incarnation-->  UP
 * A shard:		OPEN  --primary restarts or is lost-->  RECOVERING  --settled-->  OPEN
 * A placement:	IN_SYNC  --no answer, failover-->  OUT  --J3-->  JOINING  --J4-->  IN_SYNC
 *				JOINING  --new primary or incarnation, no answer-->  OUT
 */
#ifndef PS_GROUND_STATE_H
#define PS_GROUND_STATE_H

#include "ground/base.h"
#include "lib/stringinfo.h"

#define PS_MAP_VERSION 1
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
	uint64		settled;		/* all its incarnations up to this one are
								 * settled: nothing of theirs is undecided */
	uint32		leader;			/* node that settles the rest, 0 = none is needed */
	uint64		boot;			/* its own boot counter as last seen (M3) */
	uint64		system_id;		/* its data directory, by pg_control */
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

extern PsMapNode *ps_map_node(PsMap *map, uint32 id);	/* NULL = no such node */
extern PsMapNode *ps_map_node_by_name(PsMap *map, const char *name);
extern PsPlacementState ps_map_placement(const PsMapShard *shard, uint32 node);
/* All nodes of the map. */
extern PsNodeSet ps_map_voters(const PsMap *map);
/* All nodes with weight. */
extern PsNodeSet ps_map_data_nodes(const PsMap *map);
/* Is `set` more than half of `voters`? */
extern bool ps_map_is_majority(PsNodeSet set, PsNodeSet voters);

/*
 * ps_step_create
 *		The first map (epoch 1): one node, primary of all shards, all open.
 */
extern PsRefusal ps_step_create(PsMap *map, const char *cluster, uint64 cluster_id,
								int n_shards, int copies, int load_percent,
								const PsMapNode *first);

/*
 * ps_step_add_node
 *		Adds a node (id, incarnation and settled are chosen here: the smallest
 *		free id; next_incarnation).  It holds nothing yet.
 */
extern PsRefusal ps_step_add_node(PsMap *map, const PsMapNode *node, uint32 *id);

/*
 * ps_step_place
 *		Places all shards by the ring.
 *
 * has_rows = false: there is no distributed table yet; primaries and in-sync
 * sets become what the ring says (terms rise where the primary changes).
 * has_rows = true: primaries and placements stay; shards with fewer than
 * `copies` placements get more, from the ring's order, which are out.
 */
extern PsRefusal ps_step_place(PsMap *map, bool has_rows);

/*
 * ps_step_set_node
 *		Changes weight and zone; shards stay where they are.
 */
extern PsRefusal ps_step_set_node(PsMap *map, uint32 id, uint32 weight, const char *zone);

/*
 * ps_step_remove_node
 *		Refused while the node holds a placement.
 */
extern PsRefusal ps_step_remove_node(PsMap *map, uint32 id);

/*
 * ps_step_start
 *		Node `id` has started (F1, M3): it is UP, with a new incarnation.  The
 *		joining sets of the shards it is primary of are emptied and these
 *		shards wait for it; it leads its own settling, unless another node does
 *		already (it was failed over away from and is still being settled).
 *		A node that never started before, or is primary of nothing and has no
 *		leader, has nothing to settle: `settled` = its former incarnation.
 *		is_stranger: its placements are out first; refused while it is primary
 *		of a shard or where it is the last in sync.
 */
extern PsRefusal ps_step_start(PsMap *map, uint32 id, uint64 boot, uint64 system_id,
							   bool is_stranger);

/*
 * ps_step_leave
 *		Node `id` does not answer primary `primary` (W6): it leaves the in-sync
 *		and joining sets of all shards of that primary; 0 = of all primaries
 *		but itself.  Refused where it would be the last in sync, or when it
 *		is in none of those sets.
 */
extern PsRefusal ps_step_leave(PsMap *map, uint32 primary, uint32 id);

/*
 * ps_step_fail
 *		Node `id` is lost (F2): FAILED; it leaves every in-sync and joining
 *		set; each shard it was primary of waits for it and gets the primary that `prefer` names
 *		(n_shards ids, 0 = no wish) or else the first in-sync member in ring
 *		order, a higher term and an empty joining set; `leader` settles it.
 *
 * stuck: n_shards flags or NULL; when not NULL, shards of which `id` holds the
 * only in-sync placement are flagged and stay as they are; when NULL such a
 * shard makes the step refused.
 */
extern PsRefusal ps_step_fail(PsMap *map, uint32 id, uint32 leader,
							  const uint32 *prefer, bool *stuck);

/* Another node takes over settling origin `id`. */
extern PsRefusal ps_step_lead(PsMap *map, uint32 id, uint32 leader);

/*
 * ps_step_settled
 *		Origin `id` is settled up to `incarnation` (F1, F5): nothing of it up
 *		to there is undecided anywhere.  No shard waits for it any more, and it
 *		has no leader.
 */
extern PsRefusal ps_step_settled(PsMap *map, uint32 id, uint64 incarnation);

/*
 * ps_step_join, ps_step_in_sync
 *		Node `id` starts to join (J3), has joined (J4), all given shards of
 *		`primary`: shards is n_shards flags.  Join takes OUT placements of OPEN
 *		shards; in_sync takes JOINING ones.  Any other: refused.
 */
extern PsRefusal ps_step_join(PsMap *map, uint32 primary, uint32 id, const bool *shards);
extern PsRefusal ps_step_in_sync(PsMap *map, uint32 primary, uint32 id, const bool *shards);

/*
 * ps_step_rebuild
 *		Node `id` leaves the in-sync and joining sets of all shards it is not
 *		primary of (rebuild_node); refused when it would be the last.
 */
extern PsRefusal ps_step_rebuild(PsMap *map, uint32 id);

#endif
