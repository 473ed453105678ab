/*
 * start.h
 *		This node starts: identity, boot counter, incarnation, processes.
 *		Its duties are declared in duties.h.
 */
#ifndef PS_KEEP_START_H
#define PS_KEEP_START_H

#include "keep/duties.h"

#endif
