/*
 * cluster.h
 *		Making and changing the cluster: functions a DBA calls (S1), and those
 *		that nodes call on each other for it.
 */
#ifndef PS_KEEP_CLUSTER_H
#define PS_KEEP_CLUSTER_H

#include "compat.h"

PS_FUNCTION(payshard_create_cluster);
PS_FUNCTION(payshard_add_node);
PS_FUNCTION(payshard_peer_check_settings);
PS_FUNCTION(payshard_peer_invite);
PS_FUNCTION(payshard_peer_define);
PS_FUNCTION(payshard_peer_learn);
PS_FUNCTION(payshard_fdw_validator);

#endif
