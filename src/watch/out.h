/*
 * out.h
 *		The rows of a set-returning function, column by column.
 *
 *	PsOut out;
 *
 *	ps_out_begin(&out, fcinfo);
 *	for each row: ps_out_int(&out, 1); ps_out_text(&out, "x"); ps_out_row(&out);
 *
 * Columns come in the order of the function's result; ps_out_row checks that
 * there are as many as it has.
 */
#ifndef PS_WATCH_OUT_H
#define PS_WATCH_OUT_H

#include "compat.h"
#include "ground/state.h"
#include "nodes/execnodes.h"
#include "utils/timestamp.h"

#define PS_OUT_COLUMNS_MAX 24

typedef struct PsOut
{
	ReturnSetInfo *set;
	int			n;				/* columns of the row so far */
	Datum		values[PS_OUT_COLUMNS_MAX];
	bool		nulls[PS_OUT_COLUMNS_MAX];
} PsOut;

extern void ps_out_begin(PsOut *out, FunctionCallInfo fcinfo);

/* int4 or int8, as the column is; an unsigned value must fit a bigint. */
extern void ps_out_int(PsOut *out, int64 value);
extern void ps_out_bool(PsOut *out, bool value);
/* NULL = null */
extern void ps_out_text(PsOut *out, const char *value);
/* 0 = null */
extern void ps_out_time(PsOut *out, TimestampTz value);
extern void ps_out_double(PsOut *out, double value);
extern void ps_out_null(PsOut *out);
/* int4[] */
extern void ps_out_ints(PsOut *out, const int *values, int n);
/* timestamptz[]; 0 = null */
extern void ps_out_times(PsOut *out, const TimestampTz *values, int n);
/* text[] of the names of a set of nodes, ascending by id */
extern void ps_out_nodes(PsOut *out, const PsMap *map, PsNodeSet set);
/* the name of a node, "node 7" when the map has it not; 0 = null */
extern void ps_out_node(PsOut *out, const PsMap *map, uint32 id);

extern void ps_out_row(PsOut *out);

#endif
