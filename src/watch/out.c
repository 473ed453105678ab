/*
 * out.c
 *		How do C values become rows of a view?
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"
#include "watch/out.h"

void
ps_out_begin(PsOut *out, FunctionCallInfo fcinfo)
{
	InitMaterializedSRF(fcinfo, 0);
	out->set = (ReturnSetInfo *) fcinfo->resultinfo;
	out->n = 0;
}

static void
put(PsOut *out, Datum value, bool isnull)
{
	if (out->n >= PS_OUT_COLUMNS_MAX || out->n >= out->set->setDesc->natts)
		elog(ERROR, "too many columns for this function");
	out->values[out->n] = value;
	out->nulls[out->n++] = isnull;
}

void
ps_out_int(PsOut *out, int64 value)
{
	if (out->n < out->set->setDesc->natts &&
		TupleDescAttr(out->set->setDesc, out->n)->atttypid == INT4OID)
		put(out, Int32GetDatum((int32) value), false);
	else
		put(out, Int64GetDatum(value), false);
}

void
ps_out_bool(PsOut *out, bool value)
{
	put(out, BoolGetDatum(value), false);
}

void
ps_out_text(PsOut *out, const char *value)
{
	put(out, value ? CStringGetTextDatum(value) : (Datum) 0, value == NULL);
}

void
ps_out_time(PsOut *out, TimestampTz value)
{
	put(out, TimestampTzGetDatum(value), value == 0);
}

void
ps_out_double(PsOut *out, double value)
{
	put(out, Float8GetDatum(value), false);
}

void
ps_out_null(PsOut *out)
{
	put(out, (Datum) 0, true);
}

void
ps_out_ints(PsOut *out, const int *values, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * (n + 1));
	ArrayType  *array;

	for (int i = 0; i < n; i++)
		elements[i] = Int32GetDatum(values[i]);
	array = construct_array(elements, n, INT4OID, sizeof(int32), true, TYPALIGN_INT);
	put(out, PointerGetDatum(array), false);
}

void
ps_out_times(PsOut *out, const TimestampTz *values, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * (n + 1));
	bool	   *nulls = palloc(n + 1);
	int			dims[1] = {n};
	int			lower[1] = {1};
	ArrayType  *array;

	for (int i = 0; i < n; i++)
	{
		elements[i] = TimestampTzGetDatum(values[i]);
		nulls[i] = values[i] == 0;
	}
	array = n == 0 ? construct_empty_array(TIMESTAMPTZOID) :
		construct_md_array(elements, nulls, 1, dims, lower, TIMESTAMPTZOID, sizeof(TimestampTz),
						   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	put(out, PointerGetDatum(array), false);
}

static const char *
name_of(const PsMap *map, uint32 id)
{
	const PsMapNode *node = ps_map_node((PsMap *) map, id);

	return node ? node->name : psprintf("node %u", id);
}

void
ps_out_nodes(PsOut *out, const PsMap *map, PsNodeSet set)
{
	Datum		elements[PS_NODES_MAX];
	ArrayType  *array;
	int			n = 0;

	for (uint32 id = 1; id < PS_NODES_MAX; id++)
		if (PS_HAS_NODE(set, id))
			elements[n++] = CStringGetTextDatum(name_of(map, id));
	array = construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT);
	put(out, PointerGetDatum(array), false);
}

void
ps_out_node(PsOut *out, const PsMap *map, uint32 id)
{
	ps_out_text(out, id == 0 ? NULL : name_of(map, id));
}

void
ps_out_row(PsOut *out)
{
	if (out->n != out->set->setDesc->natts)
		elog(ERROR, "%d columns, but the function has %d", out->n, out->set->setDesc->natts);
	tuplestore_putvalues(out->set->setResult, out->set->setDesc, out->values, out->nulls);
	out->n = 0;
}
