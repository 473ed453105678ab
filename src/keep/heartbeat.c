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

#include "ground/step.h"
#include "keep/heartbeat.h"
#include "keep/proposer.h"
#include "node/map.h"
#include "node/settings.h"
#include "utils/timestamp.h"

static PsRefusal
step_leave(PsMap *map, void *arg)
{
	return ps_step_leave(map, ps_map_self(), *(uint32 *) arg);
}

/* Does the node owe an answer for longer than the timeout? */
static bool
is_late(uint32 id)
{
	uint64		since = pg_atomic_read_u64(&ps_shared->peers[id].waiting_since);

	return since != 0 && TimestampDifferenceExceeds(since, GetCurrentTimestamp(), ps_peer_timeout_ms);
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
		if (!is_late(id))
			continue;
		(void) ps_propose(step_leave, &id, psprintf("node %s does not answer node %s",
													ps_map_node_name(id), ps_map_node_name(ps_map_self())),
						  ps_call_timeout_ms, &refusal);
		if (refusal)
			ereport(LOG, (errmsg("payshard cannot leave node \"%s\" out: %s", ps_map_node_name(id), refusal)));
	}
	return again;
}
