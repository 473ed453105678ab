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

/*
 * ps_session
 *		The connection on which the current user's statements run at `node`,
 *		inside the current (sub)transaction.  may_write: the statement may
 *		change something there; at most one node may be written in one
 *		transaction: 0A000 otherwise, with a hint, before anything is sent.
 */
extern PGconn *ps_session(uint32 node, bool may_write);

/* The node this transaction writes at remotely, 0 = none. */
extern uint32 ps_session_writes_at(void);

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
