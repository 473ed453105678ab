/*
 * sender.c
 *		How do entries get to one other node, and what does it answer?
 *
 * CLOSED -> HELLO -> STREAMING -> CLOSED, for ever.  HELLO agrees on the map
 * (who is older learns first, M2) and on where to go on: after the last seq
 * that is durable there.  STREAMING keeps up to payshard.pipeline_depth batches
 * in flight in libpq's pipeline mode; a batch counts as acked when its own
 * synchronization point has come back, that is after the commit over there.
 * Entries leave the queue only when acked, so a broken connection loses none.
 * A batch that was refused because the maps differ, or a node that became or is no
 * more a target: HELLO again, on the same connection, when all in flight has landed.
 *
 * A batch without records tells what is decided, and that we live; it is sent
 * after payshard.keepalive without another, sooner when the last batch said
 * less than is decided by now.
 *
 * When the server is told to shut down, the sender goes on while backends wait
 * for acks (W7), at most payshard.shutdown_timeout.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "ground/wire.h"
#include "catalog/pg_type.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/outage.h"
#include "node/settings.h"
#include "node/silence.h"
#include "node/stats.h"
#include "node/suspicion.h"
#include "node/tables.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "write/queue.h"
#include "write/receiver.h"
#include "write/sender.h"

#define PS_DEPTH_MAX 64
#define PS_SOCKET_EVENT 2		/* its place in stream.events */
#define PS_DECIDED_DELAY_MS 20	/* piggyback on the next batch until then */
#define PS_RETRY_MS 200
#define PS_LOOK_MS 500			/* between two looks while an answer is owed */
#define PS_SILENCE_MS 1000		/* owed for longer: it is silent, though connected */

/* A batch on its way. */
typedef struct Flight
{
	uint64		last_seq;
	uint64		end_offset;
	char		status;			/* as answered; 0 = not yet */
	uint64		applied_seq;
	uint64		lsn;
	uint64		epoch;			/* as sent */
	uint64		sent_us;		/* on the lease's clock (Q1) */
	uint32		promised_ms;
} Flight;

typedef struct Stream
{
	uint32		node;
	char		name[PS_NAME_MAX];
	PGconn	   *conn;			/* NULL = CLOSED */
	WaitEventSet *events;		/* latch, postmaster, socket; NULL = CLOSED */
	PsQueueCursor cursor;
	Flight		flights[PS_DEPTH_MAX];	/* ring */
	int			first;
	int			n_flights;
	uint64		told_decided;
	uint64		last_sent_us;	/* on the lease's clock, which never jumps */
	bool		has_landed;		/* a batch on this connection */
	bool		is_futile;		/* the last connection was lost before one had */
	bool		must_greet;		/* HELLO again before anything is sent */
	bool		is_refused;		/* its last answer to a hello */
	bool		owes;			/* the last connection ended with a batch unanswered, and none
								 * has landed since: HELLO is no answer to that */
	uint64		passed;			/* offset up to which the queue knows that nothing is for it */
	StringInfoData batch;
} Stream;

static Stream stream;

static PsSharedPeer *
peer(void)
{
	return &ps_shared->peers[stream.node];
}

static void
sender_gone(int code, Datum arg)
{
	LWLockAcquire(&ps_shared->queue.lock, LW_EXCLUSIVE);
	if (peer()->sender == MyLatch)
		peer()->sender = NULL;
	LWLockRelease(&ps_shared->queue.lock);
}

/* The one sender for this node, or none. */
static void
take_place(void)
{
	bool		taken;

	LWLockAcquire(&ps_shared->queue.lock, LW_EXCLUSIVE);
	taken = peer()->sender != NULL;
	if (!taken)
		peer()->sender = MyLatch;
	LWLockRelease(&ps_shared->queue.lock);
	if (taken)
		proc_exit(0);
	before_shmem_exit(sender_gone, 0);
}

static void
close_stream(const char *why)
{
	if (stream.events)
		FreeWaitEventSet(stream.events);
	stream.events = NULL;
	if (stream.conn)
		ps_conn_close(stream.conn);
	if (stream.conn && why)
	{
		ps_silence_begin(stream.node);
		stream.is_futile = !stream.has_landed;
		ereport(LOG, (errmsg("payshard: connection to node \"%s\" closed: %s", stream.name, why)));
	}
	stream.conn = NULL;
	stream.owes |= stream.n_flights > 0;
	stream.n_flights = 0;
}

/* An answer is owed since now, or since it was owed first. */
static void
answer_owed(void)
{
	if (pg_atomic_read_u64(&peer()->waiting_since) == 0)
		pg_atomic_write_u64(&peer()->waiting_since, ps_clock_us());
}

static void
answer_heard(void)
{
	pg_atomic_write_u64(&peer()->heard_at, GetCurrentTimestamp());
	ps_suspicion_answered(stream.node);
	if (stream.owes)
		return;					/* who cannot journal, as its disk is full, is late, too */
	if (stream.n_flights == 0)
		pg_atomic_write_u64(&peer()->waiting_since, 0);
	else
		pg_atomic_write_u64(&peer()->waiting_since, ps_clock_us());
}

/* It is there, but as long as it refuses, what waits for its ack waits: since it refused first. */
static void
hello_heard(bool is_refused)
{
	bool		owed = stream.owes;

	if (!is_refused && stream.is_refused && pg_atomic_read_u64(&peer()->waiting_since) != 0)
		pg_atomic_write_u64(&peer()->waiting_since, ps_clock_us());
	stream.owes |= is_refused;
	answer_heard();
	if (is_refused)
		answer_owed();
	stream.owes = owed;
	stream.is_refused = is_refused;
}

/* Sends our map; false when the connection is gone. */
static bool
teach(void)
{
	StringInfoData bytes;
	PsMap	   *map = ps_map_copy();
	PsArg		arg;
	PGresult   *result;
	bool		ok;

	initStringInfo(&bytes);
	ps_map_put(&bytes, map);
	arg = ps_arg_bytes(bytes.data, bytes.len);
	result = ps_conn_call(stream.conn, "SELECT payshard.peer_learn($1)", 1, &arg, false,
						  ps_deadline(ps_call_timeout_ms));
	ok = result && PQresultStatus(result) == PGRES_TUPLES_OK;
	PQclear(result);
	return ok;
}

/* Adopts a map that the peer has sent; its own transaction. */
static void
learn(const char *data, size_t bytes)
{
	StartTransactionCommand();
	ps_map_adopt(data, bytes);
	CommitTransactionCommand();
}

/* Splits an answer; false when it is not whole. */
static bool
read_answer(const PGresult *result, char *status, uint64 *journaled, uint64 *applied,
			uint64 *lsn, uint32 *promised_ms, const char **rest, size_t *rest_bytes)
{
	PsReader	reader;
	size_t		bytes = PQntuples(result) == 1 ? PQgetlength(result, 0, 0) : 0;

	if (ps_unseal(PQgetvalue(result, 0, 0), &bytes) != NULL || bytes < PS_RECEIVE_HEADER_BYTES)
		return false;
	ps_reader_init(&reader, PQgetvalue(result, 0, 0), bytes);
	*status = ps_read_u8(&reader);
	(void) ps_read_u64(&reader);
	*journaled = ps_read_u64(&reader);
	*applied = ps_read_u64(&reader);
	*lsn = ps_read_u64(&reader);
	*promised_ms = ps_read_u32(&reader);
	*rest = (const char *) reader.at;
	*rest_bytes = reader.end - reader.at;
	return !reader.bad;
}

/* One hello; true = go on with STREAMING. */
static bool
hello(void)
{
	PsHello		words = {0};
	StringInfoData bytes;
	PsArg		arg;
	PGresult   *result;
	char		status = 0;
	uint64		journaled;
	uint64		applied;
	uint64		lsn;
	uint32		promised_ms;	/* not used: its first batch asks */
	const char *rest;
	size_t		rest_bytes;
	bool		go_on = false;

	PS_FAULT_AT("sender.before_hello", stream.name);
	ps_queue_cursor_start(stream.node, &stream.cursor);
	words.version = PS_PEER_VERSION;
	words.cluster_id = ps_shared->map.cluster_id;
	words.sender = ps_map_self();
	words.incarnation = stream.cursor.incarnation;
	words.epoch = ps_map_epoch();
	words.attach_seq = stream.cursor.attach_seq;
	initStringInfo(&bytes);
	ps_hello_put(&bytes, &words);
	arg = ps_arg_bytes(bytes.data, bytes.len);
	result = ps_conn_call(stream.conn, "SELECT payshard.peer_hello($1)", 1, &arg,
						  true, ps_deadline(ps_call_timeout_ms));
	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK ||
		!read_answer(result, &status, &journaled, &applied, &lsn, &promised_ms,
					 &rest, &rest_bytes))
	{
		char	   *why = ps_conn_why(result, stream.conn);

		PQclear(result);
		close_stream(why);
		return false;
	}
	hello_heard(status == PS_RECEIVE_REFUSED);
	if (status == PS_RECEIVE_OK)
	{
		stream.cursor.sent_seq = Max(stream.cursor.sent_seq, journaled);
		go_on = ps_queue_hello(stream.node, &stream.cursor, journaled, applied, lsn);
		if (!stream.owes)
			ps_silence_end(stream.node);
		if (!go_on)
		{
			close_stream("it has lost journal entries that it had acked");
			ps_wake_keeper();
		}
	}
	else if (status == PS_RECEIVE_NEED_MAP)
	{
		if (!teach())
			close_stream("it could not learn the map");
	}
	else if (status == PS_RECEIVE_STALE)
		learn(rest, rest_bytes);
	else
		close_stream(psprintf("refused: %s", pnstrdup(rest, rest_bytes)));
	PQclear(result);
	return go_on;
}

/* HELLO -> STREAMING; the connection is not in pipeline mode.  May close it. */
static void
greet(void)
{
	for (int tries = 0; stream.conn; tries++)
	{
		if (tries > 10)
			close_stream("no agreement on the map");
		else if (hello())
			break;
	}
	if (stream.conn && !PQenterPipelineMode(stream.conn))
		close_stream("could not enter pipeline mode");
	stream.first = stream.n_flights = 0;
	stream.told_decided = 0;
	stream.last_sent_us = 0;
	stream.passed = 0;
	stream.must_greet = false;
}

/* CLOSED -> STREAMING; false = try again later. */
static bool
open_stream(void)
{
	char	   *error = NULL;
	PGresult   *result;
	Oid			type = BYTEAOID;

	StartTransactionCommand();
	stream.conn = ps_conn_open(stream.name, InvalidOid,
							   psprintf("sender %s", ps_map_node_name(ps_map_self())),
							   ps_deadline(ps_call_timeout_ms), &error);
	CommitTransactionCommand();
	if (stream.conn == NULL)
	{
		if (ps_conn_is_refused(error))
			ps_suspicion_refused(stream.node);
		answer_owed();
		ps_silence_begin(stream.node);
		return false;
	}
	PS_FAULT("sender.connected");
	result = ps_conn_prepare(stream.conn, "journal", "SELECT payshard.peer_journal($1)", 1, &type,
							 ps_deadline(ps_call_timeout_ms));
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		close_stream(ps_conn_why(result, stream.conn));
	PQclear(result);
	greet();
	if (stream.conn == NULL)
		return false;
	stream.events = ps_wait_events(TopMemoryContext, NULL, 3);
	AddWaitEventToSet(stream.events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(stream.events, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	AddWaitEventToSet(stream.events, WL_SOCKET_READABLE, PQsocket(stream.conn), NULL, NULL);
	stream.has_landed = false;
	return true;
}

/* Sends what there is, or a batch without records when it is time. */
static bool
send_batch(bool even_if_empty)
{
	PsBatch		header = {0};
	PsQueueTake take;
	const char *value;
	int			length;
	int			format = 1;
	uint64		sent_us;
	Flight	   *flight;

	header.cluster_id = ps_shared->map.cluster_id;
	header.sender = ps_map_self();
	header.incarnation = stream.cursor.incarnation;
	header.target = stream.node;
	header.lsn = GetFlushRecPtr(NULL);
	header.prev_seq = stream.cursor.sent_seq;
	resetStringInfo(&stream.batch);
	ps_batch_begin(&stream.batch, &header);
	ps_queue_take(stream.node, &stream.cursor, &stream.batch, ps_batch_size_kb * 1024, &take);
	if (take.n_records == 0 && !even_if_empty)
	{
		if (stream.n_flights == 0 && take.end_offset > stream.passed)
			ps_queue_passed(stream.node, &stream.cursor);
		stream.passed = take.end_offset;
		return false;
	}
	ps_batch_set(&stream.batch, take.epoch, take.decided_seq);
	ps_batch_end(&stream.batch, take.n_records, take.last_seq);
	PS_FAULT_AT("sender.before_send", stream.name);
	sent_us = ps_clock_us();
	value = stream.batch.data;
	length = stream.batch.len;
	if (!PQsendQueryPrepared(stream.conn, "journal", 1, &value, &length, &format, 1) ||
		!PQpipelineSync(stream.conn))
	{
		close_stream("could not send");
		return false;
	}
	flight = &stream.flights[(stream.first + stream.n_flights++) % PS_DEPTH_MAX];
	memset(flight, 0, sizeof(*flight));
	flight->last_seq = take.last_seq;
	flight->end_offset = take.end_offset;
	flight->epoch = take.epoch;
	flight->sent_us = sent_us;
	stream.told_decided = take.decided_seq;
	ps_stat_sent(take.n_records, stream.batch.len);
	stream.last_sent_us = ps_clock_us();
	answer_owed();
	PS_FAULT("sender.after_send");
	return true;
}

/* The answer to the oldest flight, before its synchronization point. */
static void
note_answer(const PGresult *result)
{
	Flight	   *flight = &stream.flights[stream.first];
	uint64		journaled;
	const char *rest;
	size_t		rest_bytes;

	if (stream.n_flights == 0 ||
		!read_answer(result, &flight->status, &journaled, &flight->applied_seq,
					 &flight->lsn, &flight->promised_ms, &rest, &rest_bytes))
	{
		close_stream("an answer that is none");
		return;
	}
	if (flight->status == PS_RECEIVE_STALE)
		learn(rest, rest_bytes);
	else if (flight->status == PS_RECEIVE_REFUSED)
		close_stream(psprintf("refused: %s", pnstrdup(rest, rest_bytes)));
}

/* The oldest flight's synchronization point is back: it is committed there. */
static void
land(void)
{
	Flight	   *flight = &stream.flights[stream.first];
	char		status = flight->status;

	stream.first = (stream.first + 1) % PS_DEPTH_MAX;
	stream.n_flights--;
	stream.owes &= status != PS_RECEIVE_OK;
	answer_heard();
	PS_FAULT("sender.before_ack");
	if (status == PS_RECEIVE_OK)
	{
		ps_silence_end(stream.node);
		stream.has_landed = true;
		if (ps_lease_granted(stream.node, stream.cursor.incarnation, flight->epoch,
							 flight->sent_us, flight->promised_ms))
			ps_queue_wake_all();
		/* one before it was refused: then it may follow on nothing */
		if (!stream.must_greet)
			ps_queue_acked(stream.node, &stream.cursor, flight->last_seq, flight->end_offset,
						   flight->applied_seq, flight->lsn);
	}
	else
		stream.must_greet = true;
	PS_FAULT("sender.after_ack");
}

/* Takes in all answers that are there. */
static void
take_answers(void)
{
	if (!PQconsumeInput(stream.conn))
	{
		close_stream(pchomp(PQerrorMessage(stream.conn)));
		return;
	}
	while (stream.conn && stream.n_flights > 0 && !PQisBusy(stream.conn))
	{
		PGresult   *result = PQgetResult(stream.conn);
		ExecStatusType status;

		if (result == NULL)
		{
			if (PQstatus(stream.conn) == CONNECTION_BAD)
			{
				close_stream("connection lost");
				return;
			}
			continue;			/* between results of a pipeline */
		}
		status = PQresultStatus(result);
		if (status == PGRES_TUPLES_OK)
			note_answer(result);
		else if (status == PGRES_PIPELINE_SYNC)
			land();
		else
			close_stream(ps_conn_why(result, stream.conn));
		PQclear(result);
	}
}

/* How long to sleep when nothing wakes us. */
static long
nap_ms(void)
{
	long		limit =
		   stream.told_decided < stream.cursor.sent_seq ? PS_DECIDED_DELAY_MS : ps_keepalive_ms;
	long		since = (long) ((ps_clock_us() - stream.last_sent_us) / 1000);

	if (stream.n_flights > 0)
		return PS_LOOK_MS;
	return Max(1, limit - since);
}

/* Is the answer to the oldest batch of this connection owed for so long? */
static bool
is_owed_for(int ms)
{
	uint64		since = Max(pg_atomic_read_u64(&peer()->waiting_since),
							stream.flights[stream.first].sent_us);

	return stream.n_flights > 0 && ps_clock_us() >= since + (uint64) ms * 1000;
}

/* One turn of STREAMING. */
static void
stream_turn(void)
{
	bool		idle_long;
	WaitEvent	event;
	int			unsent;
	int			max_flights = Min(ps_pipeline_depth, PS_DEPTH_MAX);

	/* attached, detached, or a new incarnation */
	stream.must_greet |= !ps_queue_cursor_valid(stream.node, &stream.cursor);
	if (stream.must_greet && stream.n_flights == 0)
	{
		if (PQexitPipelineMode(stream.conn))
			greet();
		else
			close_stream(pchomp(PQerrorMessage(stream.conn)));
		return;
	}
	while (stream.conn && !stream.must_greet && stream.n_flights < max_flights &&
		   send_batch(false))
		;
	if (stream.conn == NULL)
		return;
	idle_long = stream.n_flights == 0 && nap_ms() <= 1;
	if (!stream.must_greet &&
		(idle_long || (peer()->is_urgent && stream.n_flights < max_flights)))
	{
		peer()->is_urgent = false;
		pg_memory_barrier();
		send_batch(true);
	}
	if (stream.conn == NULL)
		return;
	/* with room for a batch, and nothing to send, we are woken for an entry */
	if (!stream.must_greet && stream.n_flights < max_flights &&
		!ps_queue_is_empty(stream.node, &stream.cursor))
		return;
	unsent = PQflush(stream.conn);
	if (unsent < 0)
	{
		close_stream(pchomp(PQerrorMessage(stream.conn)));
		return;
	}
	ModifyWaitEvent(stream.events, PS_SOCKET_EVENT,
					WL_SOCKET_READABLE | (unsent > 0 ? WL_SOCKET_WRITEABLE : 0), NULL);
	(void) WaitEventSetWait(stream.events, nap_ms(), &event, 1, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	take_answers();
	if (stream.conn && is_owed_for(PS_SILENCE_MS))
		ps_silence_begin(stream.node);
	if (stream.conn && is_owed_for(ps_call_timeout_ms))
		close_stream("no answer in time");
}

/* May we end, being told to? */
static bool
may_end(PsTime *told_at)
{
	if (!ShutdownRequestPending)
		return false;
	if (*told_at == 0)
		*told_at = ps_now();
	return !ps_queue_has_waiters() ||
		ps_has_passed(*told_at, ps_shutdown_timeout_ms);
}

static void
init_process(void)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(ps_database, NULL, 0);
	take_place();
	strlcpy(stream.name, ps_map_node_name(stream.node), sizeof(stream.name));
	initStringInfo(&stream.batch);
	pgstat_report_activity(STATE_RUNNING, psprintf("sending to %s", stream.name));
}

/* Was the node removed?  Another one may have got its id: that gets another sender. */
static bool
is_removed(void)
{
	static uint64 looked_epoch = 0;

	if (looked_epoch == ps_map_epoch())
		return false;
	looked_epoch = ps_map_epoch();
	return strcmp(ps_map_node_name(stream.node), stream.name) != 0;
}

void
payshard_sender_main(Datum arg)
{
	PsTime		told_at = 0;
	MemoryContext turn;

	stream.node = DatumGetUInt32(arg);
	init_process();
	turn = AllocSetContextCreate(TopMemoryContext, "payshard sender", ALLOCSET_DEFAULT_SIZES);
	while (!may_end(&told_at) && ps_map_incarnation() != 0 && !is_removed())
	{
		MemoryContextSwitchTo(turn);
		MemoryContextReset(turn);
		ps_outage_beat();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (stream.conn)
			stream_turn();
		else if (stream.is_futile || !open_stream())
		{
			stream.is_futile = false;
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 PS_RETRY_MS, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
		}
	}
	close_stream(NULL);
	proc_exit(0);
}
