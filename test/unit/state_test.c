/*
 * state_test.c
 *		Goal: no step leads to a map that is not sound, a refused step changes
 *		nothing, and the stories of step.c's opener come out as told.
 *		Method: each step with its refusals by hand; then long random walks
 *		with every invariant checked after each step; then bytes.
 */
#include "ground/step.h"

#include "ground/ring.h"
#include "port/pg_crc32c.h"
#include "tap.h"

#define SHARDS 8
#define WALKS 20
#define WALK_STEPS 5000

static PsMap map;
static PsMap before;

/* The step just tried (result in `refusal`) was done: sound, epoch + 1. */
static void
done(PsRefusal refusal, const char *what)
{
	PsRefusal	wrong = refusal != NULL ? refusal : ps_map_check(&map);

	if (!ok(wrong == NULL && map.epoch == before.epoch + 1, what))
		printf("# %s\n", wrong != NULL ? wrong : "the epoch is wrong");
	before = map;
}

/* It was refused, in these words, and nothing changed. */
static void
refused(PsRefusal refusal, const char *words)
{
	if (!ok(refusal != NULL && strcmp(refusal, words) == 0 &&
			memcmp(&map, &before, sizeof(map)) == 0, words))
		printf("# %s\n", refusal != NULL ? refusal : "was done");
	map = before;
}

static PsMapNode
make_node(const char *name, uint32 weight)
{
	PsMapNode	node = {.weight = weight, .boot = 1, .system_id = 77};

	strlcpy(node.name, name, sizeof(node.name));
	return node;
}

/* Nodes 1 .. n, `copies` in-sync placements of each of SHARDS shards. */
static void
make_cluster(int n, int copies)
{
	PsMapNode	node = make_node("node1", 1);
	char		name[PS_NAME_MAX];
	uint32		id;

	(void) ps_step_create(&map, "test", 99, SHARDS, copies, 110, &node);
	for (int i = 2; i <= n; i++)
	{
		snprintf(name, sizeof(name), "node%d", i);
		node = make_node(name, 1);
		(void) ps_step_add_node(&map, &node, &id);
	}
	(void) ps_step_place(&map, false);
	before = map;
}

/* Flags the shards of `primary` in which `id` is in `state`. */
static int
flag_shards(bool *flags, uint32 primary, uint32 id, PsPlacementState state)
{
	int			n = 0;

	for (int s = 0; s < map.n_shards; s++)
	{
		flags[s] = map.shards[s].primary == primary &&
			ps_map_placement(&map.shards[s], id) == state;
		n += flags[s];
	}
	return n;
}

/* How many shards have `id` as primary? */
static int
count_primary(uint32 id)
{
	int			n = 0;

	for (int s = 0; s < map.n_shards; s++)
		n += map.shards[s].primary == id;
	return n;
}

static int
count_waiting(uint32 id)
{
	int			n = 0;

	for (int s = 0; s < map.n_shards; s++)
		n += PS_HAS_NODE(map.shards[s].waits, id);
	return n;
}

static void
test_create(void)
{
	PsMapNode	node = make_node("node1", 1);
	PsMapNode	nameless = make_node("", 1);

	memset(&map, 0, sizeof(map));
	before = map;
	refused(ps_step_create(&map, "", 9, 8, 3, 110, &node),
			"the cluster's name is empty or too long");
	refused(ps_step_create(&map, "c", 9, 0, 3, 110, &node),
			"the number of shards is out of range");
	refused(ps_step_create(&map, "c", 9, 12, 3, 110, &node),
			"the number of shards is not a power of two");
	refused(ps_step_create(&map, "c", 9, 8, 9, 110, &node),
			"the number of copies is out of range");
	refused(ps_step_create(&map, "c", 9, 8, 3, 99, &node),
			"the bound on load is out of range");
	refused(ps_step_create(&map, "c", 9, 8, 3, 110, &nameless),
			"the name is empty");
	done(ps_step_create(&map, "c", 9, 8, 3, 110, &node), "create");
	ok(map.epoch == 1 && count_primary(1) == 8 && count_waiting(1) == 0 &&
	   ps_map_voters(&map) == 2 && ps_map_data_nodes(&map) == 2,
	   "the first map: one node, primary of all, all open");
	ok(ps_map_is_majority(6, 14) && !ps_map_is_majority(2, 6) &&
	   !ps_map_is_majority(17, 14), "a majority is more than half of voters");
}

static void
test_nodes(void)
{
	PsMapNode	node = make_node("node2", 0);
	uint32		id = 0;

	make_cluster(1, 3);
	done(ps_step_add_node(&map, &node, &id), "add a witness");
	ok(id == 2 && map.nodes[1].incarnation == 2 && map.nodes[1].settled == 0 &&
	   ps_map_data_nodes(&map) == 2 && ps_map_voters(&map) == 6,
	   "it has the next id and incarnation, and votes");
	refused(ps_step_add_node(&map, &node, &id), "a node of this name exists");
	node = make_node("node3", PS_RING_WEIGHT_MAX + 1);
	refused(ps_step_add_node(&map, &node, &id), "the weight is out of range");
	node = make_node("node3", 1);
	done(ps_step_add_node(&map, &node, &id), "add a third");
	done(ps_step_remove_node(&map, 2), "remove the witness");
	refused(ps_step_remove_node(&map, 2), "there is no such node");
	refused(ps_step_remove_node(&map, 1), "the node holds a placement");
	node = make_node("node4", 1);
	done(ps_step_add_node(&map, &node, &id), "add another");
	ok(id == 2 && ps_map_node(&map, 2)->incarnation == 4 &&
	   ps_map_node_by_name(&map, "node4")->id == 2,
	   "a free id is used again, an incarnation never");
	done(ps_step_set_node(&map, 2, 5, "west"), "set weight and zone");
	refused(ps_step_set_node(&map, 7, 5, "west"), "there is no such node");
	refused(ps_step_set_node(&map, 2, 101, "west"),
			"the weight is out of range");
}

static void
test_place(void)
{
	PsMapNode	node = make_node("late", 1);
	uint32		id;
	bool		is_kept = true;
	int			n_out = 0;

	make_cluster(2, 3);
	ok(map.shards[0].placements == 6 && map.shards[0].in_sync == 6,
	   "fewer nodes than copies: fewer placements");
	done(ps_step_add_node(&map, &node, &id), "add a node");
	done(ps_step_place(&map, true), "place with rows");
	for (int s = 0; s < SHARDS; s++)
	{
		is_kept &= map.shards[s].in_sync == 6 &&
			map.shards[s].primary == before.shards[s].primary;
		n_out += ps_map_placement(&map.shards[s], 3) == PS_PLACEMENT_OUT;
	}
	ok(is_kept && n_out == SHARDS, "what is missing is added and is out");
	done(ps_step_place(&map, false), "place without rows");
	ok(map.shards[0].in_sync == 14 && count_primary(3) > 0,
	   "all is in sync as the ring says");
	for (uint32 i = 1; i <= 3; i++)
		(void) ps_step_set_node(&map, i, 0, "");
	before = map;
	refused(ps_step_place(&map, false), "no node that is up has weight");
	(void) ps_step_set_node(&map, 1, 1, "");
	(void) ps_step_start(&map, 1, 2, 77, false);
	before = map;
	refused(ps_step_place(&map, false), "a shard is recovering");
}

static void
test_leave_and_join(void)
{
	bool		flags[SHARDS];
	int			n;

	make_cluster(3, 3);
	n = flag_shards(flags, 1, 2, PS_PLACEMENT_IN_SYNC);
	refused(ps_step_leave(&map, 1, 1), "a primary cannot leave its own shards");
	refused(ps_step_leave(&map, 9, 1), "there is no such primary");
	refused(ps_step_leave(&map, 1, 9), "there is no such node");
	done(ps_step_leave(&map, 1, 2), "2 leaves the shards of 1");
	ok(n > 0 && flag_shards(flags, 1, 2, PS_PLACEMENT_OUT) == n &&
	   flag_shards(flags, 3, 2, PS_PLACEMENT_IN_SYNC) == count_primary(3),
	   "and no others");
	refused(ps_step_leave(&map, 1, 2),
			"the node is in no such in-sync or joining set");
	(void) flag_shards(flags, 1, 2, PS_PLACEMENT_OUT);
	refused(ps_step_in_sync(&map, 1, 2, flags),
			"a placement is not joining");
	refused(ps_step_join(&map, 3, 2, flags), "a shard has another primary");
	refused(ps_step_join(&map, 1, 3, flags), "a placement is not out");
	done(ps_step_join(&map, 1, 2, flags), "2 joins");
	refused(ps_step_join(&map, 1, 2, flags), "a placement is not out");
	done(ps_step_in_sync(&map, 1, 2, flags), "2 is in sync");
	memset(flags, 0, sizeof(flags));
	refused(ps_step_join(&map, 1, 2, flags), "no shard is given");
	done(ps_step_rebuild(&map, 2), "2 is rebuilt");
	ok(flag_shards(flags, 1, 2, PS_PLACEMENT_OUT) == count_primary(1) &&
	   flag_shards(flags, 3, 2, PS_PLACEMENT_OUT) == count_primary(3) &&
	   count_primary(2) > 0, "it is out, but of its own shards");
	(void) flag_shards(flags, 1, 2, PS_PLACEMENT_OUT);
	done(ps_step_join(&map, 1, 2, flags), "2 joins again");
	done(ps_step_start(&map, 1, 2, 77, false), "1 starts");
	ok(flag_shards(flags, 1, 2, PS_PLACEMENT_JOINING) == 0,
	   "a new incarnation of the primary empties the joining set");
	(void) flag_shards(flags, 1, 2, PS_PLACEMENT_OUT);
	refused(ps_step_join(&map, 1, 2, flags), "a shard is recovering");
}

static void
test_failover(void)
{
	bool		flags[SHARDS];
	uint32		prefer[SHARDS] = {0};
	uint64		last;
	int			n;

	make_cluster(4, 3);
	n = count_primary(1);
	last = map.nodes[0].incarnation;
	refused(ps_step_fail(&map, 9, 2, NULL, NULL), "there is no such node");
	refused(ps_step_fail(&map, 1, 1, NULL, NULL),
			"the leader is not another node that is up");
	(void) flag_shards(flags, 1, 1, PS_PLACEMENT_IN_SYNC);
	for (int s = 0; s < SHARDS; s++)
		prefer[s] = flags[s] ? 60 : 0;
	refused(ps_step_fail(&map, 1, 2, prefer, NULL),
			"a node that was to be primary is not in sync");
	for (uint32 s = 0; s < SHARDS; s++)
		for (uint32 id = 2; id <= 4 && flags[s]; id++)
			if (PS_HAS_NODE(map.shards[s].in_sync, id))
				prefer[s] = id;	/* the highest, not the first in ring order */
	done(ps_step_fail(&map, 1, 2, prefer, NULL), "1 fails");
	for (int s = 0; s < SHARDS; s++)
		n -= flags[s] && map.shards[s].primary == prefer[s] &&
			map.shards[s].waits == 2 && map.shards[s].term > 1 &&
			!PS_HAS_NODE(map.shards[s].in_sync, 1);
	ok(n == 0 && map.nodes[0].state == PS_NODE_FAILED &&
	   map.nodes[0].leader == 2, "wishes are kept, its shards wait for it");
	refused(ps_step_fail(&map, 1, 2, NULL, NULL),
			"the node has failed already");
	refused(ps_step_settled(&map, 1, last - 1 + 9),
			"the incarnation has not ended");
	refused(ps_step_settled(&map, 2, 1),
			"nothing of the node is to be settled");
	refused(ps_step_lead(&map, 2, 3), "nothing of the node is to be settled");
	refused(ps_step_lead(&map, 1, 1), "the leader is not a node that is up");
	refused(ps_step_lead(&map, 1, 2), "the node leads already");
	done(ps_step_lead(&map, 1, 3), "3 leads");
	refused(ps_step_remove_node(&map, 1), "the node holds a placement");
	done(ps_step_start(&map, 1, 2, 77, true), "1 starts as a stranger");
	ok(map.nodes[0].leader == 3 && map.nodes[0].former == last &&
	   map.nodes[0].state == PS_NODE_UP, "3 goes on settling it");
	done(ps_step_settled(&map, 1, last), "1 is settled");
	ok(count_waiting(1) == 0 && map.nodes[0].settled == last &&
	   map.nodes[0].leader == 0, "all shards are open");
	refused(ps_step_settled(&map, 1, last),
			"nothing of the node is to be settled");
	refused(ps_step_start(&map, 2, 2, 78, true),
			"the node is primary of a shard and what it held is gone");
	done(ps_step_start(&map, 1, 3, 77, false), "1 starts again");
	ok(map.nodes[0].leader == 0 &&
	   map.nodes[0].settled == map.nodes[0].former,
	   "primary of nothing: nothing to settle");
}

static void
test_stuck(void)
{
	bool		stuck[SHARDS];
	bool		flags[SHARDS];
	int			n = 0;
	int			n_flagged;

	make_cluster(3, 2);
	(void) ps_step_leave(&map, 1, 2);
	(void) ps_step_leave(&map, 1, 3);
	before = map;
	n_flagged = flag_shards(flags, 1, 1, PS_PLACEMENT_IN_SYNC);
	refused(ps_step_fail(&map, 1, 2, NULL, NULL),
			"the node holds the only in-sync placement of a shard");
	done(ps_step_fail(&map, 1, 2, NULL, stuck), "1 fails, shards get stuck");
	for (int s = 0; s < SHARDS; s++)
		n += stuck[s] && flags[s] && map.shards[s].primary == 1;
	ok(n == n_flagged && n > 0 && count_primary(1) == n, "they stay with it");
	(void) flag_shards(flags, 1, 2, PS_PLACEMENT_OUT);
	refused(ps_step_join(&map, 1, 2, flags),
			"a node that has failed cannot do this");
	done(ps_step_settled(&map, 1, 1), "2 settles 1");
	done(ps_step_start(&map, 1, 2, 77, false), "1 comes back");
	ok(count_waiting(1) == n && map.nodes[0].leader == 1,
	   "its shards wait until it has settled itself");
	done(ps_step_settled(&map, 1, map.nodes[0].former), "it has");
}

/* The story of step.c's opener: a settlement that comes too late. */
static void
test_late_settlement(void)
{
	bool		flags[SHARDS];
	uint64		first;

	make_cluster(2, 2);
	first = map.nodes[0].incarnation;
	done(ps_step_fail(&map, 1, 2, NULL, NULL), "1 fails");
	done(ps_step_start(&map, 1, 2, 77, false), "and starts again");
	refused(ps_step_settled(&map, 1, map.nodes[0].incarnation),
			"the incarnation has not ended");
	done(ps_step_start(&map, 1, 3, 77, false), "and again");
	refused(ps_step_settled(&map, 1, first),
			"the node has started again since");
	done(ps_step_settled(&map, 1, map.nodes[0].former), "1 is settled");
	(void) flag_shards(flags, 2, 1, PS_PLACEMENT_OUT);
	done(ps_step_join(&map, 2, 1, flags), "1 joins");
	done(ps_step_in_sync(&map, 2, 1, flags), "1 is in sync");
	done(ps_step_fail(&map, 2, 1, NULL, NULL), "2 fails");
	done(ps_step_start(&map, 1, 4, 77, false), "1 starts while it settles 2");
	ok(map.shards[0].waits == 6, "shards wait for both");
	done(ps_step_settled(&map, 2, ps_map_node(&map, 2)->incarnation),
		 "2 is settled");
	ok(map.shards[0].waits == 2, "shards still wait for 1");
	done(ps_step_settled(&map, 1, map.nodes[0].former), "1 is settled");
	ok(map.shards[0].waits == 0, "shards are open");
}

static void
test_switch(void)
{
	bool		flags[SHARDS];
	int			first = -1;
	int			n;
	int			had;

	make_cluster(3, 2);
	had = count_primary(2);
	n = flag_shards(flags, 1, 2, PS_PLACEMENT_IN_SYNC);
	for (int s = 0; s < SHARDS && first < 0; s++)
		first = flags[s] ? s : -1;
	ok(n > 0, "2 has copies of shards of 1");
	refused(ps_step_switch(&map, 1, 3, flags), "a placement is not in sync");
	refused(ps_step_switch(&map, 1, 1, flags), "the node is primary already");
	refused(ps_step_switch(&map, 3, 2, flags), "a shard has another primary");
	done(ps_step_switch(&map, 1, 2, flags), "2 is primary of them");
	ok(count_primary(2) == had + n, "of these and no others");
	ok(map.shards[first].term == before.shards[first].term &&
	   map.shards[first].term > 1 && map.shards[first].waits == 0 &&
	   map.shards[first].in_sync == (PS_NODE_BIT(1) | PS_NODE_BIT(2)),
	   "in a higher term, open, and 1 is in sync");
	refused(ps_step_switch(&map, 1, 2, flags), "a shard has another primary");
	memset(flags, 0, sizeof(flags));
	refused(ps_step_switch(&map, 2, 1, flags), "no shard is given");
	flags[first] = true;
	done(ps_step_fail(&map, 1, 3, NULL, NULL), "1 fails");
	ok(map.shards[first].waits == 0, "what it has given away does not wait for it");
	refused(ps_step_switch(&map, 2, 1, flags), "a node that has failed cannot do this");
	done(ps_step_maintain(&map, 2, true), "2 rests");
	refused(ps_step_maintain(&map, 2, true), "the node is in maintenance already");
	done(ps_step_maintain(&map, 2, false), "it does no more");
	refused(ps_step_maintain(&map, 2, false), "the node is not in maintenance");
}

/* One step, any step, with arguments that are sometimes nonsense. */
static PsRefusal
random_step(PsMap *m, uint64 *random)
{
	uint64		dice = next_random(random);
	uint32		a = (uint32) (dice >> 8) % 9;
	uint32		b = (uint32) (dice >> 16) % 9;
	uint32		id;
	bool		flags[SHARDS];
	PsMapNode	node;
	char		name[PS_NAME_MAX];

	switch (dice % 32)
	{
		case 0:
			snprintf(name, sizeof(name), "n%d", (int) (dice >> 24) % 12);
			node = make_node(name, (uint32) (dice >> 32) % 4);
			return m->n_nodes > 7 ? "enough" : ps_step_add_node(m, &node, &id);
		case 1:
			return ps_step_place(m, (dice >> 32) % 4 != 0);
		case 2:
			return ps_step_set_node(m, a, (uint32) (dice >> 32) % 4,
									(dice >> 40) % 2 ? "east" : "west");
		case 3:
			return ps_step_remove_node(m, a);
		case 4:
			return ps_step_rebuild(m, a);
		case 5:
		case 6:
			return ps_step_leave(m, a, b);
		case 7:
		case 8:
			return ps_step_fail(m, a, b, NULL,
								(dice >> 32) % 2 ? NULL : flags);
		case 9:
			return ps_step_lead(m, a, b);
		case 10:
		case 11:
		case 12:
		case 13:
			return ps_step_start(m, a, dice >> 32, 77, (dice >> 24) % 4 == 0);
		case 14:
		case 15:
		case 16:
		case 17:
		case 18:
		case 19:
			if (ps_map_node(m, a) != NULL && (dice >> 24) % 8 != 0)
				return ps_step_settled(m, a, ps_map_node(m, a)->incarnation -
									   (ps_map_node(m, a)->state == PS_NODE_UP));
			return ps_step_settled(m, a, (dice >> 32) % m->next_incarnation);
		case 20:
		case 21:
			for (int s = 0; s < SHARDS; s++)
				flags[s] = m->shards[s].primary == b &&
					PS_HAS_NODE(m->shards[s].in_sync, a) && (dice >> (s % 32)) % 2;
			return ps_step_switch(m, b, a, flags);
		case 22:
			return ps_step_maintain(m, a, (dice >> 32) % 2);
		default:
			for (int s = 0; s < SHARDS; s++)
				flags[s] = m->shards[s].primary == b &&
					ps_map_placement(&m->shards[s], a) ==
					(dice % 2 ? PS_PLACEMENT_OUT : PS_PLACEMENT_JOINING);
			return dice % 2 ? ps_step_join(m, b, a, flags) :
				ps_step_in_sync(m, b, a, flags);
	}
}

/* What no step may ever do, seen from the map before. */
static const char *
check_progress(const PsMap *old, PsMap *new)
{
	if (new->epoch != old->epoch + 1)
		return "the epoch did not rise by one";
	if (new->next_incarnation < old->next_incarnation)
		return "an incarnation could be issued twice";
	for (int s = 0; s < new->n_shards; s++)
	{
		if ((new->shards[s].primary != old->shards[s].primary) !=
			(new->shards[s].term > old->shards[s].term) ||
			new->shards[s].term < old->shards[s].term)
			return "the term did not change with the primary";
	}
	for (int i = 0; i < old->n_nodes; i++)
	{
		const PsMapNode *node = ps_map_node(new, old->nodes[i].id);

		if (node != NULL && (node->incarnation < old->nodes[i].incarnation ||
							 node->settled < old->nodes[i].settled))
			return "an incarnation or what is settled fell";
	}
	return NULL;
}

static void
test_walks(void)
{
	uint64		random = 11;
	int			n_done = 0;
	int			n_refused = 0;
	PsRefusal	wrong = NULL;

	for (int walk = 0; walk < WALKS && wrong == NULL; walk++)
	{
		make_cluster(3 + walk % 4, 1 + walk % 3);
		for (int i = 0; i < WALK_STEPS && wrong == NULL; i++)
		{
			bool		is_done = random_step(&map, &random) == NULL;

			n_done += is_done;
			n_refused += !is_done;
			if (is_done && (wrong = ps_map_check(&map)) == NULL)
				wrong = check_progress(&before, &map);
			else if (!is_done && memcmp(&map, &before, sizeof(map)) != 0)
				wrong = "a refused step changed the map";
			if (is_done)
				before = map;
		}
	}
	printf("# %d steps done, %d refused\n", n_done, n_refused);
	if (!ok(wrong == NULL, "random walks: every map is sound, a refused step"
			" changes nothing"))
		printf("# %s\n", wrong);
	ok(n_done > WALKS * WALK_STEPS / 10, "and the walks get somewhere");
}

/* Is the map refused, both as it is and after a trip through bytes? */
static void
unsound(const char *words)
{
	PsRefusal	refusal = ps_map_check(&map);

	if (!ok(refusal != NULL && strcmp(refusal, words) == 0, words))
		printf("# %s\n", refusal != NULL ? refusal : "sound");
	map = before;
}

static void
test_invariants(void)
{
	make_cluster(3, 2);
	map.shards[1].in_sync = 0;
	unsound("a shard's primary is not in sync");
	map.shards[1].placements |= PS_NODE_BIT(9);
	unsound("a shard is placed on a node that is not in the map");
	map.shards[1].placements = PS_NODE_BIT(map.shards[1].primary);
	unsound("a node is in sync in a shard that it does not hold");
	map.shards[1].joining = map.shards[1].in_sync;
	unsound("a node is in sync and joining in the same shard");
	map.shards[1].term = 0;
	unsound("a shard has no term");
	map.shards[1].waits = PS_NODE_BIT(2);
	unsound("a shard waits for a node that nobody settles");
	map.nodes[1].state = PS_NODE_FAILED;
	unsound("a node is not settled and nobody settles it");
	map.nodes[1].state = PS_NODE_FAILED;
	map.nodes[1].leader = 1;
	unsound("a failed node is in sync beside others");
	map.nodes[1].id = 3;
	unsound("the nodes are not sorted by id");
	map.nodes[1].incarnation = map.next_incarnation;
	unsound("a node has an incarnation that was never issued");
	map.nodes[1].incarnation = map.nodes[0].incarnation;
	unsound("two nodes have the same incarnation");
	strcpy(map.nodes[1].name, map.nodes[0].name);
	unsound("two nodes have the same name");
	map.nodes[1].leader = 40;
	unsound("a node is settled by one that is not in the map");
	memset(map.nodes[1].zone, 'z', PS_NAME_MAX);
	unsound("a node's name or zone does not end");
	map.epoch = 0;
	unsound("the map has no epoch");
	map.n_nodes = 0;
	unsound("the number of nodes is out of range");
}

static void
test_bytes(void)
{
	static PsMap again;
	StringInfoData buf;
	int			n_accepted = 0;
	PsRefusal	refusal;

	make_cluster(5, 3);
	(void) ps_step_fail(&map, 2, 3, NULL, NULL);
	map.changed_at = -5;
	map.changed_by = 3;
	strlcpy(map.reason, "node2 has not answered", sizeof(map.reason));
	initStringInfo(&buf);
	ps_map_put(&buf, &map);
	ok(ps_map_read(&again, buf.data, (size_t) buf.len) == NULL &&
	   memcmp(&again, &map, sizeof(map)) == 0, "a map comes back from bytes");
	printf("# %d bytes for 5 nodes and %d shards\n", buf.len, SHARDS);
	for (int i = 0; i < buf.len; i++)
	{
		for (int bit = 0; bit < 8; bit++)
		{
			buf.data[i] = (char) (buf.data[i] ^ (1 << bit));
			n_accepted += ps_map_read(&again, buf.data,
									  (size_t) buf.len) == NULL;
			buf.data[i] = (char) (buf.data[i] ^ (1 << bit));
		}
		n_accepted += ps_map_read(&again, buf.data, (size_t) i) == NULL;
	}
	ok(n_accepted == 0, "no flipped bit and no cut is accepted");
	buf.data[3]++;
	refusal = ps_map_read(&again, buf.data, (size_t) buf.len);
	ok(strcmp(refusal, "the map has another version") == 0,
	   "another version is refused as such");
	pfree(buf.data);
}

int
main(void)
{
	test_create();
	test_nodes();
	test_place();
	test_leave_and_join();
	test_failover();
	test_stuck();
	test_late_settlement();
	test_switch();
	test_walks();
	test_invariants();
	test_bytes();
	return done_testing();
}
