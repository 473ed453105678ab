/*
 * maintenance.c
 *		How does a node go down for planned work, and come back?
 *
 * start: (a) the cluster can go on without it, or it is refused; (b) the map says
 * that it is resting; (c) its shards get other primaries, and what others have sent to
 * it before they knew has come to its end.  From (b) on its absence
 * is planned time in payshard.availability, its copies get no other place (move.c),
 * and when it stops to answer it is left out at once (heartbeat.c).
 *
 * stop: (d) all its copies are in sync again; (e) the map says that it rests no
 * more; (f) it is primary again of the shards for which it is the ring's first
 * choice.
 *
 * Died between: the mark stands in the map, and either function may be called again.
 */
#include "postgres.h"

#include "ground/step.h"
#include "keep/failover.h"
#include "keep/fit.h"
#include "keep/maintenance.h"
#include "keep/planned.h"
#include "keep/proposer.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "port/pg_bitutils.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PS_FUNCTION(payshard_start_maintenance);
PS_FUNCTION(payshard_stop_maintenance);

#define PS_PROPOSE_MS 30000
#define PS_LOOK_MS 50
#define PS_QUIET_LOOK_MS 5

typedef struct MarkStep
{
	uint32		id;
	bool		is_resting;
} MarkStep;

static PsRefusal
step_mark(PsMap *map, void *arg)
{
	MarkStep   *mark = arg;

	return ps_step_maintain(map, mark->id, mark->is_resting);
}

/* Nodes that are there, and expected to stay. */
static PsNodeSet
lasting(PsMap *map)
{
	PsNodeSet	set = 0;

	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];

		if (node->state == PS_NODE_UP && !node->is_resting && ps_suspicion(node->id, NULL) == NULL)
			set |= PS_NODE_BIT(node->id);
	}
	return set;
}

void
ps_require_spare(PsMap *map, const PsMapNode *node, const char *what)
{
	PsNodeSet	others = lasting(map) & ~PS_NODE_BIT(node->id);
	int			needed = Max(1, ps_min_in_sync);

	if (!ps_map_is_majority(others, ps_map_voters(map)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot %s: no majority would be left", node->name, what),
				 errdetail("Without it %d of %d nodes are up and not in maintenance.",
						   pg_popcount64(others), map->n_nodes),
				 errhint("Take the others back first; see payshard.nodes. Of three nodes, one of which may be a witness, any one can be spared.")));
	for (int s = 0; s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];
		int			n = pg_popcount64(shard->in_sync & others);

		if (n < needed && PS_HAS_NODE(shard->in_sync, node->id))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("node \"%s\" cannot %s: shard %d would have too few copies", node->name, what, s),
					 errdetail("Without it %d copies are in sync; payshard.min_in_sync is %d.", n, ps_min_in_sync),
					 errhint("Wait until the other copies are in sync (see payshard.placements), or lower payshard.min_in_sync.")));
	}
}

static bool
is_in_sync(PsMap *map, uint32 id)
{
	const PsMapNode *node = ps_map_node(map, id);

	if (node == NULL || node->state != PS_NODE_UP || node->leader != 0)
		return false;
	for (int s = 0; s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];

		PsNodeSet	missing = shard->placements & ~shard->in_sync & ~shard->arriving;

		if (PS_HAS_NODE(shard->waits, id) || PS_HAS_NODE(missing & ~shard->leaving, id))
			return false;
	}
	return true;
}

bool
ps_await_in_sync(uint32 id, PsTime deadline)
{
	bool		is_back = false;

	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	for (;;)
	{
		PsMap	   *map = ps_map_copy();

		is_back = is_in_sync(map, id);
		pfree(map);
		if (is_back || ps_now() > deadline)
			break;
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, PS_LOOK_MS, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
	return is_back;
}

PsMap *
ps_maintain(uint32 id, bool is_resting, const char *reason)
{
	MarkStep	step = {id, is_resting};

	return ps_propose_or_error(step_mark, &step, reason, PS_PROPOSE_MS);
}

static bool
is_quiet(uint32 id, PsTime deadline)
{
	PGconn	   *conn = ps_peer(id, ps_map_node_name(id), deadline);
	PGresult   *result;
	bool		is_quiet;

	if (conn == NULL)
		return true;			/* nobody else reaches it, either */
	result = ps_conn_call(conn, "SELECT payshard.peer_is_quiet()", 0, NULL, false, deadline);
	if (result == NULL)
		ps_peer_drop(id);
	is_quiet = PQresultStatus(result) != PGRES_TUPLES_OK || PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	return is_quiet;
}

void
ps_await_quiet(uint32 id)
{
	PsTime		deadline = ps_deadline(ps_call_timeout_ms);

	while (!is_quiet(id, deadline) && ps_now() < deadline)
	{
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, PS_QUIET_LOOK_MS,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* start_maintenance(node, reason) -> shards that got another primary */
Datum
payshard_start_maintenance(PG_FUNCTION_ARGS)
{
	PsMap	   *map;
	PsMapNode  *node;
	double		pause_ms;
	const char *why;
	int			moved;

	ps_fit_require_superuser("start_maintenance");
	ps_map_require_serving();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("start_maintenance needs a node"),
				 errhint("See payshard.nodes.")));
	map = ps_map_copy();
	node = ps_failover_member(map, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	why = PG_ARGISNULL(1) ? "" : psprintf(": %s", text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (!node->is_resting)
	{
		ps_require_spare(map, node, "go into maintenance");
		PS_FAULT("maintenance.before_mark");
		map = ps_maintain(node->id, true, psprintf("maintenance of node %s%s", node->name, why));
		node = ps_map_node(map, node->id);
	}
	PS_FAULT("maintenance.marked");
	/* what it alone has in sync stays with it while it is down: already refused above */
	moved = ps_plan_carry_out(ps_plan_away(map, node, 0), NULL, &pause_ms);
	ps_await_quiet(node->id);
	PG_RETURN_INT32(moved);
}

/* stop_maintenance(node) -> shards of which it is primary again */
Datum
payshard_stop_maintenance(PG_FUNCTION_ARGS)
{
	PsMap	   *map;
	PsMapNode  *node;
	double		pause_ms;

	ps_fit_require_superuser("stop_maintenance");
	ps_map_require_serving();
	map = ps_map_copy();
	node = ps_failover_member(map, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (!node->is_resting)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is not in maintenance", node->name),
				 errhint("See payshard.nodes.")));
	if (!ps_await_in_sync(node->id, ps_deadline(ps_switchover_timeout_ms)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is not back in sync yet", node->name),
				 errdetail("It stays in maintenance. payshard.switchover_timeout (%d ms) was waited for.",
						   ps_switchover_timeout_ms),
				 errhint("Start that server, and call payshard.stop_maintenance() again when payshard.placements shows its copies in sync.")));
	PS_FAULT("maintenance.before_end");
	map = ps_maintain(node->id, false, psprintf("end of maintenance of node %s", node->name));
	PS_FAULT("maintenance.ended");
	PG_RETURN_INT32(ps_plan_carry_out(ps_plan_home(map, node->id, NULL), NULL, &pause_ms));
}
