/*
 * allnodes.h
 *		DDL on all nodes in one transaction (R4).
 *
 * The remote half of the current transaction: one connection per other node,
 * as the peer role, begun on the first call, prepared before the local commit
 * and committed after it.
 */
#ifndef PS_ROUTE_ALLNODES_H
#define PS_ROUTE_ALLNODES_H

#include "compat.h"
#include "access/xact.h"
#include "link/conn.h"

PS_DECLARE(payshard_peer_ddl);
PS_DECLARE(payshard_peer_acked_seq);

/*
 * ps_allnodes_begin
 *		Opens the transaction on every other node of the map and takes the lock
 *		that lets one such transaction run at a time, in the order of node ids,
 *		here too.  May be called again; then only `statement` is logged.
 *
 * Errors, nothing done anywhere: 57P03 not serving; 08006 which node cannot be
 * reached; 55P03 another DDL or a writer holds on to it for too long.
 */
extern void ps_allnodes_begin(const char *statement);

/* Is DDL on all nodes part of the current transaction? */
extern bool ps_allnodes_is_active(void);

/*
 * This transaction relies on the placements being as they are in the map of
 * now: 40001 at commit when they are not any more.
 */
extern void ps_allnodes_pin_map(void);

/* Other nodes taking part: how many, and the id of the i-th. */
extern int	ps_allnodes_count(void);
extern uint32 ps_allnodes_node(int i);

/*
 * ps_allnodes_send, ps_allnodes_await
 *		One statement at the i-th node.  send awaits what was sent there before.
 *		await returns its result (the caller clears it), NULL when nothing was
 *		under way.  ERROR with the remote SQLSTATE, the node named in context.
 */
extern void ps_allnodes_send(int i, const char *sql, int n_args, const PsArg *args);
extern PGresult *ps_allnodes_await(int i);

/* The same statement at all other nodes at once; awaits them all. */
extern void ps_allnodes_run(const char *sql, int n_args, const PsArg *args);

/*
 * ps_allnodes_script_here
 *		DDL text here, with all rights and a search_path of pg_catalog alone.
 */
extern void ps_allnodes_script_here(const char *script);

/*
 * True while this process itself runs DDL of ours, or of a user which runs on
 * all nodes: it and the queries it leads to (the check of a new foreign key)
 * are about this node's own rows, and are not to be routed.  enter and leave
 * come in pairs (PG_FINALLY).
 */
extern bool ps_allnodes_is_internal(void);
extern void ps_allnodes_enter(void);
extern void ps_allnodes_leave(void);

/*
 * ps_allnodes_await_applied
 *		Waits until all nodes have applied what others had enqueued for them when
 *		it was called.  55P03 naming the node that has not within timeout_ms.
 */
extern void ps_allnodes_await_applied(int timeout_ms);

/*
 * The conductor's calls.  pre_commit must run before the write-set is enqueued
 * (write/commit.c), at_end after the commit's critical section has ended; so
 * at_end is registered before ps_commit_install() and pre_commit after it.
 */
extern void ps_allnodes_pre_commit(XactEvent event, void *arg);
extern void ps_allnodes_at_end(XactEvent event, void *arg);
extern void ps_allnodes_subxact(SubXactEvent event, SubTransactionId id,
								SubTransactionId parent, void *arg);

/*
 * ps_allnodes_resolve
 *		Keeper's duty: commits or rolls back what other nodes' DDL has left
 *		prepared here, by asking the node that issued it.  Needs a transaction.
 *		To be called before placements join.  Returns whether any is left.
 */
extern bool ps_allnodes_resolve(void);

#endif
