/*
 * settle.c
 *		What does a member answer and do when an origin is settled?
 *
 * TAIL -> (union made by the leader) -> JOURNALED -> APPLIED
 *
 * The leader goes on only when every member is through a step.  Journaled at
 * all before applied at any: were it the other way round, a leader that dies
 * between two members would leave an entry applied at one, and found by the
 * next leader in nobody's tail.
 *
 * The origin itself may be a member (F1).  Then an entry is rolled forward
 * unless its own commit log says that the transaction has committed; its
 * position says up to which incarnation it has done so, in the same
 * transaction.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "ground/wire.h"
#include "miscadmin.h"
#include "node/damage.h"
#include "node/fault.h"
#include "node/identity.h"
#include "node/map.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
#include "write/apply.h"
#include "write/capture.h"
#include "write/journal.h"
#include "write/settle.h"

PS_FUNCTION(payshard_peer_tail);
PS_FUNCTION(payshard_peer_settle_journal);
PS_FUNCTION(payshard_peer_settle_apply);

/*
 * Superuser, the leader's own map, held; the origin's journal is ours.  Under a
 * newer one another node may lead: what one that was deposed still journals or
 * applies here could be missing in the union of the other.
 */
static void
enter(uint32 origin, uint64 epoch)
{
	uint64		mine;

	ps_require_peer();
	ps_map_require_cluster();
	if (origin == 0 || origin >= PS_NODES_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%u is no node", origin)));
	ps_map_lock();
	ps_journal_lock(origin);
	mine = ps_map_epoch();
	if ((mine < epoch && PS_RULE("F3")) || (mine > epoch && PS_RULE("F2")))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node has not the map of epoch " UINT64_FORMAT " but that of " UINT64_FORMAT,
						epoch, mine)));
}

/* Up to which seq of a stream need a leader not ask: applied or decided. */
static uint64
known_seq(uint32 id, uint64 incarnation)
{
	PsSharedOrigin *origin = &ps_shared->origins[id];
	uint64		position_incarnation;
	uint64		applied = ps_position_read(id, &position_incarnation);

	/*
	 * What is settled by the map, and still in the journal of a node that was
	 * no member then, may have been aborted without its hearing of it.
	 */
	if (incarnation <= ps_map_settled(id) || position_incarnation > incarnation)
		return PG_UINT64_MAX;
	if (position_incarnation < incarnation)
		applied = 0;
	if (pg_atomic_read_u64(&origin->incarnation) == incarnation)
		applied = Max(applied, Min(pg_atomic_read_u64(&origin->decided_seq),
								   pg_atomic_read_u64(&origin->journaled_seq)));
	return applied;
}

/* Journal rows of an origin, oldest first: incarnation, last_seq, records. */
static uint64
select_journal(uint32 origin)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(origin);

	SPI_execute_with_args("SELECT incarnation, last_seq, records FROM payshard.journal "
						  "WHERE origin = $1 ORDER BY incarnation, last_seq",
						  1, &type, &value, NULL, true, 0);
	return SPI_processed;
}

static void
put_tail_row(ReturnSetInfo *set, uint64 incarnation, const PsRecord *record)
{
	Datum		values[2];
	bool		nulls[2] = {false, false};
	StringInfoData sealed;

	values[0] = Int64GetDatum(incarnation);
	initStringInfo(&sealed);
	appendBinaryStringInfo(&sealed, (const char *) record->raw, (int) record->raw_bytes);
	ps_seal(&sealed);
	values[1] = PointerGetDatum(cstring_to_text_with_len(sealed.data, sealed.len));
	pfree(sealed.data);
	tuplestore_putvalues(set->setResult, set->setDesc, values, nulls);
}

/* peer_tail(origin, epoch) */
Datum
payshard_peer_tail(PG_FUNCTION_ARGS)
{
	uint32		origin = PG_GETARG_INT32(0);
	uint64		n;
	bool		isnull;

	enter(origin, PG_GETARG_INT64(1));
	PS_FAULT("settle.tail");
	InitMaterializedSRF(fcinfo, 0);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	n = select_journal(origin);
	for (uint64 i = 0; i < n; i++)
	{
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		uint64		incarnation = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		bytea	   *records = DatumGetByteaPP(SPI_getbinval(row, desc, 3, &isnull));
		PsReader	reader;
		PsRecord	record;
		uint64		known = known_seq(origin, incarnation);

		ps_reader_init(&reader, VARDATA_ANY(records), VARSIZE_ANY_EXHDR(records));
		while (ps_record_next(&reader, &record))
			if (record.seq > known)
				put_tail_row((ReturnSetInfo *) fcinfo->resultinfo, incarnation, &record);
	}
	PopActiveSnapshot();
	SPI_finish();
	return (Datum) 0;
}

/* Is this record in the journal already?  Rows: its stream's, ascending. */
static bool
is_journaled(uint32 origin, uint64 incarnation, uint64 seq)
{
	Oid			types[3] = {INT4OID, INT8OID, INT8OID};
	Datum		values[3] = {Int32GetDatum(origin), Int64GetDatum(incarnation), Int64GetDatum(seq)};
	bool		found = false;
	bool		isnull;

	PushActiveSnapshot(GetTransactionSnapshot());
	/* the one batch that could hold it is the first that ends at or after it */
	SPI_execute_with_args("SELECT records FROM payshard.journal WHERE origin = $1 AND incarnation = $2 "
						  "AND last_seq >= $3 ORDER BY last_seq LIMIT 1", 3, types, values, NULL, true, 1);
	if (SPI_processed == 1)
	{
		bytea *records = DatumGetByteaPP(
			SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		PsReader	reader;
		PsRecord	record;

		ps_reader_init(&reader, VARDATA_ANY(records), VARSIZE_ANY_EXHDR(records));
		while (ps_record_next(&reader, &record))
			found |= record.seq == seq;
	}
	PopActiveSnapshot();
	return found;
}

/* Journals one record of the union as a batch of its own. */
static void
journal_record(uint32 origin, uint64 incarnation, const PsRecord *record)
{
	PsBatch		batch = {0};

	batch.records = record->raw;
	batch.records_bytes = record->raw_bytes;
	batch.n_records = 1;
	batch.last_seq = record->seq;
	ps_journal_insert(origin, incarnation, &batch);
}

/* peer_settle_journal(origin, epoch, incarnation, records) -> how many it lacked */
Datum
payshard_peer_settle_journal(PG_FUNCTION_ARGS)
{
	uint32		origin = PG_GETARG_INT32(0);
	uint64		incarnation = PG_GETARG_INT64(2);
	bytea	   *records = PG_GETARG_BYTEA_PP(3);
	uint64		position_incarnation;
	uint64		applied;
	PsReader	reader;
	PsRecord	record;
	size_t		bytes = VARSIZE_ANY_EXHDR(records);
	const char *wrong = ps_unseal(VARDATA_ANY(records), &bytes);
	int			lacked = 0;

	enter(origin, PG_GETARG_INT64(1));
	if (wrong)
		ps_damaged("a union of journal entries", wrong);
	PS_FAULT("settle.before_journal");
	applied = ps_position_read(origin, &position_incarnation);
	if (position_incarnation > incarnation)
		PG_RETURN_INT32(0);		/* settled here in an earlier try */
	if (position_incarnation < incarnation)
		applied = 0;
	SPI_connect();
	ps_reader_init(&reader, VARDATA_ANY(records), bytes);
	while (ps_record_next(&reader, &record))
	{
		if ((wrong = ps_record_check(&record, ps_map_n_shards())) != NULL)
			ps_damaged("a union of journal entries", wrong);
		if (record.seq <= applied || is_journaled(origin, incarnation, record.seq))
			continue;
		if (PS_RULE("F3.split"))
			ps_journal_split(origin, incarnation, record.seq);
		journal_record(origin, incarnation, &record);
		CommandCounterIncrement();
		lacked++;
	}
	SPI_finish();
	if (reader.bad)
		ps_damaged("a union of journal entries", "a record is malformed");
	ForceSyncCommit();
	PS_FAULT("settle.journaled");
	PG_RETURN_INT32(lacked);
}

/* Incarnations of an origin that stand in the journal, up to one; ascending. */
static int
journaled_incarnations(uint32 origin, uint64 upto, uint64 *out, int max)
{
	Oid			types[2] = {INT4OID, INT8OID};
	Datum		values[2] = {Int32GetDatum(origin), Int64GetDatum(upto)};
	bool		isnull;
	int			n;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("SELECT DISTINCT incarnation FROM payshard.journal "
						  "WHERE origin = $1 AND incarnation <= $2 ORDER BY 1",
						  2, types, values, NULL, true, max);
	n = SPI_processed;
	for (int i = 0; i < n; i++)
		out[i] =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull));
	PopActiveSnapshot();
	SPI_finish();
	return n;
}

/* Applies what is left of one incarnation; its position is written. */
static void
apply_incarnation(uint32 origin, uint64 incarnation)
{
	uint64		position_incarnation;
	uint64		applied = ps_position_read(origin, &position_incarnation);
	uint64		last = ps_journal_last_seq(origin, incarnation);

	if (position_incarnation > incarnation || incarnation <= ps_map_settled(origin))
		return;					/* what is left of it counts for nothing but its keys (J2) */
	if (position_incarnation < incarnation)
		applied = 0;
	while (applied < last)
	{
		uint64		now = ps_apply_journal(origin, incarnation, applied, last, 64);

		if (now == applied)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("entries of node \"%s\" cannot be applied yet", ps_map_node_name(origin)),
					 errdetail("A placement here is still being copied.")));
		applied = now;
	}
	ps_journal_prune(origin, incarnation, 0, PG_INT64_MAX, PG_INT64_MAX);
	ps_position_write(origin, incarnation, last, 0);
}

/* peer_settle_apply(origin, epoch, incarnation) */
Datum
payshard_peer_settle_apply(PG_FUNCTION_ARGS)
{
	uint32		origin = PG_GETARG_INT32(0);
	uint64		upto = PG_GETARG_INT64(2);
	uint64		incarnations[64];
	int			n;
	uint64		position_incarnation;

	enter(origin, PG_GETARG_INT64(1));
	ps_journal_lock_apply(origin);
	PS_FAULT("settle.before_apply");
	ps_capture_off = true;
	n = journaled_incarnations(origin, upto, incarnations, lengthof(incarnations));
	for (int i = 0; i < n; i++)
		apply_incarnation(origin, incarnations[i]);
	(void) ps_position_read(origin, &position_incarnation);
	/* beyond `upto`: nothing of it is taken for unsettled any more */
	if (position_incarnation <= upto)
		ps_position_write(origin, upto + 1, 0, 0);
	ForceSyncCommit();
	PS_FAULT("settle.applied");
	PG_RETURN_VOID();
}
