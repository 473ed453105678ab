/*
 * samemap.h
 *		A transaction would need two nodes: does it, or has the map changed under it?
 *
 * What is refused because a transaction uses several nodes (0A000) is refused for
 * good: a client does not repeat it.  But rows of one shard are at one node and,
 * after a failover, at another: then it is 40001, and the next try succeeds.
 */
#ifndef PS_LINK_SAMEMAP_H
#define PS_LINK_SAMEMAP_H

#include "postgres.h"

/* The transaction looks at the map, before it acts on it; the first look counts. */
extern void ps_samemap_note(void);

/* The conductor's call, by way of session.c: the transaction has ended. */
extern void ps_samemap_at_end(void);

/*
 * ps_samemap_require
 *		To be called before a refusal that follows from who is primary of which
 *		shard: ERROR 40001 when that has changed since the transaction's first look.
 */
extern void ps_samemap_require(void);

/* ERROR 40001 or 0A000: it has written at one node (0 = here), and would at another. */
extern void ps_refuse_two_writers(uint32 written, uint32 next) pg_attribute_noreturn();

/* The same for a snapshot of REPEATABLE READ. */
extern void ps_refuse_two_snapshots(uint32 used, uint32 next) pg_attribute_noreturn();

#endif
