/*
 * runs.h
 *		Which transaction ids did a crash lose, so that others have them now?
 */
#ifndef PS_NODE_RUNS_H
#define PS_NODE_RUNS_H

#include "postgres.h"

/*
 * ps_runs_begin
 *		A run of the server begins: called by the postmaster, before recovery.
 *		Durable when it returns; an error keeps the server from starting.
 */
extern void ps_runs_begin(void);

/*
 * ps_runs_note
 *		Keeps, once per run, the first transaction id that was given out after
 *		the crash (or stop) which ended the run of `incarnation`.
 *
 * To be called before a newer incarnation is taken; commits the transaction it
 * is called in and begins another.
 */
extern void ps_runs_note(uint64 incarnation);

/*
 * The first id that says nothing of an entry of this incarnation or an older
 * one; PG_UINT64_MAX = the run of that incarnation goes on, all do.
 */
extern uint64 ps_runs_end(uint64 incarnation);

#endif
