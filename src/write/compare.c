/*
 * compare.c
 *		What has this placement at one decided seq?
 *
 * hold (at most one session per origin) -> applied up to there
 * (peer_await_applied) -> snapshot -> hold released -> digests
 *
 * A hold belongs to a session: the process releases it when it ends, however
 * that comes about.  A crash of the server empties shared memory, and a new
 * incarnation of the origin clears it (receiver.c).
 */
#include "postgres.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "node/identity.h"
#include "node/map.h"
#include "node/relation.h"
#include "node/shared.h"
#include "storage/ipc.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
#include "write/compare.h"
#include "write/digest.h"

PS_FUNCTION(payshard_peer_hold);
PS_FUNCTION(payshard_peer_table_digests);

/* This session's hold; 0 = none. */
static uint32 held_origin = 0;
static uint64 held_below = 0;

static void
release(void)
{
	uint64		mine = held_below;

	if (held_origin == 0)
		return;
	(void) pg_atomic_compare_exchange_u64(&ps_shared->origins[held_origin].hold_seq, &mine, 0);
	held_origin = 0;
	held_below = 0;
	ps_wake_applier();
}

static void
session_ends(int code, Datum arg)
{
	release();
}

static bool
hold(uint32 id, uint64 incarnation, uint64 below)
{
	static bool is_registered = false;
	PsSharedOrigin *origin = &ps_shared->origins[id];
	uint64		none = 0;

	if (!is_registered)
		before_shmem_exit(session_ends, 0);
	is_registered = true;
	if (pg_atomic_read_u64(&origin->incarnation) != incarnation ||
		!pg_atomic_compare_exchange_u64(&origin->hold_seq, &none, below))
		return false;
	held_origin = id;
	held_below = below;
	return true;
}

/* peer_hold(origin, incarnation, below) */
Datum
payshard_peer_hold(PG_FUNCTION_ARGS)
{
	uint32		id = PG_GETARG_INT32(0);
	uint64		below = PG_GETARG_INT64(2);

	ps_require_peer();
	if (id == 0 || id >= PS_NODES_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%u is no node", id)));
	release();
	PG_RETURN_BOOL(below == 0 || hold(id, PG_GETARG_INT64(1), below));
}

static void
put_digest(ReturnSetInfo *set, int shard, uint32 table_id, const PsDigest *digest)
{
	char		text[PS_DIGEST_TEXT_BYTES];
	Datum		values[4];
	bool		nulls[4] = {false, false, false, false};

	ps_digest_text(digest, text);
	values[0] = Int32GetDatum(shard);
	values[1] = Int64GetDatum(table_id);
	values[2] = Int64GetDatum(digest->rows);
	values[3] = CStringGetTextDatum(text);
	tuplestore_putvalues(set->setResult, set->setDesc, values, nulls);
}

/* peer_table_digests(shards) */
Datum
payshard_peer_table_digests(PG_FUNCTION_ARGS)
{
	const int  *shards;
	int			n_shards;
	int			n_tables;
	Oid		   *tables;

	ps_require_peer();
	shards = ps_map_shards_of(PG_GETARG_ARRAYTYPE_P(0), &n_shards);
	InitMaterializedSRF(fcinfo, 0);
	tables = ps_digest_tables(&n_tables);
	for (int t = 0; t < n_tables; t++)
	{
		const PsRelation *table = ps_relation(tables[t]);
		uint32		table_id = table ? table->table_id : 0;

		for (int i = 0; table && i < n_shards; i++)
		{
			PsDigest	digest = {0};

			ps_digest_partition(ps_relation_partition(tables[t], shards[i]), &digest);
			put_digest((ReturnSetInfo *) fcinfo->resultinfo, shards[i], table_id, &digest);
		}
	}
	return (Datum) 0;
}
