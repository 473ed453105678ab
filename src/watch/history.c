/*
 * history.c
 *		What changed from one map to the next, and which incidents were these?
 *
 * An incident of a node begins with the first map in which it
 *		has failed over		UP -> FAILED, its shards get other primaries
 *		has restarted		another incarnation
 *		was left out		its copies leave the in-sync sets of a primary
 * and ends with the first map in which it is up, settled, and all its copies
 * are in sync again.  What happens to it in between belongs to the same
 * incident, whose kind is the gravest of it.
 *
 * shards: what nobody could write until "open again" (it was their primary).
 * paused: what waited for its answer until "resumed" (it was in sync there).
 *
 * When a map was chosen: times.c.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "node/map.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "watch/history.h"
#include "watch/out.h"

PS_FUNCTION(payshard_map_changes);
PS_FUNCTION(payshard_map_incidents);

typedef enum IncidentKind
{
	INCIDENT_NONE,
	INCIDENT_REBUILD,			/* asked for */
	INCIDENT_LEFT_OUT,
	INCIDENT_RESTART,
	INCIDENT_FAILOVER,
} IncidentKind;

static const char *const kind_names[] = {
	[INCIDENT_REBUILD] = "rebuild",
	[INCIDENT_LEFT_OUT] = "left out",
	[INCIDENT_RESTART] = "restart",
	[INCIDENT_FAILOVER] = "failover",
};

/* One node's incident that is not over. */
typedef struct Incident
{
	IncidentKind kind;			/* NONE = there is none */
	uint64		epoch;			/* of the map it begins with */
	TimestampTz begun;
	TimestampTz decided;
	TimestampTz open;			/* 0 = not yet; the same below */
	TimestampTz resumed;
	TimestampTz returned;
	bool		shards[PS_SHARDS_MAX];
	bool		paused[PS_SHARDS_MAX];
	TimestampTz opened[PS_SHARDS_MAX];	/* each of the shards; 0 = not yet */
	TimestampTz went_on[PS_SHARDS_MAX]; /* each of the paused */
	int64		entries;		/* rolled forward */
	char		reason[PS_REASON_MAX];
} Incident;

/* Is a node (0 = none) of this id in the map? */
static PsMapNode *
node_in(PsMap *map, uint32 id)
{
	return map ? ps_map_node(map, id) : NULL;
}

static void
put_change(PsOut *out, const PsMap *map, const char *kind, uint32 node,
		   const int *shards, int n, const char *detail)
{
	ps_out_text(out, kind);
	ps_out_node(out, map, node);
	if (n > 0)
		ps_out_ints(out, shards, n);
	else
		ps_out_null(out);
	ps_out_text(out, detail);
	ps_out_row(out);
}

static void
put_node_changes(PsOut *out, PsMap *before, PsMap *after, const PsMapNode *now)
{
	PsMapNode  *then = node_in(before, now->id);

	if (then == NULL)
		put_change(out, after, "node_added", now->id, NULL, 0,
				   psprintf("zone \"%s\", weight %u", now->zone, now->weight));
	if (then && (then->weight != now->weight || strcmp(then->zone, now->zone) != 0))
		put_change(out, after, "node_set", now->id, NULL, 0,
				   psprintf("zone \"%s\", weight %u", now->zone, now->weight));
	if (now->is_resting != (then && then->is_resting))
		put_change(out, after, now->is_resting ? "maintenance_started" : "maintenance_ended", now->id,
				   NULL, 0, NULL);
	if (then && then->state == PS_NODE_UP && now->state == PS_NODE_FAILED)
		put_change(out, after, "node_failed", now->id, NULL, 0, NULL);
	if (then && then->incarnation != now->incarnation)
		put_change(out, after, "node_started", now->id, NULL, 0,
				   psprintf("incarnation " UINT64_FORMAT, now->incarnation));
	if (then && then->leader != now->leader && now->leader != 0)
		put_change(out, after, "node_settling", now->id, NULL, 0,
				   psprintf("led by %s", ps_map_node(after, now->leader)->name));
	if (then && then->leader != 0 && now->leader == 0)
		put_change(out, after, "node_settled", now->id, NULL, 0, NULL);
}

/* Copies of a node that went from whatever else to `state`. */
static void
put_placement_changes(PsOut *out, PsMap *before, PsMap *after, uint32 id,
					  PsPlacementState state, const char *kind)
{
	int			shards[PS_SHARDS_MAX];
	int			n = 0;

	for (int s = 0; s < after->n_shards; s++)
	{
		PsPlacementState then = before ? ps_map_placement(&before->shards[s], id) :
			PS_PLACEMENT_NONE;

		if (ps_map_placement(&after->shards[s], id) == state && then != state)
			shards[n++] = s;
	}
	if (n > 0)
		put_change(out, after, kind, id, shards, n, NULL);
}

static void
put_primary_changes(PsOut *out, PsMap *before, PsMap *after, uint32 id)
{
	for (uint32 old = 0; old < PS_NODES_MAX; old++)
	{
		const PsMapNode *was = node_in(before, old);
		int			shards[PS_SHARDS_MAX];
		int			n = 0;

		for (int s = 0; s < after->n_shards; s++)
			if (after->shards[s].primary == id && old != id &&
				(before ? before->shards[s].primary : 0) == old)
				shards[n++] = s;
		if (n > 0)
			put_change(out, after, "primary_changed", id, shards, n, was ? psprintf("from %s", was->name) : NULL);
	}
}

/* Shards that began to wait for a node, and shards that opened (id = 0). */
static void
put_shard_changes(PsOut *out, PsMap *before, PsMap *after, uint32 id)
{
	int			shards[PS_SHARDS_MAX];
	int			n = 0;

	for (int s = 0; before && s < after->n_shards; s++)
	{
		PsNodeSet	then = before->shards[s].waits;
		PsNodeSet	now = after->shards[s].waits;

		if (id != 0 ? PS_HAS_NODE(now & ~then, id) : then != 0 && now == 0)
			shards[n++] = s;
	}
	if (n > 0)
		put_change(out, after, id ? "shard_recovering" : "shard_open", id, shards, n, NULL);
}

static PsMap *
read_map(bytea *bytes)
{
	PsMap	   *map = palloc(sizeof(PsMap));
	PsRefusal	wrong = ps_map_read(map, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));

	if (wrong)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("these bytes are not a payshard map"),
				 errdetail("%s", wrong)));
	return map;
}

/* map_changes(before, after) */
Datum
payshard_map_changes(PG_FUNCTION_ARGS)
{
	PsMap	   *before = PG_ARGISNULL(0) ? NULL : read_map(PG_GETARG_BYTEA_PP(0));
	PsMap	   *after;
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	if (PG_ARGISNULL(1))
		return (Datum) 0;
	after = read_map(PG_GETARG_BYTEA_PP(1));
	for (int i = 0; i < after->n_nodes; i++)
		put_node_changes(&out, before, after, &after->nodes[i]);
	for (int i = 0; before && i < before->n_nodes; i++)
		if (ps_map_node(after, before->nodes[i].id) == NULL)
			put_change(&out, before, "node_removed", before->nodes[i].id, NULL, 0, NULL);
	for (int i = 0; i < after->n_nodes; i++)
	{
		uint32		id = after->nodes[i].id;

		put_placement_changes(&out, before, after, id, PS_PLACEMENT_OUT, "placement_out");
		put_placement_changes(&out, before, after, id, PS_PLACEMENT_JOINING, "placement_joining");
		put_placement_changes(&out, before, after, id, PS_PLACEMENT_IN_SYNC, "placement_in_sync");
		if (before)
			put_placement_changes(&out, before, after, id, PS_PLACEMENT_NONE, "placement_dropped");
		put_primary_changes(&out, before, after, id);
		put_shard_changes(&out, before, after, id);
	}
	put_shard_changes(&out, before, after, 0);
	return (Datum) 0;
}

/* What the step from one map to the next is for a node. */
static IncidentKind
kind_of(PsMap *before, PsMap *after, const PsMapNode *then, const PsMapNode *now)
{
	if (then->state == PS_NODE_UP && now->state == PS_NODE_FAILED)
		return INCIDENT_FAILOVER;
	/* boot 0: created or added, and not started yet */
	if (then->boot != 0 && then->incarnation != now->incarnation)
		return INCIDENT_RESTART;
	for (int s = 0; s < after->n_shards; s++)
		if (ps_map_placement(&before->shards[s], now->id) == PS_PLACEMENT_IN_SYNC &&
			ps_map_placement(&after->shards[s], now->id) == PS_PLACEMENT_OUT)
			return strncmp(after->reason, "rebuild of", 10) == 0 ? INCIDENT_REBUILD : INCIDENT_LEFT_OUT;
	return INCIDENT_NONE;
}

/* A step that begins an incident, or makes one graver. */
static void
take_step(Incident *incident, PsMap *before, PsMap *after, uint32 id,
		  IncidentKind kind, TimestampTz at)
{
	if (incident->kind == INCIDENT_NONE)
	{
		memset(incident, 0, sizeof(*incident));
		incident->begun = at;
		incident->epoch = after->epoch;
		strlcpy(incident->reason, after->reason, PS_REASON_MAX);
	}
	/* one primary may leave it out and another not, who has heard it all the time */
	for (int s = 0; s < before->n_shards; s++)
		if (PS_HAS_NODE(before->shards[s].in_sync, id) &&
			!(kind == INCIDENT_LEFT_OUT && PS_HAS_NODE(after->shards[s].in_sync, id)) &&
			before->shards[s].primary != id && before->shards[s].primary != 0)
		{
			incident->paused[s] = true;
			incident->went_on[s] = 0;
			incident->resumed = 0;
		}
	if (kind > incident->kind)
	{
		incident->kind = kind;
		incident->decided = at;
		incident->open = 0;
	}
	for (int s = 0; kind >= INCIDENT_RESTART && s < before->n_shards; s++)
		if (before->shards[s].primary == id)
		{
			incident->shards[s] = true;
			incident->opened[s] = 0;
			incident->open = 0;
		}
}

/* One shard of an incident in a map: does it stand still, or since when does it no more? */
static void
note_shard(bool stands, TimestampTz at, bool *all_go_on, TimestampTz *since)
{
	if (stands)
		*all_go_on = false;
	else if (*since == 0)
		*since = at;
}

/* What a map says of an incident that is under way; true = it is over. */
static bool
follow(Incident *incident, PsMap *after, uint32 id, TimestampTz at)
{
	const PsMapNode *now = ps_map_node(after, id);
	bool		is_open = true;
	bool		is_resumed = true;
	bool		is_back;
	const char *settled = psprintf("settled node %s: ", now ? now->name : "");

	is_back = now && now->state == PS_NODE_UP && now->leader == 0;
	for (int s = 0; s < after->n_shards; s++)
	{
		const PsMapShard *shard = &after->shards[s];

		bool		waits = shard->waits != 0 || shard->primary == 0 ||
			ps_map_node(after, shard->primary)->state != PS_NODE_UP;
		bool		is_held = incident->kind < INCIDENT_RESTART && PS_HAS_NODE(shard->in_sync, id);

		note_shard(incident->shards[s] && waits, at, &is_open, &incident->opened[s]);
		note_shard(incident->paused[s] && is_held, at, &is_resumed, &incident->went_on[s]);
		if (PS_HAS_NODE(shard->waits, id) ||
			PS_HAS_NODE(shard->placements & ~shard->in_sync & ~shard->arriving, id))
			is_back = false;
	}
	if (now && strncmp(after->reason, settled, strlen(settled)) == 0)
		incident->entries += strtol(after->reason + strlen(settled), NULL, 10);
	if (is_open && incident->open == 0)
		incident->open = at;
	if (is_resumed && incident->resumed == 0)
		incident->resumed = at;
	if (now && now->state == PS_NODE_UP && incident->kind >= INCIDENT_RESTART &&
		incident->returned == 0)
		incident->returned = at;
	return is_back || now == NULL;
}

static void
put_set(PsOut *out, const bool *set, int n_shards)
{
	int			shards[PS_SHARDS_MAX];
	int			n = 0;

	for (int s = 0; s < n_shards; s++)
		if (set[s])
			shards[n++] = s;
	ps_out_ints(out, shards, n);
}

/* When each shard of a set went on; an incident that waits for some tells null for those. */
static void
put_times(PsOut *out, const bool *set, const TimestampTz *times, int n_shards)
{
	TimestampTz *values = palloc(sizeof(TimestampTz) * PS_SHARDS_MAX);
	int			n = 0;

	for (int s = 0; s < n_shards; s++)
		if (set[s])
			values[n++] = times[s];
	ps_out_times(out, values, n);
}

static void
put_incident(PsOut *out, const Incident *incident, const PsMap *map, uint32 id, TimestampTz back)
{
	ps_out_int(out, (int64) incident->epoch);
	ps_out_node(out, map, id);
	ps_out_int(out, id);
	ps_out_text(out, kind_names[incident->kind]);
	ps_out_time(out, incident->begun);
	ps_out_time(out, incident->decided);
	ps_out_time(out, incident->open);
	ps_out_time(out, incident->resumed);
	ps_out_time(out, incident->returned ? incident->returned : back);
	ps_out_time(out, back);
	put_set(out, incident->shards, map->n_shards);
	put_set(out, incident->paused, map->n_shards);
	put_times(out, incident->shards, incident->opened, map->n_shards);
	put_times(out, incident->paused, incident->went_on, map->n_shards);
	ps_out_int(out, incident->entries);
	ps_out_text(out, incident->reason);
	ps_out_row(out);
}

/* One step of the history, for all nodes. */
static void
step(PsOut *out, Incident *incidents, PsMap *before, PsMap *after, TimestampTz at)
{
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
	{
		Incident   *incident = &incidents[id];
		const PsMapNode *then = ps_map_node(before, id);
		const PsMapNode *now = ps_map_node(after, id);
		IncidentKind kind;

		if (then == NULL)
			continue;
		kind = now ? kind_of(before, after, then, now) : INCIDENT_NONE;
		if (kind != INCIDENT_NONE)
			take_step(incident, before, after, id, kind, at);
		if (incident->kind == INCIDENT_NONE || !follow(incident, after, id, at))
			continue;
		put_incident(out, incident, now ? after : before, id, at);
		incident->kind = INCIDENT_NONE;
	}
}

static void
walk_history(PsOut *out, Incident *incidents)
{
	Portal		portal = SPI_cursor_open_with_args(NULL, "SELECT h.value, t.at FROM payshard.map_history h "
												   "JOIN payshard.map_times() t USING (epoch) ORDER BY h.epoch",
												   0, NULL, NULL, NULL, true, 0);
	PsMap	   *before = NULL;
	TimestampTz at = 0;
	bool		isnull;

	for (;;)
	{
		PsMap	   *after;
		HeapTuple	row;
		TupleDesc	desc;

		SPI_cursor_fetch(portal, true, 1);
		if (SPI_processed == 0)
			break;
		row = SPI_tuptable->vals[0];
		desc = SPI_tuptable->tupdesc;
		after = read_map(DatumGetByteaPP(SPI_getbinval(row, desc, 1, &isnull)));
		at = DatumGetTimestampTz(SPI_getbinval(row, desc, 2, &isnull));
		if (before)
		{
			step(out, incidents, before, after, at);
			pfree(before);
		}
		before = after;
		SPI_freetuptable(SPI_tuptable);
	}
	for (uint32 id = 1; before && id < PS_NODES_MAX; id++)
		if (incidents[id].kind != INCIDENT_NONE)
			put_incident(out, &incidents[id], before, id, 0);
}

Datum
payshard_map_incidents(PG_FUNCTION_ARGS)
{
	Incident   *incidents = palloc0(sizeof(Incident) * PS_NODES_MAX);
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	walk_history(&out, incidents);
	PopActiveSnapshot();
	SPI_finish();
	return (Datum) 0;
}
