/*
 * rejoin.h
 *		Placements that are out come back (J1 to J4).  The duty is declared in
 *		duties.h.
 */
#ifndef PS_KEEP_REJOIN_H
#define PS_KEEP_REJOIN_H

#include "compat.h"
#include "keep/duties.h"

/* One process per node that comes back; main_arg: its id. */
extern PGDLLEXPORT void payshard_rejoin_main(Datum arg) pg_attribute_noreturn();

PS_DECLARE(payshard_rebuild_node);

#endif
