/*
 * proposer.h
 *		The next map: read the register, take one step, have it chosen (M1).
 */
#ifndef PS_KEEP_PROPOSER_H
#define PS_KEEP_PROPOSER_H

#include "compat.h"
#include "ground/state.h"
#include "node/clock.h"
#include "utils/timestamp.h"

/* One step from ground/state.h with its arguments; called on a scratch copy,
 * perhaps several times. */
typedef PsRefusal (*PsStep) (PsMap *map, void *arg);

/*
 * ps_propose
 *		Has `step` of the newest map chosen by a majority and adopted here,
 *		and tells the other nodes (best effort: they learn it anyhow).
 *
 * Needs a transaction, whose commit or abort changes nothing of it.  Tries
 * until timeout_ms have passed, or until less than a majority has answered for
 * payshard.call_timeout.
 *
 * Returns the newest map, palloc'd.  *refusal is NULL when the step is in it;
 * else the step's own words, and the map is the one that refused it (chosen
 * and adopted, too).  A step that was chosen although its proposer heard no
 * answer comes back as refused by the map that has it: callers look.
 *
 * Errors: 57P03 when no majority answered in time; 55000 outside a cluster.
 */
extern PsMap *ps_propose(PsStep step, void *arg, const char *reason,
						 int timeout_ms, PsRefusal *refusal);

/* The same, but a refusal is ERROR 55000 with it as detail. */
extern PsMap *ps_propose_or_error(PsStep step, void *arg, const char *reason,
								  int timeout_ms);

/*
 * ps_propose_gated
 *		The same for a map for which the gate must be shut: `shut` is called before
 *		anybody is asked to accept one (again in each round; an ERROR ends it, with
 *		nothing proposed), `open` as soon as one is adopted here, before the others
 *		have been told.  open must not throw.
 */
extern PsMap *ps_propose_gated(PsStep step, const char *reason, int timeout_ms, PsRefusal *refusal,
							   void (*shut) (void), void (*open) (void));

/*
 * ps_propose_take_turn, ps_propose_end_turn
 *		A proposer that is overtaken while it keeps others waiting begins anew and
 *		keeps them waiting; so those that do come in turn.  ps_propose_gated takes
 *		one and ends it; who makes others wait before it takes it earlier.
 */
extern void ps_propose_take_turn(void);
extern void ps_propose_end_turn(void);

/*
 * ps_propose_warm
 *		Connects to all nodes and asks them nothing in the words of a proposal, so
 *		that the next one of this process takes no longer than it must.
 */
extern void ps_propose_warm(void);

/* A refusal as a full sentence, palloc'd. */
extern char *ps_refusal_sentence(PsRefusal refusal);

/*
 * ps_peer
 *		This process' connection to a node for calls of the keep floor; opened
 *		on demand, kept.  NULL when it cannot be reached before the deadline.
 */
struct pg_conn;
extern struct pg_conn *ps_peer(uint32 node, const char *name, PsTime deadline);
/* The same, if it is open; NULL if not. */
extern struct pg_conn *ps_peer_open(uint32 node);
/* Forgets a connection that went wrong. */
extern void ps_peer_drop(uint32 node);

PS_DECLARE(payshard_peer_turn);

#endif
