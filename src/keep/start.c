/*
 * start.c
 *		What must have happened before this node serves anything (M3)?
 *
 * NOBODY -> KNOWN (identity and map loaded; a mark for this start, durable)
 *        -> STARTED (the register has the mark and our new incarnation, the
 *			mark is confirmed here, the queue is empty)
 *
 * The register keeps the mark of each node's last start.  A directory that was
 * restored or cloned has another one, or its WAL ends before what peers have
 * heard of this node: it is a stranger.  The mark is durable here before the
 * register hears of it, and confirmed before anything is served, so that a
 * crash in between is no reason to be taken for one.
 *
 * STARTED is given up when a commit's outcome could not be found out (W7):
 * then a new incarnation is taken and the old one settled as after a crash (F1).
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "ground/step.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "keep/process.h"
#include "keep/proposer.h"
#include "keep/start.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/acceptor.h"
#include "node/event.h"
#include "node/fault.h"
#include "node/identity.h"
#include "node/map.h"
#include "node/runs.h"
#include "node/settings.h"
#include "node/tables.h"
#include "pgstat.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "write/queue.h"

PS_FUNCTION(payshard_incarnation);
PS_FUNCTION(payshard_peer_heard);

#define PS_START_TIMEOUT_MS 10000

typedef struct StartStep
{
	uint64		last;			/* mark of this directory's last start */
	uint64		attempt;		/* mark of this one */
	bool		is_judged;		/* is_stranger is valid */
	bool		is_behind;		/* our WAL ends before what a peer has heard of us */
	bool		is_stranger;
} StartStep;

/*
 * The highest WAL position of this node that any peer has heard of; 0 = nobody
 * knows.  Best effort: who cannot be reached may have heard more.
 */
static uint64
heard_lsn(const PsMap *map)
{
	uint64		highest = 0;
	PsArg		arg = ps_arg_int8(ps_map_self());

	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];
		PGconn	   *conn;
		PGresult   *result;

		if (node->id == ps_map_self() ||
			(conn = ps_peer(node->id, node->name, ps_deadline(ps_call_timeout_ms))) == NULL)
			continue;
		result = ps_conn_call(conn, "SELECT payshard.peer_heard($1::int)", 1, &arg, false,
							  ps_deadline(ps_call_timeout_ms));
		if (result && PQresultStatus(result) == PGRES_TUPLES_OK)
			highest = Max(highest, (uint64) ps_result_int8(result, 0, 0));
		else
			ps_peer_drop(node->id);
		PQclear(result);
	}
	return highest;
}

/* What of a stranger's rows is not in sync is not to be trusted: copy it all. */
static void
distrust_own_rows(void)
{
	ps_event_write("stranger", ps_map_self(), 0, "this data directory is not the one that was seen last");
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute("INSERT INTO payshard.full_copy SELECT s, 'stranger' FROM generate_series(0, 1023) s "
				"ON CONFLICT (shard) DO UPDATE SET reason = 'stranger'", false, 0);
	PopActiveSnapshot();
	SPI_finish();
}

/* Durable before anything is served. */
static void
confirm_start(const StartStep *start)
{
	if (start->is_stranger)
		distrust_own_rows();
	ps_identity_confirm(start->attempt);
	CommitTransactionCommand();
	StartTransactionCommand();
}

static PsRefusal
step_start(PsMap *map, void *arg)
{
	StartStep  *start = arg;
	PsMapNode  *node = ps_map_own(map);

	if (node == NULL)
		return "This node is not a member of the cluster.";

	if (node->boot == start->attempt)
	{
		/* chosen in an earlier round; of an earlier run: nobody knows how */
		if (!start->is_judged)
			start->is_stranger = true;
		if (node->has_leases != (ps_lease_timeout_ms > 0))
			map->epoch++;		/* of an earlier run, which has served nothing */
		node->has_leases = ps_lease_timeout_ms > 0;
		return NULL;
	}
	node->has_leases = ps_lease_timeout_ms > 0;
	start->is_judged = true;
	start->is_stranger = start->is_behind || (node->boot != 0 && node->boot != start->last) ||
		(node->boot != 0 && node->system_id != GetSystemIdentifier());
	return ps_step_start(map, node->id, start->attempt, GetSystemIdentifier(), start->is_stranger);
}

/*
 * Does this directory's WAL end before what peers have heard of this node?  Then
 * its votes count no more, before it votes at all in this run of the server: it
 * has forgotten some, and a copy made since its last start has that start's mark.
 */
static bool
judge(const PsMap *map)
{
	bool		is_behind = heard_lsn(map) > GetFlushRecPtr(NULL) && PS_RULE("M3.judged");

	if (is_behind)
	{
		ps_identity_disown();
		CommitTransactionCommand();
		StartTransactionCommand();
	}
	pg_atomic_write_u32(&ps_shared->is_judged, 1);
	return is_behind;
}

/* A mark for this start, committed before we go on. */
static uint64
mark_start(void)
{
	uint64		attempt = ps_identity_attempt();

	CommitTransactionCommand();
	StartTransactionCommand();
	return attempt;
}

/*
 * Must this node take a new incarnation while its server runs?  When an
 * outcome could not be found out (W7), or others have failed over away from it
 * (F2) or count another start of it.
 */
static bool
must_restart(void)
{
	PsMap	   *map;
	PsMapNode  *node;

	if (pg_atomic_read_u32(&ps_shared->needs_recovery) != 0)
		return true;
	if (ps_map_incarnation() == 0 || (map = ps_map_copy()) == NULL)
		return false;
	node = ps_map_own(map);
	return node == NULL || node->state == PS_NODE_FAILED ||
		node->incarnation != ps_map_incarnation();
}

/* Are the SQL objects of this library's version?  Where not, it is said once. */
static bool
is_current(void)
{
	static bool said = false;
	bool		current = ps_extension_is_current();

	if (!current && !said)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this payshard node does not start: its extension has another version than its library"),
				 errdetail("The library that this server has loaded is of version %s.", PS_EXTENSION_VERSION),
				 errhint("Run ALTER EXTENSION payshard UPDATE; if the library is the older one, install the newer one and restart the server.")));
	said = !current;
	return current;
}

bool
ps_duty_start(void)
{
	PsIdentity	identity;
	PsMap	   *map;
	PsMapNode  *node;
	StartStep	step = {0};
	uint64		incarnation;

	if (must_restart())
		ps_map_set_incarnation(0);
	if (ps_map_incarnation() != 0)
	{
		ps_acceptor_unbind();
		return false;
	}
	if (!ps_identity_read(&identity))
		return false;
	ps_map_set_self_name(identity.name);
	if (!is_current())
		return false;
	if (!ps_shared->map_loaded || ps_shared->self == 0)
		ps_map_load();
	map = ps_map_copy();
	if (map == NULL || ps_map_own(map) == NULL)
		return true;			/* invited, but no member yet */
	/* a start within the life of one server is a start, too */
	PS_FAULT("start.before_boot");
	ps_runs_note(ps_map_node(map, ps_map_self())->incarnation);
	ps_acceptor_load(identity.cluster_id);
	/* its row is not held while peers are asked; the copy of the map goes, too */
	CommitTransactionCommand();
	StartTransactionCommand();
	map = ps_map_copy();
	step.last = identity.boot;
	step.is_behind = judge(map);
	step.attempt = mark_start();
	map = ps_map_copy();		/* the former copy went with its transaction */
	PS_FAULT("start.before_incarnation");
	pg_atomic_write_u32(&ps_shared->needs_recovery, 0);
	map = ps_propose_or_error(step_start, &step, psprintf("start of node %s", identity.name),
							  PS_START_TIMEOUT_MS);
	PS_FAULT("start.after_incarnation");
	node = ps_map_node(map, ps_map_self());
	incarnation = node->incarnation;
	ereport(LOG,
			(errmsg("payshard node \"%s\" has started with incarnation " UINT64_FORMAT ", epoch " UINT64_FORMAT "%s",
					node->name, node->incarnation, map->epoch,
					step.is_stranger ? ", as a stranger" : "")));
	confirm_start(&step);
	ps_queue_reset();
	PS_FAULT("start.before_open");
	ps_map_set_incarnation(incarnation);
	return true;
}

bool
ps_duty_processes(void)
{
	static PsProcess applier;
	static PsProcess senders[PS_NODES_MAX];
	PsMap	   *map;

	if (ps_map_self() == 0 || (map = ps_map_copy()) == NULL ||
		ps_map_own(map) == NULL)
		return false;
	ps_process_start("payshard_apply_main", "apply", 0, &applier);
	if (ps_map_incarnation() != 0)
		for (int i = 0; i < map->n_nodes; i++)
			if (map->nodes[i].id != ps_map_self())
				ps_process_start("payshard_sender_main", psprintf("sender %s", map->nodes[i].name),
								 map->nodes[i].id, &senders[map->nodes[i].id]);
	return false;
}

/*
 * peer_heard(node) -> the highest WAL position this node has heard of another,
 * as a number of bytes
 */
Datum
payshard_peer_heard(PG_FUNCTION_ARGS)
{
	uint32		node = PG_GETARG_INT32(0);
	uint64		lsn;
	Oid			type = INT4OID;
	Datum		arg = PG_GETARG_DATUM(0);
	bool		isnull;

	if (node == 0 || node >= PS_NODES_MAX)
		PG_RETURN_INT64(0);
	lsn = Max(pg_atomic_read_u64(&ps_shared->origins[node].lsn), ps_shared->peers[node].lsn);
	SPI_connect();
	SPI_execute_with_args("SELECT lsn FROM payshard.position WHERE origin = $1", 1, &type, &arg, NULL, true, 1);
	if (SPI_processed == 1)
		lsn = Max(lsn, DatumGetLSN(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1,
												 &isnull)));
	SPI_finish();
	PG_RETURN_INT64((int64) lsn);
}

/* incarnation() */
Datum
payshard_incarnation(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(ps_shared ? ps_map_incarnation() : 0);
}
