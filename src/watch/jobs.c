/*
 * jobs.c
 *		What would a rebalance move, what is under way, and how is it balanced?
 *
 * The plan is not stored: it is the difference that the step of ground/move.h
 * makes, tried on a copy of the map.  What is under way is read from the map, too.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "ground/move.h"
#include "keep/copy.h"
#include "keep/proposer.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "node/map.h"
#include "node/settings.h"
#include "port/pg_bitutils.h"
#include "utils/timestamp.h"
#include "watch/jobs.h"
#include "watch/out.h"

PS_FUNCTION(payshard_rebalance_plan);
PS_FUNCTION(payshard_show_balance);
PS_FUNCTION(payshard_show_moves);

/* The map, or NULL when this database is in no cluster. */
static PsMap *
current_map(void)
{
	return ps_shared && ps_shared->self != 0 ? ps_map_copy() : NULL;
}

/* The map as a rebalance would order it; the same when there is nothing to do. */
static PsMap *
planned_map(const PsMap *map)
{
	PsMap	   *plan = palloc(sizeof(PsMap));

	memcpy(plan, map, sizeof(PsMap));
	(void) ps_step_rebalance(plan);
	return plan;
}

/* Bytes of the shards, as their primaries tell; -1 where one does not answer. */
static int64 *
shard_bytes(const PsMap *map)
{
	int64	   *bytes = palloc(sizeof(int64) * map->n_shards);

	for (int s = 0; s < map->n_shards; s++)
		bytes[s] = -1;
	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];
		int			shards[PS_SHARDS_MAX];
		int			n = 0;
		PGconn	   *conn;
		PGresult   *result;
		PsArg		arg;

		for (int s = 0; s < map->n_shards; s++)
			if (map->shards[s].primary == node->id)
				shards[n++] = s;
		if (n == 0)
			continue;
		conn = ps_peer(node->id, node->name, ps_deadline(ps_call_timeout_ms));
		if (conn == NULL)
			continue;
		arg = ps_arg_text(ps_int_array(shards, n));
		result = ps_conn_call(conn, "SELECT shard, bytes FROM payshard.peer_shard_bytes($1::int[])", 1,
							  &arg, false, ps_deadline(ps_call_timeout_ms));
		if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK)
			ps_peer_drop(node->id);
		else
			for (int row = 0; row < PQntuples(result); row++)
			{
				int64		s = ps_result_int8(result, row, 0);

				if (s >= 0 && s < map->n_shards)
					bytes[s] = ps_result_int8(result, row, 1);
			}
		PQclear(result);
	}
	return bytes;
}

static void
put_move(PsOut *out, const PsMap *map, int shard, uint32 from, uint32 to, int64 bytes,
		 const char *reason)
{
	ps_out_int(out, shard);
	ps_out_node(out, map, from);
	ps_out_node(out, map, to);
	if (bytes < 0)
		ps_out_null(out);
	else
		ps_out_int(out, bytes);
	ps_out_text(out, reason);
	ps_out_row(out);
}

static uint32
take_lowest(PsNodeSet *set)
{
	uint32		id = *set == 0 ? 0 : pg_rightmost_one_pos64(*set);

	*set &= *set - 1;
	return id;
}

/* Why a placement leaves a node. */
static const char *
why_moved(PsMap *map, uint32 from)
{
	const PsMapNode *node = from ? ps_map_node(map, from) : NULL;

	if (from == 0)
		return "a copy is missing";
	if (node && node->is_leaving)
		return "the node is being removed";
	if (node && node->weight == 0)
		return "the node has no weight";
	return "ring";
}

/* What is new in the plan for one shard. */
static void
put_shard_plan(PsOut *out, PsMap *map, const PsMapShard *was, const PsMapShard *is, int s,
			   int64 bytes)
{
	PsNodeSet	to = is->arriving & ~was->arriving;
	PsNodeSet	from = is->leaving & ~was->leaving;

	while (to != 0 || from != 0)
	{
		uint32		leaves = take_lowest(&from);
		uint32		comes = take_lowest(&to);

		put_move(out, map, s, leaves, comes, comes ? bytes : 0,
				 comes ? why_moved(map, leaves) : "a copy too many");
	}
	if (is->heir != 0 && is->heir != was->heir)
		put_move(out, map, s, is->primary, is->heir, 0, "primary");
}

/* rebalance_plan() */
Datum
payshard_rebalance_plan(PG_FUNCTION_ARGS)
{
	PsMap	   *map;
	PsMap	   *plan;
	int64	   *bytes;
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	ps_map_require_cluster();
	map = ps_map_copy();
	plan = planned_map(map);
	bytes = shard_bytes(map);
	for (int s = 0; s < map->n_shards; s++)
		put_shard_plan(&out, map, &map->shards[s], &plan->shards[s], s, bytes[s]);
	return (Datum) 0;
}

/* Placements that stay, and shards to be primary of, of one node. */
static void
count_load(const PsMap *map, uint32 id, int *placements, int *primaries)
{
	*placements = *primaries = 0;
	for (int s = 0; s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];
		uint32		heir = shard->heir ? shard->heir : shard->primary;

		*placements += PS_HAS_NODE(shard->placements & ~shard->leaving, id);
		*primaries += heir == id;
	}
}

/* Placements and primaries over the fair share of them; null for a witness. */
static void
put_load(PsOut *out, int placements, double fair)
{
	if (fair > 0)
		ps_out_double(out, placements / fair);
	else
		ps_out_null(out);
}

Datum
payshard_show_balance(PG_FUNCTION_ARGS)
{
	PsMap	   *map = current_map();
	PsMap	   *plan = map ? planned_map(map) : NULL;
	double		weights = 0;
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	for (int i = 0; map && i < map->n_nodes; i++)
		weights += map->nodes[i].is_leaving ? 0 : map->nodes[i].weight;
	for (int i = 0; map && i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];
		double		share = weights > 0 && !node->is_leaving ? node->weight / weights : 0;
		double		fair = map->n_shards * (double) map->copies * share;
		int			held = 0;
		int			led = 0;
		int			placements;
		int			primaries;

		for (int s = 0; s < map->n_shards; s++)
		{
			held += PS_HAS_NODE(map->shards[s].placements, node->id);
			led += map->shards[s].primary == node->id;
		}
		count_load(plan, node->id, &placements, &primaries);
		ps_out_text(&out, node->name);
		ps_out_text(&out, node->zone);
		ps_out_int(&out, node->weight);
		ps_out_int(&out, held);
		ps_out_int(&out, led);
		put_load(&out, held, fair);
		ps_out_int(&out, placements);
		ps_out_int(&out, primaries);
		put_load(&out, placements, fair);
		ps_out_row(&out);
	}
	return (Datum) 0;
}

/* What is the next thing to happen to a shard that is moved? */
static const char *
phase_of(const PsMap *map, int s)
{
	const PsMapShard *shard = &map->shards[s];

	if (shard->waits != 0)
		return "recovering";
	if (shard->arriving & shard->joining)
		return "copying";
	if (shard->arriving)
		return "waiting";
	if (ps_move_heir(map, s) != 0)
		return "switching";
	return "dropping";
}

Datum
payshard_show_moves(PG_FUNCTION_ARGS)
{
	PsMap	   *map = current_map();
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	for (int s = 0; map && s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];

		if (shard->job == 0)
			continue;
		ps_out_int(&out, (int64) shard->job);
		ps_out_int(&out, s);
		ps_out_text(&out, phase_of(map, s));
		ps_out_nodes(&out, map, shard->arriving);
		ps_out_nodes(&out, map, shard->leaving);
		ps_out_node(&out, map, shard->heir);
		ps_out_row(&out);
	}
	return (Datum) 0;
}
