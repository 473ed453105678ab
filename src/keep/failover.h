/*
 * failover.h
 *		A primary is gone, or was gone: F1 to F5.  Its duty is declared in
 *		duties.h.
 */
#ifndef PS_KEEP_FAILOVER_H
#define PS_KEEP_FAILOVER_H

#include "compat.h"
#include "ground/state.h"
#include "keep/duties.h"
#include "lib/stringinfo.h"

/*
 * ps_failover_propose
 *		(b) alone, as a DBA would with partial => true: a map in which node `id`,
 *		while in that incarnation, has failed; shards of which it has the only
 *		copy in sync stay with it.  prefer: as of ps_step_fail.
 *
 * Returns NULL, or why not.  Errors as of ps_propose.
 */
extern PsRefusal ps_failover_propose(uint32 id, uint64 incarnation, const uint32 *prefer,
									 const char *reason, int timeout_ms);

/* The member of a name; ERROR 42704 when there is none. */
extern PsMapNode *ps_failover_member(PsMap *map, const char *name);

/* Does the node answer, in the incarnation of that map? */
extern bool ps_failover_answers(const PsMapNode *node);

/* Of how many shards has the node the only copy in sync; appends some numbers. */
extern int	ps_failover_only_copies(const PsMap *map, uint32 id, StringInfo list);

PS_DECLARE(payshard_failover);

#endif
