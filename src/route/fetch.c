/*
 * fetch.c
 *		How do rows of another node become rows here?
 *
 * A statement is always read to its end at once, one row at a time, into a
 * tuplestore: the connection is then free for the next statement of the same
 * transaction, and memory stays within work_mem.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "route/fetch.h"
#include "route/text.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

struct PsFetch
{
	TupleDesc	desc;
	int			n;				/* columns of a result */
	AttrNumber *attnos;			/* where they go */
	bool		is_binary;
	FmgrInfo   *functions;		/* input or receive, n */
	Oid		   *io_params;		/* n */
	Tuplestorestate *store;
	TupleTableSlot *slot;		/* of the tuplestore */
	MemoryContext row;			/* reset after each row */
	Datum	   *values;
	bool	   *nulls;
};

bool
ps_fetch_is_binary(TupleDesc desc, int n, const AttrNumber *attnos)
{
	for (int i = 0; i < n; i++)
	{
		int			at = attnos ? attnos[i] - 1 : i;

		if (!ps_text_is_binary(TupleDescAttr(desc, at)->atttypid))
			return false;
	}
	return true;
}

uint64
ps_fetch_shape(TupleDesc desc, int n, const AttrNumber *attnos)
{
	uint64		shape = 0;

	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, attnos ? attnos[i] - 1 : i);

		shape = hash_combine64(shape, column->atttypid);
		shape = hash_combine64(shape, (uint32) column->atttypmod);
		shape = hash_combine64(shape, column->attcollation);
	}
	return shape;
}

PsFetch *
ps_fetch_begin(TupleDesc desc, int n, const AttrNumber *attnos, bool is_binary, bool is_random)
{
	PsFetch    *fetch = palloc0(sizeof(PsFetch));

	fetch->desc = desc;
	fetch->n = n;
	fetch->is_binary = is_binary;
	fetch->attnos = palloc(sizeof(AttrNumber) * Max(n, 1));
	fetch->functions = palloc0(sizeof(FmgrInfo) * Max(n, 1));
	fetch->io_params = palloc0(sizeof(Oid) * Max(n, 1));
	fetch->values = palloc0(sizeof(Datum) * Max(desc->natts, 1));
	fetch->nulls = palloc0(sizeof(bool) * Max(desc->natts, 1));
	for (int i = 0; i < n; i++)
	{
		Oid			function;
		Oid			type;

		fetch->attnos[i] = attnos ? attnos[i] : i + 1;
		type = TupleDescAttr(desc, fetch->attnos[i] - 1)->atttypid;
		if (is_binary)
			getTypeBinaryInputInfo(type, &function, &fetch->io_params[i]);
		else
			getTypeInputInfo(type, &function, &fetch->io_params[i]);
		fmgr_info(function, &fetch->functions[i]);
	}
	fetch->store = tuplestore_begin_heap(is_random, false, work_mem);
	fetch->slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	fetch->row = AllocSetContextCreate(CurrentMemoryContext, "payshard row", ALLOCSET_SMALL_SIZES);
	return fetch;
}

/* One value of a result. */
static Datum
read_value(PsFetch *fetch, PGresult *result, int row, int column, int at)
{
	int32		typmod = TupleDescAttr(fetch->desc, at)->atttypmod;
	StringInfoData buf;
	Datum		value;

	if (PQgetisnull(result, row, column))
	{
		fetch->nulls[at] = true;
		return (Datum) 0;
	}
	fetch->nulls[at] = false;
	if (!fetch->is_binary)
		return InputFunctionCall(&fetch->functions[column], PQgetvalue(result, row, column),
								 fetch->io_params[column], typmod);
	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, PQgetvalue(result, row, column),
						   PQgetlength(result, row, column));
	value = ReceiveFunctionCall(&fetch->functions[column], &buf,
								fetch->io_params[column], typmod);
	if (buf.cursor != buf.len)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("a value from another node has the wrong length"),
				 errdetail("Column \"%s\".", NameStr(TupleDescAttr(fetch->desc, at)->attname)),
				 errhint("Check that the table is defined the same way on all nodes.")));
	return value;
}

static void
keep_rows(PsFetch *fetch, PGresult *result)
{
	MemoryContext old = MemoryContextSwitchTo(fetch->row);

	if (PQnfields(result) != fetch->n)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("another node returned %d columns instead of %d",
				 		PQnfields(result), fetch->n),
				 errhint("Check that the table is defined the same way on all nodes.")));
	for (int row = 0; row < PQntuples(result); row++)
	{
		memset(fetch->nulls, true, fetch->desc->natts * sizeof(bool));
		for (int i = 0; i < fetch->n; i++)
			fetch->values[fetch->attnos[i] - 1] =
				read_value(fetch, result, row, i, fetch->attnos[i] - 1);
		tuplestore_putvalues(fetch->store, fetch->desc, fetch->values, fetch->nulls);
		MemoryContextReset(fetch->row);
	}
	MemoryContextSwitchTo(old);
}

uint64
ps_fetch_all(PsFetch *fetch, PsLink *link)
{
	PGresult   *volatile result = NULL;
	volatile uint64 n = 0;

	PG_TRY();
	{
		while ((result = ps_link_next(link)) != NULL)
		{
			if (PQntuples(result) > 0)
				keep_rows(fetch, result);
			if (PQcmdTuples(result)[0] != '\0')
				n = strtou64(PQcmdTuples(result), NULL, 10);
			PQclear(result);
			result = NULL;
		}
	}
	PG_CATCH();
	{
		PQclear(result);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return n;
}

TupleTableSlot *
ps_fetch_next(PsFetch *fetch, TupleTableSlot *slot, bool is_forward)
{
	ExecClearTuple(slot);
	if (!tuplestore_gettupleslot(fetch->store, is_forward, false, fetch->slot))
		return slot;
	slot_getallattrs(fetch->slot);
	memcpy(slot->tts_values, fetch->slot->tts_values, fetch->desc->natts * sizeof(Datum));
	memcpy(slot->tts_isnull, fetch->slot->tts_isnull, fetch->desc->natts * sizeof(bool));
	return ExecStoreVirtualTuple(slot);
}

void
ps_fetch_rewind(PsFetch *fetch)
{
	tuplestore_rescan(fetch->store);
}

void
ps_fetch_end(PsFetch *fetch)
{
	ExecDropSingleTupleTableSlot(fetch->slot);
	tuplestore_end(fetch->store);
}
