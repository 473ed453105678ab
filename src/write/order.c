/*
 * order.c
 *		In which order must a transaction's operations be executed elsewhere?
 *
 * Row triggers fire when their statement ends.  What other triggers of it did to the
 * same rows was captured before: AFTER UPDATE, a trigger updates the row once more, and
 * that statement's operation is there first.  The number of the command that made a
 * row version tells (cmin, cmax): an operation that comes too late stands
 *
 *	 - before the one by which its row version was replaced or deleted;
 *	 - when it frees a key: before the one that has taken that key again.
 *
 * All others stand as they were captured: a BEFORE trigger that deletes what is in the
 * way is of a younger command, and yet was earlier.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "node/fault.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "write/order.h"

typedef struct Place
{
	int			chunk;
	int			offset;
} Place;

/* Operations of one command, up to the next run. */
typedef struct Run
{
	CommandId	command;
	Place		begin;
} Run;

static Run *runs = NULL;		/* in TopTransactionContext */
static int	n_runs = 0;
static int	runs_size = 0;
static CommandId newest = 0;	/* no run has a younger one */

int
ps_order_mark(void)
{
	return n_runs;
}

void
ps_order_cut_back(int mark)
{
	n_runs = mark;
}

void
ps_order_at_end(void)
{
	runs = NULL;
	n_runs = runs_size = 0;
	newest = 0;
}

/* Room for n more runs at index `at`. */
static void
make_room(int at, int n)
{
	if (n_runs + n > runs_size)
	{
		runs_size = Max(16, runs_size * 2);
		runs = runs ? repalloc_huge(runs, sizeof(Run) * runs_size) :
			MemoryContextAlloc(TopTransactionContext, sizeof(Run) * runs_size);
	}
	memmove(&runs[at + n], &runs[at], sizeof(Run) * (n_runs - at));
	n_runs += n;
}

/* The write-set's last operation stays where it is. */
static void
stay(const PsWriteSet *set, int begin, CommandId command)
{
	newest = Max(newest, command);
	if (n_runs > 0 && runs[n_runs - 1].command == command)
		return;
	make_room(n_runs, 1);
	runs[n_runs - 1] = (Run) {command, {set->n_chunks - 1, begin}};
}

/* The run in which a place lies gets an operation of another command there. */
static void
split_run(int r, Place place, int bytes, CommandId command)
{
	Place		begin = runs[r].begin;
	bool		is_begin = begin.chunk == place.chunk && begin.offset == place.offset;

	for (int i = is_begin ? r : r + 1; i < n_runs; i++)
		if (runs[i].begin.chunk == place.chunk)
			runs[i].begin.offset += bytes;
	if (is_begin)
	{
		make_room(r, 1);
		runs[r] = (Run) {command, place};
		return;
	}
	make_room(r + 1, 2);
	runs[r + 1] = (Run) {command, place};
	runs[r + 2] = (Run) {runs[r].command, {place.chunk, place.offset + bytes}};
}

/* Moves the write-set's last operation. */
static void
move(PsWriteSet *set, int begin, Place place)
{
	StringInfo	last = set->chunks[set->n_chunks - 1];
	StringInfo	into = set->chunks[place.chunk];
	int			bytes = last->len - begin;
	char	   *op = palloc(bytes);

	memcpy(op, last->data + begin, bytes);
	if (into != last)
		enlargeStringInfo(into, bytes);
	last->len = begin;
	memmove(into->data + place.offset + bytes, into->data + place.offset,
			into->len - place.offset);
	memcpy(into->data + place.offset, op, bytes);
	into->len += bytes;
	into->data[into->len] = '\0';
	pfree(op);
	if (begin == 0 && into != last)
	{
		pfree(last->data);
		set->n_chunks--;
	}
}

/* What is looked for: operations on one key of one partition. */
typedef struct Sought
{
	const PsRowFormat *format;
	StringInfo	key;			/* as a tuple */
	bool		takes;			/* makes a row with that key; else replaces or deletes one */
} Sought;

static bool
is_sought(const Sought *sought, const PsOp *op)
{
	StringInfoData key;
	bool		is_same;

	if (op->table_id != sought->format->table_id || op->shard != sought->format->shard)
		return false;
	if (!sought->takes)
		return op->key_bytes == sought->key->len && op->key != NULL &&
			memcmp(op->key, sought->key->data, op->key_bytes) == 0;
	if (op->row == NULL)
		return false;
	initStringInfo(&key);
	is_same = ps_row_key_of(&key, sought->format, op->row, op->row_bytes) &&
		key.len == sought->key->len && memcmp(key.data, sought->key->data, key.len) == 0;
	pfree(key.data);
	return is_same;
}

/* The first one in a run; `begin` is the end of the last run. */
static bool
find_in_run(const PsWriteSet *set, int r, int begin, const Sought *sought, Place *found)
{
	Place		end = r + 1 < n_runs ? runs[r + 1].begin : (Place) {set->n_chunks - 1, begin};

	for (int c = runs[r].begin.chunk; c <= end.chunk; c++)
	{
		const char *data = set->chunks[c]->data;
		int			from = c == runs[r].begin.chunk ? runs[r].begin.offset : 0;
		int			to = c == end.chunk ? end.offset : set->chunks[c]->len;
		PsReader	reader;
		PsOp		op;

		ps_reader_init(&reader, data + from, to - from);
		for (;;)
		{
			*found = (Place) {c, (int) ((const char *) reader.at - data)};
			if (!ps_op_next(&reader, &op))
				break;
			if (is_sought(sought, &op))
				return true;
		}
	}
	return false;
}

/* The run of the operation that one command did to a key; -1 = it was not captured yet. */
static int
find_next(const PsWriteSet *set, int begin, CommandId command, const Sought *sought, Place *found)
{
	for (int r = n_runs - 1; r >= 0; r--)
		if (runs[r].command == command && find_in_run(set, r, begin, sought, found))
			return r;
	return -1;
}

/* The run of the first operation of a younger command; -1 = none. */
static int
find_younger(const PsWriteSet *set, int begin, CommandId command, const Sought *sought,
			 Place *found)
{
	for (int r = 0; r < n_runs; r++)
		if (runs[r].command > command && find_in_run(set, r, begin, sought, found))
			return r;
	return -1;
}

/* Has this transaction replaced or deleted the row version since, and by which command? */
static bool
is_replaced(HeapTupleHeader row, CommandId *by)
{
	if ((row->t_infomask & HEAP_XMAX_INVALID) != 0 || HEAP_XMAX_IS_LOCKED_ONLY(row->t_infomask) ||
		!TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetUpdateXid(row)))
		return false;
	*by = HeapTupleHeaderGetCmax(row);
	return true;
}

/* Is there a row with the key of this one now? */
static bool
is_taken_again(Relation rel, const PsRowFormat *format, TupleTableSlot *key)
{
	Relation	index = index_open(format->key_index, AccessShareLock);
	ScanKeyData keys[INDEX_MAX_KEYS];
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	IndexScanDesc scan = ps_index_beginscan(rel, index, SnapshotSelf, format->n_key);
	bool		is_there;

	slot_getallattrs(key);
	ps_row_scan_keys(keys, index, format, key);
	index_rescan(scan, keys, format->n_key, NULL, 0);
	is_there = index_getnext_slot(scan, ForwardScanDirection, slot);
	index_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	index_close(index, AccessShareLock);
	return is_there;
}

static bool
is_before(Place a, Place b)
{
	return a.chunk < b.chunk || (a.chunk == b.chunk && a.offset < b.offset);
}

/* Where an operation of an older command belongs: its run; -1 = where it stands. */
static int
find_place(const PsWriteSet *set, int begin, CommandId command, const PsRowFormat *format,
		   const TriggerData *data, Place *place)
{
	bool		makes_row = !TRIGGER_FIRED_BY_DELETE(data->tg_event);
	bool		is_update = TRIGGER_FIRED_BY_UPDATE(data->tg_event);
	StringInfoData made = {0};
	StringInfoData freed = {0};
	int			r = -1;
	int			r_taken;
	Place		taken;
	CommandId	by;

	if (makes_row)
	{
		initStringInfo(&made);
		ps_row_put_key(&made, format, is_update ? data->tg_newslot : data->tg_trigslot);
		if (is_replaced((is_update ? data->tg_newtuple : data->tg_trigtuple)->t_data, &by))
			r = find_next(set, begin, by, &(Sought) {format, &made, false}, place);
	}
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		return r;
	initStringInfo(&freed);
	ps_row_put_key(&freed, format, data->tg_trigslot);
	if (is_update && freed.len == made.len && memcmp(freed.data, made.data, made.len) == 0)
		return r;
	if (!is_taken_again(data->tg_relation, format, data->tg_trigslot))
		return r;
	r_taken = find_younger(set, begin, command, &(Sought) {format, &freed, true}, &taken);
	if (r_taken < 0 || (r >= 0 && is_before(*place, taken)))
		return r;
	*place = taken;
	return r_taken;
}

/* The command that did what the event tells. */
static CommandId
command_of(const TriggerData *data)
{
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		return HeapTupleHeaderGetCmin(data->tg_newtuple->t_data);
	if (TRIGGER_FIRED_BY_INSERT(data->tg_event))
		return HeapTupleHeaderGetCmin(data->tg_trigtuple->t_data);
	return HeapTupleHeaderGetCmax(data->tg_trigtuple->t_data);
}

void
ps_order_row(PsWriteSet *set, int begin, const PsRowFormat *format, const TriggerData *data)
{
	CommandId	command = command_of(data);
	Place		place;
	int			bytes = set->chunks[set->n_chunks - 1]->len - begin;
	int			r = -1;

	if (command < newest && PS_RULE("W1.order"))
		r = find_place(set, begin, command, format, data, &place);
	if (r < 0)
	{
		stay(set, begin, command);
		return;
	}
	move(set, begin, place);
	split_run(r, place, bytes, command);
}

void
ps_order_table(PsWriteSet *set, int begin)
{
	stay(set, begin, GetCurrentCommandId(false));
}
