/*
 * flow.c
 *		How far are entries on their way to other nodes, and theirs here?
 *
 * The sending side is read under queue.lock, so that its columns fit
 * together; the receiving side is atomics, each of its own moment.
 */
#include "postgres.h"

#include "ground/wire.h"
#include "node/map.h"
#include "node/stats.h"
#include "watch/flow.h"
#include "watch/out.h"
#include "write/queue.h"

PS_FUNCTION(payshard_show_replication);
PS_FUNCTION(payshard_journal_entries);
PS_FUNCTION(payshard_show_stats);
PS_FUNCTION(payshard_stat_reset);

/* The queue as it concerns one peer. */
typedef struct Sending
{
	bool		attached;
	uint64		last_seq;
	uint64		acked_seq;
	uint64		applied_seq;
	uint64		bytes;
	bool		is_gate_open;
} Sending;

static Sending
read_sending(uint32 id)
{
	const PsSharedPeer *peer = &ps_shared->peers[id];
	Sending		now;

	LWLockAcquire(&ps_shared->queue.lock, LW_SHARED);
	now.attached = peer->attached;
	now.last_seq = ps_shared->queue.last_seq;
	now.acked_seq = peer->acked_seq;
	now.applied_seq = peer->applied_seq;
	now.bytes = ps_shared->queue.head - Min(peer->acked_offset, ps_shared->queue.head);
	now.is_gate_open = ps_shared->queue.gate_closed == 0;
	LWLockRelease(&ps_shared->queue.lock);
	return now;
}

/* What a node is to the shards of this primary. */
static const char *
phase_of(const PsMap *map, uint32 id)
{
	bool		is_joining = false;
	bool		is_out = false;
	bool		is_in_sync = false;

	for (int s = 0; s < map->n_shards; s++)
	{
		PsPlacementState state = ps_map_placement(&map->shards[s], id);

		if (map->shards[s].primary != ps_map_self())
			continue;
		is_joining |= state == PS_PLACEMENT_JOINING;
		is_out |= state == PS_PLACEMENT_OUT;
		is_in_sync |= state == PS_PLACEMENT_IN_SYNC;
	}
	return is_joining ? "joining" : is_out ? "out" : is_in_sync ? "streaming" : "none";
}

static void
put_sending(PsOut *out, uint32 id)
{
	Sending		sending = read_sending(id);

	if (sending.attached)
	{
		ps_out_int(out, (int64) sending.last_seq);
		ps_out_int(out, (int64) sending.acked_seq);
		ps_out_int(out, (int64) sending.applied_seq);
		/* no bytes are kept for it: what lies after acked_seq is for others */
		ps_out_int(out, sending.bytes == 0 ? 0 :
				   (int64) (sending.last_seq - Min(sending.acked_seq, sending.last_seq)));
		ps_out_int(out, (int64) sending.bytes);
		ps_out_int(out, (int64) (sending.acked_seq - Min(sending.applied_seq, sending.acked_seq)));
	}
	else
		for (int i = 0; i < 6; i++)
			ps_out_null(out);
	ps_out_text(out, sending.is_gate_open ? "open" : "closed");
}

static void
put_receiving(PsOut *out, uint32 id)
{
	PsSharedOrigin *origin = &ps_shared->origins[id];
	uint64		journaled = pg_atomic_read_u64(&origin->journaled_seq);
	uint64		applied = pg_atomic_read_u64(&origin->applied_seq);

	if (pg_atomic_read_u64(&origin->incarnation) != 0)
	{
		ps_out_int(out, (int64) pg_atomic_read_u64(&origin->incarnation));
		ps_out_int(out, (int64) journaled);
		ps_out_int(out, (int64) pg_atomic_read_u64(&origin->decided_seq));
		ps_out_int(out, (int64) applied);
		ps_out_int(out, (int64) (journaled - Min(applied, journaled)));
	}
	else
		for (int i = 0; i < 5; i++)
			ps_out_null(out);
	ps_out_bool(out, pg_atomic_read_u64(&origin->hold_seq) != 0);
}

Datum
payshard_show_replication(PG_FUNCTION_ARGS)
{
	PsMap	   *map = ps_shared && ps_shared->self != 0 ? ps_map_copy() : NULL;
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	for (int i = 0; map && i < map->n_nodes; i++)
	{
		uint32		id = map->nodes[i].id;

		if (id == ps_map_self())
			continue;
		ps_out_int(&out, id);
		ps_out_text(&out, map->nodes[i].name);
		ps_out_text(&out, phase_of(map, id));
		put_sending(&out, id);
		put_receiving(&out, id);
		ps_out_row(&out);
	}
	return (Datum) 0;
}

/* Is a seq of a stream decided, as far as this node has heard? */
static bool
is_decided(uint32 id, uint64 incarnation, uint64 seq)
{
	PsSharedOrigin *origin = &ps_shared->origins[id % PS_NODES_MAX];

	return pg_atomic_read_u64(&origin->incarnation) == incarnation &&
		pg_atomic_read_u64(&origin->decided_seq) >= seq;
}

/* journal_entries(origin, incarnation, records) */
Datum
payshard_journal_entries(PG_FUNCTION_ARGS)
{
	uint32		origin = PG_GETARG_INT32(0);
	uint64		incarnation = PG_GETARG_INT64(1);
	bytea	   *records = PG_GETARG_BYTEA_PP(2);
	PsReader	reader;
	PsRecord	record;
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	ps_reader_init(&reader, VARDATA_ANY(records), VARSIZE_ANY_EXHDR(records));
	while (ps_record_next(&reader, &record))
	{
		int			shards[PS_SHARDS_MAX];
		int			n = Min(record.n_shards, PS_SHARDS_MAX);

		if (record.kind != PS_RECORD_ENTRY)
			continue;
		for (int i = 0; i < n; i++)
			shards[i] = ps_record_shard(&record, i);
		ps_out_int(&out, (int64) record.seq);
		ps_out_int(&out, (int64) record.ref_seq);
		ps_out_int(&out, (int64) record.xid);
		ps_out_ints(&out, shards, n);
		ps_out_bool(&out, is_decided(origin, incarnation, record.seq));
		ps_out_row(&out);
	}
	return (Datum) 0;
}

Datum
payshard_show_stats(PG_FUNCTION_ARGS)
{
	PsOut		out;

	ps_out_begin(&out, fcinfo);
	for (PsStat stat = 0; stat < PS_STAT_RESET_AT; stat++)
	{
		if (stat == PS_STAT_WAIT_US || stat == PS_STAT_WAIT_US_MAX)
			ps_out_double(&out, (double) ps_stat_read(stat) / 1000.0);
		else
			ps_out_int(&out, (int64) ps_stat_read(stat));
	}
	ps_out_time(&out, (TimestampTz) ps_stat_read(PS_STAT_RESET_AT));
	ps_out_row(&out);
	return (Datum) 0;
}

Datum
payshard_stat_reset(PG_FUNCTION_ARGS)
{
	ps_stat_reset();
	PG_RETURN_VOID();
}
