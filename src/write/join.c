/*
 * join.c
 *		What does a node do while its placements join (J2 to J4)?
 *
 * Per shard: OUT -> (begin) COPYING -> (copied) FOLLOWING.  COPYING is the flag
 * in payshard.feed: entries up to feed.seq are noted, later ones wait (apply.c);
 * with the copy comes the seq that it shows, and entries up to there are skipped.
 * The copy, the end of the flag and the discarding of what it replaces - notes
 * of dirty keys of this node's own - are one transaction (J2): cut anywhere,
 * all keys are still known.
 *
 * Begin and end are fenced (M2): both hold the map, and by it who asks is the
 * shards' primary and our placements are as they must be then.  A primary that
 * wakes up after it was replaced copies nothing over a placement that is in sync.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "ground/wire.h"
#include "miscadmin.h"
#include "node/clock.h"
#include "node/damage.h"
#include "node/fault.h"
#include "node/identity.h"
#include "node/map.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/wait_event.h"
#include "node/relation.h"
#include "access/table.h"
#include "write/capture.h"
#include "write/digest.h"
#include "write/dirty.h"
#include "write/divergent.h"
#include "write/join.h"
#include "write/journal.h"
#include "write/row.h"
#include "write/target.h"

PS_FUNCTION(payshard_peer_join_begin);
PS_FUNCTION(payshard_peer_join_keys);
PS_FUNCTION(payshard_peer_copy);
PS_FUNCTION(payshard_peer_join_copied);
PS_FUNCTION(payshard_peer_await_applied);
PS_FUNCTION(payshard_peer_take_dirty);
PS_FUNCTION(payshard_peer_digest);

static void
require_peer(void)
{
	ps_require_peer();
	ps_map_require_cluster();
}

/* Runs one statement with an int[] and up to three numbers as arguments. */
static uint64
run_for_shards(const char *sql, Datum shards, int n, int64 a, int64 b, int64 c)
{
	Oid			types[4] = {INT4ARRAYOID, INT8OID, INT8OID, INT8OID};
	Datum		values[4] = {shards, Int64GetDatum(a), Int64GetDatum(b), Int64GetDatum(c)};

	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args(sql, n, types, values, NULL, false, 0);
	PopActiveSnapshot();
	return SPI_processed;
}

/* The terms of all shards, by number: "{1,3,...}". */
static char *
terms_array(void)
{
	PsMap	   *map = ps_map_copy();
	StringInfoData buf;

	initStringInfo(&buf);
	for (int s = 0; s < map->n_shards; s++)
		appendStringInfo(&buf, "%s" UINT64_FORMAT, s > 0 ? "," : "{", map->shards[s].term);
	appendStringInfoChar(&buf, '}');
	pfree(map);
	return buf.data;
}

/* ERROR; detail: a format for a shard's number. */
static void
refuse_join(uint32 origin, const char *detail, int shard)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this node refuses a join that node \"%s\" leads", ps_map_node_name(origin)),
			 errdetail(detail, shard),
			 errhint("What is still out joins again by itself; see payshard.placements.")));
}

/*
 * M2: holds the map; ERROR unless by it the origin may lead this join, and our
 * placements are in that state.
 */
static void
require_leader(ArrayType *array, uint32 origin, uint64 incarnation, PsPlacementState state)
{
	int			n;
	const int  *shards = ps_map_shards_of(array, &n);

	ps_map_lock();
	if (!ps_map_is_member(origin, incarnation))
		refuse_join(origin, "Its incarnation is not the newest.", 0);
	for (int i = 0; i < n; i++)
	{
		PsMapShard	shard;

		if (!ps_map_shard(shards[i], &shard) || shard.primary != origin)
			refuse_join(origin, "It is not the primary of shard %d.", shards[i]);
		if (ps_map_placement(&shard, ps_map_self()) != state)
			refuse_join(origin, state == PS_PLACEMENT_OUT ? "The placement of shard %d here is not out." :
						"The placement of shard %d here is not joining.", shards[i]);
	}
}

/* peer_join_begin(shards, origin, incarnation, seq) */
Datum
payshard_peer_join_begin(PG_FUNCTION_ARGS)
{
	require_peer();
	ps_map_require_serving();	/* a stranger has to distrust its rows first */
	require_leader(PG_GETARG_ARRAYTYPE_P(0), PG_GETARG_INT32(1), PG_GETARG_INT64(2),
				   PS_PLACEMENT_OUT);
	ps_journal_lock_apply(PG_GETARG_INT32(1));
	PS_FAULT("join.begin");
	SPI_connect();
	run_for_shards(
		psprintf("INSERT INTO payshard.feed (shard, origin, incarnation, seq, copying, term) "
				 "SELECT s, $2, $3, $4, true, ('%s'::bigint[])[s + 1] FROM unnest($1) s "
				 "ON CONFLICT (shard) DO UPDATE SET origin = $2, incarnation = $3, seq = $4, copying = true, "
				 "term = excluded.term", terms_array()),
		PG_GETARG_DATUM(0), 4, PG_GETARG_INT32(1), PG_GETARG_INT64(2), PG_GETARG_INT64(3));
	if (!PS_RULE("J2.end"))
		run_for_shards("WITH j AS (DELETE FROM payshard.journal) "
					   "DELETE FROM payshard.dirty_key WHERE shard = ANY ($1)",
					   PG_GETARG_DATUM(0), 1, 0, 0, 0);
	SPI_finish();
	ps_journal_feeds_changed();
	ForceSyncCommit();
	PG_RETURN_VOID();
}

/* Is a shard in a sorted or unsorted list? */
static bool
contains(const int *shards, int n, int shard)
{
	for (int i = 0; i < n; i++)
		if (shards[i] == shard)
			return true;
	return false;
}

static void
put_key(ReturnSetInfo *set, int shard, int64 table_id, const void *key, size_t bytes)
{
	Datum		values[3];
	bool		nulls[3] = {false, false, false};

	values[0] = Int32GetDatum(shard);
	values[1] = Int64GetDatum(table_id);
	values[2] = PointerGetDatum(cstring_to_text_with_len(key, bytes));
	tuplestore_putvalues(set->setResult, set->setDesc, values, nulls);
}

/* The keys of one operation in the tail. */
static void
put_op_keys(ReturnSetInfo *set, const PsOp *op)
{
	Oid			parent;
	Relation	rel;
	StringInfoData key;

	if (op->kind == PS_OP_TRUNCATE)
		put_key(set, op->shard, 0, "", 0);
	if (op->n_key > 0)
		put_key(set, op->shard, op->table_id, op->key, op->key_bytes);
	if (op->n_row == 0 || !OidIsValid(parent = ps_relation_by_id(op->table_id)))
		return;
	rel = table_open(ps_relation_partition(parent, op->shard), AccessShareLock);
	initStringInfo(&key);
	if (ps_row_key_of(&key, ps_row_format(rel), op->row, op->row_bytes))
		put_key(set, op->shard, op->table_id, key.data, key.len);
	table_close(rel, AccessShareLock);
}

/* All keys in the journal that are of these shards, decided or not (J2). */
static void
put_tail_keys(ReturnSetInfo *set, const int *shards, int n_shards)
{
	bool		isnull;
	uint64		n;
	SPITupleTable *table;

	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute("SELECT records FROM payshard.journal", true, 0);
	n = SPI_processed;
	table = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		bytea *records = DatumGetByteaPP(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull));
		PsReader	reader;
		PsRecord	record;

		ps_reader_init(&reader, VARDATA_ANY(records), VARSIZE_ANY_EXHDR(records));
		while (ps_record_next(&reader, &record))
		{
			PsReader	ops;
			PsOp		op;

			ps_reader_init(&ops, record.ops, record.ops_bytes);
			while (ps_op_next(&ops, &op))
				if (contains(shards, n_shards, op.shard))
					put_op_keys(set, &op);
		}
	}
	PopActiveSnapshot();
}

/* peer_join_keys(shards) */
Datum
payshard_peer_join_keys(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	ReturnSetInfo *set = (ReturnSetInfo *) fcinfo->resultinfo;
	const int  *shards;
	int			n_shards;
	bool		isnull;
	uint64		n;
	SPITupleTable *table;

	require_peer();
	shards = ps_map_shards_of(array, &n_shards);
	PS_FAULT("join.keys");
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	/* before the notes: whoever prunes an entry has noted its keys in the same transaction */
	if (PS_RULE("J2"))
		put_tail_keys(set, shards, n_shards);
	n = run_for_shards("SELECT shard, table_id, key FROM payshard.dirty_key "
					   "WHERE node = (SELECT node_id FROM payshard.node_self) AND shard = ANY ($1) "
					   "UNION ALL SELECT shard, 0, '' FROM payshard.full_copy WHERE shard = ANY ($1)",
					   PointerGetDatum(array), 1, 0, 0, 0);
	table = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		bytea *key = DatumGetByteaPP(SPI_getbinval(table->vals[i], table->tupdesc, 3, &isnull));

		put_key(set, DatumGetInt32(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull)),
				DatumGetInt64(SPI_getbinval(table->vals[i], table->tupdesc, 2, &isnull)),
				VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	}
	SPI_finish();
	return (Datum) 0;
}

/* peer_copy(ops) */
Datum
payshard_peer_copy(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	size_t		n_bytes = VARSIZE_ANY_EXHDR(bytes);
	const char *wrong = ps_unseal(VARDATA_ANY(bytes), &n_bytes);
	PsReader	reader;
	PsOp		op;
	PsTargets  *targets;

	require_peer();
	if (wrong)
		ps_damaged("a copy of rows", wrong);
	PS_FAULT("join.copy");
	targets = ps_targets_begin(true);
	ps_reader_init(&reader, VARDATA_ANY(bytes), n_bytes);
	while (ps_op_next(&reader, &op))
	{
		bool		here;

		if (op.kind == PS_OP_TRUNCATE)
			ps_divergent_truncated(op.shard);
		if (op.kind == PS_OP_DELETE)
			here = ps_target_delete_key(targets, op.table_id, op.shard, op.key, op.key_bytes);
		else
			here = ps_target_change(targets, &op);
		if (!here)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_TABLE),
					 errmsg("distributed table %u is not on this node yet", op.table_id)));
	}
	ps_targets_end(targets);
	if (reader.bad)
		ps_damaged("a copy of rows", "an operation is malformed");
	PG_RETURN_VOID();
}

/* One record of a settled incarnation: its keys in shards that are still out. */
static void
note_record(const PsRecord *record, const int *copied, int n_copied)
{
	PsReader	reader;
	PsOp		op;

	ps_reader_init(&reader, record->ops, record->ops_bytes);
	while (ps_op_next(&reader, &op))
	{
		PsMapShard	state;

		if (contains(copied, n_copied, op.shard) || !ps_map_shard(op.shard, &state))
			continue;
		if (PS_HAS_NODE(state.placements & ~state.in_sync, ps_map_self()))
			ps_dirty_record_op(ps_map_self(), &op);
	}
}

/*
 * Entries of settled incarnations that are still here were journaled before
 * this node left; they count for nothing but their keys, which the copy has
 * brought for the shards in the list, and which are noted for the others.
 */
static void
discard_settled(const int *copied, int n_copied)
{
	for (uint32 origin = 1; origin < PS_NODES_MAX; origin++)
	{
		uint64		settled = ps_map_settled(origin);
		char	   *where = psprintf("WHERE origin = %u AND incarnation <= " UINT64_FORMAT, origin, settled);
		bool		isnull;
		uint64		n;
		SPITupleTable *table;

		if (settled == 0)
			continue;
		PushActiveSnapshot(GetTransactionSnapshot());
		SPI_execute(psprintf("DELETE FROM payshard.journal %s RETURNING records", where), false, 0);
		n = SPI_processed;
		table = SPI_tuptable;
		for (uint64 i = 0; i < n; i++)
		{
			bytea *records =
				DatumGetByteaPP(SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull));
			PsReader	reader;
			PsRecord	record;

			ps_reader_init(&reader, VARDATA_ANY(records), VARSIZE_ANY_EXHDR(records));
			while (ps_record_next(&reader, &record))
				note_record(&record, copied, n_copied);
		}
		SPI_execute(psprintf("DELETE FROM payshard.journal_abort %s", where), false, 0);
		PopActiveSnapshot();
	}
}

/* The shards whose copy was ordered because digests differed: what was different? */
static void
keep_what_differed(Datum shards)
{
	int			differed[PS_SHARDS_MAX];
	int			n;
	bool		isnull;

	n = Min(PS_SHARDS_MAX, run_for_shards("SELECT shard FROM payshard.full_copy "
										  "WHERE shard = ANY ($1) AND reason = 'differed' ORDER BY 1",
										  shards, 1, 0, 0, 0));
	for (int i = 0; i < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];

		differed[i] = DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull));
	}
	ps_divergent_compare(differed, n);
}

/* peer_join_copied(shards, origin, incarnation, seq) */
Datum
payshard_peer_join_copied(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	int			n_shards;
	const int  *numbers;
	Datum		shards = PointerGetDatum(array);
	uint32		origin = PG_GETARG_INT32(1);
	uint64		incarnation = PG_GETARG_INT64(2);

	require_peer();
	numbers = ps_map_shards_of(array, &n_shards);
	PS_FAULT("join.before_copied");
	SPI_connect();
	run_for_shards("DELETE FROM payshard.dirty_key WHERE shard = ANY ($1) "
				   "AND node = (SELECT node_id FROM payshard.node_self)", shards, 1, 0, 0, 0);
	keep_what_differed(shards);
	run_for_shards("DELETE FROM payshard.full_copy WHERE shard = ANY ($1)", shards, 1, 0, 0, 0);
	/* not earlier: comparing may take a while, and the map is held up to the COMMIT */
	require_leader(array, origin, incarnation, PS_PLACEMENT_JOINING);
	if (run_for_shards("UPDATE payshard.feed SET copying = false, seq = $4 "
					   "WHERE shard = ANY ($1) AND origin = $2 AND incarnation = $3 AND copying",
					   shards, 4, origin, (int64) incarnation, PG_GETARG_INT64(3)) != n_shards)
		refuse_join(origin, "Not all of its shards are being copied from it.", 0);
	discard_settled(numbers, n_shards);
	SPI_finish();
	ps_journal_feeds_changed();
	ForceSyncCommit();
	PS_FAULT("join.copied");
	PG_RETURN_VOID();
}

/* peer_take_dirty(node, shard, table_id, key) */
Datum
payshard_peer_take_dirty(PG_FUNCTION_ARGS)
{
	bytea	   *key = PG_GETARG_BYTEA_PP(3);
	int64		table_id = PG_GETARG_INT64(2);

	require_peer();
	ps_dirty_record_key(PG_GETARG_INT32(0), PG_GETARG_INT32(1), (uint32) table_id,
						table_id == 0 ? NULL : VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key));
	PG_RETURN_VOID();
}

/* peer_await_applied(origin, incarnation, seq, timeout_ms) */
Datum
payshard_peer_await_applied(PG_FUNCTION_ARGS)
{
	uint32		id = PG_GETARG_INT32(0);
	PsSharedOrigin *origin = &ps_shared->origins[id % PS_NODES_MAX];
	uint64		incarnation = PG_GETARG_INT64(1);
	uint64		seq = PG_GETARG_INT64(2);
	PsTime		deadline = ps_deadline(PG_GETARG_INT32(3));

	require_peer();
	PS_FAULT("join.await_applied");
	for (;;)
	{
		if (pg_atomic_read_u64(&origin->incarnation) != incarnation)
			PG_RETURN_BOOL(false);
		if (pg_atomic_read_u64(&origin->applied_seq) >= seq)
		{
			/*
			 * Durably: a crash must not bring back entries that the copy has
			 * replaced, whose ABORTs have passed this node by (J2).
			 */
			(void) GetTopTransactionId();
			ForceSyncCommit();
			PG_RETURN_BOOL(true);
		}
		if (ps_now() > deadline)
			PG_RETURN_BOOL(false);
		ps_wake_applier();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 2,
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* peer_digest(shards) */
Datum
payshard_peer_digest(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *set = (ReturnSetInfo *) fcinfo->resultinfo;
	const int  *shards;
	int			n;

	require_peer();
	shards = ps_map_shards_of(PG_GETARG_ARRAYTYPE_P(0), &n);
	PS_FAULT("join.digest");
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < n; i++)
	{
		PsDigest	digest;
		char		text[PS_DIGEST_TEXT_BYTES];
		Datum		values[3];
		bool		nulls[3] = {false, false, false};

		ps_digest_shard(shards[i], &digest);
		ps_digest_text(&digest, text);
		values[0] = Int32GetDatum(shards[i]);
		values[1] = Int64GetDatum(digest.rows);
		values[2] = CStringGetTextDatum(text);
		tuplestore_putvalues(set->setResult, set->setDesc, values, nulls);
	}
	return (Datum) 0;
}
