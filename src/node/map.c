/*
 * map.c
 *		What is the chosen map on this node?
 *
 * The map is durable in payshard.chosen_map (one row) and copied to shared
 * memory.  Adopting one: (a) take the relation lock exclusively: nobody
 * journals, applies or commits under the old map any more; (b) write the row;
 * (c) commit, with a flush; (d) in the commit callback, the lock still held,
 * install it in shared memory.  Install before the flush, and a crash could
 * bring the node back with a map older than the one under which it has already
 * answered (F3).
 *
 * Every map ever adopted stays in payshard.map_history, from which the events,
 * availability and recovery views are computed.
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "node/clock.h"
#include "node/damage.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/suspicion.h"
#include "node/tables.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#define PS_STARTING_MS 5000	/* a client waits that long for a node that starts */

PsMapAdopted ps_map_adopted = NULL;

/* To be installed when the current transaction commits; in TopMemoryContext. */
static PsMap *pending = NULL;

uint32
ps_map_self(void)
{
	return ps_shared->self;
}

static PsMapNode *
own_node(PsMap *map)
{
	PsMapNode  *node = ps_map_node(map, ps_shared->self);
	const char *name = ps_shared->self_name;

	return node && (name[0] == '\0' || strcmp(node->name, name) == 0) ? node : NULL;
}

PsMapNode *
ps_map_own(PsMap *map)
{
	PsMapNode  *node;

	LWLockAcquire(&ps_shared->map_lock, LW_SHARED);
	node = own_node(map);
	LWLockRelease(&ps_shared->map_lock);
	return node;
}

void
ps_map_set_self_name(const char *name)
{
	LWLockAcquire(&ps_shared->map_lock, LW_EXCLUSIVE);
	strlcpy(ps_shared->self_name, name, PS_NAME_MAX);
	LWLockRelease(&ps_shared->map_lock);
}

uint64
ps_map_epoch(void)
{
	return pg_atomic_read_u64(&ps_shared->epoch);
}

uint64
ps_map_incarnation(void)
{
	return pg_atomic_read_u64(&ps_shared->incarnation);
}

PsMap *
ps_map_copy(void)
{
	PsMap	   *map = palloc(sizeof(PsMap));
	bool		loaded;

	LWLockAcquire(&ps_shared->map_lock, LW_SHARED);
	loaded = ps_shared->map_loaded;
	if (loaded)
		memcpy(map, &ps_shared->map, sizeof(PsMap));
	LWLockRelease(&ps_shared->map_lock);
	if (loaded)
		return map;
	pfree(map);
	return NULL;
}

bool
ps_map_shard(int shard, PsMapShard *out)
{
	bool		found;

	LWLockAcquire(&ps_shared->map_lock, LW_SHARED);
	found = ps_shared->map_loaded && shard >= 0 && shard < ps_shared->map.n_shards;
	if (found)
		*out = ps_shared->map.shards[shard];
	LWLockRelease(&ps_shared->map_lock);
	return found;
}

bool
ps_map_opened_after(int shard, Snapshot snapshot)
{
	uint64		opened = pg_atomic_read_u64(&ps_shared->opened_by[shard]);

	if (likely(opened == 0) || snapshot == NULL || !IsMVCCSnapshot(snapshot))
		return false;
	if (likely(!XidInMVCCSnapshot((TransactionId) opened, snapshot)))
		return false;
	/* no snapshot is so old that xids have gone round since */
	return U64FromFullTransactionId(ReadNextFullTransactionId()) - opened < PG_INT32_MAX;
}

int
ps_map_n_shards(void)
{
	/* fixed per cluster: no lock needed once loaded */
	return ps_shared->map_loaded ? ps_shared->map.n_shards : 0;
}

uint64
ps_map_terms(void)
{
	uint64		sum = 0;

	LWLockAcquire(&ps_shared->map_lock, LW_SHARED);
	for (int s = 0; ps_shared->map_loaded && s < ps_shared->map.n_shards; s++)
		sum += ps_shared->map.shards[s].term;
	LWLockRelease(&ps_shared->map_lock);
	return sum;
}

/* Copies a node; false when there is no map or no such node. */
static bool
find_node(uint32 id, PsMapNode *out)
{
	PsMapNode  *node;

	LWLockAcquire(&ps_shared->map_lock, LW_SHARED);
	node = ps_shared->map_loaded ? ps_map_node(&ps_shared->map, id) : NULL;
	if (node)
		*out = *node;
	LWLockRelease(&ps_shared->map_lock);
	return node != NULL;
}

char *
ps_map_node_name(uint32 id)
{
	PsMapNode	node;

	return find_node(id, &node) ? pstrdup(node.name) : psprintf("node %u", id);
}

uint64
ps_map_settled(uint32 id)
{
	PsMapNode	node;

	return find_node(id, &node) ? node.settled : 0;
}

bool
ps_map_is_settled(uint32 id)
{
	PsMapNode	node;

	return !find_node(id, &node) || node.leader == 0;
}

uint64
ps_map_node_incarnation(uint32 id)
{
	PsMapNode	node;

	return find_node(id, &node) ? node.incarnation : 0;
}

bool
ps_map_is_up(uint32 id, uint64 incarnation)
{
	PsMapNode	node;

	return find_node(id, &node) && node.state == PS_NODE_UP && node.incarnation == incarnation;
}

bool
ps_map_is_resting(uint32 id)
{
	PsMapNode	node;

	return find_node(id, &node) && node.is_resting;
}

bool
ps_map_is_member(uint32 id, uint64 incarnation)
{
	PsMapNode	node;

	return find_node(id, &node) && node.incarnation == incarnation;
}

const int *
ps_map_shards_of(ArrayType *array, int *n)
{
	const int  *shards = (const int *) ARR_DATA_PTR(array);

	if (array_contains_nulls(array))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a shard is null"),
				 errdetail("An array of shards has no nulls."),
				 errhint("Nodes call this function with numbers of shards.")));
	*n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	for (int i = 0; i < *n; i++)
		if (shards[i] < 0 || shards[i] >= ps_map_n_shards())
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there is no shard %d", shards[i]),
					 errdetail("Shards are numbered 0 to %d.", ps_map_n_shards() - 1),
					 errhint("Nodes of one cluster have the same shards.")));
	return shards;
}

/* The keeper of a server that has just started reads who it is, then the map. */
static bool
is_loading(void)
{
	return ps_map_self() != 0 && !ps_shared->map_loaded;
}

static void
throw_starting(void)
{
	ps_extension_require_current();
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("this payshard node is starting up"),
			 errdetail("It has not taken a new incarnation from a majority of the nodes yet."),
			 errhint("Retry; see payshard.nodes and the server log if it lasts.")));
}

void
ps_map_await_self(void)
{
	PsTime		deadline = ps_deadline(PS_STARTING_MS);

	ps_extension_require_current();
	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	while ((ps_map_self() == 0 || is_loading()) && ps_now() < deadline)
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, 200, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
	if (ps_map_self() == 0 || is_loading())
		throw_starting();
}

void
ps_map_require_cluster(void)
{
	if (likely(ps_shared != NULL && ps_shared->self != 0 && ps_shared->map_loaded))
		return;
	if (ps_shared != NULL && is_loading())
		ps_map_await_self();
	if (ps_shared != NULL && ps_shared->self != 0 && ps_shared->map_loaded)
		return;
	ps_extension_require_current();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("this database is not a node of a payshard cluster"),
			 errhint("Call payshard.create_cluster() here, or payshard.add_node() on a node of the cluster.")));
}

/* A node that has just started is given a moment. */
static void
await_incarnation(void)
{
	PsTime		deadline = ps_deadline(PS_STARTING_MS);

	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	while (ps_map_incarnation() == 0 && ps_now() < deadline)
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, 200, PG_WAIT_EXTENSION);
	ConditionVariableCancelSleep();
}

/* Was this node removed from the cluster, or is it not taken in yet? */
static bool
is_member(void)
{
	bool		is;

	LWLockAcquire(&ps_shared->map_lock, LW_SHARED);
	is = own_node(&ps_shared->map) != NULL;
	LWLockRelease(&ps_shared->map_lock);
	return is;
}

void
ps_map_require_serving(void)
{
	ps_map_require_cluster();
	if (ps_map_incarnation() == 0 && !is_member())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this database is not a member of the payshard cluster"),
				 errdetail("It was removed, or has not been taken in yet."),
				 errhint("Use another node; see payshard.nodes there.")));
	if (ps_map_incarnation() == 0)
		await_incarnation();
	if (ps_map_incarnation() == 0)
		throw_starting();
}

void
ps_map_lock(void)
{
	LockRelationOid(ps_table_oid(PS_TABLE_CHOSEN_MAP), RowExclusiveLock);
}

void
ps_map_unlock(void)
{
	UnlockRelationOid(ps_table_oid(PS_TABLE_CHOSEN_MAP), RowExclusiveLock);
}

static bool
is_open_here(const PsMapShard *shard)
{
	return shard->primary == ps_shared->self && shard->waits == 0;
}

/*
 * The committed transaction adopts a map: which shards does it open here?  A
 * server that has just started has no older snapshots.
 */
static void
note_opened(const PsMap *old, const PsMap *map)
{
	FullTransactionId xid = GetTopFullTransactionIdIfAny();

	for (int s = 0; old && FullTransactionIdIsValid(xid) && s < map->n_shards; s++)
	{
		if (is_open_here(&map->shards[s]) &&
			(s >= old->n_shards || !is_open_here(&old->shards[s]) ||
			 old->shards[s].term != map->shards[s].term))
			pg_atomic_write_u64(&ps_shared->opened_by[s], U64FromFullTransactionId(xid));
	}
}

/* Puts a map into shared memory; lock order as in shared.h. */
/*
 * With both locks held: a map that has removed this node, or knows another start of it,
 * ends this one at once; the keeper does the rest (start.c).  It may name shards of another
 * node that got its id.
 */
static void
retire(const PsMap *map)
{
	uint64		incarnation = pg_atomic_read_u64(&ps_shared->incarnation);
	PsMapNode  *own = own_node((PsMap *) map);

	if (incarnation == 0 || (own && own->incarnation == incarnation))
		return;
	pg_atomic_write_u64(&ps_shared->incarnation, 0);
	ps_lease_reset();
}

static void
install(const PsMap *map)
{
	LWLockAcquire(&ps_shared->queue.lock, LW_EXCLUSIVE);
	LWLockAcquire(&ps_shared->map_lock, LW_EXCLUSIVE);
	if (!ps_shared->map_loaded || ps_shared->map.epoch < map->epoch)
	{
		retire(map);
		ps_lease_map_adopted(ps_shared->map_loaded ? &ps_shared->map : NULL, map);
		ps_suspicion_map_adopted(ps_shared->map_loaded ? &ps_shared->map : NULL, map);
		note_opened(ps_shared->map_loaded ? &ps_shared->map : NULL, map);
		memcpy(&ps_shared->map, map, sizeof(PsMap));
		ps_shared->map_loaded = true;
		pg_atomic_write_u64(&ps_shared->epoch, map->epoch);
		if (ps_map_adopted)
			ps_map_adopted(&ps_shared->map);
	}
	LWLockRelease(&ps_shared->map_lock);
	LWLockRelease(&ps_shared->queue.lock);
	ConditionVariableBroadcast(&ps_shared->map_changed);
	ConditionVariableBroadcast(&ps_shared->queue.changed);
	ps_wake_keeper();
	ps_wake_applier();
}

void
ps_map_load(void)
{
	PsMap	   *map = palloc(sizeof(PsMap));
	bool		isnull;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_execute("SELECT node_id FROM payshard.node_self", true, 1) == SPI_OK_SELECT &&
		SPI_processed == 1)
		ps_shared->self = DatumGetInt32(SPI_getbinval(SPI_tuptable->vals[0],
													  SPI_tuptable->tupdesc, 1, &isnull));
	if (SPI_execute("SELECT value FROM payshard.chosen_map", true, 1) == SPI_OK_SELECT &&
		SPI_processed == 1)
	{
		bytea	   *value = DatumGetByteaPP(SPI_getbinval(SPI_tuptable->vals[0],
														  SPI_tuptable->tupdesc, 1, &isnull));
		PsRefusal	wrong = ps_map_read(map, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));

		if (wrong)
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("the payshard map of this node is damaged"),
					 errdetail("%s", wrong),
					 errhint("Stop this server and rebuild the node from the others.")));
		PS_FAULT("map.before_load");
		install(map);
	}
	PopActiveSnapshot();
	SPI_finish();
	pfree(map);
}

/* Reads and checks a map that came from elsewhere. */
static PsMap *
read_foreign(const void *data, size_t bytes)
{
	PsMap	   *map = MemoryContextAlloc(TopMemoryContext, sizeof(PsMap));
	PsRefusal	wrong = ps_map_read(map, data, bytes);

	if (wrong)
	{
		pfree(map);
		ps_damaged("a map", wrong);
	}
	if (ps_shared->map_loaded && ps_shared->map.cluster_id != map->cluster_id)
	{
		pfree(map);
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("the map is of another payshard cluster")));
	}
	return map;
}

static void
write_durably(const PsMap *map, const void *data, size_t bytes)
{
	Oid			types[4] = {INT8OID, BYTEAOID, TIMESTAMPTZOID, TEXTOID};
	Datum		values[4];
	bytea	   *value = palloc(bytes + VARHDRSZ);

	SET_VARSIZE(value, bytes + VARHDRSZ);
	memcpy(VARDATA(value), data, bytes);
	values[0] = Int64GetDatum(map->epoch);
	values[1] = PointerGetDatum(value);
	values[2] = TimestampTzGetDatum(map->changed_at);
	values[3] = CStringGetTextDatum(map->reason);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("INSERT INTO payshard.chosen_map (epoch, value) VALUES ($1, $2) "
						  "ON CONFLICT (one) DO UPDATE SET epoch = excluded.epoch, value = excluded.value",
						  2, types, values, NULL, false, 0);
	SPI_execute_with_args("INSERT INTO payshard.map_history (epoch, value, changed_at, reason) "
						  "VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
						  4, types, values, NULL, false, 0);
	PopActiveSnapshot();
	SPI_finish();
}

bool
ps_map_adopt(const void *data, size_t bytes)
{
	PsMap	   *map = read_foreign(data, bytes);

	if (map->epoch <= ps_map_epoch() || !PS_RULE("M2"))
	{
		pfree(map);
		return false;
	}
	PS_FAULT("map.before_adopt");
	LockRelationOid(ps_table_oid(PS_TABLE_CHOSEN_MAP), ExclusiveLock);
	/* somebody else may have adopted a newer one while we waited */
	if (map->epoch <= ps_map_epoch())
	{
		pfree(map);
		return false;
	}
	write_durably(map, data, bytes);
	ForceSyncCommit();
	PS_FAULT("map.before_commit");
	if (pending)
		pfree(pending);
	pending = map;
	return true;
}

void
ps_map_at_commit(void)
{
	if (pending == NULL)
		return;
	PS_FAULT("map.after_commit");
	install(pending);
	pfree(pending);
	pending = NULL;
}

void
ps_map_at_abort(void)
{
	if (pending)
		pfree(pending);
	pending = NULL;
}

void
ps_map_set_incarnation(uint64 incarnation)
{
	if (incarnation != 0)
	{
		pg_atomic_write_u64(&ps_shared->started_at, GetCurrentTimestamp());
		pg_atomic_write_u64(&ps_shared->started_us, ps_clock_us());
	}
	pg_atomic_write_u64(&ps_shared->incarnation, incarnation);
	ps_lease_reset();
	ConditionVariableBroadcast(&ps_shared->map_changed);
}
