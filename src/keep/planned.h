/*
 * planned.h
 *		What a DBA orders at the level of nodes: switchover and maintenance.
 */
#ifndef PS_KEEP_PLANNED_H
#define PS_KEEP_PLANNED_H

#include "compat.h"
#include "ground/state.h"

PS_DECLARE(payshard_switchover_node);
PS_DECLARE(payshard_switchover_shard);

#endif
