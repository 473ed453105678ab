/*
 * once.h
 *		A plan for each (statement, shard), made once and remembered.
 */
#ifndef PS_ROUTE_ONCE_H
#define PS_ROUTE_ONCE_H

#include "postgres.h"
#include "executor/execdesc.h"
#include "nodes/plannodes.h"
#include "route/key.h"

/* A plan that is being executed, in place of the one the statement came with. */
typedef struct PsOnce PsOnce;

/*
 * ps_once_plan
 *		A plan for a statement whose key is a parameter, of which each execution
 *		takes the remembered plan of its shard.  epoch: of the map, before it
 *		was looked at.  NULL: not such a statement.
 */
extern PlannedStmt *ps_once_plan(Query *query, PsMention *mention, const char *text,
								 uint64 epoch);

/*
 * ps_once_begin
 *		Before the executor starts: puts the plan for this execution into
 *		`desc`, where it can.  NULL: the statement is executed as it stands.
 *
 * May wait for a failover; errors as planning has them.  After the start
 * ps_once_started is to be called, or ps_once_failed when it has failed.
 */
extern PsOnce *ps_once_begin(QueryDesc *desc, int eflags);
extern void ps_once_started(PsOnce *once, QueryDesc *desc, int eflags);
extern void ps_once_failed(PsOnce *once);

#endif
