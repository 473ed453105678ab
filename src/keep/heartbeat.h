/*
 * heartbeat.h
 *		Who hears whom.  Its duty is declared in duties.h.
 */
#ifndef PS_KEEP_HEARTBEAT_H
#define PS_KEEP_HEARTBEAT_H

#include "keep/duties.h"

/*
 * Has a node been silent for twice payshard.peer_timeout, since this node has
 * started?  Never itself.
 */
extern bool ps_is_silent(uint32 id);

#endif
