/*
 * flow.h
 *		Set-returning functions under the views on entries that move:
 *		payshard.replication, in_doubt, stat_commits.
 *
 *	payshard.journal_entries(origin, incarnation, records)
 *		the entries in one row of payshard.journal: seq (of the last fragment
 *		in it), first_seq, xid, shards, and whether this node knows them to be
 *		decided
 */
#ifndef PS_WATCH_FLOW_H
#define PS_WATCH_FLOW_H

#include "compat.h"

PS_DECLARE(payshard_show_replication);
PS_DECLARE(payshard_journal_entries);
PS_DECLARE(payshard_show_stats);
PS_DECLARE(payshard_stat_reset);

#endif
