/*
 * where.h
 *		payshard.ring(): where shards should be, and where they are (P3).
 */
#ifndef PS_WATCH_WHERE_H
#define PS_WATCH_WHERE_H

#include "compat.h"

PS_DECLARE(payshard_ring);

#endif
