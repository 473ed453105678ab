/*
 * maintenance.h
 *		A node is going to be down, and everybody knows.
 */
#ifndef PS_KEEP_MAINTENANCE_H
#define PS_KEEP_MAINTENANCE_H

#include "compat.h"
#include "ground/state.h"
#include "node/clock.h"

/*
 * ps_require_spare
 *		ERROR 55000 when the cluster could not go on without the node: no
 *		majority of voters would be left, or too few copies in sync of a shard.
 *		what: "go into maintenance", for the message.
 */
extern void ps_require_spare(PsMap *map, const PsMapNode *node, const char *what);

/*
 * ps_await_in_sync
 *		Waits until the node is up and settled, and all its copies that are to stay
 *		are in sync; false = not before the deadline.
 */
extern bool ps_await_in_sync(uint32 id, PsTime deadline);

/*
 * ps_await_quiet
 *		Waits, for payshard.call_timeout at most, until no transaction of another node's
 *		client runs at this one: who has planned it before the map changed is then refused,
 *		and tries again elsewhere, and not cut off.
 */
extern void ps_await_quiet(uint32 id);

/* The node rests, or does not any more, by the map that is returned. */
extern PsMap *ps_maintain(uint32 id, bool is_resting, const char *reason);

PS_DECLARE(payshard_start_maintenance);
PS_DECLARE(payshard_stop_maintenance);

#endif
