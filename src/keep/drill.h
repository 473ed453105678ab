/*
 * drill.h
 *		What happens when a node dies, tried out.
 *
 *	payshard.peer_crash(incarnation)
 *		on the node, while it has that incarnation: one of its processes dies
 *	payshard.peer_note(kind, node, detail)
 *		one row in payshard.event_log, in a transaction of its own
 */
#ifndef PS_KEEP_DRILL_H
#define PS_KEEP_DRILL_H

#include "compat.h"

PS_DECLARE(payshard_drill);
PS_DECLARE(payshard_peer_crash);
PS_DECLARE(payshard_peer_note);

#endif
