/*
 * start.h
 *		This node starts: identity, boot counter, incarnation, processes.
 *		Its duties are declared in duties.h.
 */
#ifndef PS_KEEP_START_H
#define PS_KEEP_START_H

#include "compat.h"
#include "keep/duties.h"

PS_DECLARE(payshard_incarnation);
PS_DECLARE(payshard_peer_heard);

#endif
