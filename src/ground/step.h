/*
 * step.h
 *		Every allowed step from one map to the next (M4, W6, F1, F2, F5, J3,
 *		J4).
 *
 * Ground floor: pure functions of their arguments; no catalog, no libpq, no
 * shared memory, never throws.  A step either yields the next map (epoch one
 * higher, returns NULL) or says why not and leaves the map as it was.  Who
 * proposes it fills in changed_at, changed_by and reason.
 *
 * A node:		UP  --failover-->  FAILED  --new incarnation-->  UP
 * A shard:		OPEN  --primary restarts or is lost-->  RECOVERING
 *				RECOVERING  --settled-->  OPEN
 * A placement:	IN_SYNC  --no answer, failover-->  OUT
 *				OUT  --J3-->  JOINING  --J4-->  IN_SYNC
 *				JOINING  --new primary or incarnation, no answer-->  OUT
 * A primary:	--switchover-->  IN_SYNC secondary, another one is primary
 *
 * Placements that come and go: move.h.
 */
#ifndef PS_GROUND_STEP_H
#define PS_GROUND_STEP_H

#include "ground/state.h"

/*
 * ps_step_create
 *		The first map (epoch 1): one node (id 1, incarnation 1; name, zone,
 *		weight, boot and system_id as in `first`), primary of all shards, all
 *		open.  What map held before is overwritten, unless refused.
 */
extern PsRefusal ps_step_create(PsMap *map, const char *cluster,
								uint64 cluster_id, int n_shards, int copies,
								int load_percent, const PsMapNode *first);

/*
 * ps_step_add_node
 *		Adds a node; it is UP and holds nothing yet.  Its id (the smallest that
 *		is free; also to *id), incarnation (the next), former and settled (0)
 *		are chosen here.
 */
extern PsRefusal ps_step_add_node(PsMap *map, const PsMapNode *node,
								  uint32 *id);

/*
 * ps_step_place
 *		Places all shards by the ring, on nodes that are UP.
 *
 * has_rows = false: there is no distributed table yet; primaries and in-sync
 * sets become what the ring says (terms rise where the primary changes).
 * Refused while a shard is recovering.
 * has_rows = true: primaries and placements stay; shards with fewer than
 * `copies` placements get more, from the ring's order, new zones first, which
 * are out, and arrive.
 *
 * Where nodes are too few, shards have fewer placements.  Succeeds also when
 * nothing changes.
 */
extern PsRefusal ps_step_place(PsMap *map, bool has_rows);

/*
 * ps_step_set_node
 *		Changes weight and zone; shards stay where they are.
 */
extern PsRefusal ps_step_set_node(PsMap *map, uint32 id, uint32 weight,
								  const char *zone);

/*
 * ps_step_remove_node
 *		Refused while the node holds a placement, is being settled, or settles
 *		another.
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
 *
 * is_stranger: its placements are out first; refused while it is primary of a
 * shard (which it is wherever it is the last in sync).
 */
extern PsRefusal ps_step_start(PsMap *map, uint32 id, uint64 boot,
							   uint64 system_id, bool is_stranger);

/*
 * ps_step_leave
 *		Node `id` does not answer primary `primary` (W6): it leaves the in-sync
 *		and joining sets of all shards of that primary; 0 = of all primaries
 *		but itself.  Refused when it is in none of those sets.  A primary is
 *		in sync in its own shards, so that nobody leaves as the last.
 */
extern PsRefusal ps_step_leave(PsMap *map, uint32 primary, uint32 id);

/*
 * ps_step_fail
 *		Node `id` is lost (F2): FAILED; it leaves every in-sync and joining
 *		set; each shard it was primary of waits for it and gets the primary
 *		that `prefer` names (n_shards ids, 0 = no wish; NULL = no wishes) or
 *		else the first in-sync member in ring order, a higher term and an empty
 *		joining set; `leader`, another node that is UP, settles it.  What `id`
 *		itself was settling needs ps_step_lead.
 *
 * stuck: n_shards flags or NULL; when not NULL, shards of which `id` holds the
 * only in-sync placement are flagged and stay as they are; when NULL such a
 * shard makes the step refused.  A wish for a node that is not in sync makes
 * it refused, too.
 */
extern PsRefusal ps_step_fail(PsMap *map, uint32 id, uint32 leader,
							  const uint32 *prefer, bool *stuck);

/*
 * ps_step_lead
 *		Another node, which is UP, takes over settling origin `id`.
 */
extern PsRefusal ps_step_lead(PsMap *map, uint32 id, uint32 leader);

/*
 * ps_step_settled
 *		Origin `id` is settled up to `incarnation` (F1, F5): nothing of it up
 *		to there is undecided anywhere.  No shard waits for it any more, and it
 *		has no leader.
 *
 * incarnation: for a node that is FAILED its last one; for one that is UP from
 * its former one to just below the present.  A lower one is refused: it was
 * worked out from an older map, and the node may have written since.
 */
extern PsRefusal ps_step_settled(PsMap *map, uint32 id, uint64 incarnation);

/*
 * ps_step_join, ps_step_in_sync
 *		Node `id` starts to join (J3), has joined (J4), all given shards of
 *		`primary`: shards is n_shards flags, at least one set.  Join takes OUT
 *		placements of OPEN shards; in_sync takes JOINING ones.  Any other
 *		flag, or a node that is not UP: refused.
 */
extern PsRefusal ps_step_join(PsMap *map, uint32 primary, uint32 id,
							  const bool *shards);
extern PsRefusal ps_step_in_sync(PsMap *map, uint32 primary, uint32 id,
								 const bool *shards);

/*
 * ps_step_switch
 *		Node `to`, which is UP and in sync in all given shards of `from`, becomes
 *		their primary (J5): with a higher term and nobody joining.  They are
 *		open, and stay so: who proposes it has seen to it that nothing of `from`
 *		in them is undecided, or decided and not applied, anywhere.  `from` stays
 *		in sync.  shards: n_shards flags, at least one set.
 */
extern PsRefusal ps_step_switch(PsMap *map, uint32 from, uint32 to,
								const bool *shards);

/*
 * ps_step_maintain
 *		Node `id` is, or is not any more, expected to be down (maintenance).
 *		Refused when it is so already.
 */
extern PsRefusal ps_step_maintain(PsMap *map, uint32 id, bool is_resting);

/*
 * ps_step_unjoin
 *		Node `id` leaves the joining sets of all shards of `primary`: what a
 *		process that is gone had begun starts again.
 */
extern PsRefusal ps_step_unjoin(PsMap *map, uint32 primary, uint32 id);

/*
 * ps_step_rebuild
 *		Node `id` leaves the in-sync and joining sets of all shards it is not
 *		primary of (rebuild_node); refused when it is in none of those sets.
 */
extern PsRefusal ps_step_rebuild(PsMap *map, uint32 id);

#endif
