/*
 * lease.pml
 *		Does a node that serves know that nobody else does?  (Q1)
 *
 * Three voters, one shard, of node 0 at first.  A lease lasts L ticks of clocks that run
 * alike (the margin for clocks that do not is outside the model).  Times are kept as
 * ticks that are left, so that time has no end.  ME maps, NC crashes.  The register
 * is one proposal at a time, accepted voter by voter (register.pml has the rest).
 */
#ifndef L
#define L 2
#endif
#ifndef ME
#define ME 3
#endif
#ifndef NC
#define NC 1
#endif

#ifndef ASKERS				/* the nodes that ask for leases: with ME=2, 0 and 1 are primaries */
#define ASKERS 7
#endif

#ifndef Q1_LEASE			/* a primary serves only with a lease */
#define Q1_LEASE 1
#endif
#ifndef Q1_SENT				/* counted from sending on, not from the answer */
#define Q1_SENT 1
#endif
#ifndef Q1_BOUND			/* a voter accepts no map against its promise */
#define Q1_BOUND 1
#endif
#ifndef Q1_ACCEPTED			/* and promises nothing against a map it has accepted */
#define Q1_ACCEPTED 1
#endif
#ifndef Q1_SELF				/* who accepts a map that deposes itself gives its lease up */
#define Q1_SELF 1
#endif
#ifndef Q1_PROPOSER			/* so does who proposes one */
#define Q1_PROPOSER 1
#endif
#ifndef Q1_CRASH			/* a voter that starts is bound as long as it may have promised */
#define Q1_CRASH 1
#endif
#ifndef Q1_SINCE			/* who becomes primary asks anew */
#define Q1_SINCE 1
#endif
#ifndef M3_START			/* who starts learns the newest map before it serves */
#define M3_START 1
#endif
#ifndef Q1_COMMON			/* a promise is given under a common map only */
#define Q1_COMMON 1
#endif
#ifndef Q1_BLIND			/* over a gap of epochs anybody may be deposed */
#define Q1_BLIND 1
#endif

#define N 3
#define B(x) (1 << (x))

byte P[ME]; byte cur;		/* primary by epoch; the newest chosen one */
byte ep[N]; bit up[N]; bit started[N];
byte granted[N * N];		/* at the asker: ticks left, by voter */
byte promised[N * N];		/* at the voter: ticks left, by asker */
byte bound[N];				/* at a voter that has started: ticks left */
byte acce[N]; byte accd[N];	/* accepted epoch (durable), whom it deposes */
byte barred[N]; byte since[N];
/* one request under way from each to each: 0 none, 1 sent, 2 promised; ticks since; its epoch */
byte req[N * N]; byte age[N * N]; byte re[N * N];
byte pby; byte pheir; byte pacc;	/* the proposal of epoch cur + 1: by whom + 1, its primary, accepted by */
byte nc; byte k; byte q; byte w;

#define AT(a, b) ((a) * N + (b))
#define COUNT(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1))
/* two of three: one promise beside its own vote */
#define HELD(n) (barred[n] <= ep[n] && (granted[AT(n, 0)] | granted[AT(n, 1)] | granted[AT(n, 2)]) != 0)
#define SERVES(n) (up[n] && started[n] && P[ep[n]] == (n) && (HELD(n) || !Q1_LEASE))

inline check()
{
	k = 0;
	do
	:: k < N -> assert(!SERVES(k) || P[cur] == k);
		/* and there was nobody else since */
		q = ep[k];
		do :: q < cur -> q++; assert(!SERVES(k) || P[q] == k) :: else -> break od;
		k++
	:: else -> break
	od;
	k = 0; q = 0
}
inline drop_requests(n)
{
	k = 0;
	do :: k < N -> req[AT(n, k)] = 0; age[AT(n, k)] = 0; re[AT(n, k)] = 0; granted[AT(n, k)] = 0; k++ :: else -> break od;
	k = 0
}
inline adopt(n, e)
{
	if
	:: P[e] == n && P[ep[n]] != n && Q1_SINCE ->
		since[n] = e; k = 0;
		do :: k < N -> granted[AT(n, k)] = 0; k++ :: else -> break od;
		k = 0
	:: else
	fi;
	ep[n] = e
}
/* whom the proposal takes the shard from, as n sees it */
#define LOSES(n) ((P[ep[n]] != pheir) -> B(P[ep[n]]) : 0)
#define BLIND(n) (Q1_BLIND && cur + 1 > ep[n] + 1)

#define VOTER(v) \
	:: d_step { v != n && started[n] && (ASKERS & B(n)) && req[AT(n, v)] == 0 -> req[AT(n, v)] = 1; re[AT(n, v)] = ep[n]; printf("%d asks %d for a lease under epoch %d\n", n, v, ep[n]) } \
	:: d_step { v != n && up[v] && req[AT(n, v)] == 1 && (re[AT(n, v)] == ep[v] || !Q1_COMMON) && \
		(acce[v] <= ep[v] || !(accd[v] & B(n)) || !Q1_ACCEPTED) -> \
		req[AT(n, v)] = 2; promised[AT(v, n)] = L; printf("%d promises %d a lease\n", v, n) } \
	:: d_step { v != n && up[n] && req[AT(n, v)] == 2 -> \
		w = (Q1_SENT -> L - age[AT(n, v)] : L); \
		if :: re[AT(n, v)] >= since[n] && granted[AT(n, v)] < w -> granted[AT(n, v)] = w :: else fi; w = 0; \
		req[AT(n, v)] = 0; age[AT(n, v)] = 0; re[AT(n, v)] = 0; printf("%d has a lease from %d for %d\n", n, v, granted[AT(n, v)]); check() } \
	:: d_step { !Q1_SENT && v != n && req[AT(n, v)] != 0 -> req[AT(n, v)] = 0; age[AT(n, v)] = 0; re[AT(n, v)] = 0 }

proctype Node(byte n)
{
	do
	VOTER(0)
	VOTER(1)
	VOTER(2)
	/* a map with another primary (at first node 1: 2 is the same); who proposes it has read the register */
	:: d_step { up[n] && cur < ME - 1 && pby == 0 -> pby = n + 1; pheir = (P[cur] + 1) % N; pacc = 0;
		if :: Q1_PROPOSER && (BLIND(n) || (LOSES(n) & B(n))) -> barred[n] = cur + 1 :: else fi;
		printf("%d proposes epoch %d, primary %d\n", n, cur + 1, pheir) }
	:: d_step { up[n] && cur > 0 && cur < ME - 1 && pby == 0 -> pby = n + 1; pheir = (P[cur] + 2) % N; pacc = 0;
		if :: Q1_PROPOSER && (BLIND(n) || (LOSES(n) & B(n))) -> barred[n] = cur + 1 :: else fi;
		printf("%d proposes epoch %d, primary %d\n", n, cur + 1, pheir) }
	:: d_step { up[n] && pby != 0 && !(pacc & B(n)) &&
		(!Q1_BOUND || (LOSES(n) & ~B(n) & ~B(pby - 1)) == 0 || (promised[AT(n, P[ep[n]])] == 0 && bound[n] == 0)) ->
		pacc = pacc | B(n); acce[n] = cur + 1; accd[n] = (BLIND(n) -> 7 : LOSES(n));
		if :: Q1_SELF && (BLIND(n) || (LOSES(n) & B(n))) -> barred[n] = cur + 1 :: else fi;
		printf("%d accepts epoch %d\n", n, cur + 1);
		if
		:: COUNT(pacc) >= 2 -> cur++; P[cur] = pheir; pby = 0; pheir = 0; pacc = 0; printf("MAP %d: primary %d\n", cur, P[cur])
		:: else
		fi;
		check() }
	:: d_step { up[n] && ep[n] < cur -> adopt(n, ep[n] + 1); printf("%d adopts epoch %d\n", n, ep[n]); check() }
	:: d_step { up[n] && ep[n] + 1 < cur -> adopt(n, cur); printf("%d adopts epoch %d\n", n, ep[n]); check() }
	:: d_step { up[n] && nc > 0 -> nc--; up[n] = 0; started[n] = 0; drop_requests(n); k = 0;
		do :: k < N -> promised[AT(n, k)] = 0; if :: req[AT(k, n)] == 1 -> req[AT(k, n)] = 0; age[AT(k, n)] = 0; re[AT(k, n)] = 0 :: else fi; k++ :: else -> break od;
		k = 0; bound[n] = 0; barred[n] = 0; since[n] = 0; printf("%d: CRASH\n", n) }
	/* its acceptor's row says of which epoch, not whom it deposed; promises are forgotten */
	:: d_step { !up[n] -> up[n] = 1; accd[n] = 7; since[n] = ep[n]; if :: Q1_CRASH -> bound[n] = L :: else fi; started[n] = !M3_START; printf("%d: RESTART\n", n); check() }
	/* its start is a map of its own: what was proposed meanwhile is chosen before it, or never */
	:: d_step { up[n] && !started[n] && pby == 0 -> adopt(n, cur); since[n] = cur; started[n] = 1; printf("%d: starts under epoch %d\n", n, cur); check() }
	:: d_step { up[n] && !started[n] && pby != 0 -> pby = 0; pheir = 0; pacc = 0; printf("the proposal is given up\n") }
	od
}
proctype Clock()
{
	do
	:: d_step { true -> k = 0;
		do
		:: k < N * N ->
			if :: granted[k] > 0 -> granted[k]-- :: else fi;
			if :: promised[k] > 0 -> promised[k]-- :: else fi;
			if :: req[k] != 0 && age[k] < L -> age[k]++ :: else fi;
			/* an answer that late is worth nothing */
			if :: Q1_SENT && age[k] == L -> req[k] = 0; age[k] = 0; re[k] = 0 :: else fi;
			k++
		:: else -> break
		od;
		k = 0;
		do :: k < N -> if :: bound[k] > 0 -> bound[k]-- :: else fi; k++ :: else -> break od;
		k = 0; printf("tick\n"); check() }
	od
}
init
{
	d_step { nc = NC; k = 0; do :: k < N -> up[k] = 1; started[k] = 1; k++ :: else -> break od; k = 0 }
	atomic { run Node(0); run Node(1); run Node(2); run Clock() }
}
