/*
 * receiver.c
 *		What does this node make durable when a primary asks it to (W3)?
 *
 * One backend per sender's connection; each call is a transaction.  In this
 * order: (a) hold the map; (b) compare it with the sender's: who is older
 * learns first (M2); (c) hold the origin's journal; (d) check that the batch
 * follows what is durable; (e) insert; the commit flushes; then the answer
 * leaves.  (b) before (a), and a map adopted in between would have fenced the
 * sender off after we checked (F3).
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "node/clock.h"
#include "node/damage.h"
#include "node/fault.h"
#include "node/identity.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "write/journal.h"
#include "write/receiver.h"

PS_FUNCTION(payshard_peer_hello);
PS_FUNCTION(payshard_peer_journal);

#define PS_AWAIT_START_MS 500

/* incarnation: the origin's, with PS_RECEIVE_OK. */
static bytea *
answer(uint8 status, uint32 origin, uint64 incarnation, const char *why)
{
	StringInfoData buf;
	PsSharedOrigin *from = &ps_shared->origins[origin];
	bytea	   *result;

	initStringInfo(&buf);
	appendStringInfoSpaces(&buf, VARHDRSZ);
	ps_put_u8(&buf, status);
	ps_put_u64(&buf, ps_map_epoch());
	ps_put_u64(&buf, pg_atomic_read_u64(&from->journaled_seq));
	ps_put_u64(&buf, pg_atomic_read_u64(&from->applied_seq));
	ps_put_u64(&buf, GetFlushRecPtr(NULL));
	ps_put_u32(&buf, status == PS_RECEIVE_OK ? ps_lease_promise(origin, incarnation) : 0);
	if (status == PS_RECEIVE_STALE)
	{
		PsMap	   *map = ps_map_copy();

		ps_map_put(&buf, map);
		pfree(map);
	}
	if (why)
		appendStringInfoString(&buf, why);
	ps_put_u32(&buf, ps_checksum(buf.data + VARHDRSZ, buf.len - VARHDRSZ));
	result = (bytea *) buf.data;
	SET_VARSIZE(result, buf.len);
	return result;
}

static const char *const not_started = "this node has not started yet";

/* M2: may this sender speak, and who is older?  OK, or what to answer. */
static uint8
check_sender(uint64 cluster_id, uint32 sender, uint64 incarnation, uint64 epoch,
			 const char **why)
{
	*why = NULL;
	if (ps_shared->self == 0 || !ps_shared->map_loaded)
		*why = not_started;
	else if (cluster_id != ps_shared->map.cluster_id)
		*why = "another cluster";
	else if (sender == 0 || sender >= PS_NODES_MAX || sender == ps_map_self())
		*why = "no such node";
	if (*why)
		return PS_RECEIVE_REFUSED;
	if (epoch > ps_map_epoch())
		return PS_RECEIVE_NEED_MAP;
	if (epoch < ps_map_epoch())
		return PS_RECEIVE_STALE;
	if (!ps_map_is_member(sender, incarnation))
		*why = "an incarnation that is not the newest";
	else if (ps_map_incarnation() == 0)
		*why = not_started;		/* what it has may be an old copy (M3) */
	return *why ? PS_RECEIVE_REFUSED : PS_RECEIVE_OK;
}

/* A node that is just starting answers when it has, or after a moment. */
static void
await_start(uint64 epoch)
{
	PsTime		deadline = ps_deadline(Min(PS_AWAIT_START_MS, ps_call_timeout_ms / 2));

	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	while (ps_map_incarnation() == 0 && epoch == ps_map_epoch() && ps_now() < deadline)
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, ps_ms_left(deadline) + 1,
										   PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

static const char *
other_version(uint32 version)
{
	return psprintf("it speaks version %u of payshard's messages, this node version %u: "
					"install the same payshard on both", version, PS_PEER_VERSION);
}

/* peer_hello(hello) */
Datum
payshard_peer_hello(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	PsHello		hello;
	uint32		sender;
	uint64		incarnation;
	const char *wrong;
	const char *why;
	PsSharedOrigin *origin;
	uint8		status;
	uint64		journaled;

	ps_require_peer();
	wrong = ps_hello_read(&hello, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	if (wrong)
		ps_damaged("a hello", wrong);
	if (hello.version != PS_PEER_VERSION)
		PG_RETURN_BYTEA_P(answer(PS_RECEIVE_REFUSED, 0, 0, other_version(hello.version)));
	sender = hello.sender;
	incarnation = hello.incarnation;
	await_start(hello.epoch);
	if (ps_shared->map_loaded)
		ps_map_lock();
	status = check_sender(hello.cluster_id, sender, incarnation, hello.epoch, &why);
	if (status != PS_RECEIVE_OK)
		PG_RETURN_BYTEA_P(answer(status, 0, 0, why));
	PS_FAULT("receiver.hello");
	ps_journal_lock(sender);
	origin = &ps_shared->origins[sender];
	if (pg_atomic_read_u64(&origin->incarnation) != incarnation)
	{
		uint64		applied_incarnation;
		uint64		applied = ps_position_read(sender, &applied_incarnation);

		journaled = ps_journal_last_seq(sender, incarnation);
		pg_atomic_write_u64(&origin->decided_seq, 0);
		pg_atomic_write_u64(&origin->hold_seq, 0);
		pg_atomic_write_u64(&origin->journaled_seq, journaled);
		pg_atomic_write_u64(&origin->applied_seq, applied_incarnation == incarnation ? applied : 0);
		pg_write_barrier();
		pg_atomic_write_u64(&origin->incarnation, incarnation);
	}

	/*
	 * What lies between our last seq and attach_seq was not for us: we were
	 * no member then.
	 */
	journaled = pg_atomic_read_u64(&origin->journaled_seq);
	if (hello.attach_seq > journaled)
		pg_atomic_write_u64(&origin->journaled_seq, hello.attach_seq);
	PG_RETURN_BYTEA_P(answer(PS_RECEIVE_OK, sender, incarnation, NULL));
}

/* Takes in what the origin says is decided (W5). */
static void
note_decided(PsSharedOrigin *origin, const PsBatch *batch)
{
	if (batch->decided_seq > pg_atomic_read_u64(&origin->decided_seq))
	{
		pg_atomic_write_u64(&origin->decided_seq, batch->decided_seq);
		ps_wake_applier();
	}
	if (batch->lsn > pg_atomic_read_u64(&origin->lsn))
		pg_atomic_write_u64(&origin->lsn, batch->lsn);
}

/* (c) to (e) */
static uint8
receive(const PsBatch *batch)
{
	PsSharedOrigin *origin = &ps_shared->origins[batch->sender];
	uint64		journaled;

	if (batch->n_records > 0)
		ps_journal_lock(batch->sender);
	if (pg_atomic_read_u64(&origin->incarnation) != batch->incarnation)
		return PS_RECEIVE_GAP;
	journaled = pg_atomic_read_u64(&origin->journaled_seq);
	if (batch->n_records > 0 && batch->last_seq > journaled)
	{
		if (batch->prev_seq != journaled)
			return PS_RECEIVE_GAP;
		PS_FAULT("receiver.before_journal");
		ps_journal_insert(batch->sender, batch->incarnation, batch);
		ForceSyncCommit();
		PS_FAULT("receiver.before_commit");
	}
	note_decided(origin, batch);
	return PS_RECEIVE_OK;
}

/* peer_journal(batch) */
Datum
payshard_peer_journal(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);
	PsBatch		batch;
	const char *wrong;
	const char *why;
	uint8		status;

	ps_require_peer();
	wrong = ps_batch_read(&batch, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
	if (wrong)
		ps_damaged("a batch of journal entries", wrong);
	if (ps_shared->map_loaded && PS_RULE("W3"))
		ps_map_lock();
	status = check_sender(batch.cluster_id, batch.sender, batch.incarnation, batch.epoch, &why);
	if (status == PS_RECEIVE_OK && batch.target != ps_map_self())
	{
		status = PS_RECEIVE_REFUSED;
		why = "meant for another node";
	}
	if (status != PS_RECEIVE_OK)
		PG_RETURN_BYTEA_P(answer(status, 0, 0, why));
	if (batch.shards_end > ps_map_n_shards())
		ps_damaged("a batch of journal entries", ps_no_such_shard);
	ps_suspicion_asked(batch.sender);
	if (batch.n_records > 0)
		PS_FAULT("receiver.checked");
	status = receive(&batch);
	PG_RETURN_BYTEA_P(answer(status, batch.sender, batch.incarnation, NULL));
}
