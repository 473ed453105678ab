/*
 * watchman.c
 *		Is a primary gone, and may this node fail it over by itself?
 *
 * For each node that is primary of something and that this one suspects
 * (node/suspicion.h), at every wake-up of the keeper:
 *	(a) would it help, and lose nothing?  Some of its shards have another copy
 *		in sync; the others stay with it.  Where none has, nothing is done.
 *	(b) has it fallen too often lately?  Then a pause is kept.
 *	(c) is it our turn?  Who has most of its shards in sync comes first, by
 *		number among equals; each next one waits PS_TURN_MS longer.
 *	(d) do a majority of the voters suspect it, too?  From then on these promise
 *		it no lease.
 *	(e) have all promises to it run out?  Else later; its acceptors would refuse.
 *	(f) a map in which it has failed (F2).  Of several copies in sync the one
 *		with most of its journal becomes primary.
 * The keeper then settles what it left (failover.c).
 *
 * Never forced: who answers a majority, or holds the only copy of all it is
 * primary of, keeps its shards.  The first reason not to act is written down
 * as an event, once in each suspicion.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "keep/failover.h"
#include "keep/proposer.h"
#include "keep/watchman.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "node/event.h"
#include "node/fault.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "port/pg_bitutils.h"
#include "utils/timestamp.h"

PS_FUNCTION(payshard_peer_suspects);

#define PS_TURN_MS 1000
#define PS_VOTE_MS 500			/* longest wait for one voter's opinion */
#define PS_FAIL_MS 2000			/* one try to have the map chosen */

/* A suspicion that is under way. */
typedef struct Watch
{
	uint64		since_us;		/* noticed here; 0 = there is none */
	uint64		incarnation;	/* whose */
	const char *said;			/* why nothing is done: the event written last */
} Watch;

static Watch watches[PS_NODES_MAX];

/* What the others say of one node. */
typedef struct Opinions
{
	PsNodeSet	agree;			/* this node included */
	int			bound_ms;		/* until all promises to it have run out */
	uint64		journaled[PS_NODES_MAX];
} Opinions;

/* Shards of which the node is primary; *stuck: those without another copy. */
static int
count_shards(const PsMap *map, uint32 id, int *stuck)
{
	int			n = 0;

	*stuck = 0;
	for (int s = 0; s < map->n_shards; s++)
	{
		if (map->shards[s].primary != id)
			continue;
		n++;
		*stuck += map->shards[s].in_sync == PS_NODE_BIT(id);
	}
	return n;
}

/* Why nothing is done, as an event: once in each suspicion. */
static void
say(const PsMapNode *node, Watch *watch, const char *kind, const char *why)
{
	if (watch->said == kind)
		return;
	watch->said = kind;
	ps_event_write("not_failed_over", node->id, 0, why);
	ereport(LOG, (errmsg("payshard: node \"%s\" is not failed over: %s", node->name, why)));
}

/* How many of the node's shards another one has in sync. */
static int
share(const PsMap *map, uint32 id, uint32 other)
{
	int			n = 0;

	for (int s = 0; s < map->n_shards; s++)
		n += map->shards[s].primary == id && PS_HAS_NODE(map->shards[s].in_sync, other);
	return n;
}

/* (c): how many come before this node? */
static int
my_turn(const PsMap *map, uint32 id)
{
	int			mine = share(map, id, ps_map_self());
	int			before = 0;

	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *other = &map->nodes[i];
		int			its = share(map, id, other->id);

		if (other->id == id || other->id == ps_map_self() || other->state != PS_NODE_UP ||
			ps_suspicion(other->id, NULL) != NULL)
			continue;
		before += its > mine || (its == mine && other->id < ps_map_self());
	}
	return before;
}

/* One voter's answer. */
static void
count_opinion(Opinions *opinions, uint32 voter, const PGresult *result)
{
	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
	{
		ps_peer_drop(voter);
		return;
	}
	if (PQgetvalue(result, 0, 0)[0] != 't')
		return;
	opinions->agree |= PS_NODE_BIT(voter);
	opinions->bound_ms = Max(opinions->bound_ms, (int) ps_result_int8(result, 0, 1));
	opinions->journaled[voter] = (uint64) ps_result_int8(result, 0, 2);
}

/* (d): all voters are asked at once; this node, too, has an opinion. */
static void
ask_opinions(const PsMap *map, const PsMapNode *node, Opinions *opinions)
{
	PGconn	   *asked[PS_NODES_MAX] = {0};
	PsArg		args[2];
	PsTime		deadline = ps_deadline(PS_VOTE_MS);

	memset(opinions, 0, sizeof(*opinions));
	opinions->agree = PS_NODE_BIT(ps_map_self());
	opinions->bound_ms = ps_lease_bound_ms(node->id);
	opinions->journaled[ps_map_self()] =
		pg_atomic_read_u64(&ps_shared->origins[node->id].journaled_seq);
	ps_lease_withhold(node->id, node->incarnation);
	args[0] = ps_arg_int8(node->id);
	args[1] = ps_arg_int8((int64) node->incarnation);
	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *voter = &map->nodes[i];
		PGconn	   *conn;

		if (voter->id == node->id || voter->id == ps_map_self() ||
			ps_suspicion(voter->id, NULL) != NULL)
			continue;
		conn = ps_peer(voter->id, voter->name, deadline);
		if (conn && ps_conn_send(conn, "SELECT * FROM payshard.peer_suspects($1::int, $2)",
								 2, args, false))
			asked[voter->id] = conn;
	}
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
	{
		PGresult   *result = asked[id] ? ps_conn_result(asked[id], deadline) : NULL;

		if (asked[id])
			count_opinion(opinions, id, result);
		PQclear(result);
	}
}

/* Of several copies in sync: the one that has most of the node's journal. */
static uint32 *
choose_heirs(const PsMap *map, uint32 id, const Opinions *opinions)
{
	uint32	   *prefer = palloc0(sizeof(uint32) * PS_SHARDS_MAX);

	for (int s = 0; s < map->n_shards; s++)
	{
		PsNodeSet	heirs = map->shards[s].in_sync & opinions->agree & ~PS_NODE_BIT(id);
		bool		differ = false;

		if (map->shards[s].primary != id)
			continue;
		for (uint32 i = 1; i < PS_NODES_MAX; i++)
		{
			if (!PS_HAS_NODE(heirs, i))
				continue;
			differ |= prefer[s] != 0 && opinions->journaled[i] != opinions->journaled[prefer[s]];
			if (prefer[s] == 0 || opinions->journaled[i] > opinions->journaled[prefer[s]])
				prefer[s] = i;
		}
		/* all the same: the ring's order */
		if (!differ && heirs == (map->shards[s].in_sync & ~PS_NODE_BIT(id)))
			prefer[s] = 0;
	}
	return prefer;
}

/* (d) to (f) */
static void
fail_over(const PsMap *map, const PsMapNode *node, Watch *watch, const char *suspicion)
{
	uint64		waited_ms = (ps_clock_us() - watch->since_us) / 1000;
	Opinions	opinions;
	PsRefusal	refusal;
	int			n_agree;

	ask_opinions(map, node, &opinions);
	n_agree = pg_popcount64(opinions.agree);
	if (!ps_map_is_majority(opinions.agree, ps_map_voters(map)))
	{
		/* the others may be a moment behind */
		if (waited_ms > (uint64) ps_suspect_timeout_ms)
			say(node, watch, "few", psprintf("it %s, but only %d of %d nodes find so", suspicion,
											 n_agree, map->n_nodes));
		return;
	}
	if (opinions.bound_ms > 0)
		return;
	PS_FAULT("watchman.before_fail");
	refusal = ps_failover_propose(node->id, node->incarnation,
								  choose_heirs(map, node->id, &opinions),
								  psprintf("automatic failover of node %s: it %s, %d of %d nodes agree",
										   node->name, suspicion, n_agree, map->n_nodes),
								  PS_FAIL_MS);
	if (refusal)
		ereport(LOG, (errmsg("payshard: node \"%s\" is not failed over: %s", node->name, refusal)));
	PS_FAULT("watchman.after_fail");
}

/* (a) to (c); then the rest. */
static void
consider(const PsMap *map, const PsMapNode *node, const char *suspicion)
{
	Watch	   *watch = &watches[node->id];
	uint64		waited_ms = (ps_clock_us() - watch->since_us) / 1000;
	int			stuck;
	int			n = count_shards(map, node->id, &stuck);

	/* what one late look finds may be a pause of our own */
	if (waited_ms < 2 * (uint64) ps_keepalive_ms)
		return;
	if (map->n_nodes < 3)
		say(node, watch, "voters", "fewer than three voters: no majority without it.");
	else if (!node->has_leases)
		say(node, watch, "leases", "its payshard.lease_timeout is 0: it may go on answering reads.");
	else if (stuck == n)
		say(node, watch, "stuck",
			psprintf("it %s, and holds the only copy in sync of all %d shards it is primary of",
					 suspicion, n));
	else if (ps_suspicion_pause_ms(node->id) > 0)
		say(node, watch, "pause",
			psprintf("it %s, and has fallen %u times lately: a pause of %u s is kept", suspicion,
					 ps_suspicion_falls(node->id), ps_suspicion_pause_ms(node->id) / 1000 + 1));
	else if (waited_ms >= 2 * (uint64) ps_keepalive_ms +
			 (uint64) my_turn(map, node->id) * PS_TURN_MS)
		fail_over(map, node, watch, suspicion);
}

static PsRefusal
step_nothing(PsMap *map, void *arg)
{
	return "Nothing is to be changed.";
}

/*
 * This node has no lease although a majority answers it: a map that is not
 * known here may have been accepted.  Reading the register brings it.
 */
static void
look_for_map(const PsMap *map)
{
	static uint64 next = 0;
	PsNodeSet	heard = PS_NODE_BIT(ps_map_self());
	PsRefusal	refusal;

	if (ps_lease_timeout_ms == 0 || !ps_lease_missed_for(2 * ps_lease_timeout_ms) ||
		ps_clock_us() < next)
		return;
	next = ps_clock_us() + 2 * (uint64) ps_lease_timeout_ms * 1000;
	for (int i = 0; i < map->n_nodes; i++)
		if (map->nodes[i].id != ps_map_self() && ps_suspicion(map->nodes[i].id, NULL) == NULL)
			heard |= PS_NODE_BIT(map->nodes[i].id);
	if (ps_map_is_majority(heard, ps_map_voters(map)))
		(void) ps_propose(step_nothing, NULL, "", ps_call_timeout_ms, &refusal);
}

bool
ps_duty_watch(void)
{
	bool		again = false;
	PsMap	   *map;

	if (ps_map_incarnation() == 0 || (map = ps_map_copy()) == NULL)
		return false;
	look_for_map(map);
	if (!ps_auto_failover)
		return false;
	for (int i = 0; i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];
		Watch	   *watch = &watches[node->id];
		const char *suspicion = ps_suspicion(node->id, NULL);
		int			stuck;

		if (suspicion == NULL || watch->incarnation != node->incarnation)
			memset(watch, 0, sizeof(*watch));
		if (suspicion == NULL || node->state != PS_NODE_UP ||
			count_shards(map, node->id, &stuck) == 0)
			continue;
		again = true;
		watch->incarnation = node->incarnation;
		if (watch->since_us == 0)
			watch->since_us = ps_clock_us();
		consider(map, node, suspicion);
	}
	return again;
}

/* peer_suspects(node, incarnation) */
Datum
payshard_peer_suspects(PG_FUNCTION_ARGS)
{
	uint32		node = (uint32) PG_GETARG_INT32(0);
	TupleDesc	desc;
	Datum		values[3] = {BoolGetDatum(false), Int32GetDatum(0), Int64GetDatum(0)};
	bool		nulls[3] = {false, false, false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (ps_auto_failover && node > 0 && node < PS_NODES_MAX &&
		ps_map_is_member(node, (uint64) PG_GETARG_INT64(1)) && ps_suspicion(node, NULL) != NULL)
	{
		ps_lease_withhold(node, (uint64) PG_GETARG_INT64(1));
		values[0] = BoolGetDatum(true);
		values[1] = Int32GetDatum(ps_lease_bound_ms(node));
		values[2] =
			Int64GetDatum(pg_atomic_read_u64(&ps_shared->origins[node].journaled_seq));
	}
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}
