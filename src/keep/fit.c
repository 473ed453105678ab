/*
 * fit.c
 *		What must be true before a server becomes a node?
 *
 * Settings without which it would lose or refuse payments; the same versions;
 * and the same encoding and locale: a text key hashes by its bytes, so that
 * another encoding would look for a row in another shard (P2), and what a
 * generated column or an index makes of a text must be the same on all copies.
 */
#include "postgres.h"

#include "access/twophase.h"
#include "access/xlog.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "executor/spi.h"
#include "ground/ring.h"
#include "keep/fit.h"
#include "miscadmin.h"
#include "node/clock.h"
#include "node/settings.h"
#include "node/shared.h"
#include "node/tables.h"
#include "postmaster/bgworker.h"
#include "utils/builtins.h"

#define PS_WORKERS_PER_NODE 8

/* All of a database's ways with texts as one text; and one hash, as a sample. */
#define TEXT_RULES \
	"(SELECT pg_catalog.pg_encoding_to_char(d.encoding) || ', collation ' || d.datcollate || ', ctype ' || d.datctype || " \
	"coalesce(', ICU locale ' || coalesce(pg_catalog.to_jsonb(d)->>'daticulocale', pg_catalog.to_jsonb(d)->>'datlocale'), '') " \
	"FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()), " \
	"pg_catalog.hashtextextended('payshard', 8816678312871386365)"

void
ps_fit_require_superuser(const char *what)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", what),
				 errdetail("Role \"%s\" is no superuser.", GetUserNameFromId(GetUserId(), false)),
				 errhint("Only superusers change a payshard cluster.")));
}

static void
setting_error(const char *setting, const char *is, const char *should)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("payshard needs another value of %s on this server", setting),
			 errdetail("It is %s.", is),
			 errhint("Set %s in postgresql.conf and restart the server.", should)));
}

void
ps_fit_require_settings(void)
{
	if (ps_shared == NULL)
		setting_error("shared_preload_libraries", "without payshard", "shared_preload_libraries = 'payshard'");
	if (strcmp(ps_database, get_database_name(MyDatabaseId)) != 0)
		setting_error("payshard.database", psprintf("\"%s\"", ps_database),
					  psprintf("payshard.database = '%s'", get_database_name(MyDatabaseId)));
	ps_extension_require_current();
	if (max_prepared_xacts == 0)
		setting_error("max_prepared_transactions", "0", "max_prepared_transactions = 100 (as max_connections, or more)");
	if (!enableFsync)
		setting_error("fsync", "off", "fsync = on");
	if (max_worker_processes < PS_WORKERS_PER_NODE)
		setting_error("max_worker_processes", psprintf("%d", max_worker_processes),
					  psprintf("max_worker_processes = %d (or more)", 2 * PS_WORKERS_PER_NODE));
}

void
ps_fit_require_name(const char *name, const char *what)
{
	if (name[0] == '\0' || strlen(name) >= PS_NAME_MAX - 10)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be the name of a %s", name, what),
				 errdetail("A name has 1 to %d bytes.", PS_NAME_MAX - 11),
				 errhint("Choose a shorter name, such as n1.")));
}

void
ps_fit_require_zone(const char *zone)
{
	if (strlen(zone) >= PS_NAME_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" cannot be the name of a zone", zone),
				 errdetail("A zone has at most %d bytes.", PS_NAME_MAX - 1),
				 errhint("Choose a shorter name, such as z1.")));
}

void
ps_fit_require_weight(int weight)
{
	if (weight < 0 || weight > PS_RING_WEIGHT_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
				 errmsg("weight %d is out of range", weight),
				 errdetail("A weight is 0 (a witness) to %d.", PS_RING_WEIGHT_MAX),
				 errhint("Weights are relative to each other: 1 and 2 say as much as 100 and 200.")));
}

PQconninfoOption *
ps_fit_parse(const char *conninfo)
{
	char	   *error = NULL;
	PQconninfoOption *options = PQconninfoParse(conninfo, &error);
	char	   *why;

	if (options)
		return options;
	why = pchomp(error ? error : "out of memory");
	PQfreemem(error);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("\"%s\" is not a connection string", conninfo),
			 errdetail("%s", why),
			 errhint("For example: host=10.0.0.2 port=5432 dbname=pay.")));
	return NULL;
}

PGconn *
ps_fit_connect(const char *name, const char *conninfo, Oid user)
{
	char	   *error;
	int			code = ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION;
	PGconn	   *conn;

	PQconninfoFree(ps_fit_parse(conninfo));
	conn = ps_conn_open_string(conninfo, user, "add_node",
							   ps_deadline(ps_call_timeout_ms), &error, &code);
	if (conn == NULL)
		ereport(ERROR,
				(errcode(code),
				 errmsg("node \"%s\" cannot be reached", name),
				 errdetail("%s", error),
				 errhint("Check the connection string, pg_hba.conf and the password.")));
	return conn;
}

/* One row of text; ERROR of the other side when there is none. */
static PGresult *
ask(PGconn *conn, const char *name, const char *sql)
{
	PGresult   *result = ps_conn_call(conn, sql, 0, NULL, false, ps_deadline(ps_call_timeout_ms));

	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		ps_conn_throw(result, conn, name, NULL);
	return result;
}

static void
require_versions(const char *name, int major, const char *version)
{
	if (major != PG_VERSION_NUM_MAJOR)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" has another major version of PostgreSQL", name),
				 errdetail("It has %d, this node has %d.", major, PG_VERSION_NUM_MAJOR),
				 errhint("All nodes of a cluster need the same major version.")));
	if (version[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the extension payshard is not installed on node \"%s\"", name),
				 errdetail("The database that the connection string names does not have it."),
				 errhint("Run CREATE EXTENSION payshard there first.")));
	if (strcmp(version, PS_EXTENSION_VERSION) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" has another version of payshard", name),
				 errdetail("It has %s, this node has %s.", version, PS_EXTENSION_VERSION),
				 errhint("Install the same version and run ALTER EXTENSION payshard UPDATE.")));
}

/* Locales are written in several ways: en_US.utf8, en_US.UTF-8. */
static char *
plain(const char *locale)
{
	char	   *copy = pstrdup(locale);
	char	   *to = copy;

	for (const char *c = locale; *c; c++)
		if (*c != '-')
			*to++ = pg_tolower((unsigned char) *c);
	*to = '\0';
	return copy;
}

static void
require_text_rules(const char *name, const char *theirs, const char *their_hash)
{
	char	   *ours;
	char	   *our_hash;

	SPI_connect();
	if (SPI_execute("SELECT " TEXT_RULES, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not read the encoding of this database");
	ours = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	our_hash = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2);
	if (strcmp(plain(ours), plain(theirs)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" has another encoding or locale", name),
				 errdetail("It has %s; this node has %s.", theirs, ours),
				 errhint("Make that database anew: CREATE DATABASE ... TEMPLATE template0, with ENCODING and LOCALE as here.")));
	if (strcmp(our_hash, their_hash) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" computes other hashes than this one", name),
				 errdetail("Its machine is of another kind: it would look for rows in other shards."),
				 errhint("All nodes of a cluster need the same byte order.")));
	SPI_finish();
}

void
ps_fit_require_server(PGconn *conn, const char *name, PsServer *server)
{
	PGresult   *result = ask(conn, name, "SELECT "
							 "coalesce((SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'payshard'), ''), "
							 "pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000, " TEXT_RULES);
	char	   *version = pstrdup(PQgetvalue(result, 0, 0));
	int			major = (int) ps_result_int8(result, 0, 1);
	char	   *rules = pstrdup(PQgetvalue(result, 0, 2));
	char	   *hash = pstrdup(PQgetvalue(result, 0, 3));

	PQclear(result);
	require_versions(name, major, version);
	require_text_rules(name, rules, hash);
	result = ask(conn, name, "SELECT payshard.peer_check_settings(), "
				 "(SELECT system_identifier FROM pg_catalog.pg_control_system()), "
				 "s.cluster_id, s.node_id, s.name, s.boot "
				 "FROM (VALUES (1)) one LEFT JOIN payshard.node_self s ON true");
	server->system_id = (uint64) ps_result_int8(result, 0, 1);
	server->cluster_id = (uint64) ps_result_int8(result, 0, 2);
	server->node_id = (uint32) ps_result_int8(result, 0, 3);
	server->name = pstrdup(PQgetvalue(result, 0, 4));
	server->has_started = ps_result_int8(result, 0, 5) != 0;
	PQclear(result);
}

static void
require_own(const char *name, const PGresult *result)
{
	if ((uint64) ps_result_int8(result, 0, 0) != GetSystemIdentifier() ||
		strcmp(PQgetvalue(result, 0, 1), get_database_name(MyDatabaseId)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the connection string of node \"%s\" leads to another database", name),
				 errdetail("It leads to database \"%s\" of the server with system identifier %s.",
						   PQgetvalue(result, 0, 1), PQgetvalue(result, 0, 0)),
				 errhint("Give the string by which all nodes, this one too, reach this database.")));
	if (PQgetvalue(result, 0, 3)[0] != 't')
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\" may not do what nodes ask of each other", PQgetvalue(result, 0, 2)),
				 errdetail("It is the role of the connection string of node \"%s\".", name),
				 errhint("Use a superuser, or call payshard.grant_peer() for it first.")));
}

/* The extension may have been made in this transaction: the other one does not see it. */
void
ps_fit_require_own(const char *name, const char *conninfo)
{
	PGconn	   *conn = ps_fit_connect(name, conninfo, GetUserId());

	PG_TRY();
	{
		PGresult   *result = ask(conn, name, "SELECT "
								 "(SELECT system_identifier FROM pg_catalog.pg_control_system()), "
								 "pg_catalog.current_database(), current_user, "
								 "coalesce((SELECT pg_catalog.has_function_privilege(p.oid, 'EXECUTE') FROM pg_catalog.pg_proc p "
								 "JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace "
								 "WHERE n.nspname = 'payshard' AND p.proname = 'peer_prepare'), "
								 "(SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user))");

		require_own(name, result);
		PQclear(result);
	}
	PG_FINALLY();
	{
		ps_conn_close(conn);
	}
	PG_END_TRY();
}
