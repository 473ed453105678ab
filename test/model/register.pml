/*
 * register.pml
 *		Is there only ever one map of each epoch?  (M1, M3: the register, its
 *		voters' crashes and restored directories, voters that come and go.)
 *
 * N acceptors, the first V of them voters at first; two proposers, on nodes 0 and 1,
 * with rounds up to R each; at most NV maps; NX restored directories.  A restored
 * directory is one from before its node's last start (R rounds of that node begin anew).  Messages are answered
 * at any later time or never; a round may be given up at any time.
 */
#ifndef N
#define N 3
#endif
#ifndef V
#define V 3
#endif
#ifndef R
#define R 2
#endif
#ifndef NV
#define NV 5
#endif
#ifndef NC
#define NC 1
#endif
#ifndef NX
#define NX 0
#endif
#ifndef VOTERS				/* the set of voters may change */
#define VOTERS 0
#endif

#ifndef M1_DURABLE			/* a promise is flushed before it is answered */
#define M1_DURABLE 1
#endif
#ifndef M1_MAJORITY			/* a majority, not any voter */
#define M1_MAJORITY 1
#endif
#ifndef M1_HIGHEST			/* the value of the highest accepted ballot is the current map */
#define M1_HIGHEST 1
#endif
#ifndef M1_PROMISE			/* an older ballot than the promised one is refused */
#define M1_PROMISE 1
#endif
#ifndef M1_BOTH				/* accepted by majorities of the old and of the new voters */
#define M1_BOTH 1
#endif
#ifndef M1_READ				/* promised by majorities of the known and of the read voters */
#define M1_READ 1
#endif
#ifndef M1_ONE				/* voters change one at a time */
#define M1_ONE 1
#endif
#ifndef M3_PROMISE			/* promises of strangers do not count */
#define M3_PROMISE 1
#endif
#ifndef M3_SESSION			/* who has promised accepts, in the session in which he has: so in the same run of his server */
#define M3_SESSION 1
#endif

#define B(x) (1 << (x))
#define COUNT(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1) + (((m) >> 3) & 1))
#define MAJ(set, of) (M1_MAJORITY -> COUNT((set) & (of)) * 2 > COUNT(of) : ((set) & (of)) != 0)

/* maps: 0 is none, 1 the first one */
byte vep[NV + 1]; byte vpar[NV + 1]; byte vvot[NV + 1]; byte vb[(NV + 1) * N]; byte nv;
byte chosen[NV + 1];		/* by epoch */

/* acceptors, durable; the marks of their directories: of the last start, of one under way */
byte pr[N]; byte ab[N]; byte av[N]; byte mk[N]; byte at[N];
#if !M1_DURABLE
byte dpr[N]; byte dab[N]; byte dav[N];
#endif

/* proposers */
#define IDLE 0
#define PREPARE 1
#define MORE 2
#define STEP 3
#define ACCEPT 4
byte ph[2]; byte rd[2]; byte kn[2]; byte cu[2]; byte nx[2]; byte yes[2]; byte asked[2]; byte bb[2]; byte bv[2];
byte el[2]; byte dead[2];	/* who may accept; whose session has ended since he promised */
byte pk[2 * N]; byte pa[2 * N];
byte nc; byte nx_left; byte marks; byte k;

#define BALLOT(u) (rd[u] * 2 + (u) + 1)
#define BOOT(v, a) vb[(v) * N + (a)]
#define MAY_ACCEPT(u, a) (!M3_SESSION || (el[u] & ~dead[u] & B(a)) || !(vvot[cu[u]] & B(a)))
#define KNOWN(v, a, m1, m2) (BOOT(v, a) == 0 || (m1) == BOOT(v, a) || (m2) == BOOT(v, a))

inline idle(p_)
{
	ph[p_] = IDLE; cu[p_] = 0; nx[p_] = 0; yes[p_] = 0; asked[p_] = 0; bb[p_] = 0; bv[p_] = 0; el[p_] = 0; dead[p_] = 0; k = 0;
	do :: k < N -> pk[(p_) * N + k] = 0; pa[(p_) * N + k] = 0; k++ :: else -> break od;
	k = 0
}
inline new_map(u)
{
	nv++; vep[nv] = vep[cu[u]] + 1; vpar[nv] = cu[u]; vvot[nv] = vvot[cu[u]]; k = 0;
	do :: k < N -> BOOT(nv, k) = BOOT(cu[u], k); k++ :: else -> break od;
	k = 0; nx[u] = nv; ph[u] = ACCEPT; asked[u] = 0; yes[u] = 0
}
/* who of the promised is a stranger by the map that was read */
inline void_strangers(u)
{
	k = 0;
	do
	:: k < N -> if :: M3_PROMISE && (yes[u] & B(k)) && !KNOWN(cu[u], k, pk[(u) * N + k], pa[(u) * N + k]) -> yes[u] = yes[u] & ~B(k) :: else fi; k++
	:: else -> break
	od;
	k = 0
}

#define ASK(u, a) \
	:: d_step { a < N && ph[u] == PREPARE && ((vvot[kn[u]] & ~asked[u]) & B(a)) -> \
		asked[u] = asked[u] | B(a); \
		if \
		:: BALLOT(u) > pr[a] -> \
			pr[a] = BALLOT(u); yes[u] = yes[u] | B(a); pk[(u) * N + a] = mk[a]; pa[(u) * N + a] = at[a]; \
			if :: ab[a] > bb[u] || (!M1_HIGHEST && ab[a] != 0 && bv[u] == 0) -> if :: M1_HIGHEST || bv[u] == 0 -> bb[u] = ab[a]; bv[u] = av[a] :: else fi :: else fi; \
			printf("p%d: ballot %d: %d promises; accepted %d map %d\n", u, BALLOT(u), a, ab[a], av[a]) \
		:: else -> printf("p%d: ballot %d: %d refuses\n", u, BALLOT(u), a) \
		fi } \
	:: d_step { a < N && ph[u] == MORE && ((vvot[cu[u]] & ~asked[u]) & B(a)) -> \
		asked[u] = asked[u] | B(a); \
		if \
		:: BALLOT(u) > pr[a] -> \
			pr[a] = BALLOT(u); \
			if \
			:: ab[a] > bb[u] -> idle(u) \
			:: else -> if :: !M3_PROMISE || KNOWN(cu[u], a, mk[a], at[a]) -> yes[u] = yes[u] | B(a) :: else fi \
			fi; \
			printf("p%d: ballot %d: %d promises, too\n", u, BALLOT(u), a) \
		:: else \
		fi } \
	:: d_step { a < N && ph[u] == ACCEPT && (((vvot[cu[u]] | vvot[nx[u]]) & ~asked[u]) & B(a)) -> \
		asked[u] = asked[u] | B(a); \
		if \
		:: (BALLOT(u) >= pr[a] || !M1_PROMISE) && MAY_ACCEPT(u, a) -> \
			pr[a] = BALLOT(u); ab[a] = BALLOT(u); av[a] = nx[u]; \
			yes[u] = yes[u] | B(a); \
			printf("p%d: ballot %d: %d accepts map %d\n", u, BALLOT(u), a, nx[u]) \
		:: else -> printf("p%d: ballot %d: %d does not accept\n", u, BALLOT(u), a) \
		fi }

proctype Proposer(byte u)
{
	do
	:: d_step { ph[u] == IDLE && rd[u] < R -> rd[u]++; ph[u] = PREPARE; printf("p%d: begins ballot %d\n", u, BALLOT(u)) }
	ASK(u, 0)
	ASK(u, 1)
	ASK(u, 2)
#if N > 3
	ASK(u, 3)
#endif
	:: d_step { ph[u] == PREPARE && bv[u] != 0 && MAJ(yes[u], vvot[kn[u]]) ->
		cu[u] = bv[u]; void_strangers(u);
		if
		:: !MAJ(yes[u], vvot[kn[u]]) -> idle(u); printf("p%d: votes are void\n", u)
		:: else -> ph[u] = MORE; asked[u] = yes[u]; printf("p%d: reads map %d\n", u, cu[u])
		fi }
	:: d_step { ph[u] == MORE && (MAJ(yes[u], vvot[cu[u]]) || !M1_READ) -> ph[u] = STEP; el[u] = yes[u]; yes[u] = 0; asked[u] = 0; k = 0;
		do :: k < N -> pk[u * N + k] = 0; pa[u * N + k] = 0; k++ :: else -> break od;
		k = 0 }
	/* the step refuses; a step; another voter; one less; this node's start */
	:: d_step { ph[u] == STEP -> nx[u] = cu[u]; ph[u] = ACCEPT; printf("p%d: proposes map %d again\n", u, cu[u]) }
	:: d_step { ph[u] == STEP && nv < NV && mk[u] == BOOT(cu[u], u) -> new_map(u); printf("p%d: proposes map %d of epoch %d\n", u, nv, vep[nv]) }
	:: d_step { ph[u] == STEP && nv < NV && VOTERS && !(vvot[cu[u]] & B(N - 1)) -> new_map(u);
		vvot[nv] = vvot[nv] | B(N - 1); if :: !M1_ONE -> vvot[nv] = vvot[nv] & ~B(2) :: else fi;
		printf("p%d: proposes map %d of epoch %d with voter %d\n", u, nv, vep[nv], N - 1) }
	:: d_step { ph[u] == STEP && nv < NV && VOTERS && (vvot[cu[u]] & B(2)) && COUNT(vvot[cu[u]]) > 2 -> new_map(u);
		vvot[nv] = vvot[nv] & ~B(2); printf("p%d: proposes map %d of epoch %d without voter 2\n", u, nv, vep[nv]) }
	:: d_step { ph[u] == STEP && nv < NV && at[u] != 0 -> new_map(u); BOOT(nv, u) = at[u]; printf("p%d: proposes map %d of epoch %d: starts as a stranger\n", u, nv, vep[nv]) }
	:: d_step { ph[u] == ACCEPT && MAJ(yes[u], vvot[cu[u]]) && (MAJ(yes[u], vvot[nx[u]]) || !M1_BOTH) ->
		printf("p%d: map %d of epoch %d is chosen\n", u, nx[u], vep[nx[u]]);
		assert(chosen[vep[nx[u]]] == 0 || chosen[vep[nx[u]]] == nx[u]);		/* one map of each epoch */
		assert(vpar[nx[u]] == 0 || chosen[vep[nx[u]] - 1] == 0 || chosen[vep[nx[u]] - 1] == vpar[nx[u]]);	/* and it follows the one before */
		chosen[vep[nx[u]]] = nx[u]; kn[u] = nx[u];
		if :: at[u] != 0 && BOOT(nx[u], u) == at[u] -> mk[u] = at[u]; at[u] = 0 :: else fi;
		idle(u) }
	:: d_step { ph[u] != IDLE -> idle(u); printf("p%d: gives up\n", u) }
	/* hears of a map that was chosen */
	:: d_step { ph[u] == IDLE && kn[u] != kn[1 - u] && vep[kn[u]] < vep[kn[1 - u]] -> kn[u] = kn[1 - u] }
	/* the server of a voter crashes: what it has answered is flushed, what the proposer knew is gone */
	:: d_step { nc > 0 -> nc--; idle(u); rd[u] = 0; printf("%d: CRASH\n", u);
#if !M1_DURABLE
		pr[u] = dpr[u]; ab[u] = dab[u]; av[u] = dav[u]
#endif
		}
	/* an old directory of node u is put back and started */
	:: d_step { nx_left > 0 -> nx_left--; idle(u); rd[u] = 0; kn[u] = 1; dead[1 - u] = dead[1 - u] | ((yes[1 - u] | el[1 - u]) & B(u)); printf("%d: RESTORED\n", u);
		pr[u] = 1; ab[u] = 1; av[u] = 1; mk[u] = 1; marks++; at[u] = marks }
	od
}

init
{
	d_step {
		k = 0;
		do :: k < N -> if :: k < V -> pr[k] = 1; ab[k] = 1; av[k] = 1 :: else fi; mk[k] = 2; BOOT(1, k) = 2; k++ :: else -> break od;
#if !M1_DURABLE
		k = 0;
		do :: k < V -> dpr[k] = 1; dab[k] = 1; dav[k] = 1; k++ :: else -> break od;
#endif
		k = 0; nv = 1; vvot[1] = B(V) - 1; kn[0] = 1; kn[1] = 1; chosen[0] = 1; nc = NC; nx_left = NX; marks = 2
	}
	atomic { run Proposer(0); run Proposer(1) }
}
