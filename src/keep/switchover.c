/*
 * switchover.c
 *		Stand-in until the real one is merged: gate, drain, applied everywhere, map.
 */
#include "postgres.h"

#include "keep/proposer.h"
#include "keep/switchover.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "node/map.h"
#include "node/settings.h"
#include "write/queue.h"

typedef struct Switch
{
	const bool *shards;
	uint32		to;
} Switch;

static Switch now;
static bool is_shut;

static PsRefusal
step_switch(PsMap *map, void *arg)
{
	for (int s = 0; s < map->n_shards; s++)
	{
		PsMapShard *shard = &map->shards[s];

		if (!now.shards[s])
			continue;
		if (shard->primary != ps_map_self() || shard->waits != 0 || !PS_HAS_NODE(shard->in_sync, now.to))
			return "a shard has another primary, or the heir is not in sync";
	}
	for (int s = 0; s < map->n_shards; s++)
	{
		if (!now.shards[s])
			continue;
		map->shards[s].primary = now.to;
		map->shards[s].term++;
		map->shards[s].joining = 0;
	}
	map->epoch++;
	return NULL;
}

static void
await_applied(void)
{
	PsMap	   *map = ps_map_copy();
	PsNodeSet	members = 0;

	for (int s = 0; s < map->n_shards; s++)
		if (now.shards[s])
			members |= map->shards[s].in_sync & ~PS_NODE_BIT(ps_map_self());
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
	{
		PsArg		args[4];
		PGconn	   *conn;
		PGresult   *result;

		if (!PS_HAS_NODE(members, id))
			continue;
		conn = ps_peer(id, ps_map_node_name(id), ps_deadline(ps_call_timeout_ms));
		args[0] = ps_arg_int8(ps_map_self());
		args[1] = ps_arg_int8((int64) ps_map_incarnation());
		args[2] = ps_arg_int8((int64) ps_shared->peers[id].acked_seq);
		args[3] = ps_arg_int8(3000);
		result = conn ? ps_conn_call(conn, "SELECT payshard.peer_await_applied($1::int, $2, $3, $4::int)", 4,
									 args, false, ps_deadline(ps_call_timeout_ms)) : NULL;
		if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK || PQgetvalue(result, 0, 0)[0] != 't')
			ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE), errmsg("a member has not applied all")));
		PQclear(result);
	}
}

static void
shut(void)
{
	if (is_shut)
		return;
	is_shut = true;
	if (!ps_queue_close_gate(ps_deadline(5000)) || !ps_queue_drain(ps_deadline(5000)))
		ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("could not drain")));
	await_applied();
}

static void
open_again(void)
{
	if (is_shut)
		ps_queue_open_gate();
	is_shut = false;
}

void
ps_switch_shards(const bool *shards, uint32 to)
{
	PsRefusal	refusal;

	now.shards = shards;
	now.to = to;
	ps_propose_warm();
	PG_TRY();
	{
		(void) ps_propose_gated(step_switch, psprintf("switchover to node %s", ps_map_node_name(to)),
								ps_call_timeout_ms, &refusal, shut, open_again);
	}
	PG_FINALLY();
	{
		open_again();
	}
	PG_END_TRY();
	if (refusal)
		ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE), errmsg("%s", refusal)));
}
