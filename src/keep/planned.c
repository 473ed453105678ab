/*
 * planned.c
 *		Which node is to be primary of which shard, when a DBA wants it changed?
 *
 * Any node may be asked.  It chooses for each shard who is to be primary, and has
 * the primary of now do it (switchover.c), all shards of one pair of nodes at once.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "ground/step.h"
#include "keep/failover.h"
#include "keep/copy.h"
#include "keep/fit.h"
#include "keep/planned.h"
#include "keep/proposer.h"
#include "keep/switchover.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

PS_FUNCTION(payshard_switchover_node);
PS_FUNCTION(payshard_switchover_shard);

struct PsSwitchPlan
{
	PsMap	   *map;
	uint32		next[PS_SHARDS_MAX];	/* who is to be primary; 0 = it stays */
	int			n_primaries[PS_NODES_MAX];	/* then */
};

/* ------------------------------------------------------------ choosing */

/* Nodes that could be primary of a shard instead of its primary. */
static PsNodeSet
able(PsMap *map, int s)
{
	const PsMapShard *shard = &map->shards[s];
	PsNodeSet	set = shard->in_sync & ~shard->leaving & ~PS_NODE_BIT(shard->primary);

	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];

		if (node->state != PS_NODE_UP || node->is_resting || ps_suspicion(node->id, NULL) != NULL)
			set &= ~PS_NODE_BIT(node->id);
	}
	return set;
}

/* The first of a row of the ring; else who is primary of the fewest. */
static uint32
choose(const PsSwitchPlan *plan, PsNodeSet set, const uint32 *row)
{
	uint32		best = 0;

	for (uint32 i = 0; i < plan->map->copies; i++)
		if (row[i] != 0 && PS_HAS_NODE(set, row[i]))
			return row[i];
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
		if (PS_HAS_NODE(set, id) && (best == 0 || plan->n_primaries[id] < plan->n_primaries[best]))
			best = id;
	return best;
}

static PsSwitchPlan *
make_plan(PsMap *map)
{
	PsSwitchPlan *plan = palloc0(sizeof(PsSwitchPlan));

	plan->map = map;
	for (int s = 0; s < map->n_shards; s++)
		plan->n_primaries[map->shards[s].primary]++;
	return plan;
}

static void
plan_shard(PsSwitchPlan *plan, int s, uint32 to)
{
	plan->next[s] = to;
	plan->n_primaries[plan->map->shards[s].primary]--;
	plan->n_primaries[to]++;
}

static void
no_other_copy(int s, const char *node)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("shard %d cannot leave node \"%s\"", s, node),
			 errdetail("No other node that is up has a copy in sync."),
			 errhint("Wait until its copies are in sync; see payshard.placements.")));
}

PsSwitchPlan *
ps_plan_away(PsMap *map, const PsMapNode *from, uint32 target)
{
	PsSwitchPlan *plan = make_plan(map);
	uint32	   *rows = ps_map_ring(map, ps_map_up_nodes(map));

	for (int s = 0; s < map->n_shards; s++)
	{
		PsNodeSet	set = able(map, s);

		if (map->shards[s].primary != from->id)
			continue;
		if (target != 0)
			set = map->shards[s].in_sync & PS_NODE_BIT(target);
		if (target != 0 && set == 0)
			continue;			/* it has no copy of that one */
		if (set == 0)
			no_other_copy(s, from->name);
		plan_shard(plan, s, choose(plan, set, rows + (size_t) s * map->copies));
	}
	pfree(rows);
	return plan;
}

PsSwitchPlan *
ps_plan_home(PsMap *map, uint32 id, const bool *shards)
{
	PsSwitchPlan *plan = make_plan(map);
	uint32	   *rows = ps_map_ring(map, ps_map_voters(map));

	for (int s = 0; s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];

		if ((shards ? shards[s] : rows[(size_t) s * map->copies] == id) && shard->primary != id &&
			shard->waits == 0 && PS_HAS_NODE(shard->in_sync & ~shard->leaving, id))
			plan_shard(plan, s, id);
	}
	pfree(rows);
	return plan;
}

/* ------------------------------------------------------------ doing */

/* One pair of nodes: shards as flags; returns ms of pause. */
static double
switch_pair(uint32 from, uint32 to, const int *shards, int n)
{
	char	   *name = ps_map_node_name(from);
	PGconn	   *conn;
	PGresult   *result;
	PsArg		args[2];
	double		ms;

	if (from == ps_map_self())
	{
		bool	   *flags = palloc0(sizeof(bool) * PS_SHARDS_MAX);

		for (int i = 0; i < n; i++)
			flags[shards[i]] = true;
		return ps_switch_shards(flags, to);
	}
	conn = ps_peer(from, name, ps_deadline(ps_call_timeout_ms));
	if (conn == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" cannot be reached", name),
				 errdetail("It is primary of the shards, and would have to give them away itself."),
				 errhint("When it is lost, call payshard.failover().")));
	args[0] = ps_arg_text(ps_int_array(shards, n));
	args[1] = ps_arg_int8(to);
	result = ps_conn_call(conn, "SELECT payshard.peer_switch($1::int[], $2::int)", 2, args, false,
						  ps_deadline(2 * ps_switchover_timeout_ms + 4 * ps_call_timeout_ms));
	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		ps_peer_drop(from);
		ps_conn_throw(result, NULL, name, NULL);
	}
	ms = strtod(PQgetvalue(result, 0, 0), NULL);
	PQclear(result);
	return ms;
}

static void
put_row(ReturnSetInfo *set, uint32 from, uint32 to, const int *shards, int n, double ms)
{
	Datum		values[4];
	bool		nulls[4] = {false, false, false, false};
	Datum	   *numbers = palloc(sizeof(Datum) * n);

	for (int i = 0; i < n; i++)
		numbers[i] = Int32GetDatum(shards[i]);
	values[0] = CStringGetTextDatum(ps_map_node_name(from));
	values[1] = CStringGetTextDatum(ps_map_node_name(to));
	values[2] = PointerGetDatum(construct_array(numbers, n, INT4OID, sizeof(int32), true,
												TYPALIGN_INT));
	values[3] = Float8GetDatum(ms);
	tuplestore_putvalues(set->setResult, set->setDesc, values, nulls);
}

/* Throws the error of one pair again, with what was done before, which stays so. */
static void
throw_in_part(MemoryContext caller, const char *done)
{
	ErrorData  *error;

	MemoryContextSwitchTo(caller);
	error = CopyErrorData();
	FlushErrorState();
	error->detail = psprintf("%s%sOther nodes are primary by now of %s.", error->detail ? error->detail : "",
							 error->detail ? " " : "", done);
	error->hint = psprintf("%s%sThen call it again for the others; see payshard.shards.",
						   error->hint ? error->hint : "", error->hint ? " " : "");
	ReThrowError(error);
}

/* switch_pair; `done` says what was done before it. */
static double
switch_next_pair(uint32 from, uint32 to, const int *shards, int n, StringInfo done)
{
	MemoryContext caller = CurrentMemoryContext;
	double		ms = 0;

	PG_TRY();
	{
		ms = switch_pair(from, to, shards, n);
	}
	PG_CATCH();
	{
		if (done->len == 0)
			PG_RE_THROW();
		throw_in_part(caller, done->data);
	}
	PG_END_TRY();
	appendStringInfo(done, "%sshards %s of node \"%s\" (node \"%s\")", done->len ? ", " : "",
					 ps_int_array(shards, n), ps_map_node_name(from), ps_map_node_name(to));
	return ms;
}

int
ps_plan_carry_out(const PsSwitchPlan *plan, ReturnSetInfo *set, double *pause_ms)
{
	int			n_all = 0;
	StringInfoData done;

	initStringInfo(&done);
	*pause_ms = 0;
	for (uint32 from = 1; from < PS_NODES_MAX; from++)
		for (uint32 to = 1; to < PS_NODES_MAX; to++)
		{
			int			shards[PS_SHARDS_MAX];
			int			n = 0;
			double		ms;

			for (int s = 0; s < plan->map->n_shards; s++)
				if (plan->next[s] == to && plan->map->shards[s].primary == from)
					shards[n++] = s;
			if (n == 0)
				continue;
			ms = switch_next_pair(from, to, shards, n, &done);
			*pause_ms = Max(*pause_ms, ms);
			n_all += n;
			if (set)
				put_row(set, from, to, shards, n, ms);
		}
	return n_all;
}

static PsMap *
begin(FunctionCallInfo fcinfo, const char *what)
{
	ps_fit_require_superuser(what);
	ps_map_require_serving();
	InitMaterializedSRF(fcinfo, 0);
	return ps_map_copy();
}

/* The node of an argument; 0 = null. */
static uint32
target_of(FunctionCallInfo fcinfo, int arg, PsMap *map)
{
	PsMapNode  *node;

	if (PG_ARGISNULL(arg))
		return 0;
	node = ps_failover_member(map, text_to_cstring(PG_GETARG_TEXT_PP(arg)));
	if (node->state != PS_NODE_UP || node->weight == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot become primary", node->name),
				 node->weight == 0 ? errdetail("It has weight 0 and holds no copies.") : errdetail("It has failed."),
				 errhint("See payshard.nodes and payshard.placements.")));
	return node->id;
}

static void
require_argument(FunctionCallInfo fcinfo)
{
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("switchover needs a node or a shard"),
				 errhint("For example: SELECT * FROM payshard.switchover('n2').")));
}

static void
same_node(const char *name)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("node \"%s\" cannot give its shards to itself", name),
			 errdetail("The node and the target are the same."),
			 errhint("Name another target, or none.")));
}

/* switchover(node, target) -> rows (from_node, to_node, shards, pause_ms) */
Datum
payshard_switchover_node(PG_FUNCTION_ARGS)
{
	PsMap	   *map = begin(fcinfo, "switchover");
	PsMapNode  *node;
	uint32		target;
	double		pause_ms;

	require_argument(fcinfo);
	node = ps_failover_member(map, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	target = target_of(fcinfo, 1, map);
	if (target == node->id)
		same_node(node->name);
	(void) ps_plan_carry_out(ps_plan_away(map, node, target), (ReturnSetInfo *) fcinfo->resultinfo,
							 &pause_ms);
	return (Datum) 0;
}

/* switchover(shard, target) -> the same */
Datum
payshard_switchover_shard(PG_FUNCTION_ARGS)
{
	PsMap	   *map = begin(fcinfo, "switchover");
	int			s;
	uint32		target;
	PsSwitchPlan *plan;
	uint32	   *rows;
	char	   *primary;
	double		pause_ms;

	require_argument(fcinfo);
	s = PG_GETARG_INT32(0);
	if (s < 0 || s >= map->n_shards)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no shard %d", s),
				 errdetail("Shards are numbered 0 to %d.", map->n_shards - 1),
				 errhint("See payshard.shards.")));
	primary = ps_map_node_name(map->shards[s].primary);
	target = target_of(fcinfo, 1, map);
	if (target == map->shards[s].primary)
		return (Datum) 0;
	plan = make_plan(map);
	rows = ps_map_ring(map, ps_map_up_nodes(map));
	if (target == 0)
		target = choose(plan, able(map, s), rows + (size_t) s * map->copies);
	else if (!PS_HAS_NODE(map->shards[s].in_sync, target))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot become primary of shard %d", ps_map_node_name(target), s),
				 errdetail("It has no copy in sync."),
				 errhint("See payshard.placements.")));
	if (target == 0)
		no_other_copy(s, primary);
	plan_shard(plan, s, target);
	(void) ps_plan_carry_out(plan, (ReturnSetInfo *) fcinfo->resultinfo, &pause_ms);
	return (Datum) 0;
}
