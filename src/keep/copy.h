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

/* What is to be copied, and where. */
typedef struct PsCopyOrder
{
	PGconn	   *conn;			/* a transaction is open there */
	uint32		node;
	const char *name;
	const int  *shards;			/* n_shards of them, of which this node is primary */
	int			n_shards;
	bool		full;			/* all rows, whatever the dirty keys say, and no
								 * faster than payshard.copy_rate */
	void		(*look) (void); /* called now and then: is it still wanted?  An
								 * ERROR ends the copy */
} PsCopyOrder;

/*
 * ps_copy_shards
 *		Replaces, in the transaction that is open over there, the rows of all
 *		dirty keys of the node in the shards (or all rows) by those of the active
 *		snapshot, and hands over the dirty keys of other nodes.
 *
 * Errors: the remote ones, 08006, what `look` throws.
 */
extern void ps_copy_shards(const PsCopyOrder *order, PsCopyStats *stats);

/* "{1,2,3}", palloc'd. */
extern char *ps_int_array(const int *values, int n);

#endif
