/*
 * session.h
 *		The remote half of the client's transaction: connections on which its
 *		statements run, as the user who runs them (S2).
 *
 * A connection is kept per (node, user) for the life of the backend.  The
 * first statement of a transaction opens one there with the same isolation
 * level and read-only flag; savepoints follow lazily.
 */
#ifndef PS_LINK_SESSION_H
#define PS_LINK_SESSION_H

#include "postgres.h"
#include "access/xact.h"
#include "libpq-fe.h"

/* A connection to a node as a user; belongs to session.c. */
typedef struct PsLink PsLink;

/* Parameters of a statement, as libpq wants them: n entries each. */
typedef struct PsLinkParams
{
	int			n;
	Oid		   *types;			/* 0 = as the statement says */
	const char **values;		/* NULL = null */
	int		   *lengths;
	int		   *formats;		/* 1 = binary */
	uint64		shape;			/* hash of the result's columns: what was prepared
								 * before they were altered does not serve now */
} PsLinkParams;

/*
 * ps_session
 *		The connection on which the current user's statements run at `node`,
 *		inside the current (sub)transaction.  may_write: the statement may
 *		change something there; at most one node may be written in one
 *		transaction: 0A000 otherwise, with a hint, before anything is sent.
 */
extern PGconn *ps_session(uint32 node, bool may_write);

/* What a statement does at the other node. */
typedef enum PsLinkUse
{
	PS_LINK_READ,				/* nothing that lasts: outside a transaction block
								 * it runs there without a transaction of ours */
	PS_LINK_LOCK,				/* locks rows, or calls what is volatile */
	PS_LINK_WRITE
} PsLinkUse;

/* The same for a named user, as a link. */
extern PsLink *ps_link(uint32 node, Oid user, PsLinkUse use);

/*
 * ps_link_reach
 *		Can the node be reached?  Connects when there is no connection, and
 *		begins the transaction there when the statement needs one; false when
 *		there is no answer and the node is suspected to be gone: nothing of
 *		this transaction is there.  True also when the transaction has already
 *		used a connection that is lost: then ps_link says so.
 */
extern bool ps_link_reach(uint32 node, Oid user, PsLinkUse use);

/*
 * ps_link_try
 *		The statement that is sent next may come to a node that is not the primary
 *		any more, or not yet: when nothing else is lost by it, ps_link_next then
 *		ends without an error.
 * ps_link_retreat
 *		Has it ended so?  Then the transaction there is rolled back, as if it had
 *		not begun.
 */
extern void ps_link_try(PsLink *link);
extern bool ps_link_retreat(PsLink *link);

/*
 * ps_link_send
 *		Sends one statement; its rows come one by one from ps_link_next.
 *		At most one is under way on a link.  A text that comes again is
 *		prepared there and kept.  params may be NULL.
 */
extern void ps_link_send(PsLink *link, const char *sql,
						 const PsLinkParams *params, bool is_binary);

/*
 * ps_link_next
 *		The next result of what was sent, NULL after the last; waits and may be
 *		interrupted.  The caller clears it.
 *
 * Errors: the remote one, with its SQLSTATE; 25006 and 57P03 of a node that is
 * not what our map says it is become 40001, and so does a connection that is
 * lost, or whose node has failed over or started again: nothing was committed.
 */
extern PGresult *ps_link_next(PsLink *link);

/* The node this transaction writes at remotely, 0 = none. */
extern uint32 ps_session_writes_at(void);

/* ERROR 40001 when that node has failed over or the connection to it is lost. */
extern void ps_session_require_writer(void);

/*
 * ps_session_claim
 *		A statement of this transaction reads or writes rows of `node` (this
 *		one or another).  0A000 when the isolation level needs one snapshot
 *		and another node was claimed before.
 */
extern void ps_session_claim(uint32 node);

/*
 * The conductor's calls (write/commit.c), in the order of a commit.
 *
 * pre_commit: commits remotely what was only read, then where was written; a
 * lost answer to that COMMIT is ERROR 08007, everything else its own error:
 * then nothing is committed anywhere.  Nothing may fail after it.
 * at_end: commit or abort is done: rolls back what is open; never throws.
 */
extern void ps_session_pre_commit(void);
extern void ps_session_at_end(bool is_commit);
extern void ps_session_subxact(SubXactEvent event, SubTransactionId id);

#endif
