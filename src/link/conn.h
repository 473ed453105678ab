/*
 * conn.h
 *		One connection to one peer: open, call, close; remote errors.
 *
 * How to reach a node is SQL/MED (S2): foreign server "payshard_<node>" of the
 * wrapper payshard, user mapping of the user who connects.
 */
#ifndef PS_LINK_CONN_H
#define PS_LINK_CONN_H

#include "postgres.h"
#include "libpq-fe.h"
#include "node/clock.h"
#include "utils/timestamp.h"

#define PS_SERVER_PREFIX "payshard_"

/* One argument of a call; value NULL = null. */
typedef struct PsArg
{
	Oid			type;
	const char *value;			/* text, or bytes when binary */
	int			bytes;			/* of binary values */
	bool		binary;
} PsArg;

/*
 * ps_conn_open
 *		Connects to a node, as `user` (InvalidOid = the cluster's peer role),
 *		non-blocking, before `deadline`.  Needs a transaction (catalog reads).
 *
 * Returns NULL with *error (palloc'd, one line) when it cannot be reached;
 * ERROR only for wrong configuration (no server of that name) and interrupts.
 */
extern PGconn *ps_conn_open(const char *node, Oid user, const char *purpose,
							PsTime deadline, char **error);

/* The same, and it is given up when give_up(arg), asked now and then, says so. */
typedef bool (*PsConnGiveUp) (void *arg);

extern PGconn *ps_conn_open_unless(const char *node, Oid user, const char *purpose,
								   PsTime deadline, PsConnGiveUp give_up, void *arg,
								   char **error);

/* Does such an error say that nobody listens there? */
extern bool ps_conn_is_refused(const char *error);

/* Option of a server or mapping, not of libpq; superusers may set it. */
#define PS_PASSWORD_REQUIRED "password_required"

/*
 * ps_conn_require_credentials
 *		ERROR 2F003 when a user who is no superuser would use this server's
 *		own credentials at a node: before connecting (conn NULL) and after.
 */
extern void ps_conn_require_credentials(const char *node, Oid user, PGconn *conn);

/*
 * ps_conn_open_string
 *		Connects by a conninfo string instead (a node that is not defined yet),
 *		as `user` unless the string names one.  When a server refuses, *code
 *		becomes its SQLSTATE.
 */
extern PGconn *ps_conn_open_string(const char *conninfo, Oid user, const char *purpose,
								   PsTime deadline, char **error, int *code);

extern void ps_conn_close(PGconn *conn);

/*
 * ps_conn_send
 *		Sends one statement (text results unless binary_result); false when
 *		the connection is gone.  At most one may be under way.
 */
extern bool ps_conn_send(PGconn *conn, const char *sql, int n_args,
						 const PsArg *args, bool binary_result);

/* Prepares a statement, and waits as ps_conn_result does. */
extern PGresult *ps_conn_prepare(PGconn *conn, const char *name, const char *sql, int n_args,
								 const Oid *types, PsTime deadline);

/*
 * ps_conn_cancel
 *		Asks the server, until the deadline and quietly, to cancel what runs on a
 *		connection, from another one with the same options: PQcancel would wait for as
 *		long as the server stands still.  Reads no catalogs: also for use amid an abort.
 */
extern void ps_conn_cancel(PGconn *conn, PsTime deadline, PsConnGiveUp give_up, void *arg);

/*
 * ps_conn_result
 *		Waits for the answer, interruptibly, until `deadline`.
 *
 * Returns the last PGresult (the caller clears it), or NULL when the time is
 * up or the connection is gone; then the connection is of no more use.
 */
extern PGresult *ps_conn_result(PGconn *conn, PsTime deadline);

/* Is the answer there, or the connection gone: would result not wait? */
extern bool ps_conn_has_result(PGconn *conn);

/*
 * Waits until something happens on one of the connections whose index is in
 * `set`, or until the deadline; interruptible.
 */
extern void ps_conn_wait_any(PGconn *const *conns, uint64 set, PsTime deadline);

/* send + result. */
extern PGresult *ps_conn_call(PGconn *conn, const char *sql, int n_args,
							  const PsArg *args, bool binary_result,
							  PsTime deadline);

/*
 * ps_conn_throw
 *		ERROR with the remote SQLSTATE, message, detail and hint; NULL result:
 *		08006.  Clears the result.  Context names the node and the statement.
 */
extern void ps_conn_throw(PGresult *result, PGconn *conn, const char *node,
						  const char *sql) pg_attribute_noreturn();

/* One line that says why a result is no success, palloc'd. */
extern char *ps_conn_why(const PGresult *result, const PGconn *conn);

/* bytea argument, big integer argument and text argument. */
extern PsArg ps_arg_bytes(const void *data, int bytes);
extern PsArg ps_arg_int8(int64 value);
extern PsArg ps_arg_text(const char *value);

/* Now plus ms. */

/* Column of a text-format result as an integer; 0 when null. */
extern int64 ps_result_int8(const PGresult *result, int row, int column);

/* A bytea column of a text-format result: palloc'd bytes, NULL when null. */
extern void *ps_result_bytes(const PGresult *result, int row, int column, size_t *bytes);

#endif
