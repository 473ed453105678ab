/*
 * drill.c
 *		What happens when a node dies, tried out?
 *
 * payshard.drill('n2'), on another node: (a) refused where the cluster could not go
 * on without n2; (b) how => 'stop': as for maintenance, n2 rests and its shards get
 * other primaries; (c) the apply process of n2 is killed by SIGKILL: its server takes
 * that for a crash, ends all its processes, and recovers from its WAL; (d) its shards
 * are open again, here or there; (e) its copies are in sync; (f) it is primary again
 * of what it was.
 *
 * A session cannot stop or start another server: (c) is the nearest thing that ends
 * by itself, given restart_after_crash.  What it does not try: a machine that does
 * not come back, a network that swallows packets.
 *
 * The events drill_started and drill_ended make it an incident of kind drill, whose
 * time is planned.  They are written at once, through a connection to this node: a
 * drill that fails half way has happened nevertheless.
 */
#include "postgres.h"

#include <signal.h>

#include "funcapi.h"
#include "keep/drill.h"
#include "keep/failover.h"
#include "keep/fit.h"
#include "keep/maintenance.h"
#include "keep/planned.h"
#include "keep/proposer.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/event.h"
#include "node/fault.h"
#include "node/identity.h"
#include "node/map.h"
#include "node/settings.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PS_FUNCTION(payshard_drill);
PS_FUNCTION(payshard_peer_crash);
PS_FUNCTION(payshard_peer_note);

#define PS_DRILL_TIMEOUT_MS 120000
#define PS_LOOK_MS 10

typedef struct Drill
{
	uint32		id;
	char	   *name;
	bool		is_stop;		/* how => 'stop' */
	uint64		incarnation;	/* before */
	bool		shards[PS_SHARDS_MAX];	/* of which it was primary before */
	PsTime		crashed;
	double		switchover_ms;	/* longest pause by giving away and taking back */
	double		recovery_ms;
	double		back_ms;
	bool		is_failed_over;
} Drill;

/*
 * One call to a node; the value it returns, or an ERROR.  may_be_lost: NULL when the
 * connection is lost instead of an answer.
 */
static char *
ask_or_lose(uint32 id, const char *sql, int n, PsArg *args, bool may_be_lost)
{
	char	   *name = ps_map_node_name(id);
	PGconn	   *conn = ps_peer(id, name, ps_deadline(ps_call_timeout_ms));
	PGresult   *result;
	char	   *value;

	if (conn == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("node \"%s\" cannot be reached", name),
				 errhint("See payshard.nodes.")));
	result = ps_conn_call(conn, sql, n, args, false, ps_deadline(ps_call_timeout_ms));
	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK)
	{
		bool		is_lost = PQstatus(conn) == CONNECTION_BAD;

		ps_peer_drop(id);
		if (!is_lost || !may_be_lost)
			ps_conn_throw(result, NULL, name, sql);
		PQclear(result);
		return NULL;
	}
	value = pstrdup(PQgetvalue(result, 0, 0));
	PQclear(result);
	return value;
}

static char *
ask(uint32 id, const char *sql, int n, PsArg *args)
{
	return ask_or_lose(id, sql, n, args, false);
}

static void
note(const Drill *drill, const char *kind, const char *detail)
{
	PsArg		args[3] = {ps_arg_text(kind), ps_arg_int8(drill->id), ps_arg_text(detail)};

	(void) ask(ps_map_self(), "SELECT payshard.peer_note($1, $2::int, $3)", 3, args);
}

/* (a) */
static void
require_possible(PsMap *map, const PsMapNode *node)
{
	if (node->id == ps_map_self())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" cannot lead its own drill", node->name),
				 errdetail("This session would die with it."),
				 errhint("Call payshard.drill() on another node.")));
	if (node->state != PS_NODE_UP || node->is_resting)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is not ready for a drill", node->name),
				 node->is_resting ? errdetail("It is in maintenance.") : errdetail("It has failed."),
				 errhint("See payshard.nodes.")));
	ps_require_spare(map, node, "be killed for a drill");
	if (!ps_await_in_sync(node->id, ps_now()))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" is not ready for a drill", node->name),
				 errdetail("Not all of its copies are in sync."),
				 errhint("Wait until they are; see payshard.placements.")));
	if (strcmp(ask(node->id, "SELECT pg_catalog.current_setting('restart_after_crash')", 0, NULL), "on") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("node \"%s\" would not come back by itself", node->name),
				 errdetail("Its setting restart_after_crash is off."),
				 errhint("Set it to on for the drill; or kill and start that server yourself, and read payshard.incidents.")));
}

/* Has the cluster noticed, and are all its shards open, at nodes that are up? */
static bool
is_open_again(Drill *drill, PsMap *map)
{
	const PsMapNode *node = ps_map_node(map, drill->id);
	bool		is_out = true;
	bool		is_open = true;

	drill->is_failed_over |= node->state == PS_NODE_FAILED;
	for (int s = 0; s < map->n_shards; s++)
	{
		const PsMapShard *shard = &map->shards[s];

		is_out &= !PS_HAS_NODE(shard->in_sync, drill->id);
		if (drill->shards[s] &&
			(shard->waits != 0 || ps_map_node(map, shard->primary)->state != PS_NODE_UP))
			is_open = false;
	}
	return is_open &&
		(node->incarnation != drill->incarnation || node->state == PS_NODE_FAILED || is_out);
}

static void
not_in_time(const Drill *drill, const char *what)
{
	note(drill, "drill_ended", psprintf("given up: %s", what));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the drill of node \"%s\" has not ended in time: %s", drill->name, what),
			 errdetail("%d ms were waited for.", PS_DRILL_TIMEOUT_MS),
			 errhint("See payshard.nodes, payshard.placements and the log of that server.")));
}

/* (c) and (d) */
static void
crash(Drill *drill)
{
	PsTime		deadline;
	PsArg		arg = ps_arg_int8((int64) drill->incarnation);
	bool		is_open = false;

	/* its answer may die with the server; a crash that was none is found out below */
	(void) ask_or_lose(drill->id, "SELECT payshard.peer_crash($1)", 1, &arg, true);
	drill->crashed = ps_now();
	deadline = ps_deadline(PS_DRILL_TIMEOUT_MS);
	ps_peer_drop(drill->id);
	while (!is_open && ps_now() < deadline)
	{
		PsMap	   *map = ps_map_copy();

		is_open = is_open_again(drill, map);
		pfree(map);
		if (is_open)
			break;
		ConditionVariablePrepareToSleep(&ps_shared->map_changed);
		(void) ConditionVariableTimedSleep(&ps_shared->map_changed, PS_LOOK_MS, PG_WAIT_EXTENSION);
		ConditionVariableCancelSleep();
	}
	if (!is_open)
		not_in_time(drill, "its shards are not open");
	drill->recovery_ms = (ps_now() - drill->crashed) / 1000.0;
}

/* (b) to (f) */
static void
rehearse(Drill *drill, PsMap *map)
{
	double		pause_ms;

	if (drill->is_stop)
	{
		map = ps_maintain(drill->id, true, psprintf("drill: maintenance of node %s", drill->name));
		(void) ps_plan_carry_out(ps_plan_away(map, ps_map_node(map, drill->id), 0), NULL,
								 &drill->switchover_ms);
		ps_await_quiet(drill->id);
	}
	PS_FAULT("drill.before_crash");
	crash(drill);
	PS_FAULT("drill.open");
	if (!ps_await_in_sync(drill->id, ps_deadline(PS_DRILL_TIMEOUT_MS)))
		not_in_time(drill, "its copies are not in sync");
	drill->back_ms = (ps_now() - drill->crashed) / 1000.0;
	if (drill->is_stop)
		(void) ps_maintain(drill->id, false, psprintf("drill: end of maintenance of node %s", drill->name));
	(void) ps_plan_carry_out(ps_plan_home(ps_map_copy(), drill->id, drill->shards), NULL,
							 &pause_ms);
	drill->switchover_ms = Max(drill->switchover_ms, pause_ms);
}

static Datum
row_of(FunctionCallInfo fcinfo, const Drill *drill)
{
	TupleDesc	desc;
	Datum		values[6];
	bool		nulls[6] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	values[0] = CStringGetTextDatum(drill->name);
	values[1] = CStringGetTextDatum(drill->is_stop ? "stop" : "kill");
	values[2] = Float8GetDatum(drill->switchover_ms);
	values[3] = Float8GetDatum(drill->recovery_ms);
	values[4] = Float8GetDatum(drill->back_ms);
	values[5] = BoolGetDatum(drill->is_failed_over);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/* drill(node, how) -> (node, how, switchover_ms, recovery_ms, back_in_sync_ms, failed_over) */
Datum
payshard_drill(PG_FUNCTION_ARGS)
{
	char	   *how = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Drill	   *drill = palloc0(sizeof(Drill));
	PsMap	   *map;
	PsMapNode  *node;

	ps_fit_require_superuser("drill");
	ps_map_require_serving();
	drill->is_stop = strcmp(how, "stop") == 0;
	if (!drill->is_stop && strcmp(how, "kill") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is no kind of drill", how),
				 errdetail("A drill is of kind kill or stop."),
				 errhint("See payshard.drill() in doc/operations.md.")));
	map = ps_map_copy();
	node = ps_failover_member(map, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	require_possible(map, node);
	drill->id = node->id;
	drill->name = pstrdup(node->name);
	drill->incarnation = node->incarnation;
	for (int s = 0; s < map->n_shards; s++)
		drill->shards[s] = map->shards[s].primary == node->id;
	note(drill, "drill_started", how);
	rehearse(drill, map);
	note(drill, "drill_ended",
		 psprintf("%s: open again after %.0f ms%s, in sync after %.0f ms, planned pauses up to %.0f ms", how,
				  drill->recovery_ms, drill->is_failed_over ? " by failover" : "", drill->back_ms,
				  drill->switchover_ms));
	PG_RETURN_DATUM(row_of(fcinfo, drill));
}

/* peer_crash(incarnation): a superuser's business */
Datum
payshard_peer_crash(PG_FUNCTION_ARGS)
{
	Latch	   *victim;

	ps_require_peer();
	ps_map_require_serving();
	victim = ps_shared->applier;
	if ((uint64) PG_GETARG_INT64(0) != ps_map_incarnation() || victim == NULL ||
		victim->owner_pid == 0 ||
		strcmp(GetConfigOption("restart_after_crash", false, false), "on") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("this node is not ready for a drill"),
				 errdetail("It has started again meanwhile, or would not come back by itself."),
				 errhint("See payshard.nodes, and restart_after_crash.")));
	ereport(LOG,
			(errmsg("payshard: drill: process %d is killed, and with it all of this server", victim->owner_pid)));
	kill(victim->owner_pid, SIGKILL);
	PS_FAULT("drill.killed");
	PG_RETURN_INT32(victim->owner_pid);
}

/* peer_note(kind, node, detail) */
Datum
payshard_peer_note(PG_FUNCTION_ARGS)
{
	ps_require_peer();
	ps_map_require_cluster();
	ps_event_write(text_to_cstring(PG_GETARG_TEXT_PP(0)), PG_GETARG_INT32(1), 0,
				   text_to_cstring(PG_GETARG_TEXT_PP(2)));
	PG_RETURN_VOID();
}
