/*
 * acceptor.h
 *		This node's vote on the map (M1): durable acceptor state of CASPaxos.
 *
 * SQL functions, called by proposers over connections of their own, so that
 * each answer follows a flushed commit:
 *
 *	payshard.peer_prepare(cluster_id, ballot)
 *		-> (promised bool, ballot, accepted_ballot, value)
 *	payshard.peer_accept(cluster_id, ballot, value)
 *		-> (accepted bool, ballot)
 */
#ifndef PS_NODE_ACCEPTOR_H
#define PS_NODE_ACCEPTOR_H

#include "compat.h"

/*
 * ps_acceptor_load
 *		At each start: what may have been promised and accepted before (Q1), and
 *		how long promises are from now on, durably with the current transaction.
 */
extern void ps_acceptor_load(uint64 cluster_id);

/*
 * ps_acceptor_unbind
 *		Now and then, while the node serves: forgets, durably with the current
 *		transaction, longer promises of former runs once none of them can last.
 */
extern void ps_acceptor_unbind(void);

PS_DECLARE(payshard_peer_prepare);
PS_DECLARE(payshard_peer_accept);

#endif
