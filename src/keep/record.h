/*
 * record.h
 *		What this node writes down for events, availability and incidents (S3).
 *		Its duty is declared in duties.h.
 */
#ifndef PS_KEEP_RECORD_H
#define PS_KEEP_RECORD_H

#include "keep/duties.h"

#endif
