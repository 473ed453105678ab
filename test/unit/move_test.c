/*
 * move_test.c
 *		Goal: what a move orders is sound, ends where the ring says, moves no more
 *		than it must, can be stopped anywhere, and never drops a copy that is
 *		needed.
 *		Method: stories by hand; then random walks of moves, joins, switchovers,
 *		failures and returns, with every invariant checked after each step, that
 *		end in a quiet cluster in which everything comes to rest.
 */
#include "ground/move.h"

#include "ground/step.h"
#include "port/pg_bitutils.h"
#include "tap.h"

#define SHARDS 32
#define WALKS 30
#define WALK_STEPS 2000

static PsMap map;
static PsMap before;

static PsMapNode
make_node(const char *name, const char *zone, uint32 weight)
{
	PsMapNode	node = {.weight = weight, .boot = 1, .system_id = 77};

	strlcpy(node.name, name, sizeof(node.name));
	strlcpy(node.zone, zone, sizeof(node.zone));
	return node;
}

static uint32
add(int i, const char *zone, uint32 weight)
{
	char		name[PS_NAME_MAX];
	PsMapNode	node;
	uint32		id = 0;

	snprintf(name, sizeof(name), "node%d", i);
	node = make_node(name, zone, weight);
	(void) ps_step_add_node(&map, &node, &id);
	return id;
}

static void
make_cluster(int n, int copies)
{
	PsMapNode	node = make_node("node1", "z1", 1);

	(void) ps_step_create(&map, "test", 99, SHARDS, copies, 110, &node);
	for (int i = 2; i <= n; i++)
	{
		char		zone[PS_NAME_MAX];

		snprintf(zone, sizeof(zone), "z%d", i);
		(void) add(i, zone, 1);
	}
	(void) ps_step_place(&map, false);
	before = map;
}

static int
count(PsNodeSet set)
{
	return pg_popcount64(set);
}

static int
count_jobs(void)
{
	int			n = 0;

	for (int s = 0; s < SHARDS; s++)
		n += map.shards[s].job != 0;
	return n;
}

static int
count_held(uint32 id)
{
	int			n = 0;

	for (int s = 0; s < SHARDS; s++)
		n += PS_HAS_NODE(map.shards[s].placements, id);
	return n;
}

static int
count_primary(uint32 id)
{
	int			n = 0;

	for (int s = 0; s < SHARDS; s++)
		n += map.shards[s].primary == id;
	return n;
}

static void
sound(PsRefusal refusal, const char *what)
{
	PsRefusal	wrong = refusal != NULL ? refusal : ps_map_check(&map);

	if (!ok(wrong == NULL, what))
		printf("# %s\n", wrong);
	before = map;
}

static void
refused(PsRefusal refusal, const char *words)
{
	if (!ok(refusal != NULL && strcmp(refusal, words) == 0 &&
			memcmp(&map, &before, sizeof(map)) == 0, words))
		printf("# %s\n", refusal != NULL ? refusal : "was done");
	map = before;
}

/* What the keepers would do for one primary; false when there was nothing to do. */
static bool
join_some(uint32 primary)
{
	bool		flags[SHARDS] = {false};

	for (uint32 id = 1; id < 10; id++)
	{
		bool		any = false;

		for (int s = 0; s < SHARDS; s++)
		{
			flags[s] = map.shards[s].primary == primary &&
				ps_map_placement(&map.shards[s], id) == PS_PLACEMENT_OUT;
			any |= flags[s];
		}
		if (any && ps_step_join(&map, primary, id, flags) == NULL)
			return ps_step_in_sync(&map, primary, id, flags) == NULL;
	}
	return false;
}

/* Stands in for the switchover of one shard. */
static bool
switch_some(uint32 primary)
{
	for (int s = 0; s < SHARDS; s++)
	{
		uint32		heir = ps_move_heir(&map, s);

		if (map.shards[s].primary != primary || heir == 0)
			continue;
		map.shards[s].primary = heir;
		map.shards[s].term++;
		map.shards[s].joining = 0;
		map.epoch++;
		return true;
	}
	return false;
}

/* Until nothing is left to be done; the smallest number of copies seen in sync. */
static int
come_to_rest(void)
{
	int			least = 99;

	for (int turns = 0; turns < 10000; turns++)
	{
		bool		again = false;

		for (int i = 0; i < map.n_nodes; i++)
		{
			uint32		id = map.nodes[i].id;

			again |= join_some(id) || switch_some(id) || ps_step_finish(&map, id) == NULL;
		}
		for (int s = 0; s < SHARDS; s++)
			least = Min(least, count(map.shards[s].in_sync));
		if (!again)
			break;
	}
	return least;
}

/* Is every shard as the ring has it? */
static bool
is_as_ring(void)
{
	uint32	   *rows = ps_map_ring(&map, ps_map_voters(&map));
	bool		is = true;

	for (int s = 0; s < SHARDS; s++)
	{
		PsNodeSet	want = 0;

		for (uint32 i = 0; i < map.copies; i++)
			want |= PS_NODE_BIT(rows[s * (int) map.copies + (int) i]);
		is &= map.shards[s].placements == want && map.shards[s].in_sync == want &&
			map.shards[s].primary == rows[s * (int) map.copies];
	}
	pfree(rows);
	return is;
}

static void
test_rebalance(void)
{
	uint32		id;
	int			n_arriving = 0;
	int			n_paired = 0;

	make_cluster(3, 2);
	refused(ps_step_rebalance(&map), "nothing is to be moved");
	id = add(4, "z4", 1);
	before = map;
	sound(ps_step_rebalance(&map), "rebalance with a new node");
	for (int s = 0; s < SHARDS; s++)
	{
		const PsMapShard *shard = &map.shards[s];

		n_arriving += count(shard->arriving);
		n_paired += count(shard->arriving) == count(shard->leaving) &&
			count(shard->in_sync) == 2;
	}
	printf("# %d of %d placements move to one of 4 nodes\n", n_arriving, 2 * SHARDS);
	ok(n_arriving >= 2 * SHARDS / 4 - 2 && n_arriving <= 2 * SHARDS / 2 && n_paired == SHARDS,
	   "about a fourth moves, each arrival has its departure, all copies stay in sync");
	refused(ps_step_rebalance(&map), "nothing is to be moved");
	ok(come_to_rest() == 2 && is_as_ring() && count_jobs() == 0 && count_primary(id) > 0,
	   "it ends as the ring has it, and no shard ever had fewer than two copies");
	before = map;
	refused(ps_step_rebalance(&map), "nothing is to be moved");
}

static void
test_stop(void)
{
	uint32		id;

	make_cluster(3, 2);
	id = add(4, "z4", 1);
	(void) ps_step_rebalance(&map);
	before = map;
	sound(ps_step_stop(&map), "stop before anything has moved");
	ok(count_held(id) == 0 && count_jobs() == 0, "nothing is left of it");
	refused(ps_step_stop(&map), "nothing is to be moved");
	(void) ps_step_rebalance(&map);
	(void) join_some(1);
	before = map;
	sound(ps_step_stop(&map), "stop amid the moves");
	ok(come_to_rest() >= 2 && count_jobs() == 0, "what had arrived is carried through");
	for (int s = 0; s < SHARDS; s++)
	{
		if (count(map.shards[s].placements) != 2)
			ok(false, "a shard has not two placements");
	}
	before = map;
	sound(ps_step_rebalance(&map), "and it can be ordered again");
	ok(come_to_rest() >= 2 && is_as_ring(), "to the same end");
}

/* What is not wanted any more is taken back by the next order, without a stop. */
static void
test_turn_back(void)
{
	make_cluster(4, 2);
	(void) ps_step_set_node(&map, 2, 0, "z2");
	(void) ps_step_rebalance(&map);
	ok(count_jobs() > 0, "a node without weight is to be emptied");
	(void) ps_step_set_node(&map, 2, 1, "z2");
	before = map;
	sound(ps_step_rebalance(&map), "weight again, before anything has moved");
	ok(count_jobs() == 0 && is_as_ring(), "all that was ordered is taken back at once");
	(void) ps_step_set_node(&map, 2, 0, "z2");
	(void) ps_step_rebalance(&map);
	(void) join_some(1);
	(void) join_some(3);
	(void) ps_step_set_node(&map, 2, 1, "z2");
	(void) ps_step_rebalance(&map);
	ok(come_to_rest() == 2 && is_as_ring(), "and amid the moves it ends as the ring has it");
}

static void
test_drain(void)
{
	make_cluster(3, 3);
	refused(ps_step_drain(&map, 2), "the other nodes that are up and have weight are too few");
	make_cluster(4, 2);
	refused(ps_step_drain(&map, 9), "there is no such node");
	sound(ps_step_drain(&map, 2), "drain");
	refused(ps_step_drain(&map, 2), "nothing is to be moved");
	refused(ps_step_remove_node(&map, 2), "the node holds a placement");
	ok(come_to_rest() == 2 && count_held(2) == 0, "the node is empty, two copies all the time");
	before = map;
	sound(ps_step_remove_node(&map, 2), "and is removed");
	make_cluster(4, 2);
	(void) ps_step_drain(&map, 2);
	(void) join_some(1);
	(void) ps_step_stop(&map);
	ok(!ps_map_node(&map, 2)->is_leaving && ps_map_check(&map) == NULL,
	   "stop keeps the node");
	(void) come_to_rest();
	(void) ps_step_rebalance(&map);
	(void) come_to_rest();
	ok(is_as_ring(), "and a rebalance gives it its shards back");
}

static void
test_replace(void)
{
	bool		flags[SHARDS];
	int			n_lost;

	make_cluster(4, 2);
	n_lost = count_held(2);
	refused(ps_step_replace(&map, 2), "nothing is to be moved");
	(void) ps_step_fail(&map, 2, 1, NULL, NULL);
	(void) ps_step_settled(&map, 2, ps_map_node(&map, 2)->incarnation);
	before = map;
	sound(ps_step_replace(&map, 2), "replace a lost node");
	ok(count_jobs() == n_lost, "all that it held gets another place");
	(void) come_to_rest();
	ok(count_held(2) == 0 && count_jobs() == 0 && ps_map_check(&map) == NULL,
	   "and when that is in sync it holds nothing");
	/* the replacement is lost, too, before it is in sync */
	make_cluster(5, 2);
	(void) ps_step_fail(&map, 2, 1, NULL, NULL);
	(void) ps_step_settled(&map, 2, ps_map_node(&map, 2)->incarnation);
	(void) ps_step_replace(&map, 2);
	(void) ps_step_fail(&map, 3, 1, NULL, flags);
	(void) ps_step_settled(&map, 3, ps_map_node(&map, 3)->incarnation);
	before = map;
	sound(ps_step_replace(&map, 3), "replace a second one");
	ok(ps_map_check(&map) == NULL, "is sound");
	for (int s = 0; s < SHARDS; s++)
	{
		if (PS_HAS_NODE(map.shards[s].arriving, 3))
			ok(false, "a lost node still is to get a shard");
	}
	/* it comes back in the middle: nothing is lost */
	make_cluster(4, 2);
	(void) ps_step_fail(&map, 2, 1, NULL, NULL);
	(void) ps_step_settled(&map, 2, ps_map_node(&map, 2)->incarnation);
	(void) ps_step_replace(&map, 2);
	(void) ps_step_start(&map, 2, 5, 77, false);
	ok(come_to_rest() >= 1 && count_jobs() == 0 && ps_map_check(&map) == NULL,
	   "a node that comes back in the middle");
	for (int s = 0; s < SHARDS; s++)
	{
		if (count(map.shards[s].in_sync) != 2)
			ok(false, "a shard has not two copies in sync");
	}
}

/* A failed node takes nothing, and makes no room. */
static void
test_failed_target(void)
{
	uint32		id;

	make_cluster(3, 2);
	id = add(4, "z4", 1);
	(void) ps_step_fail(&map, id, 1, NULL, NULL);
	(void) ps_step_settled(&map, id, ps_map_node(&map, id)->incarnation);
	(void) ps_step_rebalance(&map);
	ok(count_held(id) == 0 && ps_map_check(&map) == NULL, "a failed node gets nothing");
	for (int s = 0; s < SHARDS; s++)
	{
		if (count(map.shards[s].placements & ~map.shards[s].leaving) != 2)
			ok(false, "a shard loses a placement for nothing");
	}
}

static PsRefusal
random_step(uint64 *random)
{
	uint64		dice = next_random(random);
	uint32		a = (uint32) (dice >> 8) % 6 + 1;
	uint32		b = (uint32) (dice >> 16) % 6 + 1;
	bool		flags[PS_SHARDS_MAX];

	switch (dice % 16)
	{
		case 0:
			return ps_step_rebalance(&map);
		case 1:
			return ps_step_drain(&map, a);
		case 2:
		case 3:
			return ps_step_replace(&map, a);
		case 4:
			return ps_step_stop(&map);
		case 5:
		case 6:
			return ps_step_finish(&map, a);
		case 7:
			return ps_step_fail(&map, a, b, NULL, (dice >> 32) % 2 ? NULL : flags);
		case 8:
			return ps_step_start(&map, a, dice >> 32, 77, (dice >> 24) % 4 == 0);
		case 9:
		case 10:
			if (ps_map_node(&map, a) == NULL)
				return "none";
			return ps_step_settled(&map, a, ps_map_node(&map, a)->incarnation -
								   (ps_map_node(&map, a)->state == PS_NODE_UP));
		case 11:
			return ps_step_leave(&map, b, a);
		case 12:
			return switch_some(a) ? NULL : "nobody to switch to";
		case 13:
			if ((dice >> 24) % 8 == 0)
				return ps_step_remove_node(&map, a);
			return ps_step_unjoin(&map, a, b);
		default:
			for (int s = 0; s < SHARDS; s++)
				flags[s] = map.shards[s].primary == b && (dice >> (20 + s % 16)) % 2 == 0 &&
					ps_map_placement(&map.shards[s], a) ==
					(dice % 2 ? PS_PLACEMENT_OUT : PS_PLACEMENT_JOINING);
			return dice % 2 ? ps_step_join(&map, b, a, flags) :
				ps_step_in_sync(&map, b, a, flags);
	}
}

/* No step of a move may leave a shard with fewer copies than are wanted or were there. */
static PsRefusal
check_copies(bool is_finish)
{
	for (int s = 0; s < SHARDS; s++)
	{
		int			was = count(before.shards[s].in_sync);
		int			is = count(map.shards[s].in_sync);

		if (is_finish && is < was && is < (int) map.copies &&
			is < count(before.shards[s].placements & ~before.shards[s].leaving))
			return "a copy was dropped that is needed";
		if (map.shards[s].arriving & before.shards[s].in_sync)
			return "a copy in sync arrives";
	}
	return NULL;
}

/* Everybody is back, nobody interferes. */
static void
make_quiet(void)
{
	for (int i = 0; i < map.n_nodes; i++)
	{
		uint32		id = map.nodes[i].id;

		if (map.nodes[i].state == PS_NODE_FAILED)
			(void) ps_step_start(&map, id, 5, 77, false);
	}
	for (int i = 0; i < map.n_nodes; i++)
	{
		if (map.nodes[i].leader != 0)
			(void) ps_step_settled(&map, map.nodes[i].id, map.nodes[i].incarnation - 1);
	}
	for (uint32 a = 1; a < 10; a++)
		for (uint32 b = 1; b < 10; b++)
			(void) ps_step_unjoin(&map, a, b);
}

static void
test_walks(void)
{
	uint64		random = 4711;
	int			n_done = 0;
	bool		rests = true;
	PsRefusal	wrong = NULL;

	for (int walk = 0; walk < WALKS && wrong == NULL; walk++)
	{
		make_cluster(3 + walk % 4, 1 + walk % 3);
		for (int i = 0; i < WALK_STEPS && wrong == NULL; i++)
		{
			uint64		probe = random;
			uint64		kind = next_random(&probe) % 16;
			bool		is_finish = kind == 5 || kind == 6;
			bool		is_done = random_step(&random) == NULL;

			n_done += is_done;
			if (is_done && (wrong = ps_map_check(&map)) == NULL)
				wrong = check_copies(is_finish);
			else if (!is_done && memcmp(&map, &before, sizeof(map)) != 0)
				wrong = "a refused step changed the map";
			before = map;
		}
		make_quiet();
		(void) come_to_rest();
		rests &= count_jobs() == 0;
		(void) ps_step_stop(&map);
		(void) ps_step_rebalance(&map);
		(void) come_to_rest();
		rests &= is_as_ring() && ps_map_check(&map) == NULL;
	}
	printf("# %d steps done\n", n_done);
	if (!ok(wrong == NULL, "random walks: every map is sound, no copy is dropped that is needed"))
		printf("# %s\n", wrong);
	ok(rests, "each walk comes to rest: no job is left, and a rebalance ends as the ring has it");
	ok(n_done > WALKS * WALK_STEPS / 10, "and the walks get somewhere");
}

int
main(void)
{
	test_rebalance();
	test_stop();
	test_turn_back();
	test_drain();
	test_replace();
	test_failed_target();
	test_walks();
	return done_testing();
}
