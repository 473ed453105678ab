/*
 * damage.h
 *		Bytes from another node that are not whole.
 */
#ifndef PS_NODE_DAMAGE_H
#define PS_NODE_DAMAGE_H

#include "postgres.h"

/*
 * ps_damaged
 *		FATAL 08P01: the session ends, and with it the connection; its
 *		transaction is rolled back.  what: "a batch of journal entries"; wrong:
 *		what a reader of ground/ found.
 */
extern void ps_damaged(const char *what, const char *wrong) pg_attribute_noreturn();

#endif
