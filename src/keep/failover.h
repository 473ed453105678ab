/*
 * failover.h
 *		A primary is gone, or was gone: F1 to F5.  Its duty is declared in
 *		duties.h.
 */
#ifndef PS_KEEP_FAILOVER_H
#define PS_KEEP_FAILOVER_H

#include "compat.h"
#include "keep/duties.h"

PS_DECLARE(payshard_failover);

#endif
