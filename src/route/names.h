/*
 * names.h
 *		Errors about partitions in the names of the tables that users know.
 */
#ifndef PS_ROUTE_NAMES_H
#define PS_ROUTE_NAMES_H

/* Hooks of the executor and of utility statements; once, from _PG_init. */
extern void ps_names_install(void);

#endif
