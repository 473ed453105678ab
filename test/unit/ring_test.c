/*
 * ring_test.c
 *		Goal: placements keep their promises (P3): distinct nodes and zones,
 *		bounded load, little movement, and the same answer for ever.  Method:
 *		every cluster of 3 to 50 nodes, some thousand odd ones, and fixed
 *		hashes of some answers.
 */
#include "ground/ring.h"

#include "common/hashfn.h"
#include "tap.h"

#define CELLS_MAX (PS_SHARDS_MAX * PS_COPIES_MAX)
#define SHARDS 64
#define COPIES 3
#define SMALLEST 3
#define LARGEST 50

/*
 * Bounds on movement, x theoretical minimum: of one change of nodes, plus so
 * many cells; and on average.  The added cells are for the sizes at which the
 * bound on load, a whole number, falls: from 35 to 36 nodes from 3 primaries
 * to 2, and every node that had 3 must give one away.
 */
#define MOVED_TIMES 2
#define MOVED_SHARDS 18
#define AVERAGE_PERCENT 200		/* placements */
#define AVERAGE_PRIMARY_PERCENT 250

static const PsRingConfig usual = {SHARDS, COPIES, PS_RING_VNODES_DEFAULT,
PS_RING_LOAD_DEFAULT};

static char zone_names[PS_NODES_MAX][8];

/* Nodes 1 .. n of weight 1, spread over zones in turn. */
static void
make_nodes(PsRingNode *nodes, int n, int n_zones)
{
	for (int i = 0; i < n; i++)
	{
		nodes[i].id = (uint32) i + 1;
		nodes[i].weight = 1;
		nodes[i].zone = zone_names[i % n_zones];
	}
}

static const PsRingNode *
find_node(const PsRingNode *nodes, uint32 id)
{
	while (nodes->id != id)
		nodes++;
	return nodes;
}

/* Is every row full, of distinct nodes with weight, zones distinct first? */
static bool
are_rows_sound(const PsRingNode *nodes, int n, const PsRingConfig *config,
			   const uint32 *out, int got)
{
	int			n_zones = 0;

	for (int i = 0; i < n; i++)
	{
		bool		is_new = nodes[i].weight > 0;

		for (int j = 0; j < i; j++)
			is_new = is_new && (nodes[j].weight == 0 ||
								strcmp(nodes[j].zone, nodes[i].zone) != 0);
		n_zones += is_new;
	}
	for (int s = 0; s < config->n_shards; s++)
	{
		const uint32 *row = out + s * config->copies;
		int			zones = 0;

		for (int i = 0; i < config->copies; i++)
		{
			bool		is_new = true;

			if ((row[i] != 0) != (i < got))
				return false;
			if (row[i] == 0)
				continue;
			if (find_node(nodes, row[i])->weight == 0)
				return false;
			for (int j = 0; j < i; j++)
			{
				if (row[j] == row[i])
					return false;
				is_new = is_new && strcmp(find_node(nodes, row[j])->zone,
										  find_node(nodes, row[i])->zone) != 0;
			}
			zones += is_new;
		}
		if (zones != Min(n_zones, got))
			return false;
	}
	return true;
}

/* Placements (width = copies) or primaries (width = 1) of the worst node. */
static int
worst_load(const PsRingConfig *config, const uint32 *out, int width)
{
	int			load[PS_NODES_MAX] = {0};
	int			worst = 0;

	for (int s = 0; s < config->n_shards; s++)
	{
		for (int i = 0; i < width; i++)
		{
			int			now = ++load[out[s * config->copies + i]];

			worst = Max(worst, now);
		}
	}
	return worst;
}

/* ceil(load_percent / 100 x whole / n) for nodes that weigh the same */
static int
bound(const PsRingConfig *config, int whole, int n)
{
	return (whole * config->load_percent + 100 * n - 1) / (100 * n);
}

/* Cells of `b` in the first `width` columns that the same row of `a` lacks. */
static int
count_moved(const PsRingConfig *config, const uint32 *a, const uint32 *b,
			int width)
{
	int			moved = 0;

	for (int s = 0; s < config->n_shards; s++)
	{
		for (int i = 0; i < width; i++)
		{
			bool		stayed = false;

			for (int j = 0; j < width; j++)
				stayed |= a[s * config->copies + j] ==
					b[s * config->copies + i];
			moved += !stayed;
		}
	}
	return moved;
}

/* What the table says of one size. */
typedef struct Figures
{
	int			worst[2];		/* load of the worst node */
	int			moved[4];		/* node joins: placements, primaries; leaves */
	double		least[4];		/* the theoretical minimum of each */
} Figures;

static void
measure_size(int n, const uint32 *before, Figures *size)
{
	static uint32 after[CELLS_MAX];
	PsRingNode	nodes[PS_NODES_MAX];

	make_nodes(nodes, n + 1, n + 1);
	size->worst[0] = worst_load(&usual, before, COPIES);
	size->worst[1] = worst_load(&usual, before, 1);
	(void) ps_ring_place(nodes, n + 1, &usual, after);
	size->moved[0] = count_moved(&usual, before, after, COPIES);
	size->moved[1] = count_moved(&usual, before, after, 1);
	size->least[0] = (double) SHARDS * COPIES / (n + 1);
	size->least[1] = (double) SHARDS / (n + 1);

	/* One in the middle leaves; with COPIES nodes rows become shorter. */
	memmove(&nodes[n / 2], &nodes[n / 2 + 1],
			sizeof(nodes[0]) * (size_t) (n - n / 2));
	(void) ps_ring_place(nodes, n - 1, &usual, after);
	size->moved[2] = n > COPIES ?
		count_moved(&usual, before, after, COPIES) : 0;
	size->moved[3] = count_moved(&usual, before, after, 1);
	size->least[2] = n > COPIES ? (double) SHARDS * COPIES / n : 0;
	size->least[3] = (double) SHARDS / n;
}

static void
print_size(int n, const Figures *size)
{
	printf("# %5d    %4.2f  %4.2f ", n,
		   size->worst[0] * n / (double) (SHARDS * COPIES),
		   size->worst[1] * n / (double) SHARDS);
	for (int i = 0; i < 4; i++)
		printf("   %4.1f%% (%4.1f%%)", 100.0 * size->moved[i] /
			   (i % 2 == 0 ? SHARDS * COPIES : SHARDS),
			   100.0 * size->least[i] /
			   (i % 2 == 0 ? SHARDS * COPIES : SHARDS));
	printf("\n");
}

/* 3 .. 50 nodes: bounds hold, and what moves when one joins, or one leaves. */
static void
test_sizes(void)
{
	static uint32 out[CELLS_MAX];
	PsRingNode	nodes[PS_NODES_MAX];
	bool		is_sound = true;
	bool		is_bounded = true;
	bool		moves_little = true;
	double		sum[2] = {0, 0};
	Figures		size;

	printf("# %d shards, %d copies, bound 110%%: the worst node's load over"
		   " its fair share;\n# the share that moves (theoretical minimum)\n"
		   "# nodes  placed prim.   joins: placed   primaries"
		   "       leaves: placed  primaries\n", SHARDS, COPIES);
	for (int n = SMALLEST; n <= LARGEST; n++)
	{
		make_nodes(nodes, n, n);
		is_sound &= ps_ring_place(nodes, n, &usual, out) == COPIES &&
			are_rows_sound(nodes, n, &usual, out, COPIES);
		measure_size(n, out, &size);
		print_size(n, &size);
		is_bounded &= size.worst[0] <= bound(&usual, SHARDS * COPIES, n) &&
			size.worst[1] <= bound(&usual, SHARDS, n);
		for (int i = 0; i < 4; i++)
			moves_little &= size.moved[i] <=
				MOVED_TIMES * size.least[i] + MOVED_SHARDS;
		sum[0] += size.moved[0] / size.least[0];
		sum[1] += size.moved[1] / size.least[1];
	}
	sum[0] /= LARGEST - SMALLEST + 1;
	sum[1] /= LARGEST - SMALLEST + 1;
	printf("# average movement when a node joins: placements %.2f, primaries"
		   " %.2f x minimum\n", sum[0], sum[1]);
	ok(is_sound, "3 .. 50 nodes: rows are full and distinct");
	ok(is_bounded, "3 .. 50 nodes: no node above the bound on load");
	ok(moves_little, "a node joins or leaves: no more than 2 x the minimum"
	   " + 18 move");
	ok(sum[0] * 100 <= AVERAGE_PERCENT && sum[1] * 100 <=
	   AVERAGE_PRIMARY_PERCENT, "on average no more than 2 x (placements)"
	   " and 2.5 x (primaries) the minimum");
}

/* The tightest bound: chains (ring.c (d), (e)) have to find every place. */
static void
test_exact_fit(void)
{
	static uint32 out[CELLS_MAX];
	PsRingNode	nodes[PS_NODES_MAX];
	bool		is_bounded = true;

	for (int n = 1; n < PS_NODES_MAX; n++)
	{
		for (int copies = 1; copies <= Min(n, PS_COPIES_MAX); copies++)
		{
			PsRingConfig config = {50 + n, copies, 8, 100};

			/* Zones of equal size bend no share. */
			make_nodes(nodes, n, n % 3 == 0 ? n / 3 : n);
			is_bounded &= ps_ring_place(nodes, n, &config, out) == copies &&
				are_rows_sound(nodes, n, &config, out, copies) &&
				worst_load(&config, out, copies) <=
				bound(&config, config.n_shards * copies, n) &&
				worst_load(&config, out, 1) <=
				bound(&config, config.n_shards, n);
		}
	}
	ok(is_bounded, "a bound of 100 percent is kept by all sizes and copies");
}

/* Random weights, zones, gaps in ids; rows stay sound. */
static void
test_odd_clusters(void)
{
	static uint32 out[CELLS_MAX];
	PsRingNode	nodes[PS_NODES_MAX];
	uint64		random = 3;
	bool		is_sound = true;
	bool		is_same = true;

	for (int round = 0; round < 1500; round++)
	{
		PsRingConfig config = {(int) (next_random(&random) % 80) + 1,
			(int) (next_random(&random) % PS_COPIES_MAX) + 1, 4,
		100 + (int) (next_random(&random) % 30)};
		int			n_zones = (int) (next_random(&random) % 6) + 1;
		int			n = 0;
		int			n_data = 0;
		int			got;
		uint32		hash;

		for (uint32 id = 1; id < PS_NODES_MAX; id++)
		{
			uint64		dice = next_random(&random);

			if (dice % 6 != 0)
				continue;
			nodes[n].id = id;
			nodes[n].weight = (uint32) (dice >> 8) % 5;
			nodes[n].zone = zone_names[(dice >> 16) % (uint64) n_zones];
			n_data += nodes[n++].weight > 0;
		}
		got = ps_ring_place(nodes, n, &config, out);
		is_sound &= got == Min(config.copies, n_data) &&
			are_rows_sound(nodes, n, &config, out, got);
		hash = hash_bytes((unsigned char *) out, config.n_shards * 4);
		(void) ps_ring_place(nodes, n, &config, out);
		is_same &= hash == hash_bytes((unsigned char *) out,
									  config.n_shards * 4);
	}
	ok(is_sound, "odd weights and zones: rows are full and distinct");
	ok(is_same, "the same arguments give the same answer");
}

static void
test_weights(void)
{
	static uint32 out[CELLS_MAX];
	PsRingNode	nodes[4] = {{1, 1, ""}, {2, 1, ""}, {3, 2, ""}, {9, 0, ""}};
	PsRingConfig config = {100, 1, 64, 100};
	int			load[PS_NODES_MAX] = {0};

	ok(ps_ring_place(nodes, 4, &config, out) == 1, "four nodes, one witness");
	for (int s = 0; s < config.n_shards; s++)
		load[out[s]]++;
	ok(load[1] == 25 && load[2] == 25 && load[3] == 50 && load[9] == 0,
	   "shares follow weights; a witness holds nothing");
	config.copies = 3;
	ok(ps_ring_place(nodes, 4, &config, out) == 3 &&
	   worst_load(&config, out, 3) == 100 && worst_load(&config, out, 1) <= 50,
	   "who cannot take more than all leaves the rest to the others");
}

static void
test_refusals(void)
{
	uint32		out[64];
	PsRingNode	nodes[2] = {{1, 1, ""}, {2, 1, ""}};
	PsRingNode	unsorted[2] = {{2, 1, ""}, {1, 1, ""}};
	PsRingNode	heavy[1] = {{1, PS_RING_WEIGHT_MAX + 1, ""}};
	PsRingConfig config = {8, 3, 64, 110};
	PsRingConfig bad;

	ok(ps_ring_place(nodes, 2, &config, out) == 2 && out[2] == 0 &&
	   out[23] == 0, "fewer nodes than copies: zeros");
	ok(ps_ring_place(nodes, 0, &config, out) == 0 && out[0] == 0,
	   "no nodes: no copies");
	ok(ps_ring_place(unsorted, 2, &config, out) == -1, "unsorted: refused");
	ok(ps_ring_place(heavy, 1, &config, out) == -1, "too heavy: refused");
	bad = config;
	bad.load_percent = 99;
	ok(ps_ring_place(nodes, 2, &bad, out) == -1, "bound below 100: refused");
	bad = config;
	bad.copies = PS_COPIES_MAX + 1;
	ok(ps_ring_place(nodes, 2, &bad, out) == -1, "too many copies: refused");
	bad = config;
	bad.n_shards = 0;
	ok(ps_ring_place(nodes, 2, &bad, out) == -1, "no shards: refused");
}

/* When one of these fails, the change moves customers' data (ring.h). */
static void
test_golden(void)
{
	static const struct
	{
		int			n_nodes;
		int			n_zones;
		int			n_shards;
		int			copies;
		uint32		hash;
	}			golden[] = {
		{3, 1, 64, 3, 0x6f30b203},
		{5, 5, 64, 3, 0xb89fa416},
		{6, 3, 256, 3, 0x346b49e7},
		{7, 2, 64, 4, 0x80f0aa76},
		{63, 7, 1024, 8, 0x222d3a6c},
	};
	static uint32 out[CELLS_MAX];
	PsRingNode	nodes[PS_NODES_MAX];
	char		what[80];

	ok(ps_ring_position_node(1, 0) == UINT64CONST(0xbff505763b60ad4e) &&
	   ps_ring_position_shard(0) == UINT64CONST(0x2dd82c88fa32b270),
	   "positions are fixed");
	for (size_t i = 0; i < lengthof(golden); i++)
	{
		PsRingConfig config = {golden[i].n_shards, golden[i].copies, 64, 110};
		int			n_cells = config.n_shards * config.copies;
		uint32		hash = 2166136261u;	/* FNV-1a over the ids */

		make_nodes(nodes, golden[i].n_nodes, golden[i].n_zones);
		nodes[0].weight = 2;
		(void) ps_ring_place(nodes, golden[i].n_nodes, &config, out);
		for (int c = 0; c < n_cells; c++)
			hash = (hash ^ out[c]) * 16777619u;
		snprintf(what, sizeof(what), "golden answer %d", (int) i + 1);
		if (!ok(hash == golden[i].hash, what))
			printf("# hash is 0x%08x\n", hash);
	}
}

int
main(void)
{
	for (int i = 0; i < PS_NODES_MAX; i++)
		snprintf(zone_names[i], sizeof(zone_names[i]), "z%d", i);
	test_sizes();
	test_exact_fit();
	test_odd_clusters();
	test_weights();
	test_refusals();
	test_golden();
	return done_testing();
}
