/*
 * route.h
 *		Which node runs this statement (R1 to R3)?
 */
#ifndef PS_ROUTE_ROUTE_H
#define PS_ROUTE_ROUTE_H

#include "compat.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "nodes/pathnodes.h"
#include "nodes/plannodes.h"
#include "route/key.h"

/* Registers the hooks and custom scans of routing; called once, from _PG_init. */
extern void ps_route_install(void);

/*
 * ps_route_suspend
 *		From here on statements of this process are planned by PostgreSQL alone,
 *		on this node's placements whatever they are: for those who copy, apply
 *		or compare them, and for DDL.  Returns what was before, for
 *		ps_route_restore; an error restores by itself at the end of the
 *		transaction.
 */
extern bool ps_route_suspend(void);
extern void ps_route_restore(bool before);

/* Does this process see placements as they are?  Ours do, and suspended ones. */
extern bool ps_route_is_off(void);

/*
 * ps_route_plan
 *		Plans a statement at execution, with its parameters known (later.c).
 *		Scribbles on the query.
 */
extern PlannedStmt *ps_route_plan(Query *query, const char *query_string,
								  int cursor_options, ParamListInfo params);

/*
 * ps_route_plan_here
 *		Plans a statement about partitions of which this node is the primary,
 *		without parameters.  Scribbles on the query.
 */
extern PlannedStmt *ps_route_plan_here(Query *query, const char *query_string);

/*
 * The same while the statement itself is being executed: what runs inside it is no
 * function's or trigger's.
 */
extern PlannedStmt *ps_route_plan_inside(Query *query, const char *query_string,
										 ParamListInfo params);

/* What happens to a distributed table while PostgreSQL plans (scatter.c). */
typedef enum PsScope
{
	PS_SCOPE_NONE,				/* as it stands: routing is suspended */
	PS_SCOPE_HERE,				/* only shards of this node matter */
	PS_SCOPE_ALL				/* shards of other nodes are read there */
} PsScope;

extern PsScope ps_route_scope(void);

/*
 * ps_route_primary
 *		The primary of a shard.  ERROR 57P03 while the shard is not open.
 */
extern uint32 ps_route_primary(int shard);

/* Is this session one that another node opened for its client's statements? */
extern bool ps_route_is_shipped(void);

#endif
