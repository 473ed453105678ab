/*
 * settle.h
 *		A member's part in settling an origin (F1, F3, F4): functions that the
 *		leader calls on every in-sync member of the shards concerned.
 *
 *	payshard.peer_tail(origin, epoch)
 *		-> setof (incarnation, record): journaled and perhaps undecided
 *	payshard.peer_settle_journal(origin, epoch, incarnation, records)
 *		journals what this member lacks of the union
 *	payshard.peer_settle_apply(origin, epoch, incarnation)
 *		applies all that is journaled up to that incarnation and not aborted
 *
 * Each refuses (55000) unless this member has adopted a map at least as new as
 * epoch: it has fenced the origin off before it answers (F3).
 */
#ifndef PS_WRITE_SETTLE_H
#define PS_WRITE_SETTLE_H

#include "compat.h"

PS_DECLARE(payshard_peer_tail);
PS_DECLARE(payshard_peer_settle_journal);
PS_DECLARE(payshard_peer_settle_apply);

#endif
