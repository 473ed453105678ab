/*
 * fetch.h
 *		Rows that come from other nodes, kept here until they are asked for.
 */
#ifndef PS_ROUTE_FETCH_H
#define PS_ROUTE_FETCH_H

#include "postgres.h"
#include "access/tupdesc.h"
#include "executor/tuptable.h"
#include "link/session.h"

typedef struct PsFetch PsFetch;

/*
 * ps_fetch_begin
 *		Prepares to keep rows of `desc`; columns of a result are, in order, the
 *		attributes `attnos` (NULL = all n of desc), others are null.
 *		Uses at most work_mem of memory, then disk.
 */
extern PsFetch *ps_fetch_begin(TupleDesc desc, int n, const AttrNumber *attnos,
							   bool is_binary, bool is_random);

/* Reads what was sent on a link to the end; returns the number of rows the
 * statement says it has changed or returned. */
extern uint64 ps_fetch_all(PsFetch *fetch, PsLink *link);

/* The next row into a (virtual) slot; valid until the next call. */
extern TupleTableSlot *ps_fetch_next(PsFetch *fetch, TupleTableSlot *slot, bool is_forward);

/* From the first row again. */
extern void ps_fetch_rewind(PsFetch *fetch);
extern void ps_fetch_end(PsFetch *fetch);

/* Do the types of all columns travel as bytes? */
extern bool ps_fetch_is_binary(TupleDesc desc, int n, const AttrNumber *attnos);

/* A hash of the types of a result's n columns, as they are here (PsLinkParams). */
extern uint64 ps_fetch_shape(TupleDesc desc, int n, const AttrNumber *attnos);

#endif
