/*
 * times.h
 *		When was each map chosen (S3)?
 *
 *	payshard.map_times()
 *		-> setof (epoch, at), never falling with the epoch
 */
#ifndef PS_WATCH_TIMES_H
#define PS_WATCH_TIMES_H

#include "compat.h"

PS_DECLARE(payshard_map_times);

#endif
