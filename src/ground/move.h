/*
 * move.h
 *		The steps by which placements move: add one, let it get in sync, drop
 *		another (J5).
 *
 * Ground floor: pure functions of their arguments; no catalog, no libpq, no
 * shared memory, never throws.  As in step.h: the next map, or why not.
 *
 * The order stands in the map itself, shard by shard: whoever is primary carries
 * it out, whoever asks finds it, and it ends with the shard's last part.
 *
 *	arriving	added; joins like any placement that is out, by a full copy
 *	leaving		is dropped when `copies` others are in sync; until then a
 *				placement like any other
 *	heir		becomes primary when it is in sync
 *
 * A placement:	NONE  --ordered-->  OUT, arriving  --J3, J4-->  IN_SYNC
 *				any   --ordered-->  leaving  --enough others in sync-->  NONE
 */
#ifndef PS_GROUND_MOVE_H
#define PS_GROUND_MOVE_H

#include "ground/state.h"

/* The refusal of a step that would change nothing; to be compared by address. */
extern const char ps_move_nothing[];

/*
 * ps_step_rebalance
 *		Every shard is to be where the ring says, for all nodes with weight that
 *		are not being removed, the failed ones among them: they are expected
 *		back.  What is ordered already and lies on the way stays ordered.
 *
 * A node that has failed, or is in maintenance, takes nothing; then the placement
 * that would have made room stays, too.
 */
extern PsRefusal ps_step_rebalance(PsMap *map);

/*
 * ps_step_drain
 *		Node `id` is being removed: its placements leave, others arrive on
 *		nodes that are up, by the ring without it.  Refused, with nothing done,
 *		when these are too few for `copies`.
 */
extern PsRefusal ps_step_drain(PsMap *map, uint32 id);

/*
 * ps_step_replace
 *		Node `id` is lost for now: its placements that are not in sync leave,
 *		others arrive as in drain.  Shards for which there is no node, or no
 *		other copy in sync, stay as they are.
 */
extern PsRefusal ps_step_replace(PsMap *map, uint32 id);

/*
 * ps_step_stop
 *		Nothing more is moved: what arrives and is not needed to have `copies`
 *		placements is dropped, and nothing leaves or changes its primary, but
 *		where all has arrived already and only the end is to be made.  No node
 *		is being removed any more.
 */
extern PsRefusal ps_step_stop(PsMap *map);

/*
 * ps_step_finish
 *		In the open shards of `primary`: drops what leaves, is not the primary,
 *		and is not needed: as many placements as are wanted are in sync without
 *		what leaves.  Forgets heirs that are primary.
 */
extern PsRefusal ps_step_finish(PsMap *map, uint32 primary);

/*
 * ps_move_heir
 *		Who is to be primary of a shard instead of its primary now: in sync and
 *		staying; 0 = nobody, or nobody yet.
 */
extern uint32 ps_move_heir(const PsMap *map, int shard);

#endif
