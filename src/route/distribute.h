/*
 * distribute.h
 *		Tables become distributed and ordinary again: functions a user calls,
 *		and those that nodes call on each other for it.
 */
#ifndef PS_ROUTE_DISTRIBUTE_H
#define PS_ROUTE_DISTRIBUTE_H

#include "compat.h"

PS_DECLARE(payshard_create_distributed_table);
PS_DECLARE(payshard_undistribute_table);
PS_DECLARE(payshard_shard_for);
PS_DECLARE(payshard_nodes_for);
PS_DECLARE(payshard_peer_register);
PS_DECLARE(payshard_peer_unregister);

/*
 * ps_distribute_all_to
 *		Makes all distributed tables, without rows, on a member of the map that
 *		does not have them: it is about to be given placements (add_node, before
 *		the place step).  What it has already (of an earlier try) is left alone.
 *
 * They are there when the current transaction commits.  All nodes must be up.
 * Errors: as of ps_allnodes_begin and of the DDL there, the node named.
 */
extern void ps_distribute_all_to(uint32 node);

/* Is any table distributed?  Needs the extension. */
extern bool ps_distribute_has_tables(void);

/* Forgets table_id here; the caller drops the table. */
extern void ps_distribute_unregister(uint32 table_id);

#endif
