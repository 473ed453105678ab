/*
 * heartbeat.h
 *		Who hears whom.  Its duty is declared in duties.h.
 */
#ifndef PS_KEEP_HEARTBEAT_H
#define PS_KEEP_HEARTBEAT_H

#include "keep/duties.h"

#endif
