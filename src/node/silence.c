/*
 * silence.c
 *		When did another node stop to answer this one, and when was it back?
 *
 * One writer per node, its sender; a new sender finds what the last one left.
 */
#include "postgres.h"

#include "node/clock.h"
#include "node/outage.h"
#include "node/shared.h"
#include "node/silence.h"

void
ps_silence_begin(uint32 node)
{
	PsSharedPeer *peer = &ps_shared->peers[node];

	if (pg_atomic_read_u64(&peer->silent_from) == 0)
	{
		pg_atomic_write_u64(&peer->silent_us, pg_atomic_read_u64(&peer->answered_us));
		pg_write_barrier();
		pg_atomic_write_u64(&peer->silent_from, pg_atomic_read_u64(&peer->heard_at));
	}
}

void
ps_silence_end(uint32 node)
{
	PsSharedPeer *peer = &ps_shared->peers[node];
	uint64		from = pg_atomic_read_u64(&peer->silent_from);
	uint64		to = from + ps_clock_us() - pg_atomic_read_u64(&peer->silent_us);

	if (from == 0)
		return;
	pg_atomic_write_u64(&peer->former_to, 0);
	pg_write_barrier();
	pg_atomic_write_u64(&peer->former_from, from);
	pg_write_barrier();
	pg_atomic_write_u64(&peer->former_to, to);
	pg_atomic_write_u64(&peer->silent_from, 0);
	ps_outage_copy(node, (TimestampTz) from, (TimestampTz) to);
	ps_wake_keeper();
}

TimestampTz
ps_silence_now(uint32 node)
{
	return (TimestampTz) pg_atomic_read_u64(&ps_shared->peers[node].silent_from);
}

int64
ps_silence_ms(uint32 node)
{
	PsSharedPeer *peer = &ps_shared->peers[node];

	if (pg_atomic_read_u64(&peer->silent_from) == 0)
		return 0;
	pg_read_barrier();
	return (int64) (ps_clock_us() - pg_atomic_read_u64(&peer->silent_us)) / 1000;
}

bool
ps_silence_former(uint32 node, TimestampTz *from, TimestampTz *to)
{
	PsSharedPeer *peer = &ps_shared->peers[node];

	*to = (TimestampTz) pg_atomic_read_u64(&peer->former_to);
	pg_read_barrier();
	*from = (TimestampTz) pg_atomic_read_u64(&peer->former_from);
	return *to != 0;
}
