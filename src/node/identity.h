/*
 * identity.h
 *		Who this node is, durably: payshard.node_self (one row).
 */
#ifndef PS_NODE_IDENTITY_H
#define PS_NODE_IDENTITY_H

#include "postgres.h"

typedef struct PsIdentity
{
	uint64		cluster_id;
	uint32		node_id;
	char		name[64];
	Oid			peer_role;		/* workers connect to peers as this role */
	uint64		boot;			/* starts of this data directory (M3) */
} PsIdentity;

/* false while this database is no node.  Needs a transaction. */
extern bool ps_identity_read(PsIdentity *identity);

/* The peer role; the bootstrap superuser while this database is no node. */
extern Oid	ps_identity_peer_role(void);

/* Counts this start; returns the new boot counter.  Needs a transaction. */
extern uint64 ps_identity_count_boot(void);

/*
 * ps_require_peer
 *		ERROR 42501 unless the caller may use functions that nodes call on each
 *		other.  For most of them EXECUTE is the right that counts: they run as
 *		the extension's owner (SECURITY DEFINER) and are revoked from PUBLIC;
 *		payshard.grant_peer() grants it.
 */
extern void ps_require_peer(void);

#endif
