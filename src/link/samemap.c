/*
 * samemap.c
 *		A transaction would need two nodes: does it, or has the map changed under it?
 *
 * Remembered is the sum of all shards' terms at the transaction's first look: terms
 * only grow, so that another sum says that some shard has another primary.  It may be
 * a shard that the transaction does not use; then the next try hears the truth.
 */
#include "postgres.h"

#include "link/samemap.h"
#include "node/map.h"

static uint64 terms_seen = 0;	/* 0 = nothing was looked at; every shard has a term */

void
ps_samemap_note(void)
{
	if (terms_seen == 0)
		terms_seen = ps_map_terms();
}

void
ps_samemap_at_end(void)
{
	terms_seen = 0;
}

void
ps_samemap_require(void)
{
	if (terms_seen == 0 || terms_seen == ps_map_terms())
		return;
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("the placement of shards has changed since the transaction began"),
			 errdetail("What it needs now has primaries on other nodes than before, in epoch "
					   UINT64_FORMAT " of the map.", ps_map_epoch()),
			 errhint("Retry the transaction.")));
}

void
ps_refuse_two_writers(uint32 written, uint32 next)
{
	ps_samemap_require();
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a transaction cannot write at two nodes yet"),
			 written == 0 ?
			 errdetail("It has written or locked rows here and would write at node \"%s\".",
					   ps_map_node_name(next)) :
			 next == 0 ?
			 errdetail("It has written at node \"%s\" and would write here.",
					   ps_map_node_name(written)) :
			 errdetail("It has written at node \"%s\" and would write at node \"%s\".",
					   ps_map_node_name(written), ps_map_node_name(next)),
			 errhint("Use one transaction per node; payshard.nodes_for() tells where a key "
					 "lives.")));
	pg_unreachable();
}

void
ps_refuse_two_snapshots(uint32 used, uint32 next)
{
	ps_samemap_require();
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("a transaction with isolation level REPEATABLE READ cannot use two nodes "
					"yet"),
			 errdetail("It uses node \"%s\" and would use node \"%s\"; "
					   "their snapshots would not be of one instant.",
					   ps_map_node_name(used), ps_map_node_name(next)),
			 errhint("Use READ COMMITTED. pg_dump can dump the schema (--schema-only); for "
					 "the data see \"Restore from backup\" in doc/operations.md.")));
	pg_unreachable();
}
