/*
 * scatter.h
 *		Reads over many shards (R2).
 */
#ifndef PS_ROUTE_SCATTER_H
#define PS_ROUTE_SCATTER_H

#include "postgres.h"
#include "nodes/execnodes.h"

/* The function that marks a statement in local scope; its name in SQL. */
#define PS_LOCAL_SCOPE "local_scope"

/* The oid of that function, InvalidOid when the extension is not there. */
extern Oid	ps_scatter_marker(void);

/* Registers the planner's hook and the scan; called once. */
extern void ps_scatter_install(void);

/* Its rows are got now, not when the first is asked for; other scans: nothing. */
extern void ps_scatter_run_now(CustomScanState *node);

#endif
