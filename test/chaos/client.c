/*
 * client.c: one client of the chaos harness; what was it told about each of its operations?
 *
 *	chaosclient KIND NUMBER ACCOUNTS PAUSE_MS ANSWER_MS LOG CONNINFO
 *
 * Speaks to one node only and connects again when it must.  Obeys lines on its
 * standard input: "run ROUND", "pause" (answered with "paused ROUND" in the log, the
 * operation under way settled before), "quit", and the end of the input, which is quit.
 *
 * ACCOUNTS is how many there are; -17: account 17 only.
 *
 * KIND		what one operation is
 * post		pay, on one account: whatever holds up other shards, this client goes on in its own
 * pay		a payment and the balance of its account, one transaction; now and then its last
 *			acknowledged payment is read again
 * hot		the same, all on two accounts: clients wait for each other's row locks
 * race		a key that depends on the time only: clients of one moment insert the same
 * save		two payments with one between them that is rolled back to a savepoint
 * big		a row of a megabyte replaced by another one
 * retry	a payment by ON CONFLICT DO NOTHING, sent again until it is acknowledged
 *
 * The log, appended only, fields separated by blanks, times in ms since 1970:
 *
 *	s ID KIND ROUND ACCOUNT AMOUNT MS	begun; for race ACCOUNT is the key
 *	a ID MS								acknowledged
 *	f ID STATE MS						failed: there is nothing of it
 *	u ID STATE MS						failed, and nobody knows
 *	r ID MS								an acknowledged payment was read and not found
 *	paused ROUND
 *
 * An operation fails (f) when an error was the answer that says so, or the
 * connection broke before COMMIT was sent.  STATE is 08006 or 08000 where the client
 * itself noticed that the connection broke or kept silent.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpq-fe.h>

#define BIG_BYTES		(1024 * 1024)
#define RETRY_MS		50		/* pause when the node could not be reached */
#define RACE_MS			200		/* so long a key of a race is the same */
#define READ_ONE_IN		5		/* operations after which an own payment is read */

typedef enum
{
	DONE,						/* acknowledged */
	FAILED,						/* nothing of it is there */
	UNKNOWN
} Outcome;

static const char *kind;
static int	number;
static int	accounts;
static int	pause_ms;
static int	answer_ms;
static const char *conninfo;

static int	log_fd;
static PGconn *conn;
static char state[6];			/* SQLSTATE of the last failure */
static int64_t next_id;
static int64_t last_paid,
			last_account;		/* its last acknowledged payment */
static uint64_t random_state;
static long round_number;
static bool running,
			quitting;
static char *big;

static int64_t
now_ms(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
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

/* One line into the log. */
static void
record(const char *format, ...)
{
	char		line[256];
	va_list		args;
	int			n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (write(log_fd, line, n) != n)
		exit(3);
}

static void
disconnect(void)
{
	PQfinish(conn);
	conn = NULL;
}

/* Reads orders until there is something to do; waits at most so long if running. */
static void
obey(int wait_ms)
{
	static char buffer[256];
	static size_t used;
	char	   *end;

	while (!quitting)
	{
		struct pollfd fd = {0, POLLIN, 0};
		ssize_t		n;

		if (poll(&fd, 1, running ? wait_ms : -1) == 0)
			return;
		n = read(0, buffer + used, sizeof(buffer) - 1 - used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			quitting = true;
			return;
		}
		used += n;
		buffer[used] = '\0';
		while ((end = strchr(buffer, '\n')) != NULL)
		{
			*end = '\0';
			if (sscanf(buffer, "run %ld", &round_number) == 1)
				running = true;
			else if (strcmp(buffer, "pause") == 0)
			{
				running = false;
				record("paused %ld\n", round_number);
			}
			else
				quitting = true;
			used -= end + 1 - buffer;
			memmove(buffer, end + 1, used + 1);
		}
	}
}

/* Waits until the answer can be read without blocking; false: broken or silent. */
static bool
await_answer(void)
{
	int64_t		deadline = now_ms(CLOCK_BOOTTIME) + answer_ms;

	while (PQisBusy(conn))
	{
		struct pollfd fd = {PQsocket(conn), POLLIN, 0};
		int64_t		left_ms = deadline - now_ms(CLOCK_BOOTTIME);

		if (left_ms <= 0)
		{
			strcpy(state, "08000");
			return false;
		}
		if ((poll(&fd, 1, (int) left_ms) < 0 && errno != EINTR) || !PQconsumeInput(conn))
			return false;
	}
	return true;
}

/*
 * run
 *		Sends one statement and waits for its answer; parameters as text.
 *
 * Returns DONE, FAILED (the server said no and is still there), or UNKNOWN (the
 * connection is of no more use).  answer, if not NULL: the command tag, or the one value.
 */
static Outcome
run(const char *sql, int n_params, const char *const *params, char *answer, size_t size)
{
	Outcome		outcome = UNKNOWN;
	PGresult   *result;

	strcpy(state, "08006");
	if (!PQsendQueryParams(conn, sql, n_params, NULL, params, NULL, NULL, 0))
		return UNKNOWN;
	for (;;)
	{
		const char *code;

		if (!await_answer())
			return UNKNOWN;
		if ((result = PQgetResult(conn)) == NULL)
			break;
		if (PQresultStatus(result) == PGRES_COMMAND_OK || PQresultStatus(result) == PGRES_TUPLES_OK)
		{
			outcome = DONE;
			if (answer != NULL)
				snprintf(answer, size, "%s", PQntuples(result) == 1 && PQnfields(result) == 1
						 ? PQgetvalue(result, 0, 0) : PQcmdStatus(result));
		}
		else
		{
			outcome = FAILED;
			if ((code = PQresultErrorField(result, PG_DIAG_SQLSTATE)) != NULL)
				snprintf(state, sizeof(state), "%s", code);
		}
		PQclear(result);
	}
	if (PQstatus(conn) != CONNECTION_OK)
		return UNKNOWN;
	return outcome;
}

/* What an error after COMMIT was sent means: some leave the outcome open. */
static Outcome
judge(Outcome outcome)
{
	if (outcome == FAILED &&
		(strncmp(state, "08", 2) == 0 || strcmp(state, "40003") == 0 || strcmp(state, "57P01") == 0 ||
		 strcmp(state, "57P02") == 0 || strcmp(state, "57P05") == 0))
		return UNKNOWN;
	return outcome;
}

/* COMMIT; one that is answered with ROLLBACK has failed. */
static Outcome
commit(void)
{
	char		tag[32] = "";
	Outcome		outcome = judge(run("COMMIT", 0, NULL, tag, sizeof(tag)));

	if (outcome == DONE && strcmp(tag, "COMMIT") != 0)
	{
		strcpy(state, "25P02");
		return FAILED;
	}
	return outcome;
}

/* A statement within a transaction; it must do one row.  Whatever fails here is undone. */
static Outcome
step(const char *sql, int n_params, const char *const *params)
{
	char		tag[32] = "",
				kept[6];
	Outcome		outcome = run(sql, n_params, params, tag, sizeof(tag));

	if (outcome == DONE && strncmp(tag, "UPDATE", 6) == 0 && strcmp(tag, "UPDATE 1") != 0)
	{
		strcpy(state, "02000");
		outcome = FAILED;
	}
	if (outcome == DONE)
		return DONE;
	strcpy(kept, state);
	if (outcome == UNKNOWN || run("ROLLBACK", 0, NULL, NULL, 0) != DONE)
		disconnect();
	strcpy(state, kept);
	return FAILED;
}

#define INSERT_PAYMENT "INSERT INTO payments (account_id, id, round, amount) VALUES ($1, $2, $3, $4)"
#define UPDATE_BALANCE "UPDATE accounts SET balance = balance + $2 WHERE id = $1"

typedef struct
{
	int64_t		id;
	int64_t		account;
	int64_t		amount;
	char		id_text[24],
				undone_text[24],
				account_text[24],
				amount_text[24],
				round_text[24],
				number_text[24];
} Operation;

static Outcome
pay(const Operation *o)
{
	const char *payment[] = {o->account_text, o->id_text, o->round_text, o->amount_text};
	const char *balance[] = {o->account_text, o->amount_text};

	if (step("BEGIN", 0, NULL) != DONE ||
		step(INSERT_PAYMENT, 4, payment) != DONE ||
		step(UPDATE_BALANCE, 2, balance) != DONE)
		return FAILED;
	return commit();
}

/* The payment -id is taken back. */
static Outcome
save(const Operation *o)
{
	const char *payment[] = {o->account_text, o->id_text, o->round_text, o->amount_text};
	const char *undone[] = {o->account_text, o->undone_text, o->round_text, o->amount_text};
	const char *balance[] = {o->account_text, o->amount_text};

	if (step("BEGIN", 0, NULL) != DONE ||
		step("SAVEPOINT a", 0, NULL) != DONE ||
		step(INSERT_PAYMENT, 4, undone) != DONE ||
		step(UPDATE_BALANCE, 2, balance) != DONE ||
		step("ROLLBACK TO a", 0, NULL) != DONE ||
		step(INSERT_PAYMENT, 4, payment) != DONE ||
		step("SAVEPOINT b", 0, NULL) != DONE ||
		step(UPDATE_BALANCE, 2, balance) != DONE ||
		step("RELEASE b", 0, NULL) != DONE)
		return FAILED;
	return commit();
}

static Outcome
race(const Operation *o)
{
	const char *params[] = {o->account_text, o->id_text, o->round_text};

	return judge(run("INSERT INTO keys (key, owner, round) VALUES ($1, $2, $3)", 3, params, NULL, 0));
}

static Outcome
replace_big(const Operation *o)
{
	const char *params[] = {o->account_text, o->number_text, o->id_text, big};

	for (int i = 0; i < BIG_BYTES; i += 12)
		snprintf(big + i, 13, "%012" PRIx64, next_random() & UINT64_C(0xffffffffffff));
	return judge(run("INSERT INTO blobs (account_id, id, op, body, sum) VALUES ($1, $2, $3, $4, md5($4)) "
					 "ON CONFLICT (account_id, id) DO UPDATE SET op = excluded.op, body = excluded.body, sum = excluded.sum",
					 4, params, NULL, 0));
}

static Outcome
pay_once(const Operation *o)
{
	const char *params[] = {o->account_text, o->id_text, o->round_text, o->amount_text};

	return judge(run("WITH p AS (INSERT INTO payments (account_id, id, round, amount) VALUES ($1, $2, $3, $4) "
					 "ON CONFLICT DO NOTHING RETURNING amount) "
					 "UPDATE accounts a SET balance = balance + p.amount FROM p WHERE a.id = $1",
					 4, params, NULL, 0));
}

/* Is the last acknowledged payment there?  An error is no answer. */
static void
read_last(void)
{
	char		id_text[24],
				account_text[24],
				found[32] = "";
	const char *params[] = {account_text, id_text};
	Outcome		outcome;

	snprintf(id_text, sizeof(id_text), "%" PRId64, last_paid);
	snprintf(account_text, sizeof(account_text), "%" PRId64, last_account);
	outcome = run("SELECT count(*) FROM payments WHERE account_id = $1 AND id = $2", 2, params, found, sizeof(found));
	if (outcome == DONE && strcmp(found, "1") != 0)
		record("r %" PRId64 " %" PRId64 "\n", last_paid, now_ms(CLOCK_REALTIME));
	if (outcome == UNKNOWN)
		disconnect();
}

static Outcome
perform(const Operation *o)
{
	switch (kind[0])
	{
		case 's':
			return save(o);
		case 'b':
			return replace_big(o);
		case 'r':
			return kind[1] == 'a' ? race(o) : pay_once(o);
		default:
			return pay(o);
	}
}

/* What a server says as it goes down is of no use here. */
static void
ignore_notice(void *nobody, const PGresult *notice)
{
	(void) nobody;
	(void) notice;
}

/* Sees to it that there is a connection; false: not yet. */
static bool
connect_to_node(void)
{
	char		name[32];
	const char *keys[] = {"dbname", "connect_timeout", "application_name", NULL};
	const char *values[] = {conninfo, "2", name, NULL};

	if (conn != NULL)
		return true;
	snprintf(name, sizeof(name), "chaos %s %d", kind, number);
	conn = PQconnectdbParams(keys, values, 1);
	if (PQstatus(conn) == CONNECTION_OK)
	{
		PQsetNoticeReceiver(conn, ignore_notice, NULL);
		return true;
	}
	disconnect();
	return false;
}

/* The next operation, recorded as begun. */
static void
begin(Operation *o)
{
	o->id = (int64_t) number * 1000000000 + ++next_id;
	o->account = accounts < 0 ? -accounts : 1 + next_random() % (strcmp(kind, "hot") == 0 ? 2 : accounts);
	if (strcmp(kind, "race") == 0)
		o->account = now_ms(CLOCK_REALTIME) / RACE_MS;
	if (strcmp(kind, "big") == 0)
		o->account = 1 + number % accounts;
	o->amount = 1 + next_random() % 97;
	snprintf(o->id_text, sizeof(o->id_text), "%" PRId64, o->id);
	snprintf(o->undone_text, sizeof(o->undone_text), "%" PRId64, -o->id);
	snprintf(o->account_text, sizeof(o->account_text), "%" PRId64, o->account);
	snprintf(o->amount_text, sizeof(o->amount_text), "%" PRId64, o->amount);
	snprintf(o->round_text, sizeof(o->round_text), "%ld", round_number);
	snprintf(o->number_text, sizeof(o->number_text), "%d", number);
	record("s %s %s %ld %s %s %" PRId64 "\n", o->id_text, kind, round_number, o->account_text, o->amount_text,
		   now_ms(CLOCK_REALTIME));
}

/*
 * One operation to its outcome, which is recorded.  "retry" goes on until it is
 * acknowledged; what it failed with is recorded each time.
 */
static void
operate(void)
{
	bool		again = strcmp(kind, "retry") == 0;
	Operation	o;
	Outcome		outcome;

	begin(&o);
	do
	{
		while (!connect_to_node() && !quitting)
			usleep(RETRY_MS * 1000);
		if (quitting)
			return;
		outcome = perform(&o);
		if (outcome == DONE)
			record("a %" PRId64 " %" PRId64 "\n", o.id, now_ms(CLOCK_REALTIME));
		else
			record("%c %" PRId64 " %s %" PRId64 "\n", outcome == UNKNOWN ? 'u' : 'f', o.id, state, now_ms(CLOCK_REALTIME));
		if (outcome == UNKNOWN && conn != NULL && (PQstatus(conn) != CONNECTION_OK ||
												   PQtransactionStatus(conn) != PQTRANS_IDLE))
			disconnect();
		if (outcome != DONE && again)
			usleep(RETRY_MS * 1000);
	} while (again && outcome != DONE);
	if (outcome == DONE && kind[0] == 'p')
	{
		last_paid = o.id;
		last_account = o.account;
	}
}

int
main(int argc, char **argv)
{
	if (argc != 8)
	{
		fprintf(stderr, "chaosclient: KIND NUMBER ACCOUNTS PAUSE_MS ANSWER_MS LOG CONNINFO\n");
		return 2;
	}
	kind = argv[1];
	number = (int) strtol(argv[2], NULL, 10);
	accounts = (int) strtol(argv[3], NULL, 10);
	pause_ms = (int) strtol(argv[4], NULL, 10);
	answer_ms = (int) strtol(argv[5], NULL, 10);
	conninfo = argv[7];
	if ((log_fd = open(argv[6], O_WRONLY | O_CREAT | O_APPEND, 0644)) < 0 || (big = malloc(BIG_BYTES + 16)) == NULL)
		return 3;
	signal(SIGPIPE, SIG_IGN);
	random_state = UINT64_C(0x9e3779b97f4a7c15) * (number + 1);

	for (obey(0); !quitting; obey(pause_ms / 2 + (int) (next_random() % (pause_ms + 1))))
	{
		if (!connect_to_node())
		{
			usleep(RETRY_MS * 1000);
			continue;
		}
		operate();
		if (last_paid != 0 && conn != NULL && next_random() % READ_ONE_IN == 0)
			read_last();
	}
	if (conn != NULL)
		disconnect();
	return 0;
}
