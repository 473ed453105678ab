/*
 * lease.h
 *		May this node serve its shards now (Q1); may it depose another that may?
 *
 * Rule Q1.  A node asks all voters for a lease with every batch it sends them.
 * A voter that answers OK promises, for payshard.lease_timeout on its own clock,
 * to accept no map by which that node has failed or loses a primary.  With
 * promises of a majority, its own vote counted, the node may serve until its
 * own clock at *sending* plus the promised time less a margin.
 *
 * Each promise says how long it lasts: nodes may have different settings.  A
 * node with payshard.lease_timeout = 0 promises nothing, and serves without a
 * lease; the map says so (has_leases), and such a node is never failed over by
 * itself.
 *
 * Clusters of one or two voters hold it trivially: nobody can be deposed
 * without his own vote.
 */
#ifndef PS_NODE_LEASE_H
#define PS_NODE_LEASE_H

#include "postgres.h"
#include "ground/state.h"
#include "node/clock.h"
#include "node/shared.h"

#define PS_LEASE_FOR_EVER PG_UINT64_MAX

/* Zeroes: no lease, no promise, nothing to be accepted yet. */
extern void ps_lease_init(PsSharedLease *lease);

/* Has this node the lease?  One atomic read and one look at the clock. */
static inline bool
ps_lease_held(void)
{
	return pg_atomic_read_u64(&ps_shared->lease.until) > ps_clock_us();
}

/*
 * ps_lease_require
 *		Waits a moment for a lease that is not there; ERROR 25006 when it does
 *		not come, 40001 when this node takes a new incarnation meanwhile.  To be
 *		called after the snapshot is taken: then nobody else has been primary
 *		before it.
 *
 * Returns whether the map has changed while it waited: the caller has to look
 * again whether this node is primary, and has been in the same terms.
 */
extern bool ps_lease_require(void);

/*
 * At the asking node: voter `voter` answered a batch that was sent at sent_us
 * under map `epoch` by incarnation `incarnation`: it promises for promised_ms.
 * Returns whether this node had no lease before, and has it now.
 */
extern bool ps_lease_granted(uint32 voter, uint64 incarnation, uint64 epoch,
							 uint64 sent_us, uint32 promised_ms);

/*
 * At a voter: how long does it promise node `asker`, whose incarnation by the map is
 * this one, from now on? ms, 0 = no.
 */
extern uint32 ps_lease_promise(uint32 asker, uint64 incarnation);

/*
 * At a voter: for how many ms is it still bound by what it promised to `node`, or
 * may have promised before the server's last start?
 */
extern uint32 ps_lease_bound_ms(uint32 node);

/* At a voter: is it still bound by what it may have promised before that start? */
extern bool ps_lease_is_bound(void);

/*
 * ps_lease_withhold
 *		At a voter: this incarnation of a node is to be deposed; promises it nothing for
 *		a while, so that its lease runs out.  Not a rule that anything rests on: what was
 *		promised binds, and is looked at when a map is to be accepted.
 */
extern void ps_lease_withhold(uint32 node, uint64 incarnation);

/*
 * ps_lease_may_accept
 *		At a voter: may it accept this map, proposed by `proposer`?  When it may,
 *		it promises nothing more to whom the map deposes, and gives its own lease
 *		up if that is itself.  To be called before the acceptance is durable.
 *		is_empty: there are no distributed tables, nothing can be read stale.
 */
extern bool ps_lease_may_accept(const PsMap *next, uint32 proposer, bool is_empty);

/* This node proposes a map: it stops to serve when it deposes itself by it. */
extern void ps_lease_before_propose(const PsMap *next);

/*
 * The map's calls: a map is adopted (old NULL = the first one after the server
 * start; with the locks of map.c); this node's incarnation has changed; the
 * acceptor's state was read after a start: what it has accepted last, and how
 * long it may have promised (ms) before.
 */
extern void ps_lease_map_adopted(const PsMap *old, const PsMap *map);
extern void ps_lease_reset(void);
extern void ps_lease_acceptor_loaded(uint64 accepted_epoch, uint32 promised_ms);

/* For views: ms left of what `node` has promised this one. */
extern uint64 ps_lease_granted_ms(uint32 node);

/* Since when has this node no lease? us on ps_clock_us; 0 = it has one. */
extern uint64 ps_lease_lost_us(void);

/* Has this node, which has started, been without a lease for that long? */
extern bool ps_lease_missed_for(int ms);

#endif
