/*
 * capture.c
 *		What has this transaction written to distributed tables (W1)?
 *
 * AFTER ROW triggers, enabled ALWAYS on every partition, append each change to
 * chunks of at most about PS_CHUNK_BYTES in memory, or, seldom, put it in front of
 * others (order.c).  A savepoint notes how long the write-set is; its rollback cuts
 * it back to there.  Deferred triggers have
 * fired before PRE_COMMIT, so that there the write-set is complete.
 */
#include "postgres.h"

#include "commands/trigger.h"
#include "link/local.h"
#include "link/samemap.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "write/capture.h"
#include "write/hold.h"
#include "write/order.h"
#include "write/row.h"

PS_FUNCTION(payshard_capture);
PS_FUNCTION(payshard_capture_truncate);
PS_FUNCTION(payshard_peer_capture_off);

#define PS_CHUNK_BYTES (128 * 1024)

bool		ps_capture_off = false;

static PsWriteSet set;

/* The write-set's length when a savepoint was set. */
typedef struct Mark
{
	int			n_chunks;
	int			last_bytes;		/* of the last chunk */
	int			n_touched;
	int			order;
} Mark;

static Mark *marks = NULL;		/* in TopTransactionContext */
static int	n_marks = 0;
static int	marks_size = 0;

const PsWriteSet *
ps_write_set(void)
{
	return &set;
}

void
ps_capture_at_end(void)
{
	/* the memory goes with TopTransactionContext */
	memset(&set, 0, sizeof(set));
	marks = NULL;
	n_marks = marks_size = 0;
	ps_order_at_end();
	ps_capture_off = false;
}

static void
push_mark(void)
{
	if (n_marks == marks_size)
	{
		marks_size = Max(16, marks_size * 2);
		marks = marks ? repalloc(marks, sizeof(Mark) * marks_size) :
			MemoryContextAlloc(TopTransactionContext, sizeof(Mark) * marks_size);
	}
	marks[n_marks].n_chunks = set.n_chunks;
	marks[n_marks].last_bytes = set.n_chunks > 0 ? set.chunks[set.n_chunks - 1]->len : 0;
	marks[n_marks].n_touched = set.n_touched;
	marks[n_marks].order = ps_order_mark();
	n_marks++;
}

static void
cut_back(const Mark *mark)
{
	for (int i = mark->n_chunks; i < set.n_chunks; i++)
		pfree(set.chunks[i]->data);
	set.n_chunks = mark->n_chunks;
	set.n_touched = mark->n_touched;
	ps_order_cut_back(mark->order);
	if (set.n_chunks > 0)
	{
		StringInfo	last = set.chunks[set.n_chunks - 1];

		last->len = mark->last_bytes;
		last->data[last->len] = '\0';
	}
}

void
ps_capture_subxact(SubXactEvent event)
{
	switch (event)
	{
		case SUBXACT_EVENT_START_SUB:
			push_mark();
			break;
		case SUBXACT_EVENT_COMMIT_SUB:
			if (n_marks > 0)
				n_marks--;
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			if (n_marks > 0)
				cut_back(&marks[--n_marks]);
			break;
		default:
			break;
	}
}

/* Notes that a shard is written; in which term, and that we may. */
static void
touch(int shard)
{
	PsMapShard	state;

	for (int i = 0; i < set.n_touched; i++)
		if (set.touched[i].shard == shard)
			return;
	ps_local_note();
	ps_hold_enter(shard);
	ps_hold_keep();
	ps_map_require_serving();
	(void) ps_lease_require();
	if (IsolationIsSerializable())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("SERIALIZABLE transactions cannot write distributed tables"),
				 errdetail("Conflicts with transactions on other nodes would not be seen."),
				 errhint("Use REPEATABLE READ or READ COMMITTED with explicit row locks.")));
	if (!ps_map_shard(shard, &state) || state.primary != ps_map_self())
	{
		/* deposed since the statement was started */
		ps_samemap_require();
		ereport(ERROR,
				(errcode(ERRCODE_READ_ONLY_SQL_TRANSACTION),
				 errmsg("shard %d cannot be written on this node", shard),
				 errdetail("Its primary is node \"%s\".", ps_map_node_name(state.primary)),
				 errhint("Write to the distributed table with its key in the statement; it is routed to the primary.")));
	}
	if (state.waits != 0)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("shard %d is not open yet", shard),
				 errdetail("It is being recovered after the loss or restart of a primary."),
				 errhint("Retry; see payshard.shards.")));
	if (set.n_touched == set.touched_size)
	{
		set.touched_size = Max(8, set.touched_size * 2);
		set.touched = set.touched ? repalloc(set.touched, sizeof(PsTouched) * set.touched_size) :
			MemoryContextAlloc(TopTransactionContext, sizeof(PsTouched) * set.touched_size);
	}
	if (set.incarnation == 0)
		set.incarnation = ps_map_incarnation();
	set.touched[set.n_touched].shard = shard;
	set.touched[set.n_touched++].term = state.term;
}

/* The chunk that takes the next operation. */
static StringInfo
current_chunk(void)
{
	MemoryContext old;

	if (set.n_chunks > 0 && set.chunks[set.n_chunks - 1]->len < PS_CHUNK_BYTES)
		return set.chunks[set.n_chunks - 1];
	old = MemoryContextSwitchTo(TopTransactionContext);
	if (set.n_chunks == set.chunks_size)
	{
		set.chunks_size = Max(8, set.chunks_size * 2);
		set.chunks = set.chunks ? repalloc(set.chunks, sizeof(StringInfo) * set.chunks_size) :
			palloc(sizeof(StringInfo) * set.chunks_size);
	}
	set.chunks[set.n_chunks++] = makeStringInfo();
	MemoryContextSwitchTo(old);
	return set.chunks[set.n_chunks - 1];
}

static const PsRowFormat *
format_of(Relation rel)
{
	const PsRowFormat *format = ps_row_format(rel);

	if (format->shard < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not part of a distributed table", RelationGetRelationName(rel)),
				 errhint("Drop the trigger of payshard from it.")));
	if (!OidIsValid(format->key_index))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("distributed table \"%s\" has no primary key", RelationGetRelationName(rel)),
				 errhint("Add one with ALTER TABLE.")));
	return format;
}

static void
capture(TriggerData *data)
{
	const PsRowFormat *format = format_of(data->tg_relation);
	StringInfo	chunk;
	int			begin;

	touch(format->shard);
	chunk = current_chunk();
	begin = chunk->len;
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
	{
		ps_op_begin(chunk, PS_OP_INSERT, format->table_id, format->shard);
		ps_row_put(chunk, format, data->tg_trigslot);
	}
	else if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
	{
		ps_op_begin(chunk, PS_OP_UPDATE, format->table_id, format->shard);
		ps_row_put_key(chunk, format, data->tg_trigslot);
		ps_row_put(chunk, format, data->tg_newslot);
	}
	else
	{
		ps_op_begin(chunk, PS_OP_DELETE, format->table_id, format->shard);
		ps_row_put_key(chunk, format, data->tg_trigslot);
	}
	ps_order_row(&set, begin, format, data);
}

static void
require_trigger(FunctionCallInfo fcinfo)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called as a trigger")));
}

/* capture(): AFTER INSERT OR UPDATE OR DELETE FOR EACH ROW */
Datum
payshard_capture(PG_FUNCTION_ARGS)
{
	require_trigger(fcinfo);
	if (!ps_capture_off)
	{
		PS_FAULT("capture.row");
		capture((TriggerData *) fcinfo->context);
	}
	return PointerGetDatum(NULL);
}

/* capture_truncate(): AFTER TRUNCATE on a partition */
Datum
payshard_capture_truncate(PG_FUNCTION_ARGS)
{
	TriggerData *data;
	const PsRowFormat *format;
	StringInfo	chunk;
	int			begin;

	require_trigger(fcinfo);
	data = (TriggerData *) fcinfo->context;
	if (ps_capture_off || data->tg_relation->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		return PointerGetDatum(NULL);
	format = format_of(data->tg_relation);
	touch(format->shard);
	chunk = current_chunk();
	begin = chunk->len;
	ps_op_begin(chunk, PS_OP_TRUNCATE, format->table_id, format->shard);
	ps_order_table(&set, begin);
	return PointerGetDatum(NULL);
}

/* peer_capture_off(): until the end of this transaction; superusers only */
Datum
payshard_peer_capture_off(PG_FUNCTION_ARGS)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for peer_capture_off"),
				 errhint("Only nodes call it on each other, as a superuser.")));
	ps_capture_off = true;
	PG_RETURN_VOID();
}
