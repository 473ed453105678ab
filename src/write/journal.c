/*
 * journal.c
 *		Which entries of other primaries are durable here (W3)?
 *
 * payshard.journal has one row per batch: (origin, incarnation, first and last
 * seq, records as they came).  A batch is inserted in one transaction with a
 * flush before it is acked, and deleted in the transaction that applies its
 * last entry.  Readers start above what is applied, so that they do not walk
 * over what is dead.
 *
 * Locks, per origin, to the end of the transaction: `journal` serializes
 * receivers (an old connection may still be at work when a new one is there),
 * `apply` the apply process and recoveries.  Their tags are of a type that no SQL
 * function locks: with that of advisory locks any user could stop all payments.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/tables.h"
#include "storage/lmgr.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "write/journal.h"

/* Journaled in this transaction; becomes visible in shared memory at commit. */
static struct
{
	uint32		origin;			/* 0 = nothing */
	uint64		incarnation;
	uint64		last_seq;
}			pending;

/* payshard.feed was changed in this transaction. */
static bool feeds_changed = false;

static void
lock_origin(uint32 key)
{
	LOCKTAG		tag = {
		.locktag_field1 = MyDatabaseId,
		.locktag_field2 = PS_LOCK_SPACE,
		.locktag_field3 = key,
		.locktag_type = LOCKTAG_USERLOCK,
		.locktag_lockmethodid = DEFAULT_LOCKMETHOD,
	};

	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

void
ps_journal_lock(uint32 origin)
{
	lock_origin(PS_LOCK_JOURNAL + origin);
}

void
ps_journal_lock_apply(uint32 origin)
{
	lock_origin(PS_LOCK_APPLY + origin);
}

/* Runs a statement whose plan is kept; returns SPI_processed. */
static uint64
run(SPIPlanPtr *plan, const char *sql, int n, Oid *types, Datum *values)
{
	if (*plan == NULL)
	{
		*plan = SPI_prepare_cursor(sql, n, types, CURSOR_OPT_GENERIC_PLAN);
		if (*plan == NULL)
			elog(ERROR, "could not prepare \"%s\"", sql);
		SPI_keepplan(*plan);
	}
	SPI_execute_plan(*plan, values, NULL, false, 0);
	return SPI_processed;
}

static void
begin_spi(void)
{
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
}

static void
end_spi(void)
{
	PopActiveSnapshot();
	SPI_finish();
}

static void
insert_abort(uint32 origin, uint64 incarnation, uint64 first_seq)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[3] = {INT4OID, INT8OID, INT8OID};
	Datum values[3] = {Int32GetDatum(origin), Int64GetDatum(incarnation), Int64GetDatum(first_seq)};

	begin_spi();
	run(&plan, "INSERT INTO payshard.journal_abort VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
		3, types, values);
	end_spi();
}

/*
 * One row of payshard.journal.  It goes in as the server's own catalogs take
 * their rows: this is done for every batch, and SQL costs as much as the rest.
 */
static void
insert_row(Datum *values)
{
	bool		nulls[5] = {false, false, false, false, false};
	Relation	journal = table_open(ps_table_oid(PS_TABLE_JOURNAL), RowExclusiveLock);
	HeapTuple	row = heap_form_tuple(RelationGetDescr(journal), values, nulls);

	CatalogTupleInsert(journal, row);
	heap_freetuple(row);
	table_close(journal, NoLock);
}

void
ps_journal_insert(uint32 origin, uint64 incarnation, const PsBatch *batch)
{
	Datum		values[5];
	bytea	   *records = palloc(batch->records_bytes + VARHDRSZ);
	PsReader	reader;
	PsRecord	record;
	uint64		first_seq = 0;

	ps_reader_init(&reader, batch->records, batch->records_bytes);
	while (ps_record_next(&reader, &record))
	{
		if (first_seq == 0)
			first_seq = record.seq;
		if (record.kind == PS_RECORD_ABORT)
			insert_abort(origin, incarnation, record.ref_seq);
	}
	SET_VARSIZE(records, batch->records_bytes + VARHDRSZ);
	memcpy(VARDATA(records), batch->records, batch->records_bytes);
	values[0] = Int32GetDatum(origin);
	values[1] = Int64GetDatum(incarnation);
	values[2] = Int64GetDatum(first_seq);
	values[3] = Int64GetDatum(batch->last_seq);
	values[4] = PointerGetDatum(records);
	insert_row(values);
	pfree(records);
	ps_journal_pending(origin, incarnation, batch->last_seq);
}

/* A part of a batch as a row of its own. */
static void
insert_part(uint32 origin, uint64 incarnation, uint64 first_seq, uint64 last_seq,
			const char *bytes, size_t n)
{
	Datum		values[5];
	bytea	   *records = palloc(n + VARHDRSZ);

	SET_VARSIZE(records, n + VARHDRSZ);
	memcpy(VARDATA(records), bytes, n);
	values[0] = Int32GetDatum(origin);
	values[1] = Int64GetDatum(incarnation);
	values[2] = Int64GetDatum(first_seq);
	values[3] = Int64GetDatum(last_seq);
	values[4] = PointerGetDatum(records);
	insert_row(values);
	pfree(records);
}

/* A row's records, those after seq as a row of their own. */
static void
split_records(uint32 origin, uint64 incarnation, uint64 seq, const bytea *records)
{
	const char *bytes = VARDATA_ANY(records);
	size_t		n = VARSIZE_ANY_EXHDR(records);
	size_t		n_before = 0;
	uint64		first = 0;
	uint64		before = 0;
	uint64		after = 0;
	uint64		last = 0;
	PsReader	reader;
	PsRecord	record;

	ps_reader_init(&reader, bytes, n);
	while (ps_record_next(&reader, &record))
	{
		first = first ? first : record.seq;
		if (record.seq < seq)
			before = record.seq;
		else if (after == 0)
		{
			after = record.seq;
			n_before = (const char *) record.raw - bytes;
		}
		last = record.seq;
	}
	insert_part(origin, incarnation, first, before, bytes, n_before);
	insert_part(origin, incarnation, after, last, bytes + n_before, n - n_before);
}

void
ps_journal_split(uint32 origin, uint64 incarnation, uint64 seq)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[3] = {INT4OID, INT8OID, INT8OID};
	Datum		values[3] = {Int32GetDatum(origin), Int64GetDatum(incarnation), Int64GetDatum(seq)};
	bool		isnull;

	begin_spi();
	if (run(&plan, "DELETE FROM payshard.journal WHERE origin = $1 AND incarnation = $2 "
			"AND first_seq < $3 AND last_seq > $3 RETURNING records", 3, types, values) == 1)
		split_records(origin, incarnation, seq,
					  DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
													&isnull)));
	end_spi();
}

/* The one bigint that a query about (origin, incarnation) yields; 0 = null. */
static uint64
query_seq(SPIPlanPtr *plan, const char *sql, uint32 origin, uint64 incarnation)
{
	Oid			types[2] = {INT4OID, INT8OID};
	Datum		values[2] = {Int32GetDatum(origin), Int64GetDatum(incarnation)};
	uint64		seq = 0;
	bool		isnull;

	begin_spi();
	if (run(plan, sql, 2, types, values) == 1)
	{
		Datum		value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);

		seq = isnull ? 0 : DatumGetInt64(value);
	}
	end_spi();
	return seq;
}

uint64
ps_journal_last_seq(uint32 origin, uint64 incarnation)
{
	static SPIPlanPtr max_plan = NULL;
	static SPIPlanPtr position_plan = NULL;
	uint64		journaled = query_seq(&max_plan, "SELECT max(last_seq) FROM payshard.journal "
									  "WHERE origin = $1 AND incarnation = $2", origin, incarnation);
	uint64		applied = query_seq(&position_plan, "SELECT applied_seq FROM payshard.position "
									"WHERE origin = $1 AND incarnation = $2", origin, incarnation);

	return Max(journaled, applied);
}

uint64
ps_position_read(uint32 origin, uint64 *incarnation)
{
	static SPIPlanPtr incarnation_plan = NULL;
	static SPIPlanPtr seq_plan = NULL;

	*incarnation = query_seq(&incarnation_plan, "SELECT incarnation FROM payshard.position "
							 "WHERE origin = $1 AND $2 = 0", origin, 0);
	return query_seq(&seq_plan, "SELECT applied_seq FROM payshard.position "
					 "WHERE origin = $1 AND incarnation = $2", origin, *incarnation);
}

void
ps_position_write(uint32 origin, uint64 incarnation, uint64 applied_seq, uint64 lsn)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[4] = {INT4OID, INT8OID, INT8OID, LSNOID};
	Datum		values[4] = {Int32GetDatum(origin), Int64GetDatum(incarnation),
	Int64GetDatum(applied_seq), LSNGetDatum(lsn)};

	begin_spi();
	run(&plan, "INSERT INTO payshard.position AS p VALUES ($1, $2, $3, $4) "
		"ON CONFLICT (origin) DO UPDATE SET incarnation = $2, applied_seq = $3, lsn = greatest(p.lsn, $4)",
		4, types, values);
	end_spi();
}

PsAborted
ps_journal_aborted(uint32 origin, uint64 incarnation)
{
	Oid			types[2] = {INT4OID, INT8OID};
	Datum		values[2] = {Int32GetDatum(origin), Int64GetDatum(incarnation)};
	PsAborted	aborted = {NULL, 0};
	MemoryContext caller = CurrentMemoryContext;
	static SPIPlanPtr plan = NULL;
	bool		isnull;

	begin_spi();
	run(&plan, "SELECT seq FROM payshard.journal_abort WHERE origin = $1 AND incarnation = $2 ORDER BY seq",
		2, types, values);
	if (SPI_processed > 0)
	{
		aborted.n = SPI_processed;
		aborted.seqs = MemoryContextAlloc(caller, sizeof(uint64) * aborted.n);
		for (int i = 0; i < aborted.n; i++)
			aborted.seqs[i] = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[i],
														  SPI_tuptable->tupdesc, 1, &isnull));
	}
	end_spi();
	return aborted;
}

bool
ps_journal_is_aborted(const PsAborted *aborted, uint64 first_seq)
{
	for (int i = 0; i < aborted->n && aborted->seqs[i] <= first_seq; i++)
		if (aborted->seqs[i] == first_seq)
			return true;
	return false;
}

void
ps_journal_prune(uint32 origin, uint64 incarnation, uint64 from, uint64 seq,
				 uint64 whole_seq)
{
	static SPIPlanPtr prune_journal = NULL;
	static SPIPlanPtr prune_aborts = NULL;
	Oid			types[4] = {INT4OID, INT8OID, INT8OID, INT8OID};
	Datum		values[4] = {Int32GetDatum(origin), Int64GetDatum(incarnation),
	Int64GetDatum(seq), Int64GetDatum(from)};

	begin_spi();
	/* the lower bound keeps the scan off index entries that are dead already */
	run(&prune_journal, "DELETE FROM payshard.journal "
		"WHERE origin = $1 AND incarnation = $2 AND last_seq > $4 AND last_seq <= $3", 4, types, values);
	values[2] = Int64GetDatum(whole_seq);
	run(&prune_aborts, "DELETE FROM payshard.journal_abort "
		"WHERE origin = $1 AND incarnation = $2 AND seq <= $3", 3, types, values);
	end_spi();
}

void
ps_journal_pending(uint32 origin, uint64 incarnation, uint64 last_seq)
{
	pending.origin = origin;
	pending.incarnation = incarnation;
	pending.last_seq = last_seq;
}

void
ps_journal_feeds_changed(void)
{
	feeds_changed = true;
}

void
ps_journal_at_commit(void)
{
	PsSharedOrigin *origin;

	if (feeds_changed)
	{
		pg_atomic_fetch_add_u64(&ps_shared->feed_generation, 1);
		feeds_changed = false;
		ps_wake_applier();
	}
	if (pending.origin == 0)
		return;
	PS_FAULT("receiver.after_commit");
	origin = &ps_shared->origins[pending.origin];
	if (pg_atomic_read_u64(&origin->incarnation) == pending.incarnation)
		pg_atomic_write_u64(&origin->journaled_seq, pending.last_seq);
	pending.origin = 0;
}

void
ps_journal_at_abort(void)
{
	feeds_changed = false;
	pending.origin = 0;
}
