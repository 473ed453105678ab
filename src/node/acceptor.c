/*
 * acceptor.c
 *		What has this node promised and accepted as a voter on the map (M1)?
 *
 * One row in payshard.acceptor: promised, accepted_ballot, value.  A ballot is
 * refused when a higher one was promised.  The answer reaches the proposer
 * after the commit, which is flushed: a voter that forgot a promise in a crash
 * could help to choose two maps of one epoch.
 *
 * A promise comes with the marks of this directory's last start: that of a
 * directory which was restored, and so has forgotten votes, counts for nothing
 * before the node has started again as a stranger (M3; keep/proposer.c).  A copy
 * made after that start has its mark: so nothing is promised before the keeper has
 * compared its WAL with what peers have heard of it (keep/start.c).
 *
 * Who has promised a ballot accepts it, in the session in which he has.  A session
 * does not outlive its server, and a directory is not put back under a running
 * one: without this a restored voter, which has forgotten a higher promise, would
 * help a round to its end that was begun before.
 *
 * Maps of an epoch that was adopted here are not accepted, but for that very map:
 * what is adopted is chosen, so whoever proposes another has read what voters had
 * that have forgotten it.
 *
 * A map that deposes a node which this one has promised a lease is not accepted
 * before that promise has run out (Q1, lease.h); the proposer tries again.
 *
 * Source: D. Rystsov, "CASPaxos: Replicated State Machines without logs", 2018.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "node/acceptor.h"
#include "node/damage.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/settings.h"
#include "node/shared.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

PS_FUNCTION(payshard_peer_prepare);
PS_FUNCTION(payshard_peer_accept);

typedef struct Vote
{
	int64		promised;
	int64		accepted;
	Datum		value;			/* bytea; not valid when accepted = 0 */
} Vote;

/* The ballot that was promised last in this session; 0 = none. */
static int64 promised_here = 0;

/* Reads and locks the row; ERROR when this node is no voter of the cluster. */
static void
read_vote(int64 cluster_id, Vote *vote)
{
	Oid			type = INT8OID;
	Datum		arg = Int64GetDatum(cluster_id);
	HeapTuple	row;
	TupleDesc	desc;
	bool		isnull;

	SPI_execute_with_args("SELECT promised, accepted_ballot, value FROM payshard.acceptor "
						  "WHERE cluster_id = $1 FOR UPDATE",
						  1, &type, &arg, NULL, false, 1);
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("this node is not a voter of that payshard cluster")));
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	vote->promised = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
	vote->accepted = DatumGetInt64(SPI_getbinval(row, desc, 2, &isnull));
	vote->value = SPI_getbinval(row, desc, 3, &isnull);
	if (isnull)
		vote->accepted = 0;
	else
		vote->value = SPI_datumTransfer(vote->value, false, -1);
}

/*
 * The marks of this directory's last start, and of one under way (M3).  Within SPI.  By a
 * snapshot of now, as is_taken: that of the caller is older than its wait for the row.
 */
static void
read_marks(Datum *marks, bool *nulls)
{
	SPI_execute("SELECT boot, boot_attempt FROM payshard.node_self", false, 1);
	for (int i = 0; i < 2; i++)
	{
		nulls[i] = SPI_processed != 1;
		if (!nulls[i])
			marks[i] =
				SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1, &nulls[i]);
	}
}

/*
 * Has a directory that was started before been compared with what peers have heard (M3)?
 * is_judged: of the server, read before the marks: who is behind loses his mark first.
 */
static bool
may_promise(bool is_judged, const Datum *marks, const bool *nulls)
{
	return is_judged || nulls[0] || DatumGetInt64(marks[0]) == 0 || !PS_RULE("M3.judged");
}

/* The function's result: a record as its tuple descriptor says. */
static Datum
answer(FunctionCallInfo fcinfo, Datum *values, bool *nulls)
{
	TupleDesc	desc;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

static void
require_ballot(int64 ballot)
{
	if (ballot < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a ballot cannot be negative")));
}

/* The map of a value; FATAL when it is none.  palloc'd. */
static PsMap *
read_value(Datum value)
{
	bytea	   *bytes = DatumGetByteaPP(value);
	PsMap	   *map = palloc(sizeof(PsMap));
	PsRefusal	wrong = ps_map_read(map, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));

	if (wrong)
		ps_damaged("a map", wrong);
	return map;
}

/* M1: is there another chosen map in the place of this one?  Within SPI. */
static bool
is_taken(const PsMap *map, Datum value)
{
	Oid			types[2] = {INT8OID, BYTEAOID};
	Datum		args[2] = {Int64GetDatum((int64) map->epoch), value};

	SPI_execute_with_args("SELECT FROM payshard.chosen_map "
						  "WHERE epoch > $1 OR (epoch = $1 AND value <> $2)",
						  2, types, args, NULL, false, 1);
	return SPI_processed == 1 && PS_RULE("M1.taken");
}

/* May this node vote for the map, of this value (M1, Q1)?  Within SPI. */
static bool
may_accept(const PsMap *map, Datum value, int64 ballot)
{
	if (is_taken(map, value))
		return false;
	SPI_execute("SELECT FROM payshard.distributed_table", true, 1);
	return ps_lease_may_accept(map, (uint32) (ballot & (PS_NODES_MAX - 1)), SPI_processed == 0);
}

/* What payshard.acceptor says of promises, where this process has read it. */
static int32 lease_ms = 0;

void
ps_acceptor_load(uint64 cluster_id)
{
	Oid			types[2] = {INT8OID, INT4OID};
	Datum		args[2] = {Int64GetDatum((int64) cluster_id), Int32GetDatum(ps_lease_timeout_ms)};
	uint64		epoch = 0;
	bool		isnull;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("SELECT value, lease_ms FROM payshard.acceptor WHERE cluster_id = $1",
						  1, types, args, NULL, false, 1);
	if (SPI_processed == 1)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		Datum		value = SPI_getbinval(row, SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			epoch = read_value(value)->epoch;
		lease_ms = DatumGetInt32(SPI_getbinval(row, SPI_tuptable->tupdesc, 2, &isnull));
		lease_ms = Max(lease_ms, ps_lease_timeout_ms);
		ps_lease_acceptor_loaded(epoch, lease_ms);
		SPI_execute_with_args("UPDATE payshard.acceptor SET lease_ms = $2 WHERE cluster_id = $1 AND lease_ms < $2",
							  2, types, args, NULL, false, 0);
	}
	PopActiveSnapshot();
	SPI_finish();
}

void
ps_acceptor_unbind(void)
{
	Oid			type = INT4OID;
	Datum		arg = Int32GetDatum(ps_lease_timeout_ms);

	if (lease_ms <= ps_lease_timeout_ms || ps_lease_is_bound())
		return;
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("UPDATE payshard.acceptor SET lease_ms = $1", 1, &type, &arg, NULL, false, 0);
	PopActiveSnapshot();
	SPI_finish();
	lease_ms = ps_lease_timeout_ms;
}

Datum
payshard_peer_prepare(PG_FUNCTION_ARGS)
{
	int64		cluster_id = PG_GETARG_INT64(0);
	int64		ballot = PG_GETARG_INT64(1);
	Vote		vote;
	bool		is_judged;
	bool		promised;
	Datum		values[6];
	bool		nulls[6] = {false};

	require_ballot(ballot);
	SPI_connect();
	read_vote(cluster_id, &vote);
	is_judged = pg_atomic_read_u32(&ps_shared->is_judged) != 0;
	pg_read_barrier();
	read_marks(&values[4], &nulls[4]);
	promised = ballot > vote.promised && may_promise(is_judged, &values[4], &nulls[4]);
	if (promised)
	{
		Oid			types[2] = {INT8OID, INT8OID};
		Datum		args[2] = {Int64GetDatum(cluster_id), Int64GetDatum(ballot)};

		PS_FAULT("acceptor.before_promise");
		SPI_execute_with_args("UPDATE payshard.acceptor SET promised = $2 WHERE cluster_id = $1",
							  2, types, args, NULL, false, 0);
		ForceSyncCommit();
		PS_FAULT("acceptor.promised");
		promised_here = ballot;
	}
	SPI_finish();
	values[0] = BoolGetDatum(promised);
	values[1] = Int64GetDatum(promised ? ballot : vote.promised);
	values[2] = Int64GetDatum(vote.accepted);
	values[3] = vote.value;
	nulls[3] = vote.accepted == 0;
	return answer(fcinfo, values, nulls);
}

Datum
payshard_peer_accept(PG_FUNCTION_ARGS)
{
	int64		cluster_id = PG_GETARG_INT64(0);
	int64		ballot = PG_GETARG_INT64(1);
	const PsMap *map = read_value(PG_GETARG_DATUM(2));
	Vote		vote;
	bool		accepted;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	require_ballot(ballot);
	SPI_connect();
	read_vote(cluster_id, &vote);
	/* last what has effects that last: the lease's bars */
	accepted = ballot > 0 && ballot >= vote.promised &&
		(ballot == promised_here || !PS_RULE("M3.session")) &&
		may_accept(map, PG_GETARG_DATUM(2), ballot);
	if (accepted)
	{
		Oid			types[3] = {INT8OID, INT8OID, BYTEAOID};
		Datum args[3] = {Int64GetDatum(cluster_id), Int64GetDatum(ballot), PG_GETARG_DATUM(2)};

		PS_FAULT("acceptor.before_accept");
		SPI_execute_with_args("UPDATE payshard.acceptor SET promised = $2, accepted_ballot = $2, value = $3 "
							  "WHERE cluster_id = $1",
							  3, types, args, NULL, false, 0);
		ForceSyncCommit();
		PS_FAULT("acceptor.accepted");
	}
	SPI_finish();
	values[0] = BoolGetDatum(accepted);
	values[1] = Int64GetDatum(accepted ? ballot : vote.promised);
	return answer(fcinfo, values, nulls);
}
