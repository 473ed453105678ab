/*
 * commit.h
 *		The conductor: the one transaction callback of payshard.
 */
#ifndef PS_WRITE_COMMIT_H
#define PS_WRITE_COMMIT_H

#include "postgres.h"

/* Registers the callbacks in this process; called once, from _PG_init. */
extern void ps_commit_install(void);

#endif
