/*
 * heartbeat.c
 *		Which secondaries of this primary have been silent for too long (W6)?
 *
 * The senders' batches are the heartbeat: each notes since when an answer is
 * owed.  Who owes one for payshard.peer_timeout leaves the in-sync and joining
 * sets of this primary's shards; commits that wait for it then go on and record
 * its dirty keys.
 */
#include "postgres.h"

#include "access/xact.h"
#include "ground/step.h"
#include "keep/heartbeat.h"
#include "keep/proposer.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "utils/timestamp.h"
#include "write/dirty.h"

#define PS_RESTING_MS 300

bool
ps_is_silent(uint32 id)
{
	PsTime		heard = Max(ps_suspicion_heard(id),
							(PsTime) pg_atomic_read_u64(&ps_shared->started_us));

	return id != ps_map_self() && ps_has_passed(heard, 2 * (int64) ps_peer_timeout_ms);
}

static PsRefusal
step_leave(PsMap *map, void *arg)
{
	return ps_step_leave(map, ps_map_self(), *(uint32 *) arg);
}

/*
 * Does the node owe an answer for longer than the timeout?  One in maintenance is
 * expected to go: it is not waited for.
 */
static bool
is_late(uint32 id)
{
	uint64		since = pg_atomic_read_u64(&ps_shared->peers[id].waiting_since);
	int			limit = ps_peer_timeout_ms;

	if (since != 0 && ps_map_is_resting(id))
		limit = Min(limit, PS_RESTING_MS);
	return since != 0 && ps_clock_us() >= since + (uint64) limit * 1000;
}

/*
 * A node that came back without what it had acked: everything is dirty for it,
 * durably, before it leaves; then it gets full copies.
 */
static bool
note_lost(uint32 id)
{
	PsMap	   *map;

	if (!ps_shared->peers[id].has_lost)
		return false;
	ereport(WARNING,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("payshard: node \"%s\" has lost journal entries that it had acked", ps_map_node_name(id)),
			 errdetail("Its data directory is not the one it had; it gets full copies.")));
	map = ps_map_copy();
	for (int s = 0; s < map->n_shards; s++)
		if (map->shards[s].primary == ps_map_self() &&
			ps_map_placement(&map->shards[s], id) != PS_PLACEMENT_NONE)
			ps_dirty_record_key(id, s, 0, NULL, 0);
	CommitTransactionCommand();
	StartTransactionCommand();
	return true;
}

bool
ps_duty_leave(void)
{
	bool		again = false;

	if (ps_map_incarnation() == 0)
		return false;
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
	{
		PsRefusal	refusal;

		if (!ps_shared->peers[id].attached)
			continue;
		if (pg_atomic_read_u64(&ps_shared->peers[id].waiting_since) != 0)
			again = true;
		if (!note_lost(id) && !(is_late(id) && PS_RULE_AT("W6", ps_map_node_name(id))))
			continue;
		(void) ps_propose(step_leave, &id,
						  psprintf("node %s does not answer node %s", ps_map_node_name(id),
								   ps_map_node_name(ps_map_self())),
						  ps_call_timeout_ms, &refusal);
		if (refusal)
			ereport(LOG, (errmsg("payshard cannot leave node \"%s\" out: %s", ps_map_node_name(id), refusal)));
	}
	return again;
}
