/*
 * sender.h
 *		One process per other node: what this primary has for it (W3, W5), and
 *		the heartbeat when it has nothing.
 */
#ifndef PS_WRITE_SENDER_H
#define PS_WRITE_SENDER_H

#include "compat.h"

/* main_arg: the target's node id. */
extern PGDLLEXPORT void payshard_sender_main(Datum arg) pg_attribute_noreturn();

#endif
