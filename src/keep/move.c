/*
 * move.c
 *		Who orders that placements move, and who carries it out (J5)?
 *
 * Ordered by one change of the map (ground/move.h); from then on it stands there,
 * and no session and no process is needed to remember it:
 *
 * (a) what arrives is out: the shard's primary takes it in (rejoin.c);
 * (b) the primary itself is to be another node: it gives the shard to it (the
 *	   process below, switchover.c);
 * (c) what leaves and is not needed any more is dropped: the primary's keeper
 *	   proposes the map without it;
 * (d) who has been dropped deletes what it has (sweep.c).
 *
 * Killed anywhere: the next keeper of the primary, or the keeper of the next
 * primary, reads the same map and goes on.
 *
 * The caretaker - of the nodes that are up, not suspected and not being removed, the one
 * with the lowest number - orders what nobody asks for: another place for what lost nodes
 * hold, and the end of nodes that are being removed, when they hold nothing.  Two
 * that take themselves for it do no harm: the second one's step changes nothing.
 */
#include "postgres.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "ground/move.h"
#include "ground/step.h"
#include "keep/failover.h"
#include "keep/fit.h"
#include "keep/move.h"
#include "keep/moved.h"
#include "keep/process.h"
#include "keep/proposer.h"
#include "keep/switchover.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PS_FUNCTION(payshard_rebalance_start);
PS_FUNCTION(payshard_rebalance_wait);
PS_FUNCTION(payshard_rebalance_stop);
PS_FUNCTION(payshard_remove_node);

#define PS_MOVE_TIMEOUT_MS 30000	/* to have an order chosen */
#define PS_NAP_MS 200

static PsRefusal
step_rebalance(PsMap *map, void *arg)
{
	return ps_step_rebalance(map);
}

static PsRefusal
step_stop(PsMap *map, void *arg)
{
	return ps_step_stop(map);
}

static PsRefusal
step_finish(PsMap *map, void *arg)
{
	return ps_step_finish(map, ps_map_self());
}

static PsRefusal
step_drain(PsMap *map, void *arg)
{
	return ps_step_drain(map, *(uint32 *) arg);
}

static PsRefusal
step_replace(PsMap *map, void *arg)
{
	return ps_step_replace(map, *(uint32 *) arg);
}

static PsRefusal
step_remove(PsMap *map, void *arg)
{
	const PsMapNode *wanted = arg;
	const PsMapNode *node = ps_map_node(map, wanted->id);

	if (node == NULL || strcmp(node->name, wanted->name) != 0)
		return "the node is none any more";	/* its id may be another's */
	return ps_step_remove_node(map, wanted->id);
}

/* Shards of which something is to be moved. */
static int
count_jobs(const PsMap *map)
{
	int			n = 0;

	for (int s = 0; s < map->n_shards; s++)
		n += map->shards[s].job != 0;
	return n;
}

/* Placements of a node. */
static int
count_held(const PsMap *map, uint32 id)
{
	int			n = 0;

	for (int s = 0; s < map->n_shards; s++)
		n += PS_HAS_NODE(map->shards[s].placements, id);
	return n;
}

/* An order for the map; what it would not change is no error. */
static PsMap *
order(PsStep step, void *arg, const char *reason, const char *what)
{
	PsRefusal	refusal;
	PsMap	   *map = ps_propose(step, arg, reason, PS_MOVE_TIMEOUT_MS, &refusal);

	if (refusal && refusal != ps_move_nothing)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is not possible now", what),
				 errdetail("%s", ps_refusal_sentence(refusal)),
				 errhint("See payshard.nodes and payshard.placements.")));
	return map;
}

/* rebalance_start() -> shards to be moved */
Datum
payshard_rebalance_start(PG_FUNCTION_ARGS)
{
	PsMap	   *map;

	ps_fit_require_superuser("rebalance_start");
	ps_map_require_serving();
	PS_FAULT("move.before_order");
	map = order(step_rebalance, NULL, "rebalance", "a rebalance");
	PS_FAULT("move.after_order");
	PG_RETURN_INT32(count_jobs(map));
}

/* rebalance_stop() -> shards of which something is still to be finished */
Datum
payshard_rebalance_stop(PG_FUNCTION_ARGS)
{
	PsMap	   *map;

	ps_fit_require_superuser("rebalance_stop");
	ps_map_require_serving();
	map = order(step_stop, NULL, "stop of all moves", "stopping");
	PG_RETURN_INT32(count_jobs(map));
}

/* Sleeps until a map is adopted, or a moment; prepared to sleep. */
static void
await_map(void)
{
	(void) ConditionVariableTimedSleep(&ps_shared->map_changed, PS_NAP_MS, PG_WAIT_EXTENSION);
}

/* rebalance_wait(timeout) -> is everything where it was to go? */
Datum
payshard_rebalance_wait(PG_FUNCTION_ARGS)
{
	Interval   *limit = PG_ARGISNULL(0) ? NULL : PG_GETARG_INTERVAL_P(0);
	PsTime		deadline = PS_TIME_NEVER;
	bool		is_over;

	ps_map_require_cluster();
	if (limit)
		deadline = ps_now() + limit->time +
			(limit->day + limit->month * (int64) DAYS_PER_MONTH) * USECS_PER_DAY;
	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	for (;;)
	{
		PsMap	   *map = ps_map_copy();

		is_over = count_jobs(map) == 0;
		pfree(map);
		if (is_over || ps_now() > deadline)
			break;
		await_map();
	}
	ConditionVariableCancelSleep();
	PG_RETURN_BOOL(is_over);
}

/* Removal */

/* Nodes, and zones of nodes, that could hold shards without node `id`. */
static int
count_others(PsMap *map, uint32 id, int *zones)
{
	int			n = 0;

	*zones = 0;
	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];
		bool		is_new_zone = true;

		if (node->id == id || node->weight == 0 || node->is_leaving)
			continue;
		for (int j = 0; j < i; j++)
			if (map->nodes[j].id != id && map->nodes[j].weight > 0 && !map->nodes[j].is_leaving &&
				strcmp(map->nodes[j].zone, node->zone) == 0)
				is_new_zone = false;
		*zones += is_new_zone;
		n += node->state == PS_NODE_UP;
	}
	return n;
}

/* ERROR where copies or zones do not allow it. */
static void
require_room(PsMap *map, const PsMapNode *node)
{
	int			zones_now;
	int			zones;
	int			others = count_others(map, node->id, &zones);

	(void) count_others(map, 0, &zones_now);
	if (others < (int) map->copies)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot be removed: its copies have no other place", node->name),
				 errdetail("Each shard has %u copies. Nodes that are up and may hold shards, without it: %d.",
						   map->copies, others),
				 errhint("Add a node with payshard.add_node() first.")));
	if (zones < Min((int) map->copies, zones_now))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot be removed: copies would lie in one zone", node->name),
				 errdetail("Without it the nodes that hold shards stand in %d zones, and each shard has %u copies.",
						   zones, map->copies),
				 errhint("Add a node in another zone first; or change the zone of one with payshard.set_node().")));
}

/* ERROR where the removal would lose something, or cannot be done from here. */
static void
require_removable(PsMap *map, const PsMapNode *node)
{
	StringInfoData list;
	int			n_last;

	if (node->id == ps_map_self())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot remove itself", node->name),
				 errdetail("It would not learn the map without it."),
				 errhint("Call payshard.remove_node() on another node.")));
	initStringInfo(&list);
	n_last = ps_failover_only_copies(map, node->id, &list);
	if (n_last > 0 && (node->state != PS_NODE_UP || ps_suspicion(node->id, NULL) != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("removing node \"%s\" would lose the last copy of shards", node->name),
				 errdetail_plural("It is lost, and holds the only copy in sync of %d shard: %s.",
								  "It is lost, and holds the only copy in sync of %d shards: %s.",
								  n_last, n_last, list.data),
				 errhint("Start that server again. See payshard.placements.")));
	if (count_held(map, node->id) > 0)
		require_room(map, node);
}

/*
 * Until the node is gone from the map.  Who cancels this leaves the drain going
 * on; the caretaker ends it.
 */
static void
await_removed(uint32 id, const char *name)
{
	bool		is_gone = false;
	bool		is_stopped = false;

	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	while (!is_gone && !is_stopped)
	{
		PsMap	   *map = ps_map_copy();
		PsMapNode  *node = ps_map_node(map, id);

		is_gone = node == NULL || strcmp(node->name, name) != 0;
		is_stopped = !is_gone && !node->is_leaving;
		pfree(map);
		if (!is_gone && !is_stopped)
			await_map();
	}
	ConditionVariableCancelSleep();
	if (is_stopped)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the removal of node \"%s\" was stopped", name),
				 errdetail("payshard.rebalance_stop() was called."),
				 errhint("It keeps the shards that it has; call payshard.remove_node() again, or payshard.rebalance_start().")));
}

/* remove_node(name) */
Datum
payshard_remove_node(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PsMap	   *map;
	PsMapNode  *node;
	uint32		id;

	ps_fit_require_superuser("remove_node");
	ps_map_require_serving();
	map = ps_map_copy();
	node = ps_failover_member(map, name);
	require_removable(map, node);
	id = node->id;
	if (count_held(map, id) == 0)
	{
		ps_propose_or_error(step_remove, node, psprintf("removal of node %s", name), PS_MOVE_TIMEOUT_MS);
		PG_RETURN_VOID();
	}
	PS_FAULT("move.before_drain");
	(void) order(step_drain, &id, psprintf("drain of node %s", name), "draining the node");
	PS_FAULT("move.after_drain");
	await_removed(id, name);
	PG_RETURN_VOID();
}

/* The primary's part */

/* (b): shards of ours with one and the same heir, a few; 0 = there are none. */
static uint32
next_heir(const PsMap *map, bool *shards)
{
	uint32		to = 0;
	int			n = 0;

	memset(shards, 0, sizeof(bool) * PS_SHARDS_MAX);
	for (int s = 0; s < map->n_shards && n < ps_move_shards; s++)
	{
		uint32		heir;

		if (map->shards[s].primary != ps_map_self() || map->shards[s].job == 0 ||
			(heir = ps_move_heir(map, s)) == 0 || (to != 0 && heir != to))
			continue;
		to = heir;
		shards[s] = true;
		n++;
	}
	return to;
}

/* Proposes (c) when a look at our own map says that there is something to drop. */
static void
finish(const PsMap *map)
{
	PsMap	   *trial = palloc(sizeof(PsMap));
	PsRefusal	refusal;

	memcpy(trial, map, sizeof(PsMap));
	refusal = ps_step_finish(trial, ps_map_self());
	pfree(trial);
	if (refusal)
		return;
	PS_FAULT("move.before_finish");
	(void) ps_propose(step_finish, NULL, psprintf("moved from node %s", ps_map_node_name(ps_map_self())),
					  ps_call_timeout_ms, &refusal);
	PS_FAULT("move.after_finish");
}

/* The process for (b): an ERROR ends it, and the keeper starts another. */
void
payshard_move_main(Datum arg)
{
	bool	   *shards;
	uint32		to;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(ps_database, NULL, 0);
	shards = MemoryContextAlloc(TopMemoryContext, sizeof(bool) * PS_SHARDS_MAX);
	pgstat_report_activity(STATE_RUNNING, "giving shards to other primaries");
	for (int batch = 0; batch < PS_SHARDS_MAX && ps_map_incarnation() != 0; batch++)
	{
		StartTransactionCommand();
		to = next_heir(ps_map_copy(), shards);
		if (to == 0)
			break;
		PS_FAULT("move.before_switch");
		ps_switch_shards(shards, to);
		PS_FAULT("move.after_switch");
		CommitTransactionCommand();
	}
	proc_exit(0);
}

/* The caretaker's part */

static bool
is_caretaker(const PsMap *map)
{
	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];

		if (node->state != PS_NODE_UP || node->is_leaving || ps_suspicion(node->id, NULL) != NULL)
			continue;
		return node->id == ps_map_self();
	}
	return false;
}

/* Not heard since then, as far as this start of this node can tell. */
static PsTime
silent_since(uint32 id)
{
	return Max(ps_suspicion_heard(id), (PsTime) pg_atomic_read_u64(&ps_shared->started_us));
}

static void
replace_lost(const PsMap *map, const PsMapNode *node)
{
	PsMap	   *trial;
	uint32		id = node->id;
	PsRefusal	refusal;
	PsTime		since = silent_since(id);
	int64		silent_s;

	if (ps_replace_after_s <= 0 || id == ps_map_self() || node->is_resting ||
		!ps_has_passed(since, ps_replace_after_s * 1000L))
		return;
	trial = palloc(sizeof(PsMap));
	memcpy(trial, map, sizeof(PsMap));
	refusal = ps_step_replace(trial, id);
	pfree(trial);
	if (refusal)
		return;
	PS_FAULT("move.before_replace");
	silent_s = (ps_now() - since) / USECS_PER_SEC;
	(void) ps_propose(step_replace, &id,
					  psprintf("replacement of node %s: not heard for " INT64_FORMAT " s",
							   node->name, silent_s),
					  ps_call_timeout_ms, &refusal);
	PS_FAULT("move.after_replace");
}

static void
remove_empty(const PsMap *map, const PsMapNode *node)
{
	PsRefusal	refusal;

	if (!node->is_leaving || count_held(map, node->id) > 0 || node->leader != 0)
		return;
	PS_FAULT("move.before_remove");
	(void) ps_propose(step_remove, (void *) node, psprintf("removal of node %s", node->name),
					  ps_call_timeout_ms, &refusal);
}

static bool
take_care(const PsMap *map)
{
	bool		again = false;

	for (int i = 0; i < map->n_nodes; i++)
	{
		again |= map->nodes[i].is_leaving;
		if (is_caretaker(map))
		{
			replace_lost(map, &map->nodes[i]);
			remove_empty(map, &map->nodes[i]);
		}
	}
	return again;
}

bool
ps_duty_move(void)
{
	static PsProcess process;
	static uint64 looked_epoch = 0;
	bool		shards[PS_SHARDS_MAX];
	PsMap	   *map;

	if (ps_map_incarnation() == 0 || (map = ps_map_copy()) == NULL)
		return false;
	if (looked_epoch != map->epoch)
		ps_moved_look(map);
	looked_epoch = map->epoch;
	finish(map);
	if (next_heir(map, shards) != 0)
		ps_process_start("payshard_move_main", "move", 0, &process);
	return take_care(map) || count_jobs(map) > 0;
}
