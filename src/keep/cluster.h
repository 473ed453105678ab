/*
 * cluster.h
 *		Making and changing the cluster: functions a DBA calls (S1), and those
 *		that nodes call on each other for it.
 */
#ifndef PS_KEEP_CLUSTER_H
#define PS_KEEP_CLUSTER_H

#include "compat.h"

PS_DECLARE(payshard_create_cluster);
PS_DECLARE(payshard_add_node);
PS_DECLARE(payshard_set_node);
PS_DECLARE(payshard_peer_check_settings);
PS_DECLARE(payshard_peer_invite);
PS_DECLARE(payshard_peer_define);
PS_DECLARE(payshard_peer_learn);
PS_DECLARE(payshard_fdw_validator);

#endif
