/*
 * copy.h
 *		Rows for placements that join: from this primary to one node (J3).
 */
#ifndef PS_KEEP_COPY_H
#define PS_KEEP_COPY_H

#include "postgres.h"
#include "ground/base.h"
#include "libpq-fe.h"

/* What a copy has moved. */
typedef struct PsCopyStats
{
	long		keys;			/* dirty keys looked at */
	long		rows;			/* rows sent */
	int			full_shards;	/* shards copied as a whole */
	long		shard_rows[PS_SHARDS_MAX];	/* by place in the list: rows, */
	uint64		shard_bytes[PS_SHARDS_MAX]; /* and bytes of messages */
} PsCopyStats;

/*
 * ps_copy_shards
 *		Replaces, in the transaction that is open on `conn`, the rows of all
 *		dirty keys of `node` in the shards (or all rows) by those of the active
 *		snapshot, and hands over the dirty keys of other nodes.
 *
 * shards: n of them, of which this node is primary.  full: all rows, whatever
 * the dirty keys say, and no faster than payshard.copy_rate.  Errors: the remote
 * ones, 08006.
 */
extern void ps_copy_shards(PGconn *conn, uint32 node, const char *name,
						   const int *shards, int n, bool full, PsCopyStats *stats);

/* "{1,2,3}", palloc'd. */
extern char *ps_int_array(const int *values, int n);

#endif
