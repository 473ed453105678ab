/*
 * move.c
 *		Which placements are to come and go, and when may one go?
 *
 * Each step works out for each shard where it should be, and writes the
 * difference into the shard's arriving and leaving sets; what was ordered before
 * and is not wanted any more is taken back by the same comparison.
 *
 * One shard with two copies on A and B, moved from A to C, A its primary:
 *
 *	step				primary		in sync		arriving	leaving		heir
 *	rebalance			A			A B			C			A			C
 *	join, in_sync C		A			A B C		-			A			C
 *	switchover to C		C			A B C		-			A			C
 *	finish				C			B C			-			-			-
 *
 * B lost between the first two lines: C gets in sync, {A, C} are; A is not
 * dropped before B is back, as {C} alone would remain.
 *
 * Never dropped: the primary, and whoever is needed to have `copies` placements
 * in sync among those that stay.  So a move never leaves a shard with fewer copies
 * than it had (M4, J5).
 */
#include "ground/move.h"

#include "port/pg_bitutils.h"

const char ps_move_nothing[] = "nothing is to be moved";

static int
count(PsNodeSet set)
{
	return pg_popcount64(set);
}

static PsNodeSet
staying(const PsMapShard *shard)
{
	return shard->placements & ~shard->leaving;
}

/* Nodes that are up and not expected to be down soon: they may be made primary. */
static PsNodeSet
ready_nodes(const PsMap *map)
{
	PsNodeSet	set = ps_map_up_nodes(map);

	for (int i = 0; i < map->n_nodes; i++)
	{
		if (map->nodes[i].is_resting)
			set &= ~PS_NODE_BIT(map->nodes[i].id);
	}
	return set;
}

/* Nodes that may be given a placement. */
static PsNodeSet
takers(const PsMap *map)
{
	PsNodeSet	set = ready_nodes(map) & ps_map_data_nodes(map);

	for (int i = 0; i < map->n_nodes; i++)
	{
		if (map->nodes[i].is_leaving)
			set &= ~PS_NODE_BIT(map->nodes[i].id);
	}
	return set;
}

/* The first of a set in the order of a row; 0 = none is in the row. */
static uint32
first_of(const PsMap *map, const uint32 *row, PsNodeSet set)
{
	for (uint32 i = 0; i < map->copies; i++)
	{
		if (row[i] != 0 && PS_HAS_NODE(set, row[i]))
			return row[i];
	}
	return 0;
}

static uint32
lowest(PsNodeSet set)
{
	return set == 0 ? 0 : (uint32) pg_rightmost_one_pos64(set);
}

/* One of `from` leaves after the other, while more than `copies` stay. */
static void
let_leave(PsMapShard *shard, PsNodeSet from, uint32 copies)
{
	while (from != 0 && count(staying(shard)) > (int) copies)
	{
		shard->leaving |= PS_NODE_BIT(lowest(from));
		from &= from - 1;
	}
}

/* One of `from` stays after the other, while fewer than `copies` do. */
static void
let_stay(PsMapShard *shard, PsNodeSet from, uint32 copies)
{
	while (from != 0 && count(staying(shard)) < (int) copies)
	{
		shard->leaving &= ~PS_NODE_BIT(lowest(from));
		from &= from - 1;
	}
}

/*
 * The shard is to be on the nodes of `want`, of which those in `can_take` may be
 * given a placement.  Where that is not enough, others stay, but not `expelled`.
 * Who is primary is not looked at.
 */
static void
aim_at(PsMapShard *shard, PsNodeSet want, PsNodeSet can_take, PsNodeSet expelled,
	   uint32 copies)
{
	PsNodeSet	given_up = shard->arriving & ~want;
	PsNodeSet	added;

	shard->placements &= ~given_up;
	shard->joining &= ~given_up;
	shard->arriving &= ~given_up;
	shard->leaving &= ~want;
	added = want & can_take & ~shard->placements;
	shard->placements |= added;
	shard->arriving |= added;
	/* whose copy is worth least goes first */
	let_leave(shard, staying(shard) & ~want & ~shard->in_sync, copies);
	let_leave(shard, staying(shard) & ~want, copies);
	let_stay(shard, shard->leaving & ~expelled & shard->in_sync, copies);
	let_stay(shard, shard->leaving & ~expelled, copies);
}

/* Who is to be primary, if the one that is wanted may be. */
static void
name_heir(PsMap *map, PsMapShard *shard, uint32 wanted, const uint32 *row)
{
	PsNodeSet	able = staying(shard) & ready_nodes(map);

	if (wanted == 0 || !PS_HAS_NODE(able, wanted))
		wanted = PS_HAS_NODE(shard->leaving, shard->primary) ? first_of(map, row, able) : 0;
	if (wanted == 0 && PS_HAS_NODE(shard->leaving, shard->primary))
		wanted = lowest(able);
	shard->heir = wanted == shard->primary ? 0 : wanted;
}

static bool
is_same(const PsMapShard *a, const PsMapShard *b)
{
	return a->placements == b->placements && a->arriving == b->arriving &&
		a->leaving == b->leaving && a->heir == b->heir;
}

/* A changed shard belongs to the job that the next map orders. */
static bool
note_job(PsMap *map, PsMapShard *shard, const PsMapShard *before)
{
	if (is_same(shard, before))
		return false;
	shard->job = map->epoch + 1;
	ps_map_end_job(shard);
	return true;
}

PsRefusal
ps_step_rebalance(PsMap *map)
{
	uint32	   *rows = ps_map_ring(map, ps_map_voters(map));
	PsNodeSet	can_take = takers(map);
	bool		changed = false;

	for (int s = 0; s < map->n_shards && rows[0] != 0; s++)
	{
		const uint32 *row = rows + (size_t) s * map->copies;
		PsMapShard *shard = &map->shards[s];
		PsMapShard	before = *shard;
		PsNodeSet	want = 0;

		for (uint32 i = 0; i < map->copies && row[i] != 0; i++)
			want |= PS_NODE_BIT(row[i]);
		aim_at(shard, want, can_take, 0, map->copies);
		name_heir(map, shard, first_of(map, row, staying(shard) & can_take), row);
		changed |= note_job(map, shard, &before);
	}
	pfree(rows);
	if (!changed)
		return ps_move_nothing;
	map->epoch++;
	return NULL;
}

/* Is a node of `set` in the same zone as node `id`? */
static bool
shares_zone(PsMap *map, PsNodeSet set, uint32 id)
{
	const char *zone = ps_map_node(map, id)->zone;

	for (int i = 0; i < map->n_nodes; i++)
	{
		if (PS_HAS_NODE(set, map->nodes[i].id) && strcmp(map->nodes[i].zone, zone) == 0)
			return true;
	}
	return false;
}

/*
 * What a shard keeps without node `id`, and who comes in its place: those that
 * are to leave, before anything is copied; then by the row; new zones first.
 */
static PsNodeSet
want_without(PsMap *map, const PsMapShard *shard, uint32 id, const uint32 *row, PsNodeSet can_take)
{
	PsNodeSet	want = staying(shard) & ~PS_NODE_BIT(id);
	PsNodeSet	back = shard->leaving & can_take;

	for (int pass = 0; pass < 2; pass++)
	{
		for (PsNodeSet left = back & ~want; left != 0; left &= left - 1)
		{
			if (count(want) < (int) map->copies &&
				(pass == 1 || !shares_zone(map, want, lowest(left))))
				want |= PS_NODE_BIT(lowest(left));
		}
		for (uint32 i = 0; i < map->copies && row[i] != 0; i++)
		{
			if (count(want) < (int) map->copies && PS_HAS_NODE(can_take, row[i]) &&
				(pass == 1 || !shares_zone(map, want, row[i])))
				want |= PS_NODE_BIT(row[i]);
		}
	}
	return want;
}

/* One shard leaves node `id`; false when there are too few others. */
static bool
evacuate(PsMap *map, int s, uint32 id, const uint32 *row, PsNodeSet can_take)
{
	PsMapShard *shard = &map->shards[s];
	PsMapShard	before = *shard;
	PsNodeSet	want = want_without(map, shard, id, row, can_take);

	if (count(want) < (int) map->copies)
		return false;
	aim_at(shard, want, can_take, PS_NODE_BIT(id), map->copies);
	if (shard->primary == id || shard->heir == id)
		shard->heir = 0;
	if (shard->heir == 0 || !PS_HAS_NODE(staying(shard), shard->heir))
		name_heir(map, shard, shard->primary == id ? 0 : shard->primary, row);
	(void) note_job(map, shard, &before);
	return true;
}

PsRefusal
ps_step_drain(PsMap *map, uint32 id)
{
	PsMapNode  *node = ps_map_node(map, id);
	PsMapShard *before;
	PsNodeSet	can_take;
	uint32	   *rows;
	bool		fits = true;

	if (node == NULL)
		return "there is no such node";
	if (node->is_leaving)
		return ps_move_nothing;
	before = palloc(sizeof(map->shards));
	memcpy(before, map->shards, sizeof(map->shards));
	node->is_leaving = true;
	can_take = takers(map);
	rows = ps_map_ring(map, can_take);
	for (int s = 0; s < map->n_shards && fits; s++)
	{
		if (PS_HAS_NODE(map->shards[s].placements, id))
			fits = evacuate(map, s, id, rows + (size_t) s * map->copies, can_take);
	}
	pfree(rows);
	if (!fits)
	{
		node->is_leaving = false;
		memcpy(map->shards, before, sizeof(map->shards));
	}
	pfree(before);
	if (!fits)
		return "the other nodes that are up and have weight are too few";
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_replace(PsMap *map, uint32 id)
{
	PsNodeSet	can_take = takers(map) & ~PS_NODE_BIT(id);
	uint32	   *rows;
	bool		changed = false;

	if (ps_map_node(map, id) == NULL)
		return "there is no such node";
	rows = ps_map_ring(map, can_take);
	for (int s = 0; s < map->n_shards; s++)
	{
		PsMapShard *shard = &map->shards[s];
		uint64		job = shard->job;

		if (!PS_HAS_NODE(shard->placements & ~shard->in_sync & ~shard->leaving, id))
			continue;
		(void) evacuate(map, s, id, rows + (size_t) s * map->copies, can_take);
		changed |= shard->job != job || !PS_HAS_NODE(shard->placements, id);
	}
	pfree(rows);
	if (!changed)
		return ps_move_nothing;
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_stop(PsMap *map)
{
	bool		changed = false;

	for (int s = 0; s < map->n_shards; s++)
	{
		PsMapShard *shard = &map->shards[s];
		PsMapShard	before = *shard;

		shard->heir = 0;
		if (shard->arriving != 0)
			shard->leaving = 0;
		for (PsNodeSet left = shard->arriving; left != 0; left &= left - 1)
		{
			PsNodeSet	bit = PS_NODE_BIT(lowest(left));

			if (count(shard->placements) <= (int) map->copies)
				break;
			shard->placements &= ~bit;
			shard->arriving &= ~bit;
			shard->joining &= ~bit;
		}
		changed |= !is_same(shard, &before);
		ps_map_end_job(shard);
	}
	for (int i = 0; i < map->n_nodes; i++)
	{
		changed |= map->nodes[i].is_leaving;
		map->nodes[i].is_leaving = false;
	}
	if (!changed)
		return ps_move_nothing;
	map->epoch++;
	return NULL;
}

/* May this placement, which leaves, be dropped now? */
static bool
is_spare(const PsMap *map, const PsMapShard *shard, uint32 id)
{
	int			wanted = Min((int) map->copies, count(staying(shard)));

	return id != shard->primary && count(shard->in_sync & ~shard->leaving) >= wanted;
}

PsRefusal
ps_step_finish(PsMap *map, uint32 primary)
{
	bool		changed = false;

	for (int s = 0; s < map->n_shards; s++)
	{
		PsMapShard *shard = &map->shards[s];
		PsMapShard	before = *shard;

		if (shard->primary != primary || shard->waits != 0 || shard->job == 0)
			continue;
		if (shard->heir == primary)
			shard->heir = 0;
		for (PsNodeSet left = shard->leaving; left != 0; left &= left - 1)
		{
			PsNodeSet	bit = PS_NODE_BIT(lowest(left));

			if (!is_spare(map, shard, lowest(left)))
				continue;
			shard->placements &= ~bit;
			shard->in_sync &= ~bit;
			shard->joining &= ~bit;
			shard->leaving &= ~bit;
		}
		changed |= !is_same(shard, &before);
		ps_map_end_job(shard);
	}
	if (!changed)
		return ps_move_nothing;
	map->epoch++;
	return NULL;
}

uint32
ps_move_heir(const PsMap *map, int s)
{
	const PsMapShard *shard = &map->shards[s];
	PsNodeSet	able = shard->in_sync & staying(shard) & ready_nodes(map);

	if (shard->waits != 0 || shard->arriving != 0)
		return 0;
	if (shard->heir != 0 && shard->heir != shard->primary && PS_HAS_NODE(able, shard->heir))
		return shard->heir;
	if (PS_HAS_NODE(shard->leaving, shard->primary))
		return lowest(able);
	return 0;
}
