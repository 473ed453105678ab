/*
 * suspicion.h
 *		Does this node believe that another one is gone?  And how often did that
 *		one come and go lately?
 *
 * Three reasons: connecting to it is refused; it has not answered for
 * payshard.suspect_timeout; it has not asked for its lease for that long (so
 * that who is heard, but hears nobody, is suspected, too).  A suspicion proves
 * nothing: it is agreed on by a majority (keep/watchman.h), and leases see to
 * it that a wrong one does no harm (lease.h).
 */
#ifndef PS_NODE_SUSPICION_H
#define PS_NODE_SUSPICION_H

#include "postgres.h"
#include "ground/state.h"
#include "node/clock.h"

/* What the sender to a node, or the receiver of its batches, has seen just now. */
extern void ps_suspicion_answered(uint32 node);
extern void ps_suspicion_refused(uint32 node);
extern void ps_suspicion_asked(uint32 node);

/* When the node answered us last; 0 = never since this server runs. */
extern PsTime ps_suspicion_heard(uint32 node);

/*
 * ps_suspicion
 *		Why is the node suspected: a phrase; NULL = it is not (nor is this node
 *		itself, nor any while this one has not started).  *since_us, on the
 *		clock of lease.h, is the last sign of life.  since_us may be NULL.
 */
extern const char *ps_suspicion(uint32 node, uint64 *since_us);

/*
 * ps_suspicion_pause_ms
 *		A node that has failed or was left out several times lately is
 *		given a pause, longer each time, before the map is changed for it again.
 *		Returns what is left of it; 0 = none.
 */
extern uint32 ps_suspicion_pause_ms(uint32 node);

/* ms, at least 1, until the next node is suspected if nothing is heard; LONG_MAX: none is up. */
extern long ps_suspicion_due_ms(void);

/* How often it fell lately, as the pause counts it. */
extern uint32 ps_suspicion_falls(uint32 node);

/* A map is adopted (old NULL = the first one); with the locks of map.c. */
extern void ps_suspicion_map_adopted(const PsMap *old, const PsMap *map);

#endif
