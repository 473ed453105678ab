/*
 * copy.h
 *		COPY of distributed tables.
 */
#ifndef PS_ROUTE_COPY_H
#define PS_ROUTE_COPY_H

#include "postgres.h"

/* Registers the utility hook; called once. */
extern void ps_copy_install(void);

#endif
