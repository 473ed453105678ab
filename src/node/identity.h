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
	uint64		boot;			/* mark that the register has of this directory's
								 * last start; 0 = never started (M3) */
} PsIdentity;

/* false while this database is no node.  Needs a transaction. */
extern bool ps_identity_read(PsIdentity *identity);

/* The peer role; the bootstrap superuser while this database is no node. */
extern Oid	ps_identity_peer_role(void);

/*
 * ps_identity_attempt
 *		The mark under which this directory asks for its next incarnation: the
 *		same one until it is confirmed.  Written durably by the caller's commit.
 *
 * ps_identity_confirm
 *		The register has the mark: it is this directory's last start.
 *
 * ps_identity_disown
 *		This directory is behind its last start: it is no start of it any more, so that
 *		its votes do not count (M3).  Durable by the caller's commit.
 */
extern uint64 ps_identity_attempt(void);
extern void ps_identity_confirm(uint64 boot);
extern void ps_identity_disown(void);

/*
 * ps_require_peer
 *		ERROR 42501 unless the caller may use functions that nodes call on each
 *		other.  For most of them EXECUTE is the right that counts: they run as
 *		the extension's owner (SECURITY DEFINER) and are revoked from PUBLIC;
 *		payshard.grant_peer() grants it.
 */
extern void ps_require_peer(void);

#endif
