/*
 * watchman.h
 *		Automatic failover: its duty is declared in duties.h.
 *
 *	payshard.peer_suspects(node, incarnation)
 *		-> (suspects bool, bound_ms int, journaled bigint)
 *
 * Called by who would fail a node over, on every other voter.  suspects: this
 * one agrees, and promises that node no lease for a while; bound_ms: what it
 * has promised before still runs for so long; journaled: the last entry of that
 * node which is durable here.
 */
#ifndef PS_KEEP_WATCHMAN_H
#define PS_KEEP_WATCHMAN_H

#include "keep/duties.h"
#include "compat.h"

PS_DECLARE(payshard_peer_suspects);

#endif
