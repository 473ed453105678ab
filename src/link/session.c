/*
 * session.c
 *		Where do the client's statements run at other nodes, and how do they
 *		commit there?
 *
 * Owns one connection per (node, user), and on it the remote half of the
 * current transaction.  Never decides where a statement runs (route/).
 *
 * depth says how far a connection is inside the client's transaction:
 *	0	no transaction there
 *	1	START TRANSACTION was sent, with our isolation level
 *	n	n - 1 savepoints s2 .. sn, for our nested (sub)transactions
 * A connection that is lost inside a transaction keeps its depth: whatever was
 * done on it is gone, so the transaction can only be rolled back.
 *
 * A commit, in the order of events: (a) COMMIT where was only read; an error
 * there still aborts everything.  (b) COMMIT at the one node that was written.
 * Its answer decides.  The other way round, a reader that fails would turn a
 * committed payment into an error.
 *
 * What is under way when an error or a cancel comes is cancelled at the other
 * node, with a deadline; where that does not succeed the connection is closed,
 * and the other node notices by client_connection_check_interval.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "libpq/libpq-be-fe-helpers.h"
#include "link/conn.h"
#include "link/local.h"
#include "link/mirror.h"
#include "link/samemap.h"
#include "link/session.h"
#include "link/texts.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/shared.h"
#include "node/suspicion.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"

#define LOOK_MS 250				/* between two looks whether a node is gone */
#define ROLLBACK_MS 2000		/* longest wait for a rollback or a cancel */
typedef struct LinkKey
{
	uint32		node;
	Oid			user;
} LinkKey;

struct PsLink
{
	LinkKey		key;			/* hash key */
	PGconn	   *conn;			/* NULL = closed */
	int			depth;			/* see above */
	bool		is_changing;	/* amid BEGIN, SAVEPOINT, COMMIT and the like */
	bool		is_busy;		/* results of a statement are still to come */
	bool		is_stale;		/* close when no transaction is open there */
	bool		is_trying;		/* nothing is there that could be lost */
	bool		has_changed;	/* this transaction has written or locked there */
	bool		had_changed;	/* it had, before the statement that is under way */
	bool		may_refuse, is_refused; /* ps_link_try */
	uint64		incarnation;	/* the node's, when the connection was opened */
	char	   *settings;		/* as the other side has them; NULL = unknown */
	PsTexts    *texts;			/* sent before; NULL = none */
	int			n_prepared;		/* names given so far */
	char	   *sql;			/* under way, for error contexts */
};

static HTAB *links = NULL;

/* Where this transaction writes remotely, and at which nesting level first. */
static uint32 write_node = 0;
static int	write_level = 0;

/* The node whose snapshot a REPEATABLE READ transaction has, 0 = none yet. */
static uint32 snapshot_node = 0;

/* Committed over there: a cancel before our own end comes too late. */
static bool is_holding = false;

/* Anything open?  Spares transactions without remote part the loop. */
static bool any_open = false;

uint32
ps_session_writes_at(void)
{
	return write_node;
}

static void
on_catalog_change(Datum arg, int cacheid, uint32 hash)
{
	HASH_SEQ_STATUS seq;
	PsLink	   *link;

	hash_seq_init(&seq, links);
	while ((link = hash_seq_search(&seq)) != NULL)
		link->is_stale = true;
}

static void
make_links(void)
{
	HASHCTL		control = {0};

	control.keysize = sizeof(LinkKey);
	control.entrysize = sizeof(PsLink);
	links = hash_create("payshard links", 16, &control, HASH_ELEM | HASH_BLOBS);
	CacheRegisterSyscacheCallback(FOREIGNSERVEROID, on_catalog_change, (Datum) 0);
	CacheRegisterSyscacheCallback(USERMAPPINGOID, on_catalog_change, (Datum) 0);
}

static void
forget_settings(PsLink *link)
{
	if (link->settings)
		pfree(link->settings);
	link->settings = NULL;
}

/* Closes; depth stays: what was open there is lost. */
static void
close_link(PsLink *link)
{
	if (link->conn)
		ps_conn_close(link->conn);
	link->conn = NULL;
	link->is_busy = false;
	link->is_changing = false;
	link->n_prepared = 0;
	forget_settings(link);
	ps_texts_forget(&link->texts);
}

/* Has the node failed, or started again, since the connection was opened? */
static bool
is_gone(void *arg)
{
	PsLink	   *link = arg;

	return !ps_map_is_up(link->key.node, link->incarnation) ||
		(link->is_trying && ps_suspicion(link->key.node, NULL) != NULL);
}

/*
 * Waits for input until `deadline` (0 = for ever); false when time is up, or
 * when the node has failed over meanwhile: it may stand still for ever.
 */
static bool
wait_input(PsLink *link, PsTime deadline)
{
	int			events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | WL_SOCKET_READABLE;
	int			unsent = PQflush(link->conn);
	long		left = LOOK_MS;
	int			rc;

	if (unsent < 0 || PQsocket(link->conn) < 0)
		return false;
	if (unsent > 0)
		events |= WL_SOCKET_WRITEABLE;
	if (deadline != 0)
	{
		left = Min(left, ps_ms_left(deadline));
		if (left <= 0)
			return false;
	}
	rc = WaitLatchOrSocket(MyLatch, events, PQsocket(link->conn), left, PG_WAIT_EXTENSION);
	if (rc & WL_TIMEOUT)
		return !is_gone(link);
	if (rc & WL_LATCH_SET)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (rc & WL_SOCKET_READABLE)
		return PQconsumeInput(link->conn) != 0;
	return true;
}

/* The next result; *is_lost when the connection is gone or time is up. */
static PGresult *
next_result(PsLink *link, PsTime deadline, bool *is_lost)
{
	*is_lost = false;
	while (PQisBusy(link->conn))
	{
		if (!wait_input(link, deadline))
		{
			*is_lost = true;
			return NULL;
		}
	}
	return PQgetResult(link->conn);
}

/* Reads all results; the last, or NULL when the connection is lost. */
static PGresult *
last_result(PsLink *link, PsTime deadline)
{
	PGresult   *last = NULL;
	PGresult   *result;
	bool		is_lost;

	while ((result = next_result(link, deadline, &is_lost)) != NULL)
	{
		/* of several the first error counts */
		if (last && PQresultStatus(last) == PGRES_FATAL_ERROR)
		{
			PQclear(result);
			continue;
		}
		PQclear(last);
		last = result;
		if (PQstatus(link->conn) == CONNECTION_BAD)
			is_lost = true;
		if (is_lost)
			break;
	}
	if (is_lost)
	{
		PQclear(last);
		return NULL;
	}
	return last;
}

static void
lost(PsLink *link)
{
	char	   *why = link->conn ? pchomp(PQerrorMessage(link->conn)) : pstrdup("");

	close_link(link);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 errmsg("connection to node \"%s\" was lost", ps_map_node_name(link->key.node)),
			 why[0] ? errdetail_internal("%s", why) : 0,
			 errhint("The transaction is rolled back; retry it.")));
}

/* The node is not the primary, or may not serve now; nothing was done. */
static bool
is_refusal(const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return state && (strcmp(state, "25006") == 0 || strcmp(state, "57P03") == 0) && !XactReadOnly;
}

/* A remote error becomes ours; the result is cleared. */
static void
throw_remote(PsLink *link, PGresult *result, const char *sql)
{
	char	   *node = ps_map_node_name(link->key.node);

	if (is_refusal(result))
	{
		char	   *why = ps_conn_why(result, link->conn);

		PQclear(result);
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("node \"%s\" does not accept this statement now", node),
				 errdetail("It says: %s.", why),
				 errhint("The placement of the shard has changed or is changing; retry the "
				         "transaction.")));
	}
	ps_conn_throw(result, link->conn, node, sql);
}

/* A command that changes the state of the remote transaction; false = lost. */
static bool
try_command(PsLink *link, const char *sql)
{
	PGresult   *result;

	link->is_changing = true;
	if (ps_log_remote)
		ereport(LOG, (errmsg("payshard sends to node %u: %s", link->key.node, sql)));
	if (!PQsendQuery(link->conn, sql) || (result = last_result(link, 0)) == NULL)
		return false;
	if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
		throw_remote(link, result, sql);
	PQclear(result);
	link->is_changing = false;
	return true;
}

static void
command(PsLink *link, const char *sql)
{
	if (!try_command(link, sql))
		lost(link);
}

/* may_fail: when the node cannot be reached the link stays closed, no error. */
static void
open_link(PsLink *link, bool may_fail)
{
	char	   *error = NULL;
	char	   *node = ps_map_node_name(link->key.node);

	ps_conn_require_credentials(node, link->key.user, NULL);
	link->incarnation = ps_map_node_incarnation(link->key.node);
	link->conn = ps_conn_open_unless(node, link->key.user, "session",
									 ps_deadline(ps_call_timeout_ms),
									 may_fail ? is_gone : NULL, link, &error);
	if (link->conn == NULL && ps_conn_is_refused(error))
		ps_suspicion_refused(link->key.node);
	if (link->conn == NULL && may_fail)
		return;
	if (link->conn == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 errmsg("could not connect to node \"%s\"", node),
				 errdetail_internal("%s", error),
				 errhint("See payshard.nodes; when the node has failed, its shards are served "
				         "again after a failover.")));
	link->is_stale = false;
	link->is_busy = false;
	link->is_changing = true;	/* closed, should the next step throw */
	ps_conn_require_credentials(node, link->key.user, link->conn);
	link->is_changing = false;
}

static void
note_settings(PsLink *link, const char *settings)
{
	forget_settings(link);
	link->settings = MemoryContextStrdup(TopMemoryContext, settings);
}

/* Settings only, also for a statement that needs no transaction there. */
static void
follow_settings(PsLink *link)
{
	char	   *settings = ps_mirror_settings();

	if (link->settings && strcmp(settings, link->settings) == 0)
		return;
	forget_settings(link);
	command(link, settings);
	note_settings(link, settings);
}

/* Begins there; false = the connection is lost. */
static bool
begin_there(PsLink *link)
{
	char	   *settings = ps_mirror_settings();
	bool		same = link->settings && strcmp(settings, link->settings) == 0;
	StringInfoData sql;

	any_open = true;
	initStringInfo(&sql);
	appendStringInfo(&sql, "START TRANSACTION ISOLATION LEVEL %s%s",
					 IsolationUsesXactSnapshot() ? "REPEATABLE READ" : "READ COMMITTED",
					 XactReadOnly ? " READ ONLY" : " READ WRITE");
	if (!same)
		appendStringInfo(&sql, "; %s", settings);
	if (!try_command(link, sql.data))
		return false;
	link->depth = 1;
	if (!same)
		note_settings(link, settings);
	return true;
}

/* Begins there, and follows our savepoints. */
static void
follow_transaction(PsLink *link)
{
	if (link->depth > 0)
		follow_settings(link);
	else if (!begin_there(link))
		lost(link);
	while (link->depth < GetCurrentTransactionNestLevel())
	{
		command(link, psprintf("SAVEPOINT s%d", link->depth + 1));
		link->depth++;
	}
}

/* A statement outside a block, whose transaction ends with it? */
static bool
is_alone(void)
{
	return !IsTransactionBlock() && GetCurrentTransactionNestLevel() == 1 &&
		!IsolationUsesXactSnapshot();
}

/* At most one node is written in one transaction. */
static void
claim_write(uint32 node)
{
	ps_session_require_writer();
	if (write_node != 0 && write_node != node)
		ps_refuse_two_writers(write_node, node);
	if (write_node == 0 && ps_local_has_written())
		ps_refuse_two_writers(0, node);
	if (write_node == 0)
	{
		write_node = node;
		write_level = GetCurrentTransactionNestLevel();
	}
}

void
ps_session_require_writer(void)
{
	HASH_SEQ_STATUS seq;
	PsLink	   *link;

	if (write_node == 0)
		return;
	hash_seq_init(&seq, links);
	while ((link = hash_seq_search(&seq)) != NULL)
	{
		if (link->key.node != write_node || link->depth == 0 ||
			(link->conn != NULL && !is_gone(link)))
			continue;
		hash_seq_term(&seq);
		lost(link);
	}
}

void
ps_session_claim(uint32 node)
{
	if (!IsolationUsesXactSnapshot())
		return;
	if (snapshot_node != 0 && snapshot_node != node)
		ps_refuse_two_snapshots(snapshot_node, node);
	snapshot_node = node;
}

/* The link; one that is of no more use, and outside a transaction, is closed. */
static PsLink *
find_link(uint32 node, Oid user)
{
	LinkKey		key = {node, user};
	PsLink	   *link;
	bool		found;

	if (links == NULL)
		make_links();
	link = hash_search(links, &key, HASH_ENTER, &found);
	if (!found)
		memset((char *) link + sizeof(LinkKey), 0, sizeof(PsLink) - sizeof(LinkKey));
	link->is_trying = false;
	if (link->conn && link->depth == 0 &&
		(link->is_stale || link->is_changing || PQstatus(link->conn) == CONNECTION_BAD))
		close_link(link);
	return link;
}

bool
ps_link_reach(uint32 node, Oid user, PsLinkUse use)
{
	PsLink	   *link = find_link(node, user);

	if (link->depth > 0 || link->is_busy)
		return true;
	link->is_trying = true;
	/* what came unasked is news of its end */
	if (link->conn &&
		(!PQconsumeInput(link->conn) || PQstatus(link->conn) == CONNECTION_BAD || is_gone(link)))
		close_link(link);
	if (link->conn == NULL)
		open_link(link, true);
	if (link->conn && !(use == PS_LINK_READ && is_alone()) && !begin_there(link))
		close_link(link);
	link->is_trying = false;
	return link->conn != NULL;
}

PsLink *
ps_link(uint32 node, Oid user, PsLinkUse use)
{
	PsLink	   *link;

	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use another node during a parallel operation"),
				 errhint("Mark the function PARALLEL UNSAFE.")));
	if (XactReadOnly && use == PS_LINK_WRITE)
		use = PS_LINK_LOCK;
	ps_session_claim(node);
	if (use == PS_LINK_WRITE)
		claim_write(node);
	link = find_link(node, user);
	if (link->conn == NULL && link->depth > 0)
		lost(link);
	if (link->is_busy || link->is_changing)
		elog(ERROR, "connection to node %u is busy", node);
	if (link->conn == NULL)
		open_link(link, false);
	any_open = true;
	link->had_changed = link->has_changed;
	link->has_changed |= use != PS_LINK_READ;
	link->may_refuse = link->is_refused = false;
	if (use == PS_LINK_READ && link->depth == 0 && is_alone())
		follow_settings(link);
	else
		follow_transaction(link);
	return link;
}

PGconn *
ps_session(uint32 node, bool may_write)
{
	return ps_link(node, GetUserId(), may_write ? PS_LINK_WRITE : PS_LINK_LOCK)->conn;
}

/* The entry of a text; makes room for it on both sides when there are too many. */
static PsText *
remember(PsLink *link, const char *sql, const PsLinkParams *params, bool *found)
{
	if (ps_texts_is_full(link->texts))
	{
		ps_texts_forget(&link->texts);
		command(link, "DEALLOCATE ALL");
	}
	return ps_texts_find(&link->texts, sql, params ? params->n : 0, params ? params->types : NULL,
						 params ? params->shape : 0, found);
}

/* Prepares a text; names are never used twice on a connection. */
static void
prepare(PsLink *link, PsText *statement, const PsLinkParams *params)
{
	char		name[16];
	int			number = ++link->n_prepared;
	PGresult   *result;

	snprintf(name, sizeof(name), "s%d", number);
	link->is_changing = true;
	if (!PQsendPrepare(link->conn, name, statement->sql, params ? params->n : 0,
					   params ? params->types : NULL))
		lost(link);
	result = last_result(link, 0);
	if (result == NULL)
		lost(link);
	link->is_changing = false;
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		throw_remote(link, result, statement->sql);
	PQclear(result);
	statement->name = number;
}

void
ps_link_send(PsLink *link, const char *sql, const PsLinkParams *params, bool is_binary)
{
	bool		found;
	PsText	   *statement = remember(link, sql, params, &found);
	int			n = params ? params->n : 0;
	int			ok;

	if (statement && found && statement->name == 0)
		prepare(link, statement, params);
	if (ps_log_remote)
		ereport(LOG, (errmsg("payshard sends to node %u: %s", link->key.node, sql)));
	link->sql = statement ? statement->sql : NULL;
	if (statement && statement->name > 0)
	{
		char		name[16];

		snprintf(name, sizeof(name), "s%d", statement->name);
		ok = PQsendQueryPrepared(link->conn, name, n, n ? params->values : NULL,
								 n ? params->lengths : NULL, n ? params->formats : NULL, is_binary);
	}
	else
		ok = PQsendQueryParams(link->conn, sql, n, n ? params->types : NULL,
							   n ? params->values : NULL, n ? params->lengths : NULL,
							   n ? params->formats : NULL, is_binary);
	if (!ok)
		lost(link);
	link->is_busy = true;
	PQsetSingleRowMode(link->conn);
	if (PQflush(link->conn) < 0)
		lost(link);
}

void
ps_link_try(PsLink *link)
{
	link->may_refuse = !link->had_changed && !IsolationUsesXactSnapshot();
}

PGresult *
ps_link_next(PsLink *link)
{
	bool		is_lost;
	PGresult   *result;

	if (!link->is_busy)
		return NULL;
	result = next_result(link, 0, &is_lost);
	if (is_lost)
		lost(link);
	if (result == NULL)
	{
		link->is_busy = false;
		return NULL;
	}
	if (PQresultStatus(result) == PGRES_FATAL_ERROR)
	{
		PGresult   *rest;

		if (PQstatus(link->conn) == CONNECTION_BAD)
		{
			PQclear(result);
			lost(link);
		}
		while ((rest = next_result(link, ps_deadline(ROLLBACK_MS), &is_lost)) != NULL)
			PQclear(rest);
		link->is_busy = is_lost;
		if (is_lost || !link->may_refuse || !is_refusal(result))
			throw_remote(link, result, link->sql);
		link->is_refused = true;
		PQclear(result);
		return NULL;
	}
	return result;
}

/* Sends a command amid an abort: false, and closed, when it did not work. */
static bool
command_quietly(PsLink *link, const char *sql)
{
	PGresult   *result = NULL;
	bool		ok;

	if (link->conn && PQstatus(link->conn) == CONNECTION_OK && PQsendQuery(link->conn, sql))
		result = last_result(link, ps_deadline(ROLLBACK_MS));
	ok = result && (PQresultStatus(result) == PGRES_COMMAND_OK);
	PQclear(result);
	if (!ok)
		close_link(link);
	return ok;
}

bool
ps_link_retreat(PsLink *link)
{
	if (!link->is_refused)
		return false;
	link->is_refused = link->has_changed = false;
	if (write_node == link->key.node)
		write_node = write_level = 0;
	if (link->depth > 0)
		command_quietly(link, "ROLLBACK");
	forget_settings(link);
	link->depth = 0;
	return true;
}

/* Makes the connection idle again after an error; false = it is closed. */
static bool
settle(PsLink *link)
{
	if (link->conn == NULL)
		return false;
	if (link->is_changing || PQstatus(link->conn) == CONNECTION_BAD)
	{
		close_link(link);
		return false;
	}
	if (link->is_busy)
	{
		PsTime		deadline = ps_deadline(ROLLBACK_MS);
		PGresult   *result;
		bool		is_lost = false;

		if (PQisBusy(link->conn))
			ps_conn_cancel(link->conn, deadline, is_gone, link);
		while ((result = next_result(link, deadline, &is_lost)) != NULL)
			PQclear(result);
		if (is_lost)
		{
			close_link(link);
			return false;
		}
		link->is_busy = false;
	}
	return true;
}

/* COMMIT where was only read. */
static void
commit_readers(void)
{
	HASH_SEQ_STATUS seq;
	PsLink	   *link;

	hash_seq_init(&seq, links);
	while ((link = hash_seq_search(&seq)) != NULL)
	{
		if (link->depth == 0 || link->key.node == write_node)
			continue;
		if (link->conn == NULL)
		{
			hash_seq_term(&seq);
			lost(link);
		}
		PG_TRY();
		{
			command(link, "COMMIT TRANSACTION");
			link->depth = 0;
		}
		PG_CATCH();
		{
			hash_seq_term(&seq);
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
}

/* Waits for the answer to COMMIT; a cancel is passed on, once. */
static PGresult *
await_commit(PsLink *link)
{
	PsTime		deadline = ps_deadline(ps_gate_timeout_ms + ps_commit_timeout_ms +
									   ps_abort_timeout_ms + ps_call_timeout_ms);
	bool		is_cancelled = false;
	PGresult   *last = NULL;
	PGresult   *result;

	for (;;)
	{
		while (PQisBusy(link->conn))
		{
			if (QueryCancelPending && !is_cancelled)
			{
				is_cancelled = true;
				ps_conn_cancel(link->conn, ps_deadline(ROLLBACK_MS), is_gone, link);
			}
			if (!wait_input(link, deadline))
			{
				PQclear(last);
				return NULL;
			}
		}
		result = PQgetResult(link->conn);
		if (result == NULL)
			break;
		PQclear(last);
		last = result;
		if (PQstatus(link->conn) == CONNECTION_BAD)
		{
			PQclear(last);
			return NULL;
		}
	}
	/* the cancel has done its work there, or came too late */
	if (is_cancelled && last && PQresultStatus(last) == PGRES_COMMAND_OK)
		QueryCancelPending = false;
	return last;
}

static void
unknown_outcome(PsLink *link)
{
	close_link(link);
	ereport(ERROR,
			(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
			 errmsg("it is not known whether the transaction has committed"),
			 errdetail("Node \"%s\" did not answer to COMMIT.", ps_map_node_name(link->key.node)),
			 errhint("Look whether the payment is there before you send it again.")));
}

/*
 * The other node has answered COMMIT with an error.  Where it was told to
 * end, and could not wait for the outcome, that error does not say aborted.
 */
static void
throw_commit(PsLink *link, PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	if (state && PQstatus(link->conn) != CONNECTION_BAD)
		ps_conn_throw(result, link->conn, ps_map_node_name(link->key.node), "COMMIT");
	PQclear(result);
	unknown_outcome(link);
}

/* COMMIT where was written: its answer is the outcome. */
static void
commit_writer(PsLink *link)
{
	PGresult   *result = NULL;
	char	   *node = ps_map_node_name(link->key.node);

	if (link->conn == NULL)
		lost(link);
	PS_FAULT("session.before_commit");
	HOLD_INTERRUPTS();
	link->is_changing = true;
	if (PQsendQuery(link->conn, "COMMIT TRANSACTION"))
		result = await_commit(link);
	RESUME_INTERRUPTS();
	if (result == NULL)
		unknown_outcome(link);
	link->is_changing = false;
	link->depth = 0;
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
	{
		forget_settings(link);
		throw_commit(link, result);
	}
	if (strcmp(PQcmdStatus(result), "COMMIT") != 0)
	{
		PQclear(result);
		forget_settings(link);
		ereport(ERROR,
				(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
				 errmsg("node \"%s\" has rolled the transaction back", node),
				 errhint("Retry the transaction.")));
	}
	PQclear(result);
	/* committed: no error may tell otherwise, only a crash can happen */
	HOLD_INTERRUPTS();
	is_holding = true;
	START_CRIT_SECTION();
	PS_FAULT("session.after_commit");
	END_CRIT_SECTION();
}

void
ps_session_pre_commit(void)
{
	HASH_SEQ_STATUS seq;
	PsLink	   *link;
	PsLink	   *writer = NULL;

	if (!any_open)
		return;
	if (write_node != 0 && ps_local_has_written())
	{
		ps_samemap_require();
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("a transaction cannot write at two nodes yet"),
				 errdetail("It has written at node \"%s\" and here.", ps_map_node_name(write_node)),
				 errhint("Write local tables in a transaction of their own.")));
	}
	commit_readers();
	hash_seq_init(&seq, links);
	while ((link = hash_seq_search(&seq)) != NULL)
	{
		if (link->depth == 0)
			continue;
		if (writer != NULL || link->key.node != write_node)
		{
			hash_seq_term(&seq);
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a transaction cannot write as two users at one node"),
					 errhint("Use one transaction per user.")));
		}
		writer = link;
	}
	if (writer)
		commit_writer(writer);
}

void
ps_session_at_end(bool is_commit)
{
	HASH_SEQ_STATUS seq;
	PsLink	   *link;

	/* an error has released them already */
	if (is_holding && is_commit)
		RESUME_INTERRUPTS();
	is_holding = false;
	ps_local_at_end();
	ps_samemap_at_end();
	write_node = 0;
	write_level = 0;
	snapshot_node = 0;
	if (!any_open)
		return;
	any_open = false;
	hash_seq_init(&seq, links);
	while ((link = hash_seq_search(&seq)) != NULL)
	{
		bool		was_open = link->depth > 0;

		if (settle(link) && was_open)
		{
			command_quietly(link, "ROLLBACK");
			forget_settings(link);
		}
		link->depth = 0;
		link->has_changed = false;
	}
}

/* Our nested transaction ends: so does the savepoint there. */
static void
end_savepoint(PsLink *link, int level, bool is_abort)
{
	if (is_abort)
	{
		if (settle(link))
			command_quietly(link, psprintf("ROLLBACK TO SAVEPOINT s%d; RELEASE SAVEPOINT s%d",
										   level, level));
		forget_settings(link);
	}
	else
	{
		if (link->conn == NULL)
			lost(link);
		command(link, psprintf("RELEASE SAVEPOINT s%d", level));
	}
	link->depth = level - 1;
}

void
ps_session_subxact(SubXactEvent event, SubTransactionId id)
{
	HASH_SEQ_STATUS seq;
	PsLink	   *link;
	int			level = GetCurrentTransactionNestLevel();
	bool		is_abort = event == SUBXACT_EVENT_ABORT_SUB;

	ps_local_subxact(event);
	if (!any_open || (!is_abort && event != SUBXACT_EVENT_PRE_COMMIT_SUB))
		return;
	hash_seq_init(&seq, links);
	while ((link = hash_seq_search(&seq)) != NULL)
	{
		PG_TRY();
		{
			if (link->depth >= level)
				end_savepoint(link, level, is_abort);
		}
		PG_CATCH();
		{
			hash_seq_term(&seq);
			PG_RE_THROW();
		}
		PG_END_TRY();
	}
	if (write_level >= level)
	{
		if (is_abort)
			write_node = write_level = 0;
		else
			write_level = level - 1;
	}
}
