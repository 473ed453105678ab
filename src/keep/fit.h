/*
 * fit.h
 *		What must be true before a server becomes a node.
 *
 * All of these look and throw; none changes anything.
 */
#ifndef PS_KEEP_FIT_H
#define PS_KEEP_FIT_H

#include "ground/state.h"
#include "link/conn.h"

/* ERROR 42501 unless the caller is a superuser. */
extern void ps_fit_require_superuser(const char *what);

/* ERROR 55000 when this server cannot be a node with its settings. */
extern void ps_fit_require_settings(void);

/* ERROR 22023 for a name or zone, 22003 for a weight, that a map cannot hold. */
extern void ps_fit_require_name(const char *name, const char *what);
extern void ps_fit_require_zone(const char *zone);
extern void ps_fit_require_weight(int weight);

/* The options of a connection string, malloc'd by libpq; ERROR 22023 if it is none. */
extern PQconninfoOption *ps_fit_parse(const char *conninfo);

/* The server at the other end of a connection. */
typedef struct PsServer
{
	uint64		system_id;
	uint64		cluster_id;		/* 0 = it is no node; then the rest is not valid */
	uint32		node_id;
	char	   *name;
	bool		has_started;	/* it has been a member, and may hold rows */
} PsServer;

/*
 * ps_fit_connect
 *		Connects to what is to be node `name`, as `user` unless the string names
 *		one.
 *
 * Errors: the server's own SQLSTATE when it refuses (28P01, 3D000, ...), 08001
 * when it does not answer, 22023 when the string is none.
 */
extern PGconn *ps_fit_connect(const char *name, const char *conninfo, Oid user);

/*
 * ps_fit_require_server
 *		Is the server of the right make, and set up as a node must be?  ERROR
 *		55000 if not; fills *server.
 */
extern void ps_fit_require_server(PGconn *conn, const char *name, PsServer *server);

/*
 * ERROR unless the string leads to this very database, as a role that may do
 * what nodes ask of each other: before it is node `name`.
 */
extern void ps_fit_require_own(const char *name, const char *conninfo);

#endif
