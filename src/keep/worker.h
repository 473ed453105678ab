/*
 * worker.h
 *		The keeper: the one background process that starts the others and does
 *		the node's duties in order.
 */
#ifndef PS_KEEP_WORKER_H
#define PS_KEEP_WORKER_H

#include "compat.h"

/* Registers the keeper; called once, from _PG_init. */
extern void ps_keeper_register(void);

extern PGDLLEXPORT void payshard_keeper_main(Datum arg) pg_attribute_noreturn();

#endif
