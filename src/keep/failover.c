/*
 * failover.c
 *		A primary is gone; who decides that, and who settles what it left (F2)?
 *
 * payshard.failover('n2'), on any other node: (a) refuse when n2 is healthy, or
 * when a shard would be lost with it; (b) a map without n2: its shards get
 * other primaries and wait, this node leads; (c) the keeper of the leader
 * settles n2 (settlement.c); (d) the shards open; the function returns then.
 *
 * If the leader dies after (b), the keeper of another node takes the lead.
 * Automatic failover (watchman.c) begins with (b).
 */
#include "postgres.h"

#include "ground/step.h"
#include "keep/failover.h"
#include "keep/fit.h"
#include "keep/heartbeat.h"
#include "keep/proposer.h"
#include "keep/settlement.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/settings.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PS_FUNCTION(payshard_failover);

#define PS_FAILOVER_TIMEOUT_MS 60000

typedef struct FailStep
{
	uint32		id;
	uint64		incarnation;	/* only while it is this one; 0 = any */
	bool		partial;
	const uint32 *prefer;		/* wishes for new primaries (ps_step_fail) or NULL */
	bool		stuck[PS_SHARDS_MAX];
} FailStep;

static const char already_failed[] = "The node has been failed over already.";

/* F2, and what the lost node was leading gets another leader. */
static PsRefusal
step_fail(PsMap *map, void *arg)
{
	FailStep   *fail = arg;
	PsMapNode  *node = ps_map_node(map, fail->id);
	uint64		epoch = map->epoch;
	PsRefusal	refusal;

	if (node && node->state == PS_NODE_FAILED)
		return already_failed;
	if (node && fail->incarnation != 0 && node->incarnation != fail->incarnation)
		return "The node has started again.";
	refusal = ps_step_fail(map, fail->id, ps_map_self(), fail->prefer,
						   fail->partial ? fail->stuck : NULL);
	if (refusal)
		return refusal;
	for (int s = 0; s < map->n_shards && !PS_RULE("F2.recovering"); s++)
		map->shards[s].waits = 0;
	for (int i = 0; i < map->n_nodes; i++)
		if (map->nodes[i].leader == fail->id)
			(void) ps_step_lead(map, map->nodes[i].id, ps_map_self());
	map->epoch = epoch + 1;
	return NULL;
}

PsRefusal
ps_failover_propose(uint32 id, uint64 incarnation, const uint32 *prefer, const char *reason,
					int timeout_ms)
{
	FailStep   *fail = palloc0(sizeof(FailStep));
	PsRefusal	refusal;

	fail->id = id;
	fail->incarnation = incarnation;
	fail->partial = true;
	fail->prefer = prefer;
	(void) ps_propose(step_fail, fail, reason, timeout_ms, &refusal);
	return refusal;
}

int
ps_failover_only_copies(const PsMap *map, uint32 id, StringInfo list)
{
	int			n = 0;

	for (int s = 0; s < map->n_shards; s++)
	{
		if (map->shards[s].in_sync != PS_NODE_BIT(id))
			continue;
		if (n++ < 20)
			appendStringInfo(list, "%s%d", n > 1 ? ", " : "", s);
		else if (n == 21)
			appendStringInfoString(list, ", ...");
	}
	return n;
}

PsMapNode *
ps_failover_member(PsMap *map, const char *name)
{
	PsMapNode  *node = ps_map_node_by_name(map, name);
	StringInfoData names;

	if (node)
		return node;
	initStringInfo(&names);
	for (int i = 0; i < map->n_nodes; i++)
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", map->nodes[i].name);
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("there is no node \"%s\"", name),
			 errdetail("The nodes of this cluster are: %s.", names.data),
			 errhint("See payshard.nodes.")));
	return NULL;
}

bool
ps_failover_answers(const PsMapNode *node)
{
	char	   *error;
	PsTime		deadline = ps_deadline(Min(ps_peer_timeout_ms, ps_call_timeout_ms));
	PGconn	   *conn = ps_conn_open(node->name, InvalidOid, "failover", deadline, &error);
	PGresult   *result;
	bool		answers;

	if (conn == NULL)
		return false;
	result = ps_conn_call(conn, "SELECT payshard.incarnation()", 0, NULL, false,
						  ps_deadline(Min(ps_peer_timeout_ms, ps_call_timeout_ms)));
	answers = result && PQresultStatus(result) == PGRES_TUPLES_OK &&
		(uint64) ps_result_int8(result, 0, 0) == node->incarnation;
	PQclear(result);
	ps_conn_close(conn);
	return answers;
}

/* (a): does it still answer? */
static void
require_lost(const PsMapNode *node)
{
	if (ps_failover_answers(node))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is healthy", node->name),
				 errdetail("It answers with its current incarnation " UINT64_FORMAT ".", node->incarnation),
				 errhint("Use force => true to fail over nevertheless; transactions in flight there will end with an unknown outcome.")));
}

static void
refuse_loss(const PsMapNode *node, int n, const char *list)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("failing over node \"%s\" would lose acknowledged transactions", node->name),
			 errdetail_plural("It holds the only copy in sync of %d shard: %s.",
							  "It holds the only copy in sync of %d shards: %s.", n, n, list),
			 errhint("Start that server again; or use partial => true to fail over its other shards only.")));
}

/* Two voters decide nothing when one is lost (M1). */
static void
require_majority(const PsMap *map, const PsMapNode *node)
{
	if (map->n_nodes < 3)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot be failed over without a majority", node->name),
				 errdetail("A cluster of two nodes decides nothing without either of them."),
				 errhint("Start that server again. Of three nodes, one of which may be a witness, any one can be failed over.")));
}

/* (b); a watchman, or another DBA, may be faster. */
static void
propose_fail(FailStep *fail, const char *name)
{
	PsRefusal	refusal;

	(void) ps_propose(step_fail, fail, psprintf("failover of node %s", name),
					  PS_FAILOVER_TIMEOUT_MS, &refusal);
	if (refusal && refusal != already_failed)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("failover of node \"%s\" is not possible now", name),
				 errdetail("%s", refusal)));
}

/*
 * (c), (d): until nothing of the node has to be settled, and the shards that
 * it was primary of, or that wait for it, wait for no other node either.
 */
static void
await_settled(const PsMap *before, uint32 id)
{
	PsTime		deadline = ps_deadline(PS_FAILOVER_TIMEOUT_MS);

	ConditionVariablePrepareToSleep(&ps_shared->map_changed);
	for (;;)
	{
		PsMap	   *map = ps_map_copy();
		PsMapNode  *node = ps_map_node(map, id);
		bool		settled = node == NULL || node->leader == 0;

		for (int s = 0; s < map->n_shards; s++)
			if (map->shards[s].waits != 0 && map->shards[s].primary != id &&
				(before->shards[s].primary == id || PS_HAS_NODE(before->shards[s].waits, id)))
				settled = false;

		pfree(map);
		if (settled)
			break;
		if (ps_now() > deadline)
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("the shards of the lost node have new primaries but are not open yet"),
					 errdetail("A surviving member has not answered within %d ms.", PS_FAILOVER_TIMEOUT_MS),
					 errhint("The keeper goes on trying; see payshard.shards, payshard.nodes and the server log.")));
		ps_wake_keeper();
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, 200, PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/* failover(node, force, partial) -> shards that got a new primary */
Datum
payshard_failover(PG_FUNCTION_ARGS)
{
	char	   *name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	bool		force = PG_GETARG_BOOL(1);
	FailStep   *fail = palloc0(sizeof(FailStep));
	PsMap	   *map;
	PsMapNode  *node;
	StringInfoData list;
	int			n_lost;
	int			n_moved = 0;

	ps_fit_require_superuser("failover");
	ps_map_require_serving();
	map = ps_map_copy();
	node = ps_failover_member(map, name);
	if (node->id == ps_map_self())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot be failed over from itself", name),
				 errdetail("Who answers is not lost."),
				 errhint("Call payshard.failover() on another node.")));
	if (node->state == PS_NODE_FAILED && node->leader == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" has been failed over already", name),
				 errdetail("It is primary of no shard that has another copy, and nothing of it is to be settled."),
				 errhint("Start that server again: it rejoins by itself. See payshard.nodes.")));
	for (int s = 0; s < map->n_shards; s++)
		n_moved += map->shards[s].primary == node->id;
	if (node->state != PS_NODE_FAILED)
	{
		initStringInfo(&list);
		n_lost = ps_failover_only_copies(map, node->id, &list);
		fail->partial = PG_GETARG_BOOL(2);
		if (n_lost > 0 && !fail->partial)
			refuse_loss(node, n_lost, list.data);
		if (!force)
		{
			require_lost(node);
			require_majority(map, node);
		}
		n_moved -= n_lost;
		fail->id = node->id;
		PS_FAULT("failover.before_fail");
		propose_fail(fail, name);
		PS_FAULT("failover.after_fail");
	}
	await_settled(map, node->id);
	PG_RETURN_INT32(n_moved);
}

typedef struct LeadStep
{
	uint32		origin;
	uint32		from;
} LeadStep;

static PsRefusal
step_lead(PsMap *map, void *arg)
{
	LeadStep   *lead = arg;
	PsMapNode  *node = ps_map_node(map, lead->origin);

	if (node == NULL || node->leader != lead->from)
		return "Another node leads by now.";
	return ps_step_lead(map, lead->origin, ps_map_self());
}

typedef struct LeaveStep
{
	uint32		id;
} LeaveStep;

static PsRefusal
step_leave_all(PsMap *map, void *arg)
{
	return ps_step_leave(map, 0, ((LeaveStep *) arg)->id);
}

/*
 * A member that does not answer leaves, where others are in sync (F4): at once
 * when it is known to be silent; the last one is waited for.
 */
static void
drop_absent(const PsMap *map, uint32 absent)
{
	LeaveStep	leave = {absent};
	PsRefusal	refusal;

	if (!ps_is_silent(absent))
		return;
	(void) ps_propose(step_leave_all, &leave,
					  psprintf("node %s is silent during recovery", ps_map_node_name(absent)),
					  ps_call_timeout_ms, &refusal);
	if (refusal)
		ereport(LOG,
				(errmsg("payshard waits for node \"%s\", whose journal is the only one of a shard: %s",
						ps_map_node_name(absent), refusal)));
}

/* Settles one origin; a member that is gone is taken out, then it goes on. */
static void
lead(const PsMap *map, uint32 origin)
{
	volatile uint32 absent = 0;
	uint32		who = 0;
	MemoryContext old = CurrentMemoryContext;

	PG_TRY();
	{
		ps_settle_origin(map, origin, &who);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		absent = who;
		MemoryContextSwitchTo(old);
		error = CopyErrorData();
		if (absent == 0)
			PG_RE_THROW();
		FlushErrorState();
		ereport(LOG, (errmsg("payshard: settling node \"%s\": %s",
							 ps_map_node_name(origin), error->message)));
	}
	PG_END_TRY();
	if (absent != 0)
		drop_absent(map, absent);
}

bool
ps_duty_recover(void)
{
	PsMap	   *map;
	bool		again = false;

	if (ps_map_incarnation() == 0 || (map = ps_map_copy()) == NULL)
		return false;
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
	{
		PsMapNode  *node = ps_map_node(map, id);
		LeadStep	step;
		PsRefusal	refusal;

		if (node == NULL || node->leader == 0)
			continue;
		step.origin = id;
		step.from = node->leader;
		again = true;
		if (node->leader == ps_map_self())
			lead(map, node->id);
		else if (node->leader != node->id && ps_is_silent(node->leader))
			(void) ps_propose(step_lead, &step, psprintf("lead of settling node %s taken over", node->name),
							  ps_call_timeout_ms, &refusal);
		/* settling one changes the map, and the next is refused under an older one */
		map = ps_map_copy();
	}
	return again;
}
