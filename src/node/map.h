/*
 * map.h
 *		The chosen map on this node: read it, adopt a newer one.
 */
#ifndef PS_NODE_MAP_H
#define PS_NODE_MAP_H

#include "postgres.h"
#include "ground/state.h"
#include "node/shared.h"
#include "utils/array.h"
#include "utils/snapshot.h"

/*
 * Called at each adoption with queue.lock and map_lock held exclusively and
 * the new map installed; must not throw.  Set once by the roof.
 */
typedef void (*PsMapAdopted) (const PsMap *map);
extern PsMapAdopted ps_map_adopted;

/* This node's id, 0 while it is in no cluster. */
extern uint32 ps_map_self(void);

/*
 * ps_map_own
 *		This node in a map; NULL = it is no member.  A node with its id and another name
 *		is another one, that got the id when this node was removed.
 */
extern PsMapNode *ps_map_own(PsMap *map);
/* The name by which ps_map_own knows this node. */
extern void ps_map_set_self_name(const char *name);
/* Epoch of the adopted map, 0 = none. */
extern uint64 ps_map_epoch(void);
/* The incarnation of this start, 0 while it is not taken (M3). */
extern uint64 ps_map_incarnation(void);

/* A palloc'd copy of the map, or NULL. */
extern PsMap *ps_map_copy(void);
/* One shard; false when there is no map or no such shard. */
extern bool ps_map_shard(int shard, PsMapShard *out);
/*
 * Was it opened, with this node as its primary, by a map whose adoption the snapshot
 * does not see?  Then what was settled before is not in the snapshot either (F4).
 */
extern bool ps_map_opened_after(int shard, Snapshot snapshot);
/* Number of shards, 0 = no map. */
extern int	ps_map_n_shards(void);
/*
 * The shards that another node names in an int[]; ERROR 22023 for a null and for one that
 * the cluster does not have.  Points into the array.
 */
extern const int *ps_map_shards_of(ArrayType *array, int *n);
/*
 * The terms of all shards, added up: two maps of one cluster in which it is the same
 * have the same primaries, whatever else is different.
 */
extern uint64 ps_map_terms(void);
/* A node's name, palloc'd; "node <id>" when unknown. */
extern char *ps_map_node_name(uint32 id);
/* Up to which incarnation a node is settled (F5); 0 when unknown. */
extern uint64 ps_map_settled(uint32 id);
/* Is nothing to be settled of what it was before its present start? */
extern bool ps_map_is_settled(uint32 id);
/* Its present incarnation; 0 when unknown. */
extern uint64 ps_map_node_incarnation(uint32 id);
/* Is it UP, in this incarnation? */
extern bool ps_map_is_up(uint32 id, uint64 incarnation);
/* Is it in maintenance? */
extern bool ps_map_is_resting(uint32 id);
/* Is the node of this id, in this incarnation, a member of the map? */
extern bool ps_map_is_member(uint32 id, uint64 incarnation);

/*
 * ps_map_require
 *		ERROR 55000 unless this node is in a cluster, and a member of it; 57P03 unless it has taken
 *		its incarnation (then it may serve).
 */
extern void ps_map_require_cluster(void);
extern void ps_map_require_serving(void);

/*
 * ps_map_await_self
 *		To be called when ps_map_self() is 0 and a distributed table is at hand: a
 *		server that has just started does not know yet which node it is, or its map.  Waits a
 *		moment; ERROR 57P03, or 55000 as ps_extension_require_current, when it does
 *		not come to know it.
 */
extern void ps_map_await_self(void);

/*
 * ps_map_lock
 *		Holds the adopted map as it is until the end of the transaction (W3).
 *		May wait for an adoption that is just being made durable.
 */
extern void ps_map_lock(void);
extern void ps_map_unlock(void);

/*
 * ps_map_load
 *		Reads this node's identity and its durable map into shared memory.
 *		Needs a transaction; called when the keeper starts and when the node
 *		is defined.
 */
extern void ps_map_load(void);

/*
 * ps_map_adopt
 *		Makes a chosen map this node's, durably, when it is newer: from the
 *		commit of the current transaction on.  Waits for all who journal or
 *		commit under the old one (F3: adopt, then answer).
 *
 * Returns whether it was newer.  Errors: 22023 when the bytes are not a map,
 * 42501 when it is another cluster's.
 */
extern bool ps_map_adopt(const void *data, size_t bytes);

/* The conductor's calls (write/commit.c). */
extern void ps_map_at_commit(void);
extern void ps_map_at_abort(void);

/* This node has taken an incarnation, or given it up (0). */
extern void ps_map_set_incarnation(uint64 incarnation);

#endif
