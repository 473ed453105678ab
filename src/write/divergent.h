/*
 * divergent.h
 *		Rows of this node that were not as their primary had them (J4), in
 *		payshard.divergent_rows.
 */
#ifndef PS_WRITE_DIVERGENT_H
#define PS_WRITE_DIVERGENT_H

#include "postgres.h"
#include "executor/tuptable.h"
#include "write/row.h"

/* Of each shard so many are kept; who takes them away makes room. */
#define PS_DIVERGENT_ROWS_MAX 100

/*
 * ps_divergent_keep
 *		Keeps one, found NULL when there was no row.  Returns false when
 *		there are as many of its shard as can be.
 */
extern bool ps_divergent_keep(const PsRowFormat *format, const char *what, TupleTableSlot *found);

/*
 * ps_divergent_truncated
 *		Every row of a shard that is here now, and not before the first call for
 *		it in this transaction, will be compared.
 */
extern void ps_divergent_truncated(int shard);

/*
 * ps_divergent_compare
 *		The rows that stood here at ps_divergent_truncated and are not here now
 *		as they were: kept, with a WARNING and an event for each shard that has any.
 */
extern void ps_divergent_compare(const int *shards, int n);

#endif
