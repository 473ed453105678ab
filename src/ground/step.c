/*
 * step.c
 *		How does one map become the next?
 *
 * Owns every change of a map.  Each step first looks at all it needs and
 * refuses, then changes, then raises the epoch: a refused step has touched
 * nothing.  It never decides whether a step is wise (who is lost, who may
 * propose); that is asked higher up.
 *
 * One failover, A primary of shard s, B and C in sync with it:
 *
 *	step				A		s: primary, term, waits, in-sync, joining
 *						UP		A  1  {}   {A,B,C}  {}
 *	fail A, leader C	FAILED	B  2  {A}  {B,C}    {}
 *	start A				UP		B  2  {A}  {B,C}    {}	C goes on settling
 *	settled A			UP		B  2  {}   {B,C}    {}	s is open
 *	join B A			UP		B  2  {}   {B,C}    {A}
 *	in_sync B A			UP		B  2  {}   {A,B,C}  {}
 *
 * The same with B lost too before A is settled: s then waits for {A,B}, and
 * opens when both are settled, in either order: what A had sent may be known
 * to B's heirs only.
 *
 * Why ps_step_settled looks at the former incarnation: a settlement may be
 * proposed late, by one who saw an older map.  A fails in incarnation 5; it
 * starts as 9 while C still settles 5; it becomes primary of another shard
 * (B, its primary, fails and is settled), writes there as 9, dies, and starts
 * as 12, for which that shard waits.  "A is settled up to 5" must not open
 * it: 9 is not settled.
 */
#include "ground/step.h"

#include "ground/ring.h"

static const char *const no_such_node = "there is no such node";
static const char *const node_not_up = "a node that has failed cannot do this";

/* Helpers that change nothing */

static bool
is_up(PsMap *map, uint32 id)
{
	const PsMapNode *node = ps_map_node(map, id);

	return node != NULL && node->state == PS_NODE_UP;
}

static bool
is_primary_of_any(const PsMap *map, uint32 id)
{
	for (int s = 0; s < map->n_shards; s++)
	{
		if (map->shards[s].primary == id)
			return true;
	}
	return false;
}

/* What a caller may say of a node: its texts and its weight. */
static PsRefusal
check_texts(const char *name, const char *zone, uint32 weight)
{
	if (name[0] == '\0')
		return "the name is empty";
	if (strnlen(name, PS_NAME_MAX) == PS_NAME_MAX)
		return "the name is too long";
	if (strnlen(zone, PS_NAME_MAX) == PS_NAME_MAX)
		return "the name of the zone is too long";
	if (weight > PS_RING_WEIGHT_MAX)
		return "the weight is out of range";
	return NULL;
}

static bool
is_settling_others(const PsMap *map, uint32 id)
{
	for (int i = 0; i < map->n_nodes; i++)
	{
		if (map->nodes[i].leader == id && map->nodes[i].id != id)
			return true;
	}
	return false;
}

/* Nodes */

/* Copies what a caller says of a node, zeroed behind the texts' ends. */
static void
fill_node(PsMapNode *to, const PsMapNode *from, uint32 id, uint64 incarnation)
{
	memset(to, 0, sizeof(*to));
	to->id = id;
	strlcpy(to->name, from->name, sizeof(to->name));
	strlcpy(to->zone, from->zone, sizeof(to->zone));
	to->weight = from->weight;
	to->state = PS_NODE_UP;
	to->incarnation = incarnation;
	to->boot = from->boot;
	to->system_id = from->system_id;
}

PsRefusal
ps_step_create(PsMap *map, const char *cluster, uint64 cluster_id,
			   int n_shards, int copies, int load_percent,
			   const PsMapNode *first)
{
	PsRefusal	refusal;

	if ((refusal = check_texts(first->name, first->zone,
							   first->weight)) != NULL)
		return refusal;
	if (cluster[0] == '\0' || strnlen(cluster, PS_NAME_MAX) == PS_NAME_MAX)
		return "the cluster's name is empty or too long";
	if (n_shards < 1 || n_shards > PS_SHARDS_MAX)
		return "the number of shards is out of range";
	if ((n_shards & (n_shards - 1)) != 0)
		return "the number of shards is not a power of two";
	if (copies < 1 || copies > PS_COPIES_MAX)
		return "the number of copies is out of range";
	if (load_percent < 100 || load_percent > PS_RING_LOAD_MAX)
		return "the bound on load is out of range";

	memset(map, 0, sizeof(*map));
	map->epoch = 1;
	map->cluster_id = cluster_id;
	strlcpy(map->cluster, cluster, sizeof(map->cluster));
	map->ring_version = PS_RING_VERSION;
	map->vnodes = PS_RING_VNODES_DEFAULT;
	map->load_percent = (uint32) load_percent;
	map->copies = (uint32) copies;
	map->next_incarnation = 2;
	map->n_nodes = 1;
	map->n_shards = n_shards;
	fill_node(&map->nodes[0], first, 1, 1);
	for (int s = 0; s < n_shards; s++)
	{
		map->shards[s].primary = 1;
		map->shards[s].term = 1;
		map->shards[s].placements = PS_NODE_BIT(1);
		map->shards[s].in_sync = PS_NODE_BIT(1);
	}
	return NULL;
}

PsRefusal
ps_step_add_node(PsMap *map, const PsMapNode *node, uint32 *id)
{
	PsRefusal	refusal;
	int			at = 0;

	if ((refusal = check_texts(node->name, node->zone, node->weight)) != NULL)
		return refusal;
	if (ps_map_node_by_name(map, node->name) != NULL)
		return "a node of this name exists";
	if (map->n_nodes >= PS_NODES_MAX - 1)
		return "there are as many nodes as can be";

	/* Ids are sorted: the first gap is the smallest free id. */
	while (at < map->n_nodes && map->nodes[at].id == (uint32) at + 1)
		at++;
	memmove(&map->nodes[at + 1], &map->nodes[at],
			sizeof(PsMapNode) * (size_t) (map->n_nodes - at));
	map->n_nodes++;
	fill_node(&map->nodes[at], node, (uint32) at + 1,
			  map->next_incarnation++);
	*id = (uint32) at + 1;
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_set_node(PsMap *map, uint32 id, uint32 weight, const char *zone)
{
	PsMapNode  *node = ps_map_node(map, id);
	char		name[PS_NAME_MAX] = "";
	PsRefusal	refusal;

	if (node == NULL)
		return no_such_node;
	if ((refusal = check_texts(node->name, zone, weight)) != NULL)
		return refusal;
	strlcpy(name, zone, sizeof(name));	/* zone may be the node's own */
	memcpy(node->zone, name, sizeof(name));
	node->weight = weight;
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_remove_node(PsMap *map, uint32 id)
{
	PsMapNode  *node = ps_map_node(map, id);
	int			at;

	if (node == NULL)
		return no_such_node;
	for (int s = 0; s < map->n_shards; s++)
	{
		if (PS_HAS_NODE(map->shards[s].placements, id))
			return "the node holds a placement";
	}
	if (node->leader != 0)
		return "the node is still being settled";
	if (is_settling_others(map, id))
		return "the node is settling another";

	at = (int) (node - map->nodes);
	map->n_nodes--;
	memmove(node, node + 1, sizeof(PsMapNode) * (size_t) (map->n_nodes - at));
	memset(&map->nodes[map->n_nodes], 0, sizeof(PsMapNode));
	map->epoch++;
	return NULL;
}

/* Placing */

/* The shard becomes what its row of the ring says. */
static void
place_empty(PsMapShard *shard, const uint32 *row, uint32 copies)
{
	shard->placements = 0;
	for (uint32 i = 0; i < copies && row[i] != 0; i++)
		shard->placements |= PS_NODE_BIT(row[i]);
	shard->in_sync = shard->placements;
	shard->joining = 0;
	shard->arriving = shard->leaving = 0;
	shard->heir = 0;
	shard->job = 0;
	if (shard->primary != row[0])
	{
		shard->primary = row[0];
		shard->term++;
	}
}

/* Does another placement of the shard stand in the zone of node `id`? */
static bool
is_zone_taken(PsMap *map, const PsMapShard *shard, uint32 id)
{
	const char *zone = ps_map_node(map, id)->zone;

	for (int i = 0; i < map->n_nodes; i++)
	{
		if (PS_HAS_NODE(shard->placements, map->nodes[i].id) &&
			strcmp(map->nodes[i].zone, zone) == 0)
			return true;
	}
	return false;
}

/* Adds placements from the row, new zones first, until there are enough. */
static void
place_more(PsMap *map, PsMapShard *shard, const uint32 *row)
{
	uint32		have = 0;

	for (int i = 0; i < map->n_nodes; i++)
		have += PS_HAS_NODE(shard->placements, map->nodes[i].id);
	for (int pass = 0; pass < 2; pass++)
	{
		for (uint32 i = 0; i < map->copies && row[i] != 0; i++)
		{
			if (have >= map->copies)
				return;
			if (PS_HAS_NODE(shard->placements, row[i]) ||
				(pass == 0 && is_zone_taken(map, shard, row[i])))
				continue;
			shard->placements |= PS_NODE_BIT(row[i]);
			shard->arriving |= PS_NODE_BIT(row[i]);
			shard->job = map->epoch + 1;
			have++;
		}
	}
}

PsRefusal
ps_step_place(PsMap *map, bool has_rows)
{
	uint32	   *rows;

	for (int s = 0; s < map->n_shards && !has_rows; s++)
	{
		if (map->shards[s].waits != 0)
			return "a shard is recovering";
	}
	rows = ps_map_ring(map, ps_map_up_nodes(map));
	if (rows[0] == 0)
	{
		pfree(rows);
		return "no node that is up has weight";
	}
	for (int s = 0; s < map->n_shards; s++)
	{
		const uint32 *row = rows + (size_t) s * map->copies;

		if (has_rows)
			place_more(map, &map->shards[s], row);
		else
			place_empty(&map->shards[s], row, map->copies);
	}
	pfree(rows);
	map->epoch++;
	return NULL;
}

/* Leaving and joining sets */

/*
 * Takes `id` out of the in-sync and joining sets of the shards of `primary`
 * (0 = any), but never of a shard it is primary of.  Returns of how many.
 */
static int
leave_sets(PsMap *map, uint32 primary, uint32 id)
{
	PsNodeSet	bit = PS_NODE_BIT(id);
	int			n = 0;

	for (int s = 0; s < map->n_shards; s++)
	{
		PsMapShard *shard = &map->shards[s];

		if (shard->primary == id ||
			(primary != 0 && shard->primary != primary))
			continue;
		n += ((shard->in_sync | shard->joining) & bit) != 0;
		shard->in_sync &= ~bit;
		shard->joining &= ~bit;
	}
	return n;
}

PsRefusal
ps_step_leave(PsMap *map, uint32 primary, uint32 id)
{
	if (ps_map_node(map, id) == NULL)
		return no_such_node;
	if (primary != 0 && ps_map_node(map, primary) == NULL)
		return "there is no such primary";
	if (primary == id)
		return "a primary cannot leave its own shards";
	if (leave_sets(map, primary, id) == 0)
		return "the node is in no such in-sync or joining set";
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_rebuild(PsMap *map, uint32 id)
{
	return ps_step_leave(map, 0, id);
}

static const char *
is_not(PsPlacementState state)
{
	switch (state)
	{
		case PS_PLACEMENT_IN_SYNC:
			return "a placement is not in sync";
		case PS_PLACEMENT_JOINING:
			return "a placement is not joining";
		default:
			return "a placement is not out";
	}
}

/* Are all flagged shards of `primary`, and is `id` in state `from` in them? */
static PsRefusal
check_flags(PsMap *map, uint32 primary, uint32 id, const bool *shards,
			PsPlacementState from)
{
	bool		any = false;

	if (ps_map_node(map, id) == NULL || ps_map_node(map, primary) == NULL)
		return no_such_node;
	if (!is_up(map, id) || !is_up(map, primary))
		return node_not_up;
	for (int s = 0; s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];

		if (!shards[s])
			continue;
		any = true;
		if (shard->primary != primary)
			return "a shard has another primary";
		if (shard->waits != 0)
			return "a shard is recovering";
		if (ps_map_placement(shard, id) != from)
			return is_not(from);
	}
	return any ? NULL : "no shard is given";
}

PsRefusal
ps_step_join(PsMap *map, uint32 primary, uint32 id, const bool *shards)
{
	PsRefusal	refusal = check_flags(map, primary, id, shards,
									  PS_PLACEMENT_OUT);

	if (refusal != NULL)
		return refusal;
	for (int s = 0; s < map->n_shards; s++)
	{
		if (shards[s])
			map->shards[s].joining |= PS_NODE_BIT(id);
	}
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_switch(PsMap *map, uint32 from, uint32 to, const bool *shards)
{
	PsRefusal	refusal = check_flags(map, from, to, shards,
									  PS_PLACEMENT_IN_SYNC);

	if (refusal != NULL)
		return refusal;
	if (from == to)
		return "the node is primary already";
	for (int s = 0; s < map->n_shards; s++)
	{
		PsMapShard *shard = &map->shards[s];

		if (!shards[s])
			continue;
		shard->primary = to;
		shard->term++;
		shard->joining = 0;
		if (shard->heir == to)
			shard->heir = 0;
		ps_map_end_job(shard);
	}
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_maintain(PsMap *map, uint32 id, bool is_resting)
{
	PsMapNode  *node = ps_map_node(map, id);

	if (node == NULL)
		return no_such_node;
	if (node->is_resting == is_resting)
		return is_resting ? "the node is in maintenance already" :
			"the node is not in maintenance";
	node->is_resting = is_resting;
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_unjoin(PsMap *map, uint32 primary, uint32 id)
{
	bool		any = false;

	if (ps_map_node(map, id) == NULL || ps_map_node(map, primary) == NULL)
		return no_such_node;
	for (int s = 0; s < map->n_shards; s++)
	{
		PsMapShard *shard = &map->shards[s];

		if (shard->primary != primary || !PS_HAS_NODE(shard->joining, id))
			continue;
		shard->joining &= ~PS_NODE_BIT(id);
		any = true;
	}
	if (!any)
		return "the node joins no such shard";
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_in_sync(PsMap *map, uint32 primary, uint32 id, const bool *shards)
{
	PsRefusal	refusal = check_flags(map, primary, id, shards,
									  PS_PLACEMENT_JOINING);

	if (refusal != NULL)
		return refusal;
	for (int s = 0; s < map->n_shards; s++)
	{
		if (!shards[s])
			continue;
		map->shards[s].joining &= ~PS_NODE_BIT(id);
		map->shards[s].in_sync |= PS_NODE_BIT(id);
		map->shards[s].arriving &= ~PS_NODE_BIT(id);
		ps_map_end_job(&map->shards[s]);
	}
	map->epoch++;
	return NULL;
}

/* Starting, failing, settling */

PsRefusal
ps_step_start(PsMap *map, uint32 id, uint64 boot, uint64 system_id,
			  bool is_stranger)
{
	PsMapNode  *node = ps_map_node(map, id);
	bool		is_origin;

	if (node == NULL)
		return no_such_node;
	is_origin = is_primary_of_any(map, id);
	if (is_stranger && is_origin)
		return "the node is primary of a shard and what it held is gone";

	if (is_stranger)
		(void) leave_sets(map, 0, id);
	for (int s = 0; s < map->n_shards; s++)
	{
		if (map->shards[s].primary != id)
			continue;
		map->shards[s].joining = 0;
		if (node->incarnation != 0)
			map->shards[s].waits |= PS_NODE_BIT(id);
	}
	if (node->leader == 0 && is_origin && node->incarnation != 0)
		node->leader = id;
	if (node->leader == 0)
		node->settled = node->incarnation;
	node->former = node->incarnation;
	node->incarnation = map->next_incarnation++;
	node->state = PS_NODE_UP;
	node->boot = boot;
	node->system_id = system_id;
	map->epoch++;
	return NULL;
}

/* What choosing new primaries needs to know. */
typedef struct Heirs
{
	const uint32 *rows;			/* the ring's answer, n_shards * copies */
	const uint32 *prefer;		/* n_shards wishes or NULL */
	uint32		n_primaries[PS_NODES_MAX];	/* by node, heirs included */
} Heirs;

/*
 * The wish; else the first candidate in ring order; else, when the ring has
 * changed since the shard was placed, the one with the fewest primaries.
 * Returns 0 when the wish is no candidate.
 */
static uint32
choose_heir(const PsMap *map, int s, PsNodeSet candidates, const Heirs *heirs)
{
	const uint32 *row = heirs->rows + (size_t) s * map->copies;
	uint32		wish = heirs->prefer == NULL ? 0 : heirs->prefer[s];
	uint32		best = 0;

	if (wish != 0)
		return wish < PS_NODES_MAX && PS_HAS_NODE(candidates, wish) ? wish : 0;
	for (uint32 i = 0; i < map->copies; i++)
	{
		if (row[i] != 0 && PS_HAS_NODE(candidates, row[i]))
			return row[i];
	}
	for (uint32 node = 1; node < PS_NODES_MAX; node++)
	{
		if (PS_HAS_NODE(candidates, node) &&
			(best == 0 || heirs->n_primaries[node] < heirs->n_primaries[best]))
			best = node;
	}
	return best;
}

/*
 * Fills next[s] for each shard: its new primary, or 0 where `id` is not
 * primary or is the only one in sync.  Changes nothing in the map.
 */
static PsRefusal
choose_heirs(const PsMap *map, uint32 id, Heirs *heirs, bool *stuck,
			 uint32 *next)
{
	for (int s = 0; s < map->n_shards; s++)
		heirs->n_primaries[map->shards[s].primary]++;
	for (int s = 0; s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];
		PsNodeSet	candidates = shard->in_sync & ~PS_NODE_BIT(id);

		next[s] = 0;
		if (stuck != NULL)
			stuck[s] = candidates == 0;
		if (candidates == 0 && stuck == NULL)
			return "the node holds the only in-sync placement of a shard";
		if (shard->primary != id || candidates == 0)
			continue;
		next[s] = choose_heir(map, s, candidates, heirs);
		if (next[s] == 0)
			return "a node that was to be primary is not in sync";
		heirs->n_primaries[next[s]]++;
	}
	return NULL;
}

PsRefusal
ps_step_fail(PsMap *map, uint32 id, uint32 leader, const uint32 *prefer,
			 bool *stuck)
{
	PsMapNode  *node = ps_map_node(map, id);
	Heirs		heirs = {.prefer = prefer};
	uint32		next[PS_SHARDS_MAX];
	uint32	   *rows;
	PsRefusal	refusal;

	if (node == NULL)
		return no_such_node;
	if (node->state == PS_NODE_FAILED)
		return "the node has failed already";
	if (leader == id || !is_up(map, leader))
		return "the leader is not another node that is up";
	heirs.rows = rows = ps_map_ring(map, ps_map_voters(map));
	refusal = choose_heirs(map, id, &heirs, stuck, next);
	pfree(rows);
	if (refusal != NULL)
		return refusal;

	for (int s = 0; s < map->n_shards; s++)
	{
		PsMapShard *shard = &map->shards[s];

		if (next[s] == 0)
			continue;
		shard->primary = next[s];
		shard->term++;
		shard->waits |= PS_NODE_BIT(id);
		shard->joining = 0;
	}
	(void) leave_sets(map, 0, id);
	node->state = PS_NODE_FAILED;
	node->leader = leader;
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_lead(PsMap *map, uint32 id, uint32 leader)
{
	PsMapNode  *node = ps_map_node(map, id);

	if (node == NULL)
		return no_such_node;
	if (node->leader == 0)
		return "nothing of the node is to be settled";
	if (node->leader == leader)
		return "the node leads already";
	if (!is_up(map, leader))
		return "the leader is not a node that is up";
	node->leader = leader;
	map->epoch++;
	return NULL;
}

PsRefusal
ps_step_settled(PsMap *map, uint32 id, uint64 incarnation)
{
	PsMapNode  *node = ps_map_node(map, id);

	if (node == NULL)
		return no_such_node;
	if (node->leader == 0)
		return "nothing of the node is to be settled";
	if (incarnation > node->incarnation ||
		(incarnation == node->incarnation && node->state == PS_NODE_UP))
		return "the incarnation has not ended";
	if (incarnation < (node->state == PS_NODE_FAILED ?
					   node->incarnation : node->former))
		return "the node has started again since";
	for (int s = 0; s < map->n_shards; s++)
		map->shards[s].waits &= ~PS_NODE_BIT(id);
	node->settled = incarnation;
	node->leader = 0;
	map->epoch++;
	return NULL;
}
