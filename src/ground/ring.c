/*
 * ring.c
 *		Which nodes hold a shard, and which of them is its primary?  (P3)
 *
 * A pure function of its arguments, in integers only.  It knows nothing of
 * maps: what it answers is where shards should be, not where they are.
 *
 * (a) Walk.  Every node has weight x vnodes points on a circle of 2^64, every
 *	   shard one.  Seen from a shard, nodes stand in the order in which one
 *	   meets them clockwise: this is all that hashing decides.
 *
 * (b) Caps.  A node's fair share of all placements is in proportion to its
 *	   weight, as far as that can be: a node holds a shard once at most, a
 *	   zone with n_zones >= copies too, and with fewer zones each zone holds
 *	   every shard at least once.  What one cannot take is shared by the
 *	   rest.  The cap is ceil(load_percent / 100 x fair share).  The share of
 *	   primaries is n_shards x weight / all weights; the cap likewise.
 *
 * (c) Fill.  In rounds, one copy for every shard: the first node of its walk
 *	   that has room, does not hold the shard, and stands in a new zone while
 *	   there are any.  When there is none, others make room (d).
 *
 * (d) Make room: find the shortest chain "s takes v from t, t takes w
 *	   instead, ..." that ends at a node with room, and carry it out.  This
 *	   is an augmenting path in the flow network
 *
 *			shard -> (shard, zone) -> node -> its cap
 *
 *	   in which the fair shares of (b), spread evenly over all shards, are a
 *	   fractional flow that fills every shard.  So a whole one exists, and
 *	   such paths reach it: (c) cannot fail and the caps hold exactly.
 *
 * (e) Primaries.  The first node of a row, in walking order, that has room
 *	   for a primary; else by chains as in (d).  Where shares are in plain
 *	   proportion to weights this cannot fail either (1/copies of each row to
 *	   each holder is a fractional solution); where (b) had to bend them it
 *	   may, and then the caps on primaries are raised by one, as often as it
 *	   takes.
 *
 * Why rounds, and not one shard after the other with all its copies: with
 * fewer zones than copies, every zone must have its copy of a shard before
 * any has a second, and the paths of (d) may then never take the last one
 * away.  For movement it makes no difference worth having: measured at 64
 * shards, placements the same, primaries 2.15 instead of 2.01 x the minimum.
 */
#include "ground/ring.h"

/* Everything about one call; nodes are meant by index, without weight 0. */
typedef struct Ring
{
	int			n_shards;
	int			copies;			/* that every shard gets */
	int			n_nodes;
	int			n_zones;
	int			load_percent;
	uint32		id[PS_NODES_MAX];
	uint32		weight[PS_NODES_MAX];
	int			zone[PS_NODES_MAX];
	int			cap[PS_NODES_MAX];
	int			load[PS_NODES_MAX];
	int			primary_cap[PS_NODES_MAX];
	int			primary_load[PS_NODES_MAX];
	uint32		zone_weight[PS_NODES_MAX];	/* by zone: of all its nodes */
	int			zone_min;		/* copies of a shard that a zone must keep */
	bool		is_zone_once;	/* may a zone hold a shard only once? */
	uint8	   *walk;			/* n_shards x n_nodes */
	uint8	   *rows;			/* n_shards x copies */
	uint8	   *row_length;		/* n_shards: how many of the row are valid */
	uint8	   *zone_count;		/* n_shards x n_zones: copies in the zone */
	int		   *from;			/* by vertex of (d): predecessor, see there */
	int		   *queue;			/* vertices of (d), in order of discovery */
} Ring;

/* (a) The walk */

/* The finalizer of splitmix64 (Steele, Lea, Flood, OOPSLA 2014). */
static uint64
mix(uint64 x)
{
	x += UINT64CONST(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64CONST(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64CONST(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

uint64
ps_ring_position_node(uint32 node_id, uint32 vnode)
{
	return mix(mix((uint64) node_id << 32 | vnode));
}

uint64
ps_ring_position_shard(uint32 shard)
{
	return mix(~mix(shard));
}

static int
compare_positions(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/* The clockwise way from `start` to the nearest of n sorted positions. */
static uint64
distance_to(const uint64 *positions, size_t n, uint64 start)
{
	size_t		low = 0;
	size_t		high = n;

	while (low < high)
	{
		size_t		middle = low + (high - low) / 2;

		if (positions[middle] < start)
			low = middle + 1;
		else
			high = middle;
	}
	return positions[low < n ? low : 0] - start;	/* modulo 2^64 */
}

/* Inserts node `index`, at `distance`, into a shard's walk of n nodes. */
static void
insert_sorted(uint8 *walk, uint64 *distances, int n, int index,
			  uint64 distance)
{
	int			at = n;

	while (at > 0 && distances[at - 1] > distance)
	{
		walk[at] = walk[at - 1];
		distances[at] = distances[at - 1];
		at--;
	}
	walk[at] = (uint8) index;
	distances[at] = distance;
}

static void
fill_walks(Ring *ring, int vnodes)
{
	size_t		n_cells = (size_t) ring->n_shards * (size_t) ring->n_nodes;
	uint64	   *distances = palloc(sizeof(uint64) * n_cells);

	for (int i = 0; i < ring->n_nodes; i++)
	{
		size_t		n = (size_t) ring->weight[i] * (size_t) vnodes;
		uint64	   *positions = palloc(sizeof(uint64) * n);

		for (size_t v = 0; v < n; v++)
			positions[v] = ps_ring_position_node(ring->id[i], (uint32) v);
		qsort(positions, n, sizeof(uint64), compare_positions);
		for (int s = 0; s < ring->n_shards; s++)
			insert_sorted(ring->walk + s * ring->n_nodes,
						  distances + s * ring->n_nodes, i, i,
						  distance_to(positions, n,
									  ps_ring_position_shard((uint32) s)));
		pfree(positions);
	}
	pfree(distances);
}

/* (b) The caps */

/* A share is level x weight, in units of 2^-SHARE_BITS shards. */
#define SHARE_BITS 32

/*
 * What a zone takes at `level`.  is_bent: this is exactly every shard once,
 * because its nodes would take more, or less, than (b) allows the zone.
 */
static uint64
zone_takes(const Ring *ring, int zone, uint64 level, bool *is_bent)
{
	uint64		whole = (uint64) ring->n_shards << SHARE_BITS;
	uint64		sum = 0;

	for (int i = 0; i < ring->n_nodes; i++)
	{
		if (ring->zone[i] == zone)
			sum += Min(whole, level * ring->weight[i]);
	}
	*is_bent = ring->is_zone_once ? sum > whole : sum < whole;
	return *is_bent ? whole : sum;
}

/* The lowest level at which all copies find a place. */
static uint64
find_level(const Ring *ring)
{
	uint64		wanted = (uint64) ring->n_shards * (uint64) ring->copies;
	uint64		low = 0;
	uint64		high = (uint64) ring->n_shards << SHARE_BITS;

	while (low < high)
	{
		uint64		middle = low + (high - low) / 2;
		uint64		sum = 0;
		bool		is_bent;

		for (int z = 0; z < ring->n_zones; z++)
			sum += zone_takes(ring, z, middle, &is_bent);
		if (sum < wanted << SHARE_BITS)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static int
cap_of(const Ring *ring, uint64 share, uint64 divisor)
{
	uint64		over = 100 * divisor;
	uint64		cap = (share * (uint64) ring->load_percent + over - 1) / over;

	return (int) Min(cap, (uint64) ring->n_shards);
}

/*
 * The level says which nodes and zones are at their limit; with these set
 * aside, the others' shares are exact fractions: weight x rest / rest_weight.
 */
static void
fill_caps(Ring *ring)
{
	uint64		level = find_level(ring);
	uint64		whole = (uint64) ring->n_shards;
	uint64		rest = whole * (uint64) ring->copies;
	uint64		rest_weight = 0;
	uint64		all_weight = 0;
	bool		is_bent[PS_NODES_MAX];
	bool		is_full[PS_NODES_MAX];

	for (int z = 0; z < ring->n_zones; z++)
	{
		(void) zone_takes(ring, z, level, &is_bent[z]);
		if (is_bent[z])
			rest -= whole;
		all_weight += ring->zone_weight[z];
	}
	for (int i = 0; i < ring->n_nodes; i++)
	{
		is_full[i] = level * ring->weight[i] >= whole << SHARE_BITS;
		if (is_bent[ring->zone[i]])
			continue;
		if (is_full[i])
			rest -= whole;
		else
			rest_weight += ring->weight[i];
	}
	for (int i = 0; i < ring->n_nodes; i++)
	{
		uint64		weight = ring->weight[i];

		if (is_bent[ring->zone[i]])
			ring->cap[i] = cap_of(ring, weight * whole,
								  ring->zone_weight[ring->zone[i]]);
		else if (is_full[i])
			ring->cap[i] = ring->n_shards;
		else
			ring->cap[i] = cap_of(ring, weight * rest, rest_weight);
		ring->primary_cap[i] = cap_of(ring, weight * whole, all_weight);
	}
}

/* (c) Filling */

static uint8 *
count_at(const Ring *ring, int shard, int zone)
{
	return ring->zone_count + shard * ring->n_zones + zone;
}

static bool
holds(const Ring *ring, int shard, int node)
{
	const uint8 *row = ring->rows + shard * ring->copies;

	return memchr(row, node, ring->row_length[shard]) != NULL;
}

/* May the shard take one more copy in this zone? */
static bool
has_zone_room(const Ring *ring, int shard, int zone)
{
	return !ring->is_zone_once || *count_at(ring, shard, zone) == 0;
}

static void
append_copy(Ring *ring, int shard, int node)
{
	uint8	   *row = ring->rows + shard * ring->copies;

	row[ring->row_length[shard]++] = (uint8) node;
	(*count_at(ring, shard, ring->zone[node]))++;
}

static void
replace_copy(Ring *ring, int shard, int lost, int gained)
{
	uint8	   *row = ring->rows + shard * ring->copies;
	uint8	   *at = memchr(row, lost, ring->row_length[shard]);

	*at = (uint8) gained;
	(*count_at(ring, shard, ring->zone[lost]))--;
	(*count_at(ring, shard, ring->zone[gained]))++;
}

static bool
take_by_walk(Ring *ring, int shard)
{
	const uint8 *walk = ring->walk + shard * ring->n_nodes;

	for (int i = 0; i < ring->n_nodes; i++)
	{
		int			node = walk[i];

		if (ring->load[node] < ring->cap[node] &&
			has_zone_room(ring, shard, ring->zone[node]) &&
			!holds(ring, shard, node))
		{
			append_copy(ring, shard, node);
			ring->load[node]++;
			return true;
		}
	}
	return false;
}

/*
 * (d) Making room.  Vertices are numbered: shards, then (shard, zone), then
 * nodes; from[v] is the vertex from which v was found, NOT_FOUND, or ROOT.
 */
#define NOT_FOUND (-1)
#define ROOT (-2)

static int
first_hub(const Ring *ring)
{
	return ring->n_shards;
}

static int
first_node(const Ring *ring)
{
	return ring->n_shards + ring->n_shards * ring->n_zones;
}

static int
hub_of(const Ring *ring, int shard, int zone)
{
	return first_hub(ring) + shard * ring->n_zones + zone;
}

static void
find_vertex(Ring *ring, int vertex, int from, int *n_queue)
{
	if (ring->from[vertex] != NOT_FOUND)
		return;
	ring->from[vertex] = from;
	ring->queue[(*n_queue)++] = vertex;
}

/* Looks at what can be reached from one vertex. */
static void
expand_vertex(Ring *ring, int vertex, int *n_queue)
{
	if (vertex < first_hub(ring))
	{
		for (int z = 0; z < ring->n_zones; z++)
		{
			if (has_zone_room(ring, vertex, z))
				find_vertex(ring, hub_of(ring, vertex, z), vertex, n_queue);
		}
	}
	else if (vertex < first_node(ring))
	{
		int			shard = (vertex - first_hub(ring)) / ring->n_zones;
		int			zone = (vertex - first_hub(ring)) % ring->n_zones;
		const uint8 *walk = ring->walk + shard * ring->n_nodes;

		for (int i = 0; i < ring->n_nodes; i++)
		{
			if (ring->zone[walk[i]] == zone && !holds(ring, shard, walk[i]))
				find_vertex(ring, first_node(ring) + walk[i], vertex,
							n_queue);
		}
		if (*count_at(ring, shard, zone) > ring->zone_min)
			find_vertex(ring, shard, vertex, n_queue);
	}
	else
	{
		int			node = vertex - first_node(ring);

		for (int s = 0; s < ring->n_shards; s++)
		{
			if (holds(ring, s, node))
				find_vertex(ring, hub_of(ring, s, ring->zone[node]), vertex,
							n_queue);
		}
	}
}

/* Carries out the chain that ends at `node`, which has room. */
static void
follow_back(Ring *ring, int node)
{
	ring->load[node]++;			/* all others of the chain lose one, gain one */
	for (;;)
	{
		int			hub = ring->from[first_node(ring) + node];
		int			shard = (hub - first_hub(ring)) / ring->n_zones;
		int			before = ring->from[hub];
		int			lost;

		if (before < first_hub(ring))
		{
			before = ring->from[before];
			if (before == ROOT)
			{
				append_copy(ring, shard, node);
				return;
			}
			before = ring->from[before];	/* the hub that the shard leaves */
		}
		lost = before - first_node(ring);
		replace_copy(ring, shard, lost, node);
		node = lost;
	}
}

static bool
take_by_chain(Ring *ring, int shard)
{
	int			n_vertices = first_node(ring) + ring->n_nodes;
	int			n_queue = 0;

	for (int v = 0; v < n_vertices; v++)
		ring->from[v] = NOT_FOUND;
	find_vertex(ring, shard, ROOT, &n_queue);
	for (int i = 0; i < n_queue; i++)
	{
		int			node = ring->queue[i] - first_node(ring);

		if (node >= 0 && ring->load[node] < ring->cap[node])
		{
			follow_back(ring, node);
			return true;
		}
		expand_vertex(ring, ring->queue[i], &n_queue);
	}
	return false;
}

/* False only if (d)'s argument is wrong. */
static bool
fill_rows(Ring *ring)
{
	for (int round = 0; round < ring->copies; round++)
	{
		ring->is_zone_once = round < ring->n_zones;
		ring->zone_min = ring->is_zone_once ? 0 : 1;
		for (int s = 0; s < ring->n_shards; s++)
		{
			if (!take_by_walk(ring, s) && !take_by_chain(ring, s))
				return false;
		}
	}
	return true;
}

/* (e) Primaries */

/* Puts a row into walking order. */
static void
sort_row(Ring *ring, int shard)
{
	const uint8 *walk = ring->walk + shard * ring->n_nodes;
	uint8		sorted[PS_COPIES_MAX];
	int			n = 0;

	for (int i = 0; i < ring->n_nodes; i++)
	{
		if (holds(ring, shard, walk[i]))
			sorted[n++] = walk[i];
	}
	memcpy(ring->rows + shard * ring->copies, sorted, (size_t) n);
}

/*
 * Gives the shard a primary out of its row, from nodes not yet `tried`;
 * where all are full, another shard's primary has to go elsewhere.
 */
static bool
take_primary(Ring *ring, int shard, uint8 *primaries, bool *tried)
{
	const uint8 *row = ring->rows + shard * ring->copies;

	for (int i = 0; i < ring->copies; i++)
	{
		if (ring->primary_load[row[i]] < ring->primary_cap[row[i]])
		{
			primaries[shard] = row[i];
			ring->primary_load[row[i]]++;
			return true;
		}
	}
	for (int i = 0; i < ring->copies; i++)
	{
		if (tried[row[i]])
			continue;
		tried[row[i]] = true;
		for (int s = 0; s < ring->n_shards; s++)
		{
			if (s != shard && primaries[s] == row[i] &&
				take_primary(ring, s, primaries, tried))
			{
				primaries[shard] = row[i];
				return true;
			}
		}
	}
	return false;
}

static void
choose_primaries(Ring *ring, uint8 *primaries)
{
	memset(primaries, PS_NODES_MAX, (size_t) ring->n_shards);
	for (int s = 0; s < ring->n_shards; s++)
	{
		bool		tried[PS_NODES_MAX] = {false};

		if (take_primary(ring, s, primaries, tried))
			continue;
		for (int i = 0; i < ring->n_nodes; i++)
			ring->primary_cap[i]++;
		s--;					/* once more; ends, as caps reach n_shards */
	}
}

/* The call itself */

static bool
are_arguments_sound(const PsRingNode *nodes, int n_nodes,
					const PsRingConfig *config)
{
	if (n_nodes < 0 || n_nodes >= PS_NODES_MAX ||
		config->n_shards < 1 || config->n_shards > PS_SHARDS_MAX ||
		config->copies < 1 || config->copies > PS_COPIES_MAX ||
		config->vnodes < 1 || config->vnodes > PS_RING_VNODES_MAX ||
		config->load_percent < 100 || config->load_percent > PS_RING_LOAD_MAX)
		return false;
	for (int i = 0; i < n_nodes; i++)
	{
		if (nodes[i].id < 1 || nodes[i].id >= PS_NODES_MAX ||
			nodes[i].weight > PS_RING_WEIGHT_MAX || nodes[i].zone == NULL ||
			(i > 0 && nodes[i - 1].id >= nodes[i].id))
			return false;
	}
	return true;
}

/* Takes over the nodes that have weight, and numbers their zones. */
static void
take_nodes(Ring *ring, const PsRingNode *nodes, int n_nodes)
{
	const char *zones[PS_NODES_MAX];

	for (int i = 0; i < n_nodes; i++)
	{
		int			at = ring->n_nodes;
		int			zone = 0;

		if (nodes[i].weight == 0)
			continue;
		while (zone < ring->n_zones &&
			   strcmp(zones[zone], nodes[i].zone) != 0)
			zone++;
		if (zone == ring->n_zones)
			zones[ring->n_zones++] = nodes[i].zone;
		ring->id[at] = nodes[i].id;
		ring->weight[at] = nodes[i].weight;
		ring->zone[at] = zone;
		ring->zone_weight[zone] += nodes[i].weight;
		ring->n_nodes++;
	}
}

static void
write_out(Ring *ring, const uint8 *primaries, int width, uint32 *out)
{
	for (int s = 0; s < ring->n_shards; s++)
	{
		const uint8 *row = ring->rows + s * ring->copies;
		uint32	   *ids = out + (size_t) s * (size_t) width;
		int			n = 0;

		ids[n++] = ring->id[primaries[s]];
		for (int i = 0; i < ring->copies; i++)
		{
			if (row[i] != primaries[s])
				ids[n++] = ring->id[row[i]];
		}
	}
}

int
ps_ring_place(const PsRingNode *nodes, int n_nodes,
			  const PsRingConfig *config, uint32 *out)
{
	Ring		ring = {0};
	size_t		n_shards;
	size_t		n_vertices;
	uint8	   *primaries;
	bool		is_filled;

	if (!are_arguments_sound(nodes, n_nodes, config))
		return -1;
	n_shards = (size_t) config->n_shards;
	memset(out, 0, sizeof(uint32) * n_shards * (size_t) config->copies);
	ring.n_shards = config->n_shards;
	ring.load_percent = config->load_percent;
	take_nodes(&ring, nodes, n_nodes);
	ring.copies = Min(config->copies, ring.n_nodes);
	if (ring.copies == 0)
		return 0;

	n_vertices = n_shards * (size_t) (1 + ring.n_zones) + PS_NODES_MAX;
	ring.walk = palloc(n_shards * (size_t) ring.n_nodes);
	ring.rows = palloc(n_shards * (size_t) ring.copies);
	ring.row_length = palloc0(n_shards);
	ring.zone_count = palloc0(n_shards * (size_t) ring.n_zones);
	ring.from = palloc(sizeof(int) * n_vertices);
	ring.queue = palloc(sizeof(int) * n_vertices);
	primaries = palloc(n_shards);

	fill_walks(&ring, config->vnodes);
	ring.is_zone_once = ring.n_zones >= ring.copies;
	fill_caps(&ring);
	is_filled = fill_rows(&ring);
	for (int s = 0; s < ring.n_shards && is_filled; s++)
		sort_row(&ring, s);
	if (is_filled)
	{
		choose_primaries(&ring, primaries);
		write_out(&ring, primaries, config->copies, out);
	}
	pfree(ring.walk);
	pfree(ring.rows);
	pfree(ring.row_length);
	pfree(ring.zone_count);
	pfree(ring.from);
	pfree(ring.queue);
	pfree(primaries);
	return is_filled ? ring.copies : -1;
}
