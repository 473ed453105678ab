/*
 * conn.c
 *		How does this process talk to one other node?
 *
 * libpq, non-blocking; every wait is on the latch and the socket, until a
 * deadline, and can be interrupted.  Sockets are accounted for with
 * AcquireExternalFD (libpqsrv_*).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "compat.h"
#include "foreign/foreign.h"
#include "libpq/libpq-be-fe-helpers.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/identity.h"
#include "node/settings.h"
#include "port/pg_bitutils.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "catalog/pg_user_mapping.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"

#define PS_LOOK_MS 250			/* between two looks whether it is given up */
#define PS_CONN_OPTIONS_MAX 64

/* Waits for the socket or the latch; false when the time is up. */
static bool
wait_socket(PGconn *conn, int events, PsTime deadline)
{
	int			rc;
	long		left = ps_ms_left(deadline);

	if (left == 0 || PQsocket(conn) < 0)
		return false;
	rc = WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | events,
						   PQsocket(conn), left, PG_WAIT_EXTENSION);
	if (rc & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

/*
 * Drives a started connection until it is open, bad, out of time, or given up
 * (give_up may be NULL).
 */
static void
poll_connect(PGconn *conn, PsTime deadline, PsConnGiveUp give_up, void *arg)
{
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;

	while (PQstatus(conn) != CONNECTION_BAD &&
		   status != PGRES_POLLING_OK && status != PGRES_POLLING_FAILED)
	{
		PsTime		look = give_up ? Min(deadline, ps_deadline(PS_LOOK_MS)) : deadline;

		if (wait_socket(conn, status == PGRES_POLLING_READING ?
						WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE, look))
			status = PQconnectPoll(conn);
		else if (PQsocket(conn) < 0 || ps_ms_left(deadline) == 0)
			break;
		if (give_up && give_up(arg))
			break;
	}
}

/* The same, and no connection is left behind by an error. */
static void
poll_safely(PGconn *const conn, PsTime deadline, PsConnGiveUp give_up, void *arg)
{
	PG_TRY();
	{
		poll_connect(conn, deadline, give_up, arg);
	}
	PG_CATCH();
	{
		libpqsrv_disconnect(conn);
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * The SQLSTATE in what libpq says verbosely of a server's refusal ("FATAL:
 * 28P01: ..."), 0 = none; the text becomes what it is by default.
 */
static int
take_sqlstate(char *text)
{
	char	   *at = text;
	char	   *location = strrchr(text, '\n');
	int			code;

	while ((at = strstr(at, ":  ")) != NULL)
	{
		at += 3;
		if (strspn(at, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && strncmp(at + 5, ": ", 2) == 0)
			break;
	}
	if (at == NULL)
		return 0;
	code = MAKE_SQLSTATE(at[0], at[1], at[2], at[3], at[4]);
	if (location && strstr(location, ".c:") != NULL)
		*location = '\0';
	memmove(at, at + 7, strlen(at + 7) + 1);
	return code;
}

/*
 * The end of opening: the connection, or NULL with *error.  code: NULL, or the
 * SQLSTATE of a server that refuses; left as it is when none answers.
 */
static PGconn *
finish_connect(PGconn *conn, PsTime deadline, PsConnGiveUp give_up, void *arg, char **error,
			   int *code)
{
	int			refusal;

	if (conn == NULL)
	{
		ReleaseExternalFD();
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	PQsetErrorVerbosity(conn, PQERRORS_VERBOSE);
	poll_safely(conn, deadline, give_up, arg);
	if (PQstatus(conn) == CONNECTION_OK)
	{
		PQsetErrorVerbosity(conn, PQERRORS_DEFAULT);
		PQsetnonblocking(conn, 1);
		return conn;
	}
	*error = ps_ms_left(deadline) == 0 ? pstrdup("no answer in time") :
		pchomp(PQerrorMessage(conn));
	refusal = take_sqlstate(*error);
	if (code && refusal != 0)
		*code = refusal;
	libpqsrv_disconnect(conn);
	return NULL;
}

static void
reserve_socket(void)
{
	if (!AcquireExternalFD())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_RESOURCES),
				 errmsg("could not connect to another node: too many open files"),
				 errhint("Raise max_files_per_process.")));
}

/* Appends the options of a list that libpq knows. */
static int
add_options(List *options, const char **keys, const char **values, int n)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst(cell);

		if (n < PS_CONN_OPTIONS_MAX - 6 && strcmp(option->defname, PS_PASSWORD_REQUIRED) != 0)
		{
			keys[n] = option->defname;
			values[n++] = defGetString(option);
		}
	}
	return n;
}

/* The mapping of a user, or NULL: GetUserMapping throws. */
static UserMapping *
mapping_of(Oid user, Oid server)
{
	if (SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user),
							  ObjectIdGetDatum(server)) ||
		SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							  ObjectIdGetDatum(server)))
		return GetUserMapping(user, server);
	return NULL;
}

PGconn *
ps_conn_open_unless(const char *node, Oid user, const char *purpose, PsTime deadline,
					PsConnGiveUp give_up, void *arg, char **error)
{
	const char *keys[PS_CONN_OPTIONS_MAX];
	const char *values[PS_CONN_OPTIONS_MAX];
	int			n = 0;
	ForeignServer *server = GetForeignServerByName(psprintf("%s%s", PS_SERVER_PREFIX, node), false);
	UserMapping *mapping;

	if (!OidIsValid(user))
		user = ps_identity_peer_role();
	mapping = mapping_of(user, server->serverid);
	keys[n] = "user";
	values[n++] = GetUserNameFromId(user, false);
	n = add_options(server->options, keys, values, n);
	if (mapping)
		n = add_options(mapping->options, keys, values, n);
	keys[n] = "application_name";
	values[n++] = psprintf("payshard %s", purpose);
	keys[n] = "client_encoding";
	values[n++] = GetDatabaseEncodingName();
	keys[n] = "options";
	values[n++] = "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3";
	keys[n] = NULL;
	values[n] = NULL;
	reserve_socket();
	return finish_connect(PQconnectStartParams(keys, values, false), deadline, give_up, arg,
						  error, NULL);
}

PGconn *
ps_conn_open(const char *node, Oid user, const char *purpose,
			 PsTime deadline, char **error)
{
	return ps_conn_open_unless(node, user, purpose, deadline, NULL, NULL, error);
}

bool
ps_conn_is_refused(const char *error)
{
	/* libpq tells the errno only in words, those of strerror in our locale */
	return error && (strstr(error, strerror(ECONNREFUSED)) != NULL ||
					 strstr(error, strerror(ENOENT)) != NULL);
}

/* A string option of the mapping or, failing that, the server; NULL = not set. */
static const char *
option_of(ForeignServer *server, UserMapping *mapping, const char *name)
{
	ListCell   *cell;

	foreach(cell, mapping ? list_concat_copy(mapping->options, server->options) : server->options)
	{
		DefElem    *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}

void
ps_conn_require_credentials(const char *node, Oid user, PGconn *conn)
{
	ForeignServer *server = GetForeignServerByName(psprintf("%s%s", PS_SERVER_PREFIX, node), false);
	UserMapping *mapping = mapping_of(user, server->serverid);
	const char *required = option_of(server, mapping, PS_PASSWORD_REQUIRED);
	const char *password = option_of(server, mapping, "password");
	bool		is_required = true;

	if (superuser_arg(user) || option_of(server, mapping, "sslcert") != NULL)
		return;
	if (required && parse_bool(required, &is_required) && !is_required)
		return;
	if (password && password[0] && (conn == NULL || PQconnectionUsedPassword(conn)))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_S_R_E_PROHIBITED_SQL_STATEMENT_ATTEMPTED),
			 errmsg("password is required to use node \"%s\" as user \"%s\"",
					node, GetUserNameFromId(user, false)),
			 errdetail("Who is no superuser must not borrow this server's own credentials."),
			 errhint("Add a user mapping with a password or certificate for server \"%s%s\", "
					 "or let a superuser set %s 'false'.",
					 PS_SERVER_PREFIX, node, PS_PASSWORD_REQUIRED)));
}

PGconn *
ps_conn_open_string(const char *conninfo, Oid user, const char *purpose,
					PsTime deadline, char **error, int *code)
{
	/* before the string, which may name another one */
	const char *keys[] = {"user", "dbname", "fallback_application_name", "client_encoding", NULL};
	const char *values[] = {GetUserNameFromId(user, false), conninfo, psprintf("payshard %s", purpose),
	GetDatabaseEncodingName(), NULL};

	reserve_socket();
	return finish_connect(PQconnectStartParams(keys, values, true), deadline, NULL, NULL,
						  error, code);
}

void
ps_conn_close(PGconn *conn)
{
	if (conn)
		libpqsrv_disconnect(conn);
}

bool
ps_conn_send(PGconn *conn, const char *sql, int n_args, const PsArg *args,
			 bool binary_result)
{
	Oid			types[16];
	const char *values[16];
	int			lengths[16];
	int			formats[16];

	if (n_args > lengthof(types))
		elog(ERROR, "too many arguments for a remote call");
	for (int i = 0; i < n_args; i++)
	{
		types[i] = args[i].type;
		values[i] = args[i].value;
		lengths[i] = args[i].bytes;
		formats[i] = args[i].binary ? 1 : 0;
	}
	if (ps_log_remote)
		ereport(LOG, (errmsg("payshard sends to %s:%s: %s", PQhost(conn), PQport(conn), sql)));
	return PQsendQueryParams(conn, sql, n_args, types, values, lengths, formats,
							 binary_result ? 1 : 0) != 0;
}

PGresult *
ps_conn_prepare(PGconn *conn, const char *name, const char *sql, int n_args,
				const Oid *types, PsTime deadline)
{
	return PQsendPrepare(conn, name, sql, n_args, types) ? ps_conn_result(conn, deadline) : NULL;
}

/* Another connection with the options of an open one: no catalogs are read. */
static PGconn *
open_again(PGconn *conn, PsTime deadline, PsConnGiveUp give_up, void *arg)
{
	const char *keys[PS_CONN_OPTIONS_MAX];
	const char *values[PS_CONN_OPTIONS_MAX];
	int			n = 0;
	PQconninfoOption *options = PQconninfo(conn);
	PGconn	   *again = NULL;
	char	   *error;

	for (PQconninfoOption *o = options; o && o->keyword && n < PS_CONN_OPTIONS_MAX - 1; o++)
	{
		if (o->val == NULL)
			continue;
		keys[n] = o->keyword;
		values[n++] = o->val;
	}
	keys[n] = values[n] = NULL;
	if (n > 0 && AcquireExternalFD())
	{
		again = PQconnectStartParams(keys, values, false);
		if (again)
			again = finish_connect(again, deadline, give_up, arg, &error, NULL);
		else
			ReleaseExternalFD();
	}
	PQconninfoFree(options);
	return again;
}

void
ps_conn_cancel(PGconn *conn, PsTime deadline, PsConnGiveUp give_up, void *arg)
{
	PsArg		pid = ps_arg_int8(PQbackendPID(conn));
	PGconn	   *other = open_again(conn, deadline, give_up, arg);

	if (other == NULL)
		return;
	PQclear(ps_conn_call(other, "SELECT pg_catalog.pg_cancel_backend($1::integer)", 1, &pid, false,
						 deadline));
	ps_conn_close(other);
}

PGresult *
ps_conn_result(PGconn *conn, PsTime deadline)
{
	PGresult   *last = NULL;

	for (;;)
	{
		PGresult   *result;
		int			unsent = PQflush(conn);

		if (unsent < 0)
			break;
		if (PQisBusy(conn))
		{
			if (!wait_socket(conn, WL_SOCKET_READABLE | (unsent ? WL_SOCKET_WRITEABLE : 0),
							 deadline) ||
				!PQconsumeInput(conn))
				break;
			continue;
		}
		result = PQgetResult(conn);
		if (result == NULL)
			return last;
		PQclear(last);
		last = result;
		if (PQresultStatus(last) == PGRES_COPY_IN || PQresultStatus(last) == PGRES_COPY_OUT ||
			PQresultStatus(last) == PGRES_COPY_BOTH)
			return last;
	}
	PQclear(last);
	return NULL;
}

bool
ps_conn_has_result(PGconn *conn)
{
	if (PQstatus(conn) == CONNECTION_BAD || PQflush(conn) < 0)
		return true;
	return !PQconsumeInput(conn) || !PQisBusy(conn);
}

void
ps_conn_wait_any(PGconn *const *conns, uint64 set, PsTime deadline)
{
	WaitEventSet *events = ps_wait_events(CurrentMemoryContext, CurrentResourceOwner,
											 pg_popcount64(set) + 2);
	WaitEvent	occurred;

	AddWaitEventToSet(events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < 64; i++)
		if ((set & (UINT64CONST(1) << i)) && PQsocket(conns[i]) >= 0)
			AddWaitEventToSet(events, WL_SOCKET_READABLE, PQsocket(conns[i]), NULL, NULL);
	(void) WaitEventSetWait(events, ps_ms_left(deadline), &occurred, 1, PG_WAIT_EXTENSION);
	FreeWaitEventSet(events);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

PGresult *
ps_conn_call(PGconn *conn, const char *sql, int n_args, const PsArg *args,
			 bool binary_result, PsTime deadline)
{
	if (!ps_conn_send(conn, sql, n_args, args, binary_result))
		return NULL;
	return ps_conn_result(conn, deadline);
}

char *
ps_conn_why(const PGresult *result, const PGconn *conn)
{
	char	   *message;

	if (result)
	{
		message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
		return message ? pstrdup(message) : pstrdup(PQresStatus(PQresultStatus(result)));
	}
	if (conn && PQstatus(conn) == CONNECTION_BAD)
		return pchomp(PQerrorMessage(conn));
	return pstrdup("no answer in time");
}

/* A field of a remote error, palloc'd, or NULL. */
static char *
field(const PGresult *result, int code)
{
	char	   *text = result ? PQresultErrorField(result, code) : NULL;

	return text ? pstrdup(text) : NULL;
}

/* What an error is about, for programs. */
static const int name_fields[] = {PG_DIAG_SCHEMA_NAME, PG_DIAG_TABLE_NAME, PG_DIAG_COLUMN_NAME,
PG_DIAG_DATATYPE_NAME, PG_DIAG_CONSTRAINT_NAME};

static int
set_names(char *const *names)
{
	for (int i = 0; i < lengthof(name_fields); i++)
		if (names[i])
			(void) err_generic_string(name_fields[i], names[i]);
	return 0;
}

void
ps_conn_throw(PGresult *result, PGconn *conn, const char *node, const char *sql)
{
	char	   *state = field(result, PG_DIAG_SQLSTATE);
	char	   *message = field(result, PG_DIAG_MESSAGE_PRIMARY);
	char	   *detail = field(result, PG_DIAG_MESSAGE_DETAIL);
	char	   *hint = field(result, PG_DIAG_MESSAGE_HINT);
	char	   *context = field(result, PG_DIAG_CONTEXT);
	char	   *names[lengthof(name_fields)];
	int			code = ERRCODE_CONNECTION_FAILURE;

	if (message == NULL)
		message = conn ? psprintf("node \"%s\" did not answer: %s", node, ps_conn_why(NULL, conn))
			: psprintf("node \"%s\" did not answer", node);
	if (state)
		code = MAKE_SQLSTATE(state[0], state[1], state[2], state[3], state[4]);
	for (int i = 0; i < lengthof(name_fields); i++)
		names[i] = field(result, name_fields[i]);
	PQclear(result);
	ereport(ERROR,
			(errcode(code),
			 set_names(names),
			 errmsg_internal("%s", message),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 context ? errcontext("%s", context) : 0,
			 sql ? errcontext("statement on node \"%s\": %s", node, sql) :
			 errcontext("node \"%s\"", node)));
	pg_unreachable();
}

PsArg
ps_arg_bytes(const void *data, int bytes)
{
	PsArg		arg = {BYTEAOID, data, bytes, true};

	return arg;
}

PsArg
ps_arg_int8(int64 value)
{
	PsArg		arg = {INT8OID, psprintf(INT64_FORMAT, value), 0, false};

	return arg;
}

PsArg
ps_arg_text(const char *value)
{
	PsArg		arg = {TEXTOID, value, 0, false};

	return arg;
}

int64
ps_result_int8(const PGresult *result, int row, int column)
{
	if (PQgetisnull(result, row, column))
		return 0;
	return strtoi64(PQgetvalue(result, row, column), NULL, 10);
}

void *
ps_result_bytes(const PGresult *result, int row, int column, size_t *bytes)
{
	unsigned char *raw;
	void	   *copy;

	*bytes = 0;
	if (PQgetisnull(result, row, column))
		return NULL;
	raw = PQunescapeBytea((unsigned char *) PQgetvalue(result, row, column), bytes);
	if (raw == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	copy = palloc(*bytes + 1);
	memcpy(copy, raw, *bytes);
	PQfreemem(raw);
	return copy;
}
