/*
 * planned.h
 *		Which node is to be primary of which shard, when a DBA wants it changed?
 */
#ifndef PS_KEEP_PLANNED_H
#define PS_KEEP_PLANNED_H

#include "compat.h"
#include "ground/state.h"
#include "nodes/execnodes.h"

/* Who is to be primary of what, by one map. */
typedef struct PsSwitchPlan PsSwitchPlan;

/*
 * ps_plan_away
 *		The shards of a node to `target`, where it has a copy in sync; or (0) to
 *		those that the ring would have next, not in maintenance.  ERROR 55000 when
 *		there is no other copy in sync.
 *
 * ps_plan_home
 *		To node `id`: the given shards (flags), or (NULL) those for which it is the
 *		ring's first choice; where it is in sync.
 *
 * The map stays in use.
 */
extern PsSwitchPlan *ps_plan_away(PsMap *map, const PsMapNode *from, uint32 target);
extern PsSwitchPlan *ps_plan_home(PsMap *map, uint32 id, const bool *shards);

/*
 * ps_plan_carry_out
 *		Does it; a row of payshard.switchover() into `set`, unless NULL, for each
 *		pair of nodes.  Returns the number of shards, and the longest pause.  Errors
 *		as of ps_switch_shards; what was switched over before stays so, and the error
 *		says what that is.  The same call, again, does the rest.
 */
extern int	ps_plan_carry_out(const PsSwitchPlan *plan, ReturnSetInfo *set, double *pause_ms);

PS_DECLARE(payshard_switchover_node);
PS_DECLARE(payshard_switchover_shard);

#endif
