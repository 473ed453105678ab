/*
 * later.h
 *		Statements that are planned when they are executed (R3), and the nested
 *		executor that runs them.
 */
#ifndef PS_ROUTE_LATER_H
#define PS_ROUTE_LATER_H

#include "postgres.h"
#include "executor/tuptable.h"
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"

/* One statement inside another's execution. */
typedef struct PsNested PsNested;

/*
 * ps_nested_begin
 *		Plans the query with the parameters of `estate` and starts it.  Takes
 *		the query.  Its rows come from ps_nested_next; what it changes counts
 *		for the statement outside.
 *
 * has_moved: shards have moved since the statement's snapshot was taken; it
 * gets a new one, as what was settled meanwhile is not in the old one.  ERROR
 * 40001 where the snapshot is the transaction's.
 */
extern PsNested *ps_nested_begin(Query *query, EState *estate, int eflags, bool has_moved);
extern TupleTableSlot *ps_nested_next(PsNested *nested, TupleTableSlot *slot, bool is_forward);

/* Runs it to its end, if it has not run. */
extern void ps_nested_run(PsNested *nested);
extern void ps_nested_rewind(PsNested *nested);
extern void ps_nested_end(PsNested *nested);

/* A plan that decides at execution where `query` runs. */
extern PlannedStmt *ps_later_plan(Query *query);

/* Its rows are got now, not when the first is asked for; other scans: nothing. */
extern void ps_later_run_now(CustomScanState *node);

/* Registers the scan; called once. */
extern void ps_later_register(void);

#endif
