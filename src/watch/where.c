/*
 * where.c
 *		Where should every shard be by the ring, and where is it?
 *
 * The ring is worked out afresh from the nodes of the map that are up and have
 * weight, as a step that places shards would do it.  Its bounded load and its
 * zones are why the nodes chosen need not be the first ones met.
 */
#include "postgres.h"

#include "ground/ring.h"
#include "node/map.h"
#include "watch/out.h"
#include "watch/where.h"

PS_FUNCTION(payshard_ring);

/* One virtual node. */
typedef struct Point
{
	uint64		position;
	uint32		node;
} Point;

static int
compare_points(const void *a, const void *b)
{
	uint64		x = ((const Point *) a)->position;
	uint64		y = ((const Point *) b)->position;

	return x < y ? -1 : x > y;
}

/* All virtual nodes, sorted by position; palloc'd. */
static Point *
make_points(const PsMap *map, const PsRingNode *nodes, int n_nodes, int *n)
{
	Point	   *points;

	*n = 0;
	for (int i = 0; i < n_nodes; i++)
		*n += nodes[i].weight * map->vnodes;
	points = palloc(sizeof(Point) * (*n + 1));
	*n = 0;
	for (int i = 0; i < n_nodes; i++)
		for (uint32 v = 0; v < nodes[i].weight * map->vnodes; v++)
		{
			points[*n].position = ps_ring_position_node(nodes[i].id, v);
			points[(*n)++].node = nodes[i].id;
		}
	qsort(points, *n, sizeof(Point), compare_points);
	return points;
}

/* The nodes as one meets them clockwise from a position: text like "n2 n1". */
static char *
walk(const PsMap *map, const Point *points, int n, uint64 from)
{
	StringInfoData buf;
	PsNodeSet	seen = 0;
	int			start = 0;

	initStringInfo(&buf);
	while (start < n && points[start].position < from)
		start++;
	for (int i = 0; i < n; i++)
	{
		uint32		id = points[(start + i) % n].node;

		if (PS_HAS_NODE(seen, id))
			continue;
		seen |= PS_NODE_BIT(id);
		appendStringInfo(&buf, "%s%s", buf.len ? " " : "", ps_map_node((PsMap *) map, id)->name);
	}
	return buf.data;
}

static char *
names_of(const PsMap *map, const uint32 *ids, int n)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < n; i++)
		appendStringInfo(&buf, "%s%s", i ? " " : "", ps_map_node((PsMap *) map, ids[i])->name);
	return buf.data;
}

static void
put_shard(PsOut *out, const PsMap *map, int s, const Point *points, int n_points,
		  const uint32 *chosen, int copies)
{
	const PsMapShard *shard = &map->shards[s];
	PsNodeSet	set = 0;

	for (int i = 0; i < copies; i++)
		set |= PS_NODE_BIT(chosen[i]);
	ps_out_int(out, s);
	ps_out_text(out, psprintf("%016llx", (unsigned long long) ps_ring_position_shard(s)));
	ps_out_text(out, walk(map, points, n_points, ps_ring_position_shard(s)));
	ps_out_text(out, names_of(map, chosen, copies));
	ps_out_node(out, map, shard->primary);
	ps_out_nodes(out, map, shard->placements);
	ps_out_bool(out, copies > 0 && chosen[0] == shard->primary && set == shard->placements);
	ps_out_row(out);
}

Datum
payshard_ring(PG_FUNCTION_ARGS)
{
	PsMap	   *map = ps_shared && ps_shared->self != 0 ? ps_map_copy() : NULL;
	PsRingNode	nodes[PS_NODES_MAX];
	PsRingConfig config;
	Point	   *points;
	uint32	   *rows;
	int			n_points;
	int			n = 0;
	int			copies;
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	if (map == NULL)
		return (Datum) 0;
	for (int i = 0; i < map->n_nodes; i++)
		if (map->nodes[i].state == PS_NODE_UP && map->nodes[i].weight > 0)
		{
			nodes[n].id = map->nodes[i].id;
			nodes[n].weight = map->nodes[i].weight;
			nodes[n++].zone = map->nodes[i].zone;
		}
	config.n_shards = map->n_shards;
	config.copies = map->copies;
	config.vnodes = map->vnodes;
	config.load_percent = map->load_percent;
	points = make_points(map, nodes, n, &n_points);
	rows = palloc0(sizeof(uint32) * map->n_shards * map->copies);
	copies = ps_ring_place(nodes, n, &config, rows);
	for (int s = 0; s < map->n_shards; s++)
		put_shard(&out, map, s, points, n_points, rows + s * map->copies, Max(copies, 0));
	return (Datum) 0;
}
