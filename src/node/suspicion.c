/*
 * suspicion.c
 *		Does this node believe that another one is gone?
 *
 * All times are microseconds on the clock of lease.h, in atomics of the node's
 * PsSharedPeer: answered_us and refused_us are its sender's, asked_us its
 * receiver's; up_us, back_us, fell_us and falls are written at the adoption of a map.
 *
 * Falls: a node that went from UP to FAILED, or whose last copies left the
 * in-sync sets, or those of the shards of this node, has fallen; once, when one
 * follows the other.  Each payshard.fall_memory without a fall makes one
 * of them forgotten; from the third on a pause follows, 5 s first, doubled each time.
 */
#include "postgres.h"

#include "node/lease.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"

#define PS_FALLS_FREE 2			/* falls without a pause */
#define PS_PAUSE_MS 5000
#define PS_PAUSE_MS_MAX 120000

static PsSharedPeer *
peer(uint32 node)
{
	return &ps_shared->peers[node];
}

void
ps_suspicion_answered(uint32 node)
{
	pg_atomic_write_u64(&peer(node)->answered_us, ps_clock_us());
}

void
ps_suspicion_refused(uint32 node)
{
	bool		is_news = ps_suspicion(node, NULL) == NULL;

	pg_atomic_write_u64(&peer(node)->refused_us, ps_clock_us());
	if (is_news)
		ps_wake_keeper();
}

PsTime
ps_suspicion_heard(uint32 node)
{
	return (PsTime) pg_atomic_read_u64(&peer(node)->answered_us);
}

void
ps_suspicion_asked(uint32 node)
{
	pg_atomic_write_u64(&peer(node)->asked_us, ps_clock_us());
}

const char *
ps_suspicion(uint32 node, uint64 *since_us)
{
	uint64		now = ps_clock_us();
	uint64		up = Max(pg_atomic_read_u64(&peer(node)->up_us),
						 pg_atomic_read_u64(&ps_shared->started_us));
	uint64		answered = Max(pg_atomic_read_u64(&peer(node)->answered_us), up);
	uint64		asked = Max(pg_atomic_read_u64(&peer(node)->asked_us), up);
	uint64		timeout = (uint64) ps_suspect_timeout_ms * 1000;

	if (node == ps_map_self() || ps_map_incarnation() == 0)
		return NULL;
	if (since_us)
		*since_us = Min(answered, asked);
	if (pg_atomic_read_u64(&peer(node)->refused_us) > answered)
		return "refuses connections";
	if (now > answered + timeout)
		return "does not answer";
	if (now > asked + timeout)
		return "is not heard";
	return NULL;
}

long
ps_suspicion_due_ms(void)
{
	uint64		now = ps_clock_us();
	uint64		timeout = (uint64) ps_suspect_timeout_ms * 1000;
	uint64		due = PG_UINT64_MAX;
	uint64		since;
	PsMap	   *map = ps_map_incarnation() == 0 ? NULL : ps_map_copy();

	for (int i = 0; map && i < map->n_nodes; i++)
		if (map->nodes[i].id != ps_map_self() && map->nodes[i].state == PS_NODE_UP &&
			ps_suspicion(map->nodes[i].id, &since) == NULL)
			due = Min(due, since + timeout);
	if (map)
		pfree(map);
	return due == PG_UINT64_MAX ? LONG_MAX : due < now ? 1 : (long) ((due - now) / 1000) + 1;
}

uint32
ps_suspicion_falls(uint32 node)
{
	return pg_atomic_read_u32(&peer(node)->falls);
}

uint32
ps_suspicion_pause_ms(uint32 node)
{
	uint32		falls = ps_suspicion_falls(node);
	uint64		pause;
	uint64		passed;

	if (falls <= PS_FALLS_FREE)
		return 0;
	pause = Min((uint64) PS_PAUSE_MS << Min(falls - PS_FALLS_FREE - 1, 16), PS_PAUSE_MS_MAX);
	passed = (ps_clock_us() - pg_atomic_read_u64(&peer(node)->fell_us)) / 1000;
	return passed < pause ? (uint32) (pause - passed) : 0;
}

/*
 * Have all its copies that were in sync with a primary (0: any) left the sets?  Those
 * that were moved away do not count: it holds them no more.
 */
static bool
has_left(const PsMap *old, const PsMap *map, uint32 node, uint32 primary)
{
	bool		was_there = false;

	for (int s = 0; s < old->n_shards; s++)
	{
		if (old->shards[s].primary == node || !PS_HAS_NODE(old->shards[s].in_sync, node) ||
			!PS_HAS_NODE(map->shards[s].placements, node) ||
			(primary != 0 && old->shards[s].primary != primary))
			continue;
		if (PS_HAS_NODE(map->shards[s].in_sync, node))
			return false;
		was_there = true;
	}
	return was_there;
}

/* Has a copy of it come into the in-sync set of another primary? */
static bool
has_joined(const PsMap *old, const PsMap *map, uint32 node)
{
	for (int s = 0; s < old->n_shards; s++)
		if (map->shards[s].primary != node && PS_HAS_NODE(map->shards[s].in_sync, node) &&
			!PS_HAS_NODE(old->shards[s].in_sync, node))
			return true;
	return false;
}

static void
note_fall(uint32 node, uint64 now)
{
	uint64		fell = pg_atomic_read_u64(&peer(node)->fell_us);
	uint64		up = pg_atomic_read_u64(&peer(node)->up_us);
	uint64		back = pg_atomic_read_u64(&peer(node)->back_us);
	uint64		passed = now - fell;
	uint64		forgotten = passed / ((uint64) ps_fall_memory_s * 1000000);
	uint32		falls = ps_suspicion_falls(node);

	if (fell > Max(up, back))
		return;					/* the same fall: the others find it, one by one */
	falls = forgotten >= falls ? 0 : falls - (uint32) forgotten;
	pg_atomic_write_u32(&peer(node)->falls, falls + 1);
	pg_atomic_write_u64(&peer(node)->fell_us, now);
}

void
ps_suspicion_map_adopted(const PsMap *old, const PsMap *map)
{
	uint64		now = ps_clock_us();

	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];
		const PsMapNode *before = old ? ps_map_node((PsMap *) old, node->id) : NULL;

		if (before == NULL || before->incarnation != node->incarnation)
			pg_atomic_write_u64(&peer(node->id)->up_us, now);
		if (before == NULL)
			continue;
		if (has_joined(old, map, node->id))
			pg_atomic_write_u64(&peer(node->id)->back_us, now);
		if ((before->state == PS_NODE_UP && node->state == PS_NODE_FAILED) ||
			(node->state == PS_NODE_UP &&
			 (has_left(old, map, node->id, 0) || has_left(old, map, node->id, ps_shared->self))))
			note_fall(node->id, now);
	}
}
