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
 * epoch: of a map that was there before the statement's snapshot was taken; when
 * it is not this node's any more, the statement gets a new snapshot, as what
 * was settled meanwhile is not in the old one.  0: shards have moved; ERROR
 * 40001 where the snapshot is the transaction's.
 */
extern PsNested *ps_nested_begin(Query *query, EState *estate, int eflags, uint64 epoch);
extern TupleTableSlot *ps_nested_next(PsNested *nested, TupleTableSlot *slot, bool is_forward);

/* Runs it to its end, if it has not run. */
extern void ps_nested_run(PsNested *nested);
extern void ps_nested_rewind(PsNested *nested);
extern void ps_nested_end(PsNested *nested);

/* Cost of what is planned for each execution: no other plan costs as much. */
#define PS_LATER_COST 1e9

/*
 * ps_later_plan
 *		A plan that decides at execution where `query` runs.  epoch: the map's,
 *		before that was looked at.  once: for once.c, or NIL.
 */
extern PlannedStmt *ps_later_plan(Query *query, uint64 epoch, List *once, double cost);

/* What once.c has put into such a plan; NIL = nothing, or another plan. */
extern List *ps_later_once(PlannedStmt *plan, Query **query, uint64 *epoch);

/* A number as a node of a plan. */
extern Const *ps_later_number(uint64 number);

/* Its rows are got now, not when the first is asked for; other scans: nothing. */
extern void ps_later_run_now(CustomScanState *node);

/* Registers the scan; called once. */
extern void ps_later_register(void);

#endif
