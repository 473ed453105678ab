/*
 * proposer.c
 *		How does the cluster agree on the next map (M1)?
 *
 * One round: (a) a ballot above all seen; (b) prepare at all voters; (c) with
 * promises of a majority, the value of the highest accepted ballot is the
 * current map; (d) the step makes the next one of it, or refuses: then the
 * current one is proposed again, so that what we answer from is chosen; (e)
 * accept at all voters of both maps that have promised; a majority of each makes
 * it chosen; (f) it is adopted here and sent to the others.  A voter accepts in the
 * session in which it has promised (node/acceptor.c).
 *
 * What few have accepted may come back as the current map of the next round: where it is
 * our own, the step is not made a second time, on top of it, but proposed as it is.
 *
 * Voters change one at a time.  A proposer that knew the old voters may meet a
 * value with others: it then needs promises of a majority of those too, or two
 * disjoint majorities could choose two maps of one epoch.
 *
 * Every voter, this node included, is asked over a connection: its answer
 * follows a commit of its own.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "keep/proposer.h"
#include "libpq-fe.h"
#include "link/conn.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/identity.h"
#include "node/lease.h"
#include "node/map.h"
#include "node/settings.h"
#include "node/suspicion.h"
#include "port/pg_bitutils.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"
#include "write/journal.h"

PS_FUNCTION(payshard_peer_turn);

#define PS_CONNECT_MS_MAX 1000
#define PS_STRAGGLER_MS 100
#define PS_FAILED_LATELY_MS 2000
#define PS_TURN_MS 1000
#define PS_PREPARE "SELECT * FROM payshard.peer_prepare($1, $2)"
#define PS_ACCEPT "SELECT * FROM payshard.peer_accept($1, $2, $3)"

static PGconn *peers[PS_NODES_MAX];
static PsTime failed_at[PS_NODES_MAX]; /* last connection tried in vain */
static char peer_names[PS_NODES_MAX][PS_NAME_MAX];	/* an id may be given to another node */
static uint64 ballot_seen = 0;
static PsNodeSet heard;			/* who answered, yes or no, in this round of ps_propose */

/* Of ps_propose_gated, while it runs. */
static void (*gate_shut) (void) = NULL;
static void (*gate_open) (void) = NULL;
static uint32 turn_at = 0;		/* node that has given us the turn; 0 = none has */

/* What the voters answered in one phase. */
typedef struct Round
{
	PsNodeSet	asked;
	PsNodeSet	yes;
	uint64		ballot;			/* asked for; 0 = none */
	uint64		accepted_ballot;	/* highest seen; 0 = none */
	void	   *value;
	size_t		value_bytes;
	uint64		boots[PS_NODES_MAX][2]; /* marks of each voter's directory (M3) */
} Round;

/* What a round has read of the register. */
typedef struct Register
{
	PsMap	   *current;		/* NULL = there was no majority */
	uint64		ballot;
	PsNodeSet	promised;		/* who gave a promise that counts */
} Register;

void
ps_peer_drop(uint32 node)
{
	if (peers[node])
		ps_conn_close(peers[node]);
	peers[node] = NULL;
}

/* Was a connection tried in vain less than a moment ago? */
static bool
failed_lately(uint32 node)
{
	return !ps_has_passed(failed_at[node], PS_FAILED_LATELY_MS);
}

PGconn *
ps_peer_open(uint32 node)
{
	return peers[node];
}

PGconn *
ps_peer(uint32 node, const char *name, PsTime deadline)
{
	char	   *error;
	PsTime		soon = ps_deadline(PS_CONNECT_MS_MAX);

	if (peers[node] &&
		(strcmp(peer_names[node], name) != 0 || PQstatus(peers[node]) != CONNECTION_OK ||
		 PQtransactionStatus(peers[node]) != PQTRANS_IDLE ||
		 !PQconsumeInput(peers[node])))
		ps_peer_drop(node);
	if (peers[node] == NULL)
	{
		peers[node] = ps_conn_open(name, InvalidOid, "keeper", Min(deadline, soon), &error);
		failed_at[node] = peers[node] ? 0 : ps_now();
		strlcpy(peer_names[node], name, PS_NAME_MAX);
		if (peers[node] == NULL)
			ereport(DEBUG1, (errmsg("payshard: node \"%s\": %s", name, error)));
	}
	return peers[node];
}

/*
 * Sends one call to the nodes of a map that can be reached.  Of one that has never started
 * nothing is known: what is held against its id was another node's.
 */
static void
ask(Round *round, const PsMap *map, bool retry_failed, const char *sql,
	int n_args, const PsArg *args, PsTime deadline)
{
	for (int i = 0; map && i < map->n_nodes; i++)
	{
		const PsMapNode *node = &map->nodes[i];
		PGconn	   *conn;

		if (PS_HAS_NODE(round->asked, node->id) ||
			(!retry_failed && node->boot != 0 &&
			 (failed_lately(node->id) || ps_suspicion(node->id, NULL) != NULL)))
			continue;
		conn = ps_peer(node->id, node->name, deadline);
		if (conn && ps_conn_send(conn, sql, n_args, args, false))
			round->asked |= PS_NODE_BIT(node->id);
	}
}

/*
 * Sends one call to the nodes of both maps; those to which no connection could
 * be made a moment ago, or that are suspected to be gone, only when there is no
 * majority without them.
 */
static void
ask_all(Round *round, const PsMap *a, const PsMap *b, const char *sql,
		int n_args, const PsArg *args, PsTime deadline)
{
	round->asked = round->yes = 0;
	ask(round, a, false, sql, n_args, args, deadline);
	ask(round, b, false, sql, n_args, args, deadline);
	if (ps_map_is_majority(round->asked, ps_map_voters(a)) &&
		(b == NULL || ps_map_is_majority(round->asked, ps_map_voters(b))))
		return;
	ask(round, a, true, sql, n_args, args, deadline);
	ask(round, b, true, sql, n_args, args, deadline);
}

/*
 * Takes one answer in; columns 0 = yes, 1 = ballot[, 2 = accepted, 3 = value,
 * 4 and 5 = marks].
 */
static void
count_answer(Round *round, uint32 id, PGresult *result, bool with_value)
{
	if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
	{
		ereport(DEBUG1, (errmsg("payshard: vote of node %u: %s", id,
								ps_conn_why(result, peers[id]))));
		ps_peer_drop(id);
		return;
	}
	heard |= PS_NODE_BIT(id);
	ballot_seen = Max(ballot_seen, (uint64) ps_result_int8(result, 0, 1) >> 6);
	/* a yes to another ballot than ours is none: the number was damaged on its way */
	if (PQgetvalue(result, 0, 0)[0] != 't' ||
		(round->ballot != 0 && (uint64) ps_result_int8(result, 0, 1) != round->ballot))
		return;
	round->yes |= PS_NODE_BIT(id);
	for (int i = 0; with_value && i < 2; i++)
		round->boots[id][i] = (uint64) ps_result_int8(result, 0, 4 + i);
	if (with_value && ps_result_int8(result, 0, 2) > round->accepted_ballot)
	{
		round->accepted_ballot = ps_result_int8(result, 0, 2);
		round->value = ps_result_bytes(result, 0, 3, &round->value_bytes);
	}
}

/*
 * Waits until a majority of both sets has said yes, or all have answered; then
 * calls `decided`, if it is not NULL.  Who is slower than the majority gets
 * PS_STRAGGLER_MS more; the connection of who has not answered by then is of no
 * more use.
 */
static void
gather(Round *round, bool with_value, PsNodeSet a, PsNodeSet b, PsTime deadline,
	   void (*at_majority) (void))
{
	PsNodeSet	pending = round->asked;
	bool		decided = false;

	while (pending != 0 && ps_now() < deadline)
	{
		PsNodeSet	before = pending;

		for (uint32 id = 1; id < PS_NODES_MAX; id++)
		{
			PGresult   *result;

			if (!PS_HAS_NODE(pending, id) || !ps_conn_has_result(peers[id]))
				continue;
			result = ps_conn_result(peers[id], deadline);
			pending &= ~PS_NODE_BIT(id);
			count_answer(round, id, result, with_value);
			PQclear(result);
		}
		if (!decided && ps_map_is_majority(round->yes & a, a) &&
			ps_map_is_majority(round->yes & b, b))
		{
			decided = true;
			if (at_majority)
				at_majority();
			deadline = Min(deadline, ps_deadline(PS_STRAGGLER_MS));
		}
		if (pending != 0 && pending == before)
			ps_conn_wait_any(peers, pending, deadline);
	}
	for (uint32 id = 1; id < PS_NODES_MAX; id++)
		if (PS_HAS_NODE(pending, id))
			ps_peer_drop(id);
}

/*
 * M3: takes the promises of strangers out.  A directory whose last start is not
 * the one that the register has seen may have forgotten what it accepted.
 */
static void
void_strangers(Round *round, const PsMap *current)
{
	static uint64 said[PS_NODES_MAX];

	for (int i = 0; i < current->n_nodes; i++)
	{
		const PsMapNode *node = &current->nodes[i];
		const uint64 *boots = round->boots[node->id];

		if (!PS_HAS_NODE(round->yes, node->id) || node->boot == 0 || !PS_RULE("M3") ||
			boots[0] == node->boot || boots[1] == node->boot)
			continue;
		round->yes &= ~PS_NODE_BIT(node->id);
		if (said[node->id] != boots[0])
			ereport(LOG,
					(errmsg("payshard: the vote of node \"%s\" does not count", node->name),
					 errdetail("Its data directory is not the one that was seen last.")));
		said[node->id] = boots[0];
	}
}

/* (a) to (c) */
static Register
read_register(const PsMap *known, PsTime deadline)
{
	const Register nothing = {NULL};
	Round		round = {0};
	PsArg		args[2];
	PsMap	   *current = palloc(sizeof(PsMap));
	PsRefusal	wrong;
	PsNodeSet	voters = ps_map_voters(known);

	round.ballot = ((++ballot_seen) << 6) | ps_map_self();
	PS_FAULT("proposer.before_prepare");
	args[0] = ps_arg_int8((int64) known->cluster_id);
	args[1] = ps_arg_int8((int64) round.ballot);
	ask_all(&round, known, NULL, PS_PREPARE, 2, args, deadline);
	gather(&round, true, voters, voters, deadline, NULL);
	if (round.value == NULL || !ps_map_is_majority(round.yes & voters, voters))
		return nothing;
	wrong = ps_map_read(current, round.value, round.value_bytes);
	if (wrong)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the payshard map register holds a damaged map"),
				 errdetail("%s", wrong)));
	void_strangers(&round, current);
	if (!ps_map_is_majority(round.yes & voters, voters))
		return nothing;
	voters = ps_map_voters(current);
	if (!ps_map_is_majority(round.yes & voters, voters))
	{
		Round		more = {.ballot = round.ballot};

		ask_all(&more, current, NULL, PS_PREPARE, 2, args, deadline);
		gather(&more, true, voters & ~round.yes, voters & ~round.yes, deadline, NULL);

		/*
		 * Those asked before refuse the same ballot: their promise holds. A
		 * higher value among the others means that we read too early.
		 */
		void_strangers(&more, current);
		if (more.accepted_ballot > round.accepted_ballot ||
			!ps_map_is_majority((round.yes | more.yes) & voters, voters))
			return nothing;
		round.yes |= more.yes;
	}
	return (Register){current, round.ballot, round.yes};
}

/* (e): is `next` chosen? */
static bool
accept(const Register *now, const PsMap *next, StringInfo bytes, PsTime deadline)
{
	PsNodeSet	old_voters = ps_map_voters(now->current);
	PsNodeSet	new_voters = ps_map_voters(next);
	PsNodeSet	added = new_voters & ~old_voters;
	Round		round = {.ballot = now->ballot};
	Round		of_added = {.ballot = now->ballot, .asked = ~added};
	PsArg		args[3];

	args[0] = ps_arg_int8((int64) next->cluster_id);
	args[1] = ps_arg_int8((int64) now->ballot);
	args[2] = ps_arg_bytes(bytes->data, bytes->len);
	ps_lease_before_propose(next);
	PS_FAULT("proposer.before_accept");
	if (added)
	{
		/* what it promises is for its own session only: it has voted on nothing yet */
		ask(&of_added, next, true, PS_PREPARE, 2, args, deadline);
		of_added.asked &= added;
		gather(&of_added, false, added, added, deadline, NULL);
	}
	round.asked = ~(now->promised | of_added.yes);
	ask(&round, now->current, true, PS_ACCEPT, 3, args, deadline);
	ask(&round, next, true, PS_ACCEPT, 3, args, deadline);
	round.asked &= now->promised | of_added.yes;
	gather(&round, false, old_voters, new_voters, deadline, NULL);
	PS_FAULT("proposer.after_accept");
	return ps_map_is_majority(round.yes & old_voters, old_voters) &&
		ps_map_is_majority(round.yes & new_voters, new_voters);
}

/* (f): adopts here, which must succeed, and tells the others. */
static void
spread(const PsMap *next, StringInfo bytes, PsTime deadline)
{
	Round		round = {0};
	PsArg		arg = ps_arg_bytes(bytes->data, bytes->len);
	PsNodeSet	self = PS_NODE_BIT(ps_map_self());

	ask_all(&round, next, NULL, "SELECT true, 0 FROM payshard.peer_learn($1)", 1, &arg, deadline);
	gather(&round, false, self, self, deadline, gate_open);
	if (ps_map_epoch() < next->epoch)
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("this node could not adopt the payshard map of epoch " UINT64_FORMAT, next->epoch),
				 errdetail("It cannot reach itself by its own foreign server, or the map is held for too long."),
				 errhint("The map is chosen. Check the foreign server of this node in payshard.nodes and pg_hba.conf.")));
}

/*
 * Nothing was chosen within `ms`.  What is missing is said: answers, or, where a
 * majority has answered, consent.
 */
static void
no_majority(const PsMap *known, int ms)
{
	int			n_heard = pg_popcount64(heard & ps_map_voters(known));
	StringInfoData silent;

	initStringInfo(&silent);
	for (int i = 0; i < known->n_nodes; i++)
		if (!PS_HAS_NODE(heard, known->nodes[i].id))
			appendStringInfo(&silent, "%s%s", silent.len ? ", " : "", known->nodes[i].name);
	if (ps_map_is_majority(heard, ps_map_voters(known)))
		ereport(ERROR,
				(errcode(ERRCODE_CANNOT_CONNECT_NOW),
				 errmsg("no majority of the payshard nodes agreed on a new map in time"),
				 errdetail("%d of %d nodes answered, but in %d ms too few agreed: one may be bound by a lease that it has promised, or others change the map at the same time.",
						   n_heard, known->n_nodes, ms),
				 errhint("Retry; see payshard.leases.")));
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_CONNECT_NOW),
			 errmsg("no majority of the payshard nodes agreed on a new map in time"),
			 errdetail("%d of %d nodes answered in %d ms, %d are needed; not: %s.",
					   n_heard, known->n_nodes, ms, known->n_nodes / 2 + 1, silent.data),
			 errhint("Start the nodes that are down, or retry.")));
}

/* Waits a random moment, longer each time, so that competing proposers come apart. */
static void
back_off(int tries)
{
	long		most_ms = Min(10 << Min(tries, 4), 50);
	long		ms = 1 + pg_prng_uint64_range(&pg_global_prng_state, 0, most_ms);

	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms,
					 PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * With ballot 0 nobody promises or accepts anything, and the map is known: but
 * connections and plans are there then.
 */
void
ps_propose_warm(void)
{
	PsTime		deadline = ps_deadline(ps_call_timeout_ms);
	PsMap	   *map = ps_map_copy();
	PsNodeSet	voters = ps_map_voters(map);
	StringInfoData bytes;
	PsArg		args[3];
	Round		round = {0};

	initStringInfo(&bytes);
	ps_map_put(&bytes, map);
	args[0] = ps_arg_int8((int64) map->cluster_id);
	args[1] = ps_arg_int8(0);
	args[2] = ps_arg_bytes(bytes.data, bytes.len);
	ask_all(&round, map, NULL, PS_PREPARE, 2, args, deadline);
	gather(&round, false, voters, voters, deadline, NULL);
	ask_all(&round, map, NULL, PS_ACCEPT, 3, args, deadline);
	gather(&round, false, voters, voters, deadline, NULL);
	ask_all(&round, map, NULL, "SELECT true, 0 FROM payshard.peer_learn($1)", 1, &args[2], deadline);
	gather(&round, false, voters, voters, deadline, NULL);
	pfree(bytes.data);
	pfree(map);
}

/*
 * (d): what is to be proposed after `current`; before: what this call has proposed last, or
 * NULL.
 */
static PsMap *
make_next(const PsMap *current, const PsMap *before, PsStep step, void *arg,
		  const char *reason, PsRefusal *refusal)
{
	PsMap	   *next = palloc(sizeof(PsMap));

	memcpy(next, current, sizeof(PsMap));
	*refusal = NULL;
	if (before && before->epoch == current->epoch && before->changed_by == current->changed_by &&
		before->changed_at == current->changed_at)
		return next;
	*refusal = step(next, arg);
	if (*refusal || next->epoch == current->epoch)
		memcpy(next, current, sizeof(PsMap));	/* with who has proposed it, and when */
	else
	{
		next->changed_at = GetCurrentTimestamp();
		next->changed_by = ps_map_self();
		strlcpy(next->reason, reason, sizeof(next->reason));
	}
	return next;
}

PsMap *
ps_propose(PsStep step, void *arg, const char *reason, int timeout_ms,
		   PsRefusal *refusal)
{
	PsTime		begun = ps_now();
	PsTime		deadline = ps_deadline(timeout_ms);
	PsTime		with_majority = begun;
	PsMap	   *known = ps_map_copy();
	PsMap	   *before = NULL;

	if (known == NULL)
		ps_map_require_cluster();
	for (int tries = 0; ps_now() < deadline &&
		 !ps_has_passed(with_majority, ps_call_timeout_ms);
		 tries++)
	{
		StringInfoData bytes;
		PsTime		round_end = Min(deadline, ps_deadline(ps_call_timeout_ms));
		Register	now;
		PsMap	   *next;

		/* this one is here, whatever becomes of its connection to itself */
		heard = PS_NODE_BIT(ps_map_self());
		now = read_register(known, round_end);
		if (ps_map_is_majority(heard, ps_map_voters(known)))
			with_majority = ps_now();
		if (now.current == NULL)
		{
			back_off(tries);
			continue;
		}
		next = make_next(now.current, before, step, arg, reason, refusal);
		before = *refusal ? NULL : next;
		initStringInfo(&bytes);
		ps_map_put(&bytes, next);
		if (gate_shut)
			gate_shut();
		if (accept(&now, next, &bytes, round_end))
		{
			PS_FAULT("proposer.chosen");
			spread(next, &bytes, ps_deadline(ps_call_timeout_ms));
			PS_FAULT("proposer.after_spread");
			return next;
		}
		memcpy(known, now.current, sizeof(PsMap));
		back_off(tries);
	}
	no_majority(known, (int) ((ps_now() - begun) / 1000));
	return NULL;
}

/*
 * peer_turn(take) -> taken?  The turn is a lock of the caller's session, of a type that
 * no SQL function locks: a user cannot take it.
 */
Datum
payshard_peer_turn(PG_FUNCTION_ARGS)
{
	LOCKTAG		tag = {
		.locktag_field1 = MyDatabaseId,
		.locktag_field2 = PS_LOCK_SPACE,
		.locktag_field3 = PS_LOCK_TURN,
		.locktag_type = LOCKTAG_USERLOCK,
		.locktag_lockmethodid = USER_LOCKMETHOD,
	};

	ps_require_peer();
	if (!PG_GETARG_BOOL(0))
		PG_RETURN_BOOL(LockRelease(&tag, ExclusiveLock, true));
	PG_RETURN_BOOL(LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL);
}

/* Who gives turns: of the nodes not suspected, the one with the lowest number; or 0. */
static uint32
turn_giver(void)
{
	PsMap	   *map = ps_map_copy();
	uint32		id = 0;

	for (int i = 0; i < map->n_nodes && id == 0; i++)
		if (map->nodes[i].state == PS_NODE_UP && ps_suspicion(map->nodes[i].id, NULL) == NULL &&
			ps_peer(map->nodes[i].id, map->nodes[i].name, ps_deadline(PS_TURN_MS)) != NULL)
			id = map->nodes[i].id;
	pfree(map);
	return id;
}

/* A courtesy: who gets no turn in a moment goes on without. */
void
ps_propose_take_turn(void)
{
	PsTime		deadline = ps_deadline(PS_TURN_MS);
	uint32		giver = turn_giver();

	while (giver != 0 && turn_at == 0 && ps_now() < deadline)
	{
		PGresult   *result = ps_conn_call(peers[giver], "SELECT payshard.peer_turn(true)",
										  0, NULL, false, deadline);

		if (result == NULL || PQresultStatus(result) != PGRES_TUPLES_OK)
			giver = 0;
		else if (PQgetvalue(result, 0, 0)[0] == 't')
			turn_at = giver;
		else
			(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 5, PG_WAIT_EXTENSION);
		PQclear(result);
		CHECK_FOR_INTERRUPTS();
	}
}

/* Without an answer the connection is given up, and the turn with it. */
void
ps_propose_end_turn(void)
{
	uint32		giver = turn_at;
	PGresult   *result = NULL;

	turn_at = 0;
	if (giver == 0 || peers[giver] == NULL)
		return;
	if (!proc_exit_inprogress && PQtransactionStatus(peers[giver]) == PQTRANS_IDLE)
		result = ps_conn_call(peers[giver], "SELECT payshard.peer_turn(false)",
							  0, NULL, false, ps_deadline(PS_TURN_MS));
	if (result == NULL)
		ps_peer_drop(giver);
	PQclear(result);
}

PsMap *
ps_propose_gated(PsStep step, const char *reason, int timeout_ms, PsRefusal *refusal,
				 void (*shut) (void), void (*open) (void))
{
	PsMap	   *volatile map = NULL;

	ps_propose_take_turn();
	gate_shut = shut;
	gate_open = open;
	PG_TRY();
	{
		map = ps_propose(step, NULL, reason, timeout_ms, refusal);
	}
	PG_FINALLY();
	{
		gate_shut = NULL;
		gate_open = NULL;
		ps_propose_end_turn();
	}
	PG_END_TRY();
	return map;
}

char *
ps_refusal_sentence(PsRefusal refusal)
{
	size_t		length = strlen(refusal);
	bool		ends = length > 0 && refusal[length - 1] == '.';

	return psprintf("%c%s%s", pg_toupper((unsigned char) refusal[0]), refusal + 1, ends ? "" : ".");
}

PsMap *
ps_propose_or_error(PsStep step, void *arg, const char *reason, int timeout_ms)
{
	PsRefusal	refusal;
	PsMap	   *map = ps_propose(step, arg, reason, timeout_ms, &refusal);

	if (refusal)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s is not possible now", reason),
				 errdetail("%s", ps_refusal_sentence(refusal)),
				 errhint("See payshard.nodes, payshard.shards and payshard.placements.")));
	return map;
}
