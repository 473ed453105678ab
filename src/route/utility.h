/*
 * utility.h
 *		DDL by users on distributed tables: on all nodes, or refused (R4).
 */
#ifndef PS_ROUTE_UTILITY_H
#define PS_ROUTE_UTILITY_H

#include "postgres.h"

/* Hooks ProcessUtility and object access; called once, from _PG_init. */
extern void ps_utility_install(void);

#endif
