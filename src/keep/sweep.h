/*
 * sweep.h
 *		What this node still has of shards that it does not hold any more.  The
 *		duty is declared in duties.h.
 */
#ifndef PS_KEEP_SWEEP_H
#define PS_KEEP_SWEEP_H

#include "compat.h"
#include "keep/duties.h"

/* Deletes it; main_arg: none. */
extern PGDLLEXPORT void payshard_sweep_main(Datum arg) pg_attribute_noreturn();

#endif
