/*
 * jobs.h
 *		What would be moved, what is being moved, and how even are the nodes?
 *		Functions of SQL; columns and their meaning: the comments over there.
 */
#ifndef PS_WATCH_JOBS_H
#define PS_WATCH_JOBS_H

#include "compat.h"

PS_DECLARE(payshard_rebalance_plan);
PS_DECLARE(payshard_show_balance);
PS_DECLARE(payshard_show_moves);

#endif
