/*
 * settlement.c
 *		What has a lost (or restarted) origin committed, and how do all learn
 *		it?
 *
 * (a) Every in-sync member of the shards that wait adopts our map, durably,
 *	   and then answers with its tail of the origin (F3).
 * (b) The tails are united.  An entry found anywhere, whole, without an ABORT,
 *	   counts as committed; one found in pieces only gets an ABORT: nobody has
 *	   acked it.  An entry found nowhere was never acknowledged.
 * (c) Every member journals what it lacks of the union, ABORTs too.
 * (d) Only then every member applies.
 * (e) A map without the origin's unsettled incarnations: the shards open.
 *
 * Before (c) the origin itself is waited for when an undecided entry writes a
 * shard that was left to it, of which it has the only copy in sync.
 *
 * A leader that dies anywhere is followed by another which starts at (a) and
 * finds at least what the first one found, or its effect.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "ground/step.h"
#include "ground/wire.h"
#include "keep/heartbeat.h"
#include "keep/proposer.h"
#include "keep/settlement.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/settings.h"
#include "utils/hsearch.h"

#define PS_SETTLE_TIMEOUT_MS 60000
#define PS_SETTLE_SLICE_MS 500	/* between two looks whether a member is alive */

/* One record of the union. */
typedef struct UnionKey
{
	uint64		incarnation;
	uint64		seq;
} UnionKey;

typedef struct UnionRecord
{
	UnionKey	key;
	PsRecord	record;			/* raw points into raw_bytes of our own */
	bool		is_aborted;		/* of a first fragment: its ABORT is here, too */
} UnionRecord;

typedef struct Union
{
	HTAB	   *records;
	UnionRecord **sorted;
	long		n;
	uint64		upto;			/* last incarnation that is settled */
} Union;

/* The members: in-sync placements of shards that wait for the origin. */
static PsNodeSet
members_of(const PsMap *map, uint32 origin)
{
	PsNodeSet	set = 0;

	for (int s = 0; s < map->n_shards; s++)
		if (PS_HAS_NODE(map->shards[s].waits, origin))
			set |= map->shards[s].in_sync;
	return set;
}

/* Calls one function on one member; ERROR when it does not work. */
static PGresult *
call_member(const PsMap *map, uint32 id, const char *sql, int n_args, PsArg *args, uint32 *absent)
{
	const char *name = ps_map_node((PsMap *) map, id)->name;
	PsTime		deadline = ps_deadline(PS_SETTLE_TIMEOUT_MS);
	PGconn	   *conn;
	PGresult   *result;

	*absent = id;
	conn = ps_peer(id, name, ps_deadline(ps_call_timeout_ms));
	if (conn == NULL && !PS_RULE("F4.last"))
	{
		*absent = 0;
		return NULL;
	}
	if (conn == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" cannot be reached", name),
				 errdetail("Its journal is needed to settle what a lost primary has committed.")));
	result = ps_conn_call(conn, sql, n_args, args, false, ps_deadline(PS_SETTLE_SLICE_MS));
	while (result == NULL && PQstatus(conn) == CONNECTION_OK && !ps_is_silent(id) &&
		   ps_now() < deadline)
		result = ps_conn_result(conn, ps_deadline(PS_SETTLE_SLICE_MS));
	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		if (result)
			*absent = 0;		/* it is there, and says no */
		ps_peer_drop(id);
		ps_conn_throw(result, NULL, name, sql);
	}
	*absent = 0;
	return result;
}

/*
 * May a member's journal testify to this record?  Only when it is in sync for
 * one of its shards that waits for the origin: after it has left those, an ABORT
 * may have passed it by.  Of a shard that was switched over from the origin nothing
 * is undecided; who was out then may be in sync now, with what it had before.
 * An ABORT itself is final wherever it is found.
 */
static bool
speaks_for(const PsMap *map, uint32 origin, uint32 id, const PsRecord *record)
{
	if (record->kind == PS_RECORD_ABORT)
		return true;
	for (int i = 0; i < record->n_shards; i++)
	{
		int			shard = ps_record_shard(record, i);

		if (shard < map->n_shards && PS_HAS_NODE(map->shards[shard].in_sync, id) &&
			PS_HAS_NODE(map->shards[shard].waits, origin))
			return true;
	}
	return false;
}

/*
 * (a) for one member: fence, then its tail into the union.  Not what the origin,
 * having started again, writes to other shards meanwhile: that is under way.  An
 * entry of it that is here in part would get an ABORT, and one journaled before
 * its turn would let the receiver pass over those in between.
 */
static void
take_tail(const PsMap *map, uint32 origin, uint32 id, StringInfo map_bytes,
		  Union *all, uint32 *absent)
{
	PsArg		args[2] = {ps_arg_bytes(map_bytes->data, map_bytes->len)};
	PGresult   *result;

	PQclear(call_member(map, id, "SELECT payshard.peer_learn($1)", 1, args, absent));
	args[0] = ps_arg_int8(origin);
	args[1] = ps_arg_int8((int64) map->epoch);
	result = call_member(map, id, "SELECT incarnation, record FROM payshard.peer_tail($1::int, $2)", 2, args, absent);
	for (int i = 0; i < PQntuples(result); i++)
	{
		UnionKey	key = {0};
		PsReader	reader;
		PsRecord	record;
		size_t		bytes;
		void	   *raw = ps_result_bytes(result, i, 1, &bytes);
		const char *wrong;
		bool		found;
		UnionRecord *entry;

		key.incarnation = (uint64) ps_result_int8(result, i, 0);
		if (key.incarnation > all->upto)
			continue;
		wrong = ps_unseal(raw, &bytes);
		ps_reader_init(&reader, raw, bytes);
		if (wrong || !ps_record_next(&reader, &record))
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("a journal record of node \"%s\" is damaged", ps_map_node_name(id)),
					 errdetail("It was refused: %s.", wrong ? wrong : "the record is malformed"),
					 errhint("The settlement is tried again. If it lasts, check network and memory of both machines.")));
		key.seq = record.seq;
		if (!speaks_for(map, origin, id, &record))
			continue;
		entry = hash_search(all->records, &key, HASH_ENTER, &found);
		if (!found)
		{
			entry->record = record;
			entry->is_aborted = false;
		}
	}
	PQclear(result);
}

static int
compare_records(const void *a, const void *b)
{
	const UnionKey *x = &(*(UnionRecord *const *) a)->key;
	const UnionKey *y = &(*(UnionRecord *const *) b)->key;

	if (x->incarnation != y->incarnation)
		return x->incarnation < y->incarnation ? -1 : 1;
	return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static void
sort_union(Union *all)
{
	HASH_SEQ_STATUS seq;
	UnionRecord *entry;

	all->sorted = palloc(sizeof(UnionRecord *) * (hash_get_num_entries(all->records) + 1));
	all->n = 0;
	hash_seq_init(&seq, all->records);
	while ((entry = hash_seq_search(&seq)) != NULL)
		all->sorted[all->n++] = entry;
	qsort(all->sorted, all->n, sizeof(UnionRecord *), compare_records);
}

static UnionRecord *
find(Union *all, uint64 incarnation, uint64 seq)
{
	UnionKey	key = {incarnation, seq};

	return hash_search(all->records, &key, HASH_FIND, NULL);
}

/*
 * Is the entry that ends or goes on with this record there from its first
 * fragment to its last?  A first fragment that the members have applied or
 * know to be decided is in nobody's tail: then the whole entry is decided.
 */
static bool
is_whole(Union *all, const UnionRecord *from)
{
	uint64		seq = from->key.seq;
	UnionRecord *next = find(all, from->key.incarnation, seq);

	while (next && (next->record.flags & PS_RECORD_MORE))
		next = find(all, from->key.incarnation, ++seq);
	return next != NULL;
}

/* Is a shard of the record left to the origin, which alone is in sync there? */
static bool
is_left_to(const PsMap *map, uint32 origin, const PsRecord *record)
{
	for (int i = 0; i < record->n_shards; i++)
	{
		int			shard = ps_record_shard(record, i);

		if (shard < map->n_shards && map->shards[shard].primary == origin &&
			!PS_HAS_NODE(map->shards[shard].waits, origin))
			return true;
	}
	return false;
}

/*
 * A node that was failed over in part kept the shards that it alone has in sync.
 * An entry which writes one of those, too, is only settled together with the
 * node itself (it is a member when it has started again): it may have died
 * before its own commit, and then would never hear of its half.
 */
static bool
needs_origin(const PsMap *map, uint32 origin, Union *all)
{
	for (long i = 0; i < all->n; i++)
	{
		const PsRecord *record = &all->sorted[i]->record;
		UnionRecord *first;

		if (record->kind == PS_RECORD_ABORT &&
			(first = find(all, all->sorted[i]->key.incarnation, record->ref_seq)) != NULL)
			first->is_aborted = true;
	}
	for (long i = 0; i < all->n; i++)
	{
		const PsRecord *record = &all->sorted[i]->record;
		UnionRecord *first;

		if (record->kind != PS_RECORD_ENTRY || !is_left_to(map, origin, record) ||
			!is_whole(all, all->sorted[i]))
			continue;
		first = find(all, all->sorted[i]->key.incarnation, record->ref_seq);
		if (first == NULL || !first->is_aborted)
			return true;
	}
	return false;
}

/* Said once under each map. */
static void
say_needs_origin(const PsMap *map, const char *name)
{
	static uint64 said_epoch = 0;

	if (said_epoch != map->epoch)
		ereport(LOG,
				(errmsg("payshard: settling node \"%s\" waits for the node itself", name),
				 errdetail("A transaction of it wrote a shard of which it holds the only copy in sync, and one that has another copy; its outcome is not known."),
				 errhint("Start that server again.")));
	said_epoch = map->epoch;
}

/* (b) and the bytes for (c): one incarnation's records, with ABORTs for pieces. */
static long
union_bytes(Union *all, long at, StringInfo out)
{
	uint64		incarnation = all->sorted[at]->key.incarnation;
	uint64		aborted_first = 0;

	for (; at < all->n && all->sorted[at]->key.incarnation == incarnation; at++)
	{
		const PsRecord *record = &all->sorted[at]->record;

		appendBinaryStringInfo(out, (const char *) record->raw, record->raw_bytes);
		if (record->kind == PS_RECORD_ENTRY && record->ref_seq != aborted_first &&
			!is_whole(all, all->sorted[at]))
		{
			/*
			 * The piece is the last that anybody has of the stream, or an
			 * ABORT follows it: a seq of its own after it is free.
			 */
			uint16		shard = ps_record_shard(record, 0);
			uint64		term = ps_record_term(record, 0);
			uint64		seq = record->seq + 1;

			while (find(all, incarnation, seq))
				seq++;
			aborted_first = record->ref_seq;
			ps_record_end(out, ps_record_begin(out, PS_RECORD_ABORT, 0, seq, 0,
											   record->ref_seq, &shard, &term, 1));
		}
	}
	return at;
}

/* (c): all members journal the union, one incarnation after the other. */
static void
journal_union(const PsMap *map, uint32 origin, PsNodeSet members, Union *all, uint32 *absent)
{
	long		at = 0;

	while (at < all->n)
	{
		StringInfoData bytes;
		PsArg		args[4];

		initStringInfo(&bytes);
		args[0] = ps_arg_int8(origin);
		args[1] = ps_arg_int8((int64) map->epoch);
		args[2] = ps_arg_int8((int64) all->sorted[at]->key.incarnation);
		at = union_bytes(all, at, &bytes);
		ps_seal(&bytes);
		args[3] = ps_arg_bytes(bytes.data, bytes.len);
		for (uint32 id = 1; members >> id; id++)
			if (PS_HAS_NODE(members, id))
				PQclear(call_member(map, id, "SELECT payshard.peer_settle_journal($1::int, $2, $3, $4)",
									4, args, absent));
		pfree(bytes.data);
	}
}

/* (d) */
static void
apply_union(const PsMap *map, uint32 origin, PsNodeSet members, uint64 upto, uint32 *absent)
{
	PsArg		args[3];

	args[0] = ps_arg_int8(origin);
	args[1] = ps_arg_int8((int64) map->epoch);
	args[2] = ps_arg_int8((int64) upto);
	for (uint32 id = 1; members >> id; id++)
		if (PS_HAS_NODE(members, id))
			PQclear(call_member(map, id, "SELECT payshard.peer_settle_apply($1::int, $2, $3)", 3, args, absent));
}

typedef struct Settled
{
	uint32		origin;
	uint64		upto;
} Settled;

static PsRefusal
step_settled(PsMap *map, void *arg)
{
	Settled    *settled = arg;
	PsMapNode  *node = ps_map_node(map, settled->origin);

	if (node && node->leader == 0)
		return NULL;			/* chosen in an earlier round, or by another leader */
	return ps_step_settled(map, settled->origin, settled->upto);
}

void
ps_settle_origin(const PsMap *map, uint32 origin, uint32 *absent)
{
	const PsMapNode *node = ps_map_node((PsMap *) map, origin);
	PsNodeSet	members = members_of(map, origin);
	HASHCTL		control = {0};
	Union		all;
	Settled		settled;
	StringInfoData map_bytes;

	control.keysize = sizeof(UnionKey);
	control.entrysize = sizeof(UnionRecord);
	control.hcxt = CurrentMemoryContext;
	all.records = hash_create("payshard union", 256, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	settled.origin = origin;
	settled.upto = node->state == PS_NODE_FAILED ? node->incarnation : node->incarnation - 1;
	all.upto = settled.upto;
	initStringInfo(&map_bytes);
	ps_map_put(&map_bytes, map);
	PS_FAULT("settle.before_tails");
	for (uint32 id = 1; members >> id; id++)
		if (PS_HAS_NODE(members, id))
			take_tail(map, origin, id, &map_bytes, &all, absent);
	PS_FAULT("settle.after_tails");
	sort_union(&all);
	if (needs_origin(map, origin, &all))
	{
		say_needs_origin(map, node->name);
		return;
	}
	if (PS_RULE("F4"))
		journal_union(map, origin, members, &all, absent);
	PS_FAULT("settle.after_journal");
	if (PS_RULE("F5"))
		apply_union(map, origin, members, settled.upto, absent);
	PS_FAULT("settle.after_apply");
	ps_propose_or_error(step_settled, &settled, psprintf("settled node %s: %ld entries", node->name, all.n),
						PS_SETTLE_TIMEOUT_MS);
	PS_FAULT("settle.after_settled");
}
