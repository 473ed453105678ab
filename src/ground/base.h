/*
 * base.h
 *		Limits and types that the ground floor shares; compiles in the server
 *		and, with -DFRONTEND, in a program without one.
 */
#ifndef PS_GROUND_BASE_H
#define PS_GROUND_BASE_H

#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#define PS_NODES_MAX 64			/* node ids are 1 .. 63: a set of nodes is a uint64 */
#define PS_SHARDS_MAX 1024
#define PS_COPIES_MAX 8
#define PS_NAME_MAX 64			/* node, zone and cluster names, with the NUL */

/* A set of nodes: bit i stands for node id i; bit 0 is never set. */
typedef uint64 PsNodeSet;

#define PS_NODE_BIT(id) (UINT64CONST(1) << (id))
#define PS_HAS_NODE(set, id) (((set) & PS_NODE_BIT(id)) != 0)

#endif
