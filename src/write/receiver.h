/*
 * receiver.h
 *		The target's end of a stream of entries (W3): functions that the
 *		sender's connection calls.
 *
 *	payshard.peer_hello(hello), as of ps_hello_put
 *	payshard.peer_journal(batch)
 *		-> bytea: status (1), receiver's epoch (8), journaled seq (8), applied
 *		seq (8), flushed WAL position (8), ms for which this node promises the
 *		sender its lease (4; Q1), then: STALE: the receiver's map;
 *		REFUSED: why, as text; sealed (ps_seal)
 */
#ifndef PS_WRITE_RECEIVER_H
#define PS_WRITE_RECEIVER_H

#include "compat.h"

#define PS_RECEIVE_OK 'K'
#define PS_RECEIVE_NEED_MAP 'N' /* send me your map and come again */
#define PS_RECEIVE_STALE 'S'	/* mine is newer, here it is */
#define PS_RECEIVE_GAP 'G'		/* not what follows my journaled seq: hello again */
#define PS_RECEIVE_REFUSED 'R'	/* you are no member, or not of this incarnation */
#define PS_RECEIVE_HEADER_BYTES 37

PS_DECLARE(payshard_peer_hello);
PS_DECLARE(payshard_peer_journal);

#endif
