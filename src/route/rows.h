/*
 * rows.h
 *		Rows of a table that is being distributed, or is so no more, on their
 *		way between nodes.
 */
#ifndef PS_ROUTE_ROWS_H
#define PS_ROUTE_ROWS_H

#include "compat.h"
#include "nodes/pg_list.h"

PS_DECLARE(payshard_peer_load);
PS_DECLARE(payshard_peer_rows);

/* Columns that are stored as given (no generated ones): a list of char *. */
extern List *ps_rows_columns(Oid relid);

/*
 * ps_rows_spread
 *		Loads all rows of `source`, an ordinary table, into the distributed
 *		table `target` (same columns by name), on every node that holds the
 *		row's shard in sync.  Inside ps_allnodes_begin; the map must be pinned.
 *		No trigger fires.  Returns how many rows there were.
 */
extern uint64 ps_rows_spread(Oid source, Oid target);

/*
 * ps_rows_gather
 *		Loads all rows of the distributed table `source`, named `name` on the
 *		other nodes, into the ordinary table `target` here, each shard from its
 *		primary.
 */
extern uint64 ps_rows_gather(Oid source, const char *name, Oid target);

#endif
