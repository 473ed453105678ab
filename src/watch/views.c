/*
 * views.c
 *		What does the map on this node say, and whom does this node hear?
 *
 * Read from one copy of the map, so that the rows of one query fit together.
 * No cluster, no rows.
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/suspicion.h"
#include "utils/acl.h"
#include "watch/out.h"
#include "watch/views.h"

PS_FUNCTION(payshard_show_nodes);
PS_FUNCTION(payshard_show_leases);
PS_FUNCTION(payshard_show_shards);
PS_FUNCTION(payshard_show_placements);

/* The map, or NULL when this database is in no cluster. */
static PsMap *
current_map(void)
{
	return ps_shared && ps_shared->self != 0 ? ps_map_copy() : NULL;
}

/* How a node is reached, for those who may know; options of the server only:
 * users and passwords stand in the user mapping. */
static char *
conninfo_of(const char *name)
{
	Oid			oid = get_foreign_server_oid(psprintf("%s%s", PS_SERVER_PREFIX, name), true);
	StringInfoData buf;
	ListCell   *cell;

	if (!OidIsValid(oid) || !has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		return NULL;
	initStringInfo(&buf);
	foreach(cell, GetForeignServer(oid)->options)
	{
		DefElem    *option = lfirst(cell);

		if (strncmp(option->defname, "pass", 4) == 0 || strcmp(option->defname, "sslpassword") == 0)
			continue;
		appendStringInfo(&buf, "%s%s=%s", buf.len ? " " : "", option->defname, defGetString(option));
	}
	return buf.data;
}

/* When this node last heard a node, and how many ms ago. */
static void
put_heard(PsOut *out, uint32 id, TimestampTz now)
{
	TimestampTz heard = (TimestampTz) pg_atomic_read_u64(&ps_shared->peers[id].heard_at);

	ps_out_time(out, id == ps_map_self() ? 0 : heard);
	if (id == ps_map_self() || heard == 0)
		ps_out_null(out);
	else
		ps_out_int(out, Max(now - heard, 0) / 1000);
}

Datum
payshard_show_nodes(PG_FUNCTION_ARGS)
{
	PsMap	   *map = current_map();
	TimestampTz now = GetCurrentTimestamp();
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	for (int i = 0; map && i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];

		ps_out_int(&out, node->id);
		ps_out_text(&out, node->name);
		ps_out_text(&out, node->zone);
		ps_out_int(&out, node->weight);
		ps_out_text(&out, node->state != PS_NODE_UP ? "failed" : node->is_resting ? "maintenance" : "up");
		ps_out_int(&out, (int64) node->incarnation);
		ps_out_bool(&out, node->id == ps_map_self());
		ps_out_text(&out, conninfo_of(node->name));
		put_heard(&out, node->id, now);
		ps_out_int(&out, (int64) node->settled);
		ps_out_node(&out, map, node->leader);
		ps_out_row(&out);
	}
	return (Datum) 0;
}

/* held, left_ms: of this node's own lease. */
static void
put_own_lease(PsOut *out)
{
	uint64		until = pg_atomic_read_u64(&ps_shared->lease.until);
	uint64		now = ps_clock_us();

	ps_out_bool(out, until > now);
	if (until == PS_LEASE_FOR_EVER)
		ps_out_null(out);
	else
		ps_out_int(out, until > now ? (int64) ((until - now) / 1000) : 0);
	for (int i = 0; i < 4; i++)
		ps_out_null(out);
}

/* granted_ms, promised_ms, suspicion, silent_ms: of another node. */
static void
put_other(PsOut *out, uint32 id)
{
	uint64		since = 0;
	const char *suspicion = ps_suspicion(id, &since);

	ps_out_null(out);
	ps_out_null(out);
	ps_out_int(out, (int64) ps_lease_granted_ms(id));
	ps_out_int(out, (int64) ps_lease_bound_ms(id));
	ps_out_text(out, suspicion);
	if (since == 0)
		ps_out_null(out);
	else
		ps_out_int(out, (int64) (ps_clock_us() - since) / 1000);
}

Datum
payshard_show_leases(PG_FUNCTION_ARGS)
{
	PsMap	   *map = current_map();
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	for (int i = 0; map && i < map->n_nodes; i++)
	{
		uint32		id = map->nodes[i].id;

		ps_out_node(&out, map, id);
		ps_out_bool(&out, id == ps_map_self());
		if (id == ps_map_self())
			put_own_lease(&out);
		else
			put_other(&out, id);
		ps_out_int(&out, ps_suspicion_falls(id));
		ps_out_int(&out, ps_suspicion_pause_ms(id));
		ps_out_row(&out);
	}
	return (Datum) 0;
}

static const char *
shard_state(PsMap *map, const PsMapShard *shard)
{
	const PsMapNode *primary = ps_map_node(map, shard->primary);

	if (shard->waits != 0)
		return "recovering";
	if (primary == NULL || primary->state != PS_NODE_UP)
		return "no primary";
	return "open";
}

Datum
payshard_show_shards(PG_FUNCTION_ARGS)
{
	PsMap	   *map = current_map();
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	for (int s = 0; map && s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];

		ps_out_int(&out, s);
		ps_out_node(&out, map, shard->primary);
		ps_out_int(&out, (int64) shard->term);
		ps_out_text(&out, shard_state(map, shard));
		ps_out_nodes(&out, map, shard->in_sync);
		ps_out_nodes(&out, map, shard->joining);
		ps_out_nodes(&out, map, shard->placements & ~shard->in_sync & ~shard->joining);
		ps_out_nodes(&out, map, shard->placements);
		ps_out_nodes(&out, map, shard->waits);
		ps_out_row(&out);
	}
	return (Datum) 0;
}

Datum
payshard_show_placements(PG_FUNCTION_ARGS)
{
	static const char *const states[] = {
		[PS_PLACEMENT_OUT] = "out",
		[PS_PLACEMENT_JOINING] = "joining",
		[PS_PLACEMENT_IN_SYNC] = "in_sync",
	};
	PsMap	   *map = current_map();
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	for (int s = 0; map && s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];

		for (int i = 0; i < map->n_nodes; i++)
		{
			uint32		id = map->nodes[i].id;
			PsPlacementState state = ps_map_placement(shard, id);

			if (state == PS_PLACEMENT_NONE)
				continue;
			ps_out_int(&out, s);
			ps_out_node(&out, map, id);
			ps_out_text(&out, states[state]);
			ps_out_text(&out, id == shard->primary ? "primary" : "secondary");
			ps_out_text(&out, PS_HAS_NODE(shard->arriving, id) ? "arriving" :
						PS_HAS_NODE(shard->leaving, id) ? "leaving" : NULL);
			ps_out_row(&out);
		}
	}
	return (Datum) 0;
}
