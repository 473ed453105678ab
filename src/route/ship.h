/*
 * ship.h
 *		The CustomScan that runs a whole statement at another node.
 */
#ifndef PS_ROUTE_SHIP_H
#define PS_ROUTE_SHIP_H

#include "postgres.h"
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"

/*
 * ps_ship_plan
 *		A plan that runs `query` at `node`.  shards: those it touches (int
 *		list), checked again at execution.
 */
extern PlannedStmt *ps_ship_plan(Query *query, uint32 node, List *shards);

/* A plan without a body for a query: its range table, rights and columns. */
extern PlannedStmt *ps_ship_shell(Query *query, CustomScan *scan);

/* Registers the scan; called once. */
extern void ps_ship_register(void);

/* Its rows are got now, not when the first is asked for; other scans: nothing. */
extern void ps_ship_run_now(CustomScanState *node);

#endif
