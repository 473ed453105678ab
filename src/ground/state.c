/*
 * state.c
 *		What does the map say, is it sound, and what are its bytes?
 *
 * Owns the representation: bytes and back, the invariants, and small
 * questions (which node, which state, is this a majority).  How one map
 * becomes the next is step.c.  Never throws, except that memory may run out.
 *
 * Invariants, as ps_map_check tests them:
 *
 *	(a) Numbers are in range, names end, nodes are sorted by id, and names
 *		and incarnations are not shared.
 *	(b) An incarnation was issued: it is below next_incarnation; `former` and
 *		`settled` are not above it.
 *	(c) A node without a leader has nothing to be settled: `settled` covers
 *		every incarnation that has ended, which is `former`, and for a node
 *		that is FAILED the last one too.
 *	(d) A shard's sets name nodes of the map; the primary is in sync; in-sync
 *		and joining are apart and within the placements.  So in-sync sets
 *		are never empty (M4).
 *	(e) A shard waits only for origins that somebody is settling, else it
 *		would wait for ever.
 *	(f) A shard that waits has nobody joining: a new primary and a new
 *		incarnation of it empty the joining set (J3).
 *	(g) A FAILED node is nowhere joining, and is in sync only where nobody
 *		else is: what it alone holds stays with it until it comes back.
 *	(h) What arrives is not in sync and does not leave; something stays; an
 *		heir stays.  There is something to be moved exactly while there is a
 *		job, which was ordered by this map or an earlier one.
 *
 * A map that breaks one of them is refused wherever it comes from: a step
 * that would make one, a peer, a file.
 */
#include "ground/state.h"

#include "ground/ring.h"
#include "ground/wire.h"
#include "port/pg_bitutils.h"
#include "port/pg_crc32c.h"

#define CRC_BYTES 4

/* Small questions */

PsMapNode *
ps_map_node(PsMap *map, uint32 id)
{
	for (int i = 0; i < map->n_nodes; i++)
	{
		if (map->nodes[i].id == id)
			return &map->nodes[i];
	}
	return NULL;
}

PsMapNode *
ps_map_node_by_name(PsMap *map, const char *name)
{
	for (int i = 0; i < map->n_nodes; i++)
	{
		if (strcmp(map->nodes[i].name, name) == 0)
			return &map->nodes[i];
	}
	return NULL;
}

PsPlacementState
ps_map_placement(const PsMapShard *shard, uint32 node)
{
	if (node == 0 || node >= PS_NODES_MAX ||
		!PS_HAS_NODE(shard->placements, node))
		return PS_PLACEMENT_NONE;
	if (PS_HAS_NODE(shard->in_sync, node))
		return PS_PLACEMENT_IN_SYNC;
	if (PS_HAS_NODE(shard->joining, node))
		return PS_PLACEMENT_JOINING;
	return PS_PLACEMENT_OUT;
}

PsNodeSet
ps_map_voters(const PsMap *map)
{
	PsNodeSet	set = 0;

	for (int i = 0; i < map->n_nodes; i++)
		set |= PS_NODE_BIT(map->nodes[i].id);
	return set;
}

PsNodeSet
ps_map_data_nodes(const PsMap *map)
{
	PsNodeSet	set = 0;

	for (int i = 0; i < map->n_nodes; i++)
	{
		if (map->nodes[i].weight > 0)
			set |= PS_NODE_BIT(map->nodes[i].id);
	}
	return set;
}

PsNodeSet
ps_map_up_nodes(const PsMap *map)
{
	PsNodeSet	set = 0;

	for (int i = 0; i < map->n_nodes; i++)
	{
		if (map->nodes[i].state == PS_NODE_UP)
			set |= PS_NODE_BIT(map->nodes[i].id);
	}
	return set;
}

uint32 *
ps_map_ring(const PsMap *map, PsNodeSet among)
{
	PsRingConfig config = {.n_shards = map->n_shards,
		.copies = (int) map->copies,
		.vnodes = (int) map->vnodes,
		.load_percent = (int) map->load_percent};
	PsRingNode	nodes[PS_NODES_MAX];
	uint32	   *rows;
	int			n = 0;

	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];

		if (node->is_leaving || !PS_HAS_NODE(among, node->id))
			continue;
		nodes[n].id = node->id;
		nodes[n].weight = node->weight;
		nodes[n].zone = node->zone;
		n++;
	}
	rows = palloc0(sizeof(uint32) * (size_t) map->n_shards * map->copies);
	(void) ps_ring_place(nodes, n, &config, rows);
	return rows;
}

void
ps_map_end_job(PsMapShard *shard)
{
	if (shard->arriving == 0 && shard->leaving == 0 && shard->heir == 0)
		shard->job = 0;
}

bool
ps_map_is_majority(PsNodeSet set, PsNodeSet voters)
{
	return 2 * pg_popcount64(set & voters) > pg_popcount64(voters);
}

/* Invariants */

static bool
is_text(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

/* (a): what belongs to no node and no shard. */
static PsRefusal
check_numbers(const PsMap *map)
{
	if (map->epoch == 0)
		return "the map has no epoch";
	if (!is_text(map->cluster, sizeof(map->cluster)) ||
		!is_text(map->reason, sizeof(map->reason)))
		return "a text of the map does not end";
	if (map->cluster[0] == '\0')
		return "the cluster has no name";
	if (map->changed_by >= PS_NODES_MAX)
		return "the map was changed by a node that cannot exist";
	if (map->ring_version < 1 || map->ring_version > PS_RING_VERSION)
		return "the version of the ring is unknown";
	if (map->vnodes < 1 || map->vnodes > PS_RING_VNODES_MAX)
		return "the number of virtual nodes is out of range";
	if (map->load_percent < 100 || map->load_percent > PS_RING_LOAD_MAX)
		return "the bound on load is out of range";
	if (map->copies < 1 || map->copies > PS_COPIES_MAX)
		return "the number of copies is out of range";
	if (map->n_nodes < 1 || map->n_nodes >= PS_NODES_MAX)
		return "the number of nodes is out of range";
	if (map->n_shards < 1 || map->n_shards > PS_SHARDS_MAX)
		return "the number of shards is out of range";
	return NULL;
}

/* (a), (b), (c) of one node. */
static PsRefusal
check_node(const PsMap *map, const PsMapNode *node)
{
	if (!is_text(node->name, sizeof(node->name)) ||
		!is_text(node->zone, sizeof(node->zone)))
		return "a node's name or zone does not end";
	if (node->name[0] == '\0')
		return "a node has no name";
	if (node->weight > PS_RING_WEIGHT_MAX)
		return "a node's weight is out of range";
	if (node->state != PS_NODE_UP && node->state != PS_NODE_FAILED)
		return "a node's state is unknown";
	if (node->has_leases > 1)
		return "whether a node has leases is neither yes nor no";
	if (node->incarnation >= map->next_incarnation)
		return "a node has an incarnation that was never issued";
	if (node->former > node->incarnation ||
		(node->incarnation != 0 && node->former == node->incarnation))
		return "a node's former incarnation is not before its present one";
	if (node->settled > node->incarnation)
		return "a node's settled incarnation is above its present one";
	if (node->leader >= PS_NODES_MAX ||
		(node->leader != 0 &&
		 !PS_HAS_NODE(ps_map_voters(map), node->leader)))
		return "a node is settled by one that is not in the map";
	if (node->leader == 0 &&
		node->settled < (node->state == PS_NODE_FAILED ?
						 node->incarnation : node->former))
		return "a node is not settled and nobody settles it";
	return NULL;
}

static PsRefusal
check_nodes(const PsMap *map)
{
	PsRefusal	refusal;

	/* Ids first: the other checks shift bits by them. */
	for (int i = 0; i < map->n_nodes; i++)
	{
		if (map->nodes[i].id < 1 || map->nodes[i].id >= PS_NODES_MAX)
			return "a node's id is out of range";
		if (i > 0 && map->nodes[i - 1].id >= map->nodes[i].id)
			return "the nodes are not sorted by id";
	}
	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];

		if ((refusal = check_node(map, node)) != NULL)
			return refusal;
		for (int j = 0; j < i; j++)
		{
			if (strcmp(map->nodes[j].name, node->name) == 0)
				return "two nodes have the same name";
			if (node->incarnation != 0 &&
				map->nodes[j].incarnation == node->incarnation)
				return "two nodes have the same incarnation";
		}
	}
	return NULL;
}

/* (h) */
static PsRefusal
check_move(const PsMap *map, const PsMapShard *shard)
{
	bool		has_work = shard->arriving != 0 || shard->leaving != 0 || shard->heir != 0;

	if ((shard->arriving | shard->leaving) & ~shard->placements)
		return "a placement that is no placement arrives or leaves";
	if (shard->arriving & shard->in_sync)
		return "a placement in sync arrives";
	if (shard->arriving & shard->leaving)
		return "a placement arrives and leaves";
	if ((shard->placements & ~shard->leaving) == 0)
		return "all placements of a shard leave";
	if (shard->heir >= PS_NODES_MAX ||
		(shard->heir != 0 && !PS_HAS_NODE(shard->placements & ~shard->leaving, shard->heir)))
		return "a node is to be primary of a shard that it will not hold";
	if (has_work != (shard->job != 0) || shard->job > map->epoch)
		return "something is to be moved without an order, or there is an order for nothing";
	return NULL;
}

/* (d) to (g) of one shard, given the nodes that are FAILED, and are settled. */
static PsRefusal
check_shard(const PsMapShard *shard, PsNodeSet all, PsNodeSet failed,
			PsNodeSet led)
{
	if (shard->primary < 1 || shard->primary >= PS_NODES_MAX ||
		!PS_HAS_NODE(shard->in_sync, shard->primary))
		return "a shard's primary is not in sync";
	if (shard->term == 0)
		return "a shard has no term";
	if (shard->placements & ~all)
		return "a shard is placed on a node that is not in the map";
	if (shard->in_sync & ~shard->placements)
		return "a node is in sync in a shard that it does not hold";
	if (shard->joining & ~shard->placements)
		return "a node joins a shard that it does not hold";
	if (shard->joining & shard->in_sync)
		return "a node is in sync and joining in the same shard";
	if (shard->waits & ~led)
		return "a shard waits for a node that nobody settles";
	if (shard->waits != 0 && shard->joining != 0)
		return "a node joins a shard that is recovering";
	if (shard->joining & failed)
		return "a failed node is joining";
	if ((shard->in_sync & failed) != 0 &&
		shard->in_sync != PS_NODE_BIT(shard->primary))
		return "a failed node is in sync beside others";
	return NULL;
}

PsRefusal
ps_map_check(const PsMap *map)
{
	PsNodeSet	failed = 0;
	PsNodeSet	led = 0;
	PsRefusal	refusal;

	if ((refusal = check_numbers(map)) != NULL ||
		(refusal = check_nodes(map)) != NULL)
		return refusal;
	for (int i = 0; i < map->n_nodes; i++)
	{
		if (map->nodes[i].state == PS_NODE_FAILED)
			failed |= PS_NODE_BIT(map->nodes[i].id);
		if (map->nodes[i].leader != 0)
			led |= PS_NODE_BIT(map->nodes[i].id);
	}
	for (int s = 0; s < map->n_shards; s++)
	{
		refusal = check_shard(&map->shards[s], ps_map_voters(map),
							  failed, led);
		if (refusal == NULL)
			refusal = check_move(map, &map->shards[s]);
		if (refusal != NULL)
			return refusal;
	}
	return NULL;
}

/* Bytes */

static uint32
checksum(const void *data, size_t bytes)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, data, bytes);
	FIN_CRC32C(crc);
	return crc;
}

/* The reason is longer than a name, but written alike. */
static void
put_reason(StringInfo buf, const char *reason)
{
	size_t		bytes = strnlen(reason, PS_REASON_MAX - 1);

	ps_put_u16(buf, (uint16) bytes);
	appendBinaryStringInfoNT(buf, reason, (int) bytes);
}

static void
read_reason(PsReader *reader, char *out)
{
	size_t		bytes = ps_read_u16(reader);
	const uint8 *reason = ps_read_bytes(reader, bytes);

	if (reason == NULL)
		return;
	if (bytes >= PS_REASON_MAX || memchr(reason, '\0', bytes) != NULL)
		reader->bad = true;
	else
		memcpy(out, reason, bytes);
}

static void
put_node(StringInfo buf, const PsMapNode *node)
{
	ps_put_u32(buf, node->id);
	ps_put_name(buf, node->name);
	ps_put_name(buf, node->zone);
	ps_put_u32(buf, node->weight);
	ps_put_u8(buf, node->state);
	ps_put_u64(buf, node->incarnation);
	ps_put_u64(buf, node->former);
	ps_put_u64(buf, node->settled);
	ps_put_u32(buf, node->leader);
	ps_put_u64(buf, node->boot);
	ps_put_u64(buf, node->system_id);
	ps_put_u8(buf, node->is_leaving ? 1 : 0);
	ps_put_u8(buf, node->is_resting ? 1 : 0);
	ps_put_u8(buf, node->has_leases);
}

static bool
read_bool(PsReader *reader)
{
	uint8		value = ps_read_u8(reader);

	if (value > 1)
		reader->bad = true;
	return value == 1;
}

static void
read_node(PsReader *reader, PsMapNode *node)
{
	node->id = ps_read_u32(reader);
	ps_read_name(reader, node->name);
	ps_read_name(reader, node->zone);
	node->weight = ps_read_u32(reader);
	node->state = ps_read_u8(reader);
	node->incarnation = ps_read_u64(reader);
	node->former = ps_read_u64(reader);
	node->settled = ps_read_u64(reader);
	node->leader = ps_read_u32(reader);
	node->boot = ps_read_u64(reader);
	node->system_id = ps_read_u64(reader);
	node->is_leaving = read_bool(reader);
	node->is_resting = read_bool(reader);
	node->has_leases = ps_read_u8(reader);
}

static void
put_shard(StringInfo buf, const PsMapShard *shard)
{
	ps_put_u32(buf, shard->primary);
	ps_put_u64(buf, shard->term);
	ps_put_u64(buf, shard->waits);
	ps_put_u64(buf, shard->placements);
	ps_put_u64(buf, shard->in_sync);
	ps_put_u64(buf, shard->joining);
	ps_put_u64(buf, shard->arriving);
	ps_put_u64(buf, shard->leaving);
	ps_put_u32(buf, shard->heir);
	ps_put_u64(buf, shard->job);
}

static void
read_shard(PsReader *reader, PsMapShard *shard)
{
	shard->primary = ps_read_u32(reader);
	shard->term = ps_read_u64(reader);
	shard->waits = ps_read_u64(reader);
	shard->placements = ps_read_u64(reader);
	shard->in_sync = ps_read_u64(reader);
	shard->joining = ps_read_u64(reader);
	shard->arriving = ps_read_u64(reader);
	shard->leaving = ps_read_u64(reader);
	shard->heir = ps_read_u32(reader);
	shard->job = ps_read_u64(reader);
}

void
ps_map_put(StringInfo buf, const PsMap *map)
{
	int			start = buf->len;

	Assert(ps_map_check(map) == NULL);
	ps_put_u32(buf, PS_MAP_VERSION);
	ps_put_u64(buf, map->epoch);
	ps_put_u64(buf, map->cluster_id);
	ps_put_name(buf, map->cluster);
	ps_put_u64(buf, (uint64) map->changed_at);
	ps_put_u32(buf, map->changed_by);
	put_reason(buf, map->reason);
	ps_put_u32(buf, map->ring_version);
	ps_put_u32(buf, map->vnodes);
	ps_put_u32(buf, map->load_percent);
	ps_put_u32(buf, map->copies);
	ps_put_u64(buf, map->next_incarnation);
	ps_put_u32(buf, (uint32) map->n_nodes);
	ps_put_u32(buf, (uint32) map->n_shards);
	for (int i = 0; i < map->n_nodes; i++)
		put_node(buf, &map->nodes[i]);
	for (int s = 0; s < map->n_shards; s++)
		put_shard(buf, &map->shards[s]);
	ps_put_u32(buf, checksum(buf->data + start, (size_t) (buf->len - start)));
}

/* Everything up to the counts, which are checked before anything is filled. */
static PsRefusal
read_head(PsReader *reader, PsMap *map)
{
	uint32		n_nodes;
	uint32		n_shards;

	map->epoch = ps_read_u64(reader);
	map->cluster_id = ps_read_u64(reader);
	ps_read_name(reader, map->cluster);
	map->changed_at = (int64) ps_read_u64(reader);
	map->changed_by = ps_read_u32(reader);
	read_reason(reader, map->reason);
	map->ring_version = ps_read_u32(reader);
	map->vnodes = ps_read_u32(reader);
	map->load_percent = ps_read_u32(reader);
	map->copies = ps_read_u32(reader);
	map->next_incarnation = ps_read_u64(reader);
	n_nodes = ps_read_u32(reader);
	n_shards = ps_read_u32(reader);
	if (n_nodes >= PS_NODES_MAX || n_shards > PS_SHARDS_MAX)
		return "the map has more nodes or shards than can be";
	map->n_nodes = (int) n_nodes;
	map->n_shards = (int) n_shards;
	return NULL;
}

PsRefusal
ps_map_read(PsMap *map, const void *data, size_t bytes)
{
	PsReader	reader;
	PsReader	tail;
	PsRefusal	refusal;

	memset(map, 0, sizeof(*map));
	if (bytes < sizeof(uint32) + CRC_BYTES)
		return "the map is shorter than its header";
	ps_reader_init(&reader, data, bytes - CRC_BYTES);
	ps_reader_init(&tail, reader.end, CRC_BYTES);
	if (ps_read_u32(&reader) != PS_MAP_VERSION)
		return "the map has another version";
	if (ps_read_u32(&tail) != checksum(data, bytes - CRC_BYTES))
		return "the checksum does not match";
	if ((refusal = read_head(&reader, map)) != NULL)
		return refusal;
	for (int i = 0; i < map->n_nodes; i++)
		read_node(&reader, &map->nodes[i]);
	for (int s = 0; s < map->n_shards; s++)
		read_shard(&reader, &map->shards[s]);
	if (reader.bad)
		return "the map ends too early or has a malformed name";
	if (reader.at != reader.end)
		return "there are bytes behind the map";
	return ps_map_check(map);
}
