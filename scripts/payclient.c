/*
 * payclient.c: a client that pays, and remembers what it was told.
 *
 *	payclient -i NAME -a ACCOUNTS -l LOG [-s SECONDS] [-p PAUSE_MS] CONNINFO [CONNINFO ...]
 *
 * One payment is one transaction: insert the payment, add its amount to the
 * balance of its account, an account at random.  The first conninfo is the node
 * it likes; while that does not answer, it goes to the next one, and looks every
 * second whether it can go back.  Ends after SECONDS or at SIGTERM, in both
 * cases with its last payment settled.
 *
 * Payment ids are NAME-1, NAME-2, ...; one that failed is never sent again, so that its
 * outcome can be looked up for ever.  The log has one line per payment, in
 * order, its fields separated by tabs:
 *
 *	id  account  amount  outcome  SQLSTATE  sent (ms since 1970)  took (us)  conninfo number
 *
 * outcome	what the client knows			it must be in the table
 * ack		COMMIT was answered with COMMIT	once
 * aborted	an error was the answer, or the	never
 *			connection broke before COMMIT was sent
 * unknown	08007 or 40003, or the connection broke, was terminated	once or never
 *			or kept silent while COMMIT was under way
 *
 * SQLSTATE is 00000 for ack, and 08006 or 08000 where the client itself noticed
 * that the connection broke or kept silent.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define AMOUNT_MAX		1000	/* cents: amounts are 1 .. AMOUNT_MAX */
#define ANSWER_MS		60000	/* silence after which a connection counts as broken */
#define CONNECT_S		"2"		/* seconds per attempt to connect */
#define RETRY_MS		100		/* pause when no node could be reached */
#define HOME_MS			1000	/* how often it looks for the node it likes */

static const char *name;
static long accounts;
static long pause_ms = 0;
static char **conninfos;
static int	n_conninfos;

static FILE *log_file;
static PGconn *conn;
static int	at;					/* which conninfo conn belongs to */
static int64_t home_tried;		/* when it last looked for conninfo 0 */
static uint64_t random_state;
static volatile sig_atomic_t stop;

static void
on_term(int signo)
{
	(void) signo;
	stop = 1;
}

static int64_t
now_us(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t) t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* xorshift64*: every client its own numbers, the same in every run. */
static uint64_t
next_random(void)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return random_state * UINT64_C(2685821657736338717);
}

static void
sleep_ms(long ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

static void
disconnect(void)
{
	PQfinish(conn);
	conn = NULL;
}

/* Waits until the answer can be read without blocking; false: broken or silent. */
static bool
await_answer(char *sqlstate)
{
	int64_t		deadline = now_us(CLOCK_MONOTONIC) + ANSWER_MS * INT64_C(1000);

	while (PQisBusy(conn))
	{
		struct pollfd fd = {PQsocket(conn), POLLIN, 0};
		int64_t		left_ms = (deadline - now_us(CLOCK_MONOTONIC)) / 1000;

		if (left_ms <= 0)
		{
			strcpy(sqlstate, "08000");
			return false;
		}
		if ((poll(&fd, 1, (int) left_ms) < 0 && errno != EINTR) || !PQconsumeInput(conn))
			return false;
	}
	return true;
}

/*
 * run
 *		Sends one prepared statement and waits for its answer.
 *
 * Returns PGRES_COMMAND_OK, PGRES_FATAL_ERROR (the server said no and is still there),
 * or PGRES_BAD_RESPONSE (the connection is of no more use).  sqlstate: 6
 * bytes.  tag: 16 bytes, the command tag.
 */
static ExecStatusType
run(const char *statement, int n_params, const char *const *params, char *sqlstate, char *tag)
{
	ExecStatusType status = PGRES_BAD_RESPONSE;
	PGresult   *result;

	strcpy(sqlstate, "08006");
	tag[0] = '\0';
	if (!PQsendQueryPrepared(conn, statement, n_params, params, NULL, NULL, 0))
		return PGRES_BAD_RESPONSE;
	for (;;)
	{
		const char *state;

		if (!await_answer(sqlstate))
			return PGRES_BAD_RESPONSE;
		if ((result = PQgetResult(conn)) == NULL)
			break;
		if ((status = PQresultStatus(result)) == PGRES_COMMAND_OK)
		{
			strcpy(sqlstate, "00000");
			snprintf(tag, 16, "%s", PQcmdStatus(result));
		}
		else if ((state = PQresultErrorField(result, PG_DIAG_SQLSTATE)) != NULL)
			snprintf(sqlstate, 6, "%s", state);
		PQclear(result);
	}
	return PQstatus(conn) == CONNECTION_OK ? status : PGRES_BAD_RESPONSE;
}

/* Prepares what a payment needs; false: this node is not ready for us. */
static bool
prepare(PGconn *new)
{
	static const char *const statements[][2] = {
		{"begin", "BEGIN"},
		{"insert", "INSERT INTO payments (account_id, payment_id, amount) VALUES ($1, $2, $3)"},
		{"update", "UPDATE accounts SET balance = balance + $2 WHERE account_id = $1"},
		{"commit", "COMMIT"},
		{"rollback", "ROLLBACK"},
	};

	for (size_t i = 0; i < sizeof(statements) / sizeof(statements[0]); i++)
	{
		PGresult   *result = PQprepare(new, statements[i][0], statements[i][1], 0, NULL);
		bool		ok = PQresultStatus(result) == PGRES_COMMAND_OK;

		PQclear(result);
		if (!ok)
			return false;
	}
	return true;
}

/* A connection ready for payments, or NULL. */
static PGconn *
connect_to(int which)
{
	const char *keys[] = {"dbname", "connect_timeout", "application_name", NULL};
	const char *values[] = {conninfos[which], CONNECT_S, name, NULL};
	PGconn	   *new = PQconnectdbParams(keys, values, 1);

	if (PQstatus(new) == CONNECTION_OK && prepare(new))
		return new;
	PQfinish(new);
	return NULL;
}

/* Sees to it that there is a connection, to the node it likes if that answers. */
static void
connect_somewhere(void)
{
	PGconn	   *home;

	if (conn != NULL && at != 0 && now_us(CLOCK_MONOTONIC) - home_tried > HOME_MS * INT64_C(1000))
	{
		home_tried = now_us(CLOCK_MONOTONIC);
		if ((home = connect_to(0)) != NULL)
		{
			disconnect();
			conn = home;
			at = 0;
		}
	}
	while (conn == NULL && !stop)
	{
		for (at = 0; at < n_conninfos && conn == NULL; at++)
			conn = connect_to(at);
		at--;
		if (conn == NULL)
			sleep_ms(RETRY_MS);
	}
}

/* One payment, to its outcome. */
static const char *
pay(const char *id, long account, long amount, char *sqlstate)
{
	char		account_text[24],
				amount_text[24],
				tag[16],
				ignored[6];
	const char *insert_params[] = {account_text, id, amount_text};
	const char *update_params[] = {account_text, amount_text};
	ExecStatusType status;

	snprintf(account_text, sizeof(account_text), "%ld", account);
	snprintf(amount_text, sizeof(amount_text), "%ld", amount);

	if ((status = run("begin", 0, NULL, sqlstate, tag)) == PGRES_COMMAND_OK &&
		(status = run("insert", 3, insert_params, sqlstate, tag)) == PGRES_COMMAND_OK)
	{
		status = run("update", 2, update_params, sqlstate, tag);
		if (status == PGRES_COMMAND_OK && strcmp(tag, "UPDATE 1") != 0)
		{
			status = PGRES_FATAL_ERROR;
			strcpy(sqlstate, "02000");
		}
	}
	if (status != PGRES_COMMAND_OK)
	{
		if (status == PGRES_BAD_RESPONSE || run("rollback", 0, NULL, ignored, tag) != PGRES_COMMAND_OK)
			disconnect();
		return "aborted";
	}

	/* From here on a lost answer leaves both outcomes possible. */
	status = run("commit", 0, NULL, sqlstate, tag);
	if (status == PGRES_COMMAND_OK)
		return strcmp(tag, "COMMIT") == 0 ? "ack" : "aborted";
	if (status == PGRES_BAD_RESPONSE)
		disconnect();
	if (status == PGRES_BAD_RESPONSE || strcmp(sqlstate, "08007") == 0 || strcmp(sqlstate, "40003") == 0)
		return "unknown";
	return "aborted";
}

static void
read_arguments(int argc, char **argv, long *seconds)
{
	int			option;

	while ((option = getopt(argc, argv, "i:a:l:s:p:")) != -1)
	{
		if (option == 'i')
			name = optarg;
		else if (option == 'a')
			accounts = atol(optarg);
		else if (option == 'l')
			log_file = fopen(optarg, "a");
		else if (option == 's')
			*seconds = atol(optarg);
		else if (option == 'p')
			pause_ms = atol(optarg);
	}
	conninfos = argv + optind;
	n_conninfos = argc - optind;
	if (name == NULL || accounts <= 0 || log_file == NULL || n_conninfos == 0)
	{
		fprintf(stderr, "usage: payclient -i NAME -a ACCOUNTS -l LOG [-s SECONDS] [-p PAUSE_MS] CONNINFO ...\n");
		exit(2);
	}
}

int
main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_term};
	long		seconds = 0;
	int64_t		started = now_us(CLOCK_MONOTONIC);

	read_arguments(argc, argv, &seconds);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	setvbuf(log_file, NULL, _IOLBF, 0);
	random_state = UINT64_C(88172645463325252);
	for (const char *c = name; *c != '\0'; c++)
		random_state = (random_state ^ (unsigned char) *c) * UINT64_C(1099511628211);

	for (long n = 1; !stop && (seconds == 0 || now_us(CLOCK_MONOTONIC) - started < seconds * 1000000);)
	{
		char		id[64];
		char		sqlstate[6];
		long		account = 1 + (long) (next_random() % (uint64_t) accounts);
		long		amount = 1 + (long) (next_random() % AMOUNT_MAX);
		int64_t		sent_ms,
					sent;
		const char *outcome;
		int			used;

		connect_somewhere();
		if (conn == NULL)
			break;
		used = at + 1;
		snprintf(id, sizeof(id), "%s-%ld", name, n++);
		sent_ms = now_us(CLOCK_REALTIME) / 1000;
		sent = now_us(CLOCK_MONOTONIC);
		outcome = pay(id, account, amount, sqlstate);
		fprintf(log_file, "%s\t%ld\t%ld\t%s\t%s\t%" PRId64 "\t%" PRId64 "\t%d\n", id, account, amount,
				outcome, sqlstate, sent_ms, now_us(CLOCK_MONOTONIC) - sent, used);
		if (pause_ms > 0)
			sleep_ms(pause_ms);
	}
	disconnect();
	return fclose(log_file) == 0 ? 0 : 1;
}
