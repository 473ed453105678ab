/*
 * shards.pml
 *		A node is lost, or starts again: what of its transactions stays, and may
 *		its shards open?  (W2 to W7, F1 to F5; README.md maps steps to functions.)
 *
 * N nodes, two shards, both of node 0 at first, in sync at the nodes of I0 and I1.
 * Each of NT transactions writes the shards of TS0, TS1.  ME maps, NC crashes;
 * suspicion may be false.  The register is atomic (register.pml) and each map is
 * learnt at any later time.  Messages arrive at any later time or never.
 *
 * A rule is switched off by -DRULE=0; the rules are below.
 */
#ifndef N
#define N 3
#endif
#ifndef NT
#define NT 1
#endif
#ifndef ME
#define ME 5
#endif
#ifndef NC
#define NC 1
#endif
#ifndef I0
#define I0 3
#endif
#ifndef I1
#define I1 5
#endif
#ifndef TS0
#define TS0 3
#endif
#ifndef TS1
#define TS1 3
#endif

/* what may happen beside: bounds of a run */
#ifndef SUSPECT				/* set of nodes that are taken for lost while they are up, too */
#define SUSPECT 15
#endif
#ifndef LEAVES				/* in-sync members are left out by a primary (W6) or leader (F4) */
#define LEAVES 1
#endif
#ifndef REACH				/* the nodes that entries reach by their stream */
#define REACH 15
#endif
#ifndef STARTS				/* who has failed or crashed starts again */
#define STARTS 1
#endif
#ifndef HEIRS				/* others than the leader become primary, too, where there is a choice */
#define HEIRS 1
#endif
#ifndef TAKE_BACK			/* transactions are taken back (W7) */
#define TAKE_BACK 1
#endif
#ifndef TAKE_LEAD			/* another node takes the lead over */
#define TAKE_LEAD 1
#endif
#define LOST(x) (((SUSPECT >> (x)) & 1) || !up[x])

#ifndef W4					/* commit only when every in-sync member has it */
#define W4 1
#endif
#ifndef W7					/* told aborted only when every member has the ABORT */
#define W7 1
#endif
#ifndef F2_WAITS			/* shards of a lost primary wait for its settlement */
#define F2_WAITS 1
#endif
#ifndef F2_EPOCH			/* a member under a newer map refuses the deposed leader */
#define F2_EPOCH 1
#endif
#ifndef F3					/* a member adopts the leader's map before it gives its tail */
#define F3 1
#endif
#ifndef F4_ALL				/* the tails of all members are united */
#define F4_ALL 1
#endif
#ifndef F4_JOURNAL			/* journaled at all members before applied at any */
#define F4_JOURNAL 1
#endif
#ifndef F4_APPLY			/* applied at all before the shards open */
#define F4_APPLY 1
#endif
#ifndef F4_ORIGIN			/* an entry that writes a shard left to the origin waits for it */
#define F4_ORIGIN 1
#endif
#ifndef F4_SPEAKS			/* a tail counts only for shards its member is in sync for */
#define F4_SPEAKS 1
#endif
#ifndef F4_SETTLED			/* nor for what the map says is settled */
#define F4_SETTLED 1
#endif
#ifndef F4_ABORTS			/* an ABORT found anywhere counts */
#define F4_ABORTS 1
#endif
#ifndef F1_WAITS			/* a primary that starts again is settled, too */
#define F1_WAITS 1
#endif
#ifndef F5_FORMER			/* "settled" is refused when the node has started again since */
#define F5_FORMER 1
#endif
#ifndef M2					/* a member takes entries under the sender's own map only */
#define M2 1
#endif
#ifndef J5					/* 0: no switchover; 1: with all its rules */
#define J5 0
#endif
#ifndef J5_DRAIN			/* nothing is between enqueue and outcome */
#define J5_DRAIN 1
#endif
#ifndef J5_APPLIED			/* every in-sync member has applied all that was decided */
#define J5_APPLIED 1
#endif

#define B(x) (1 << (x))
#define ALLN ((1 << N) - 1)
#define NS 2

/* transactions */
#define IDLE 0
#define WAIT 1				/* enqueued */
#define ABTG 2				/* to be aborted: ABORTs are on their way */
#define DONE 3				/* committed at the origin, client told */
#define ABTD 4				/* aborted, client told */
#define DEAD 5				/* the client does not know */
#define ACK 1
#define ABORT 2

/* maps: the one of epoch e, for shard s, for node n */
byte P[ME * NS]; byte I[ME * NS]; byte W[ME * NS]; byte T[ME * NS];
byte inc[ME * N]; byte ldr[ME * N]; byte stl[ME * N]; byte frm[ME * N]; byte upm[ME];
byte cur; byte ninc; byte nc;
#define MP(e, s) P[(e) * NS + (s)]
#define MI(e, s) I[(e) * NS + (s)]
#define MW(e, s) W[(e) * NS + (s)]
#define MT(e, s) T[(e) * NS + (s)]
#define INC(e, n) inc[(e) * N + (n)]
#define LDR(e, n) ldr[(e) * N + (n)]
#define STL(e, n) stl[(e) * N + (n)]
#define FRM(e, n) frm[(e) * N + (n)]

/* nodes: durable but for up, my and dcd */
bit up[N]; byte ep[N]; byte my[N];
byte jr[N]; byte jab[N]; byte dcd[N]; byte pas[N];
byte ap[N * NS]; byte pos[N * N];
#define AP(n, s) ap[(n) * NS + (s)]
#define POS(n, o) pos[(n) * N + (o)]

/* the leader's process on each node */
byte ph[N]; byte lo[N]; byte le[N]; byte lg[N]; byte un[N]; byte ub[N]; byte uto[N];
#define TAILS 1
#define JOURNAL 2
#define APPLY 3
#define SETTLED 4

byte st[NT]; byte own[NT]; byte oi[NT]; byte snd[NT]; byte ack[NT]; byte aack[NT]; byte told[NT];
byte ee[NT]; byte de[NT]; byte tm[NT * NS];
byte k, q, w, y;			/* scratch, 0 between steps */

#define TS(t) ((t) == 0 -> TS0 : TS1)
#define WRITES(t, s) ((TS(t) >> (s)) & 1)
#define SERVES(n, s) (up[n] && my[n] != 0 && my[n] == INC(ep[n], n) && MP(ep[n], s) == (n) && MW(ep[n], s) == 0)
#define SAME(n, t, s) (!WRITES(t, s) || (SERVES(n, s) && MT(ep[n], s) == tm[(t) * NS + (s)]))
#define STILL(n, t) (my[n] == oi[t] && SAME(n, t, 0) && SAME(n, t, 1))
#define MEMBERS(n, t) (((WRITES(t, 0) -> MI(ep[n], 0) : 0) | (WRITES(t, 1) -> MI(ep[n], 1) : 0)) & ~B(n))
/* whom node o sends to, by the map of epoch e */
#define TARGETS(e, o) ((MP(e, 0) == (o) -> MI(e, 0) : 0) | (MP(e, 1) == (o) -> MI(e, 1) : 0))
/* whom the leader of origin o asks */
#define ASKED(e, o) (((MW(e, 0) & B(o)) -> MI(e, 0) : 0) | ((MW(e, 1) & B(o)) -> MI(e, 1) : 0))
#define COUNT(m) (((m) & 1) + (((m) >> 1) & 1) + (((m) >> 2) & 1) + (((m) >> 3) & 1))
#if N == 3
#define UPS (up[0] + up[1] + up[2])
#else
#define UPS (up[0] + up[1] + up[2] + up[3])
#endif
#define MAY_PROPOSE(u) (up[u] && my[u] != 0 && cur < ME - 1 && UPS > N / 2 && (upm[cur] & B(u)))

/* What holds whenever a shard is open. */
inline check_shard(s)
{
	q = MP(cur, s);
	if
	:: SERVES(q, s) && ep[q] == cur ->
		k = 0;
		do
		:: k < NT ->
			if
			:: WRITES(k, s) && st[k] != IDLE ->
				assert(!(told[k] == ACK && !(AP(q, s) & B(k))));		/* acknowledged, lost */
				assert(!(told[k] == ABORT && (AP(q, s) & B(k))));		/* aborted, appears */
				y = 0;
				do
				:: y < N ->
					if
					:: (MI(cur, s) & B(y)) && y != q ->
						/* it can become equal, and is not ahead */
						assert(!((AP(q, s) & B(k)) && !(AP(y, s) & B(k)) && !((jr[y] & ~jab[y]) & B(k))));
						assert(!((AP(y, s) & B(k)) && !(AP(q, s) & B(k))));
						/* nothing is left that a later settlement would bring back */
						assert(!(((jr[y] & ~jab[y] & ~AP(q, s)) & B(k)) && oi[k] > STL(cur, own[k]) &&
								 !((st[k] == WAIT || st[k] == ABTG) && my[own[k]] == oi[k]) && !MW(cur, 1 - s)));
					:: else
					fi;
					y++
				:: else -> break
				od
			:: else
			fi;
			k++
		:: else -> break
		od
	:: else
	fi;
	k = 0; q = 0; y = 0
}
inline check()
{
	check_shard(0);
	check_shard(1);
	/* whole or not there */
	q = MP(cur, 0); w = MP(cur, 1);
	if
	:: SERVES(q, 0) && ep[q] == cur && SERVES(w, 1) && ep[w] == cur ->
		k = 0;
		do
		:: k < NT -> assert(TS(k) != 3 || ((AP(q, 0) ^ AP(w, 1)) & B(k)) == 0); k++
		:: else -> break
		od
	:: else
	fi;
	k = 0; q = 0; w = 0
}

/* The next map, like the current one; cur is raised by the caller. */
inline next_map()
{
	k = 0;
	do :: k < NS -> MP(cur + 1, k) = MP(cur, k); MI(cur + 1, k) = MI(cur, k); MW(cur + 1, k) = MW(cur, k); MT(cur + 1, k) = MT(cur, k); k++ :: else -> break od;
	k = 0;
	do :: k < N -> INC(cur + 1, k) = INC(cur, k); LDR(cur + 1, k) = LDR(cur, k); STL(cur + 1, k) = STL(cur, k); FRM(cur + 1, k) = FRM(cur, k); k++ :: else -> break od;
	upm[cur + 1] = upm[cur];
	k = 0;
	cur++
}
inline leave(x, pr)		/* out of all in-sync sets of shards of pr (N: of all) it is not primary of */
{
	k = 0;
	do
	:: k < NS -> if :: MP(cur, k) != x && (pr == N || MP(cur, k) == pr) -> MI(cur, k) = MI(cur, k) & ~B(x) :: else fi; k++
	:: else -> break
	od;
	k = 0
}
/* What nobody asks for any more: fewer states. */
inline over(t) { ack[t] = 0; aack[t] = 0; tm[t * NS] = 0; tm[t * NS + 1] = 0 }
/* Transactions of n whose outcome it cannot find out any more. */
inline give_up(n)
{
	k = 0;
	do
	:: k < NT -> if :: own[k] == n && (st[k] == WAIT || st[k] == ABTG) && !STILL(n, k) -> st[k] = DEAD; over(k) :: else fi; k++
	:: else -> break
	od;
	k = 0
}
/* Maps that nobody is at any more are forgotten: fewer states. */
inline forget()
{
	w = cur; k = 0;
	do :: k < N -> if :: ep[k] < w -> w = ep[k] :: else fi; if :: ph[k] != 0 && le[k] < w -> w = le[k] :: else fi; k++ :: else -> break od;
	k = 0;
	do :: k < w * NS -> P[k] = 0; I[k] = 0; W[k] = 0; T[k] = 0; k++ :: else -> break od;
	k = 0;
	do :: k < w * N -> inc[k] = 0; ldr[k] = 0; stl[k] = 0; frm[k] = 0; k++ :: else -> break od;
	k = 0;
	do :: k < w -> upm[k] = 0; k++ :: else -> break od;
	k = 0; w = 0
}
inline adopt(n, e)
{
	if :: ep[n] < (e) -> ep[n] = e; give_up(n); forget() :: else fi
}
inline stop_leading(u) { ph[u] = 0; lo[u] = 0; le[u] = 0; lg[u] = 0; un[u] = 0; ub[u] = 0; uto[u] = 0 }
inline put(x, t)		/* an entry's rows, at the placements of x that are in sync */
{
	if :: WRITES(t, 0) && (MI(ep[x], 0) & B(x)) -> AP(x, 0) = AP(x, 0) | B(t) :: else fi;
	if :: WRITES(t, 1) && (MI(ep[x], 1) & B(x)) -> AP(x, 1) = AP(x, 1) | B(t) :: else fi
}
inline prune(x, t) { jr[x] = jr[x] & ~B(t); jab[x] = jab[x] & ~B(t); dcd[x] = dcd[x] & ~B(t); pas[x] = pas[x] | B(t) }
inline start(n)
{
	next_map();
	k = 0;
	do :: k < NS -> if :: MP(cur, k) == n -> if :: F1_WAITS -> MW(cur, k) = MW(cur, k) | B(n); w = 1 :: else fi :: else fi; k++ :: else -> break od;
	if :: LDR(cur, n) == 0 && w -> LDR(cur, n) = n + 1 :: else fi;
	if :: LDR(cur, n) == 0 -> STL(cur, n) = INC(cur, n) :: else fi;
	FRM(cur, n) = INC(cur, n); ninc++; INC(cur, n) = ninc; upm[cur] = upm[cur] | B(n);
	k = 0; w = 0;
	adopt(n, cur); my[n] = ninc; give_up(n)
}
inline fail(u, x, h)
{
	next_map();
	k = 0;
	do
	:: k < NS ->
		w = MI(cur, k) & ~B(x);
		if
		:: MP(cur, k) == x && w != 0 ->
			if :: w & B(h) -> MP(cur, k) = h :: else -> y = 0; do :: !(w & B(y)) -> y++ :: else -> break od; MP(cur, k) = y; y = 0 fi;
			MT(cur, k) = MT(cur, k) + 1;
			if :: F2_WAITS -> MW(cur, k) = MW(cur, k) | B(x) :: else fi
		:: else
		fi;
		k++
	:: else -> break
	od;
	w = 0;
	leave(x, N);
	upm[cur] = upm[cur] & ~B(x);
	LDR(cur, x) = u + 1;
	k = 0;
	do :: k < N -> if :: LDR(cur, k) == x + 1 -> LDR(cur, k) = u + 1 :: else fi; k++ :: else -> break od;
	k = 0
}
/* What is settled is the same at all members. */
inline agree(u, s)
{
	k = 0;
	do
	:: k < NT ->
		w = 0; y = 0;
		do
		:: y < N ->
			if
			:: (MW(le[u], s) & B(lo[u])) && (MI(cur, s) & B(y)) && WRITES(k, s) && st[k] != IDLE && own[k] == lo[u] && oi[k] <= uto[u] ->
				if :: AP(y, s) & B(k) -> w = w | 1 :: else -> w = w | 2 fi
			:: else
			fi;
			y++
		:: else -> break
		od;
		assert(w != 3); w = 0; y = 0; k++
	:: else -> break
	od;
	k = 0
}
/* May the leader u, by the map it knows, speak to x now? */
#define OBEYS(u, x) (up[x] && (ep[x] <= le[u] || !F2_EPOCH))
inline enter(u, x) { if :: F3 || ph[u] != TAILS -> adopt(x, le[u]) :: else fi }
/* Does x leave t out of its tail of o, or out of what it applies? */
#define PASSED(x, t, o) ((F4_SETTLED && oi[t] <= STL(ep[x], o)) || POS(x, o) > oi[t])
#define SPEAKS(u, x, t) (!F4_SPEAKS || (WRITES(t, 0) && (MI(le[u], 0) & B(x))) || (WRITES(t, 1) && (MI(le[u], 1) & B(x))))
#define LEFT(u, s) (MP(le[u], s) == lo[u] && !(MW(le[u], s) & B(lo[u])))
#define HALF(u, t) ((un[u] & ~ub[u] & B(t)) && ((WRITES(t, 0) && LEFT(u, 0)) || (WRITES(t, 1) && LEFT(u, 1))))
#if NT == 1
#define NEEDS_ORIGIN(u) HALF(u, 0)
#define IN_ORDER(x, t) true
#define BUSY(n) (own[0] == (n) && (st[0] == WAIT || st[0] == ABTG))
#define OWED(n) OWES(n, 0)
#else
#define NEEDS_ORIGIN(u) (HALF(u, 0) || HALF(u, 1))
#define IN_ORDER(x, t) (!((t) == 1 && own[0] == own[1] && oi[0] == oi[1] && (snd[0] & B(x))))
#define BUSY(n) ((own[0] == (n) && (st[0] == WAIT || st[0] == ABTG)) || (own[1] == (n) && (st[1] == WAIT || st[1] == ABTG)))
#define OWED(n) (OWES(n, 0) || OWES(n, 1))
#endif
/* a member of shard 0 has not applied t, which is decided */
#define OWES(n, t) ((st[t] == DONE || st[t] == ABTD) && own[t] == (n) && \
	(((MI(cur, 0) & 1) && (jr[0] & B(t))) || ((MI(cur, 0) & 2) && (jr[1] & B(t))) || ((MI(cur, 0) & 4) && (jr[2] & B(t)))))
/* the sender was at x's epoch with t in its queue, and x was its target */
#define HEARS(x, t, from) ((!M2 || ((from) <= ep[x] && ep[x] <= ep[own[t]] && (TARGETS(ep[x], own[t]) & B(x)))) && INC(ep[x], own[t]) == oi[t])

#define TRANSACTION(t) \
	:: d_step { st[t] == IDLE && (t == 0 || st[0] != IDLE) && (!WRITES(t, 0) || SERVES(n, 0)) && (!WRITES(t, 1) || SERVES(n, 1)) -> \
		printf("n%d: enqueues t%d at epoch %d\n", n, t, ep[n]); \
		st[t] = WAIT; own[t] = n; oi[t] = my[n]; ee[t] = ep[n]; tm[t * NS] = MT(ep[n], 0); tm[t * NS + 1] = MT(ep[n], 1); snd[t] = MEMBERS(n, t); check() } \
	:: d_step { up[n] && (snd[t] & REACH & B(n)) && HEARS(n, t, ee[t]) && IN_ORDER(n, t) -> \
		printf("n%d: journals t%d at epoch %d\n", n, t, ep[n]); \
		snd[t] = snd[t] & ~B(n); if :: st[t] == WAIT -> ack[t] = ack[t] | B(n) :: else fi; jr[n] = jr[n] | B(t); check() } \
	:: d_step { up[n] && st[t] == WAIT && own[t] == n && STILL(n, t) && ((MEMBERS(n, t) & ~ack[t]) == 0 || !W4) -> \
		printf("n%d: commits t%d at epoch %d, client told\n", n, t, ep[n]); \
		put(n, t); st[t] = DONE; told[t] = ACK; de[t] = ep[n]; over(t); check() } \
	:: d_step { up[n] && TAKE_BACK && st[t] == WAIT && own[t] == n -> printf("n%d: takes t%d back\n", n, t); st[t] = ABTG } \
	:: d_step { up[n] && st[t] == ABTG && n != own[t] && !(aack[t] & B(n)) && HEARS(n, t, ee[t]) && IN_ORDER(n, t) -> \
		printf("n%d: journals ABORT of t%d at epoch %d\n", n, t, ep[n]); \
		if :: snd[t] & B(n) -> jr[n] = jr[n] | B(t) :: else fi; snd[t] = snd[t] & ~B(n); \
		jab[n] = jab[n] | B(t); aack[t] = aack[t] | B(n); check() } \
	:: d_step { up[n] && st[t] == ABTG && own[t] == n && STILL(n, t) && ((MEMBERS(n, t) & ~aack[t]) == 0 || !W7) -> \
		printf("n%d: t%d aborted at epoch %d, client told\n", n, t, ep[n]); st[t] = ABTD; told[t] = ABORT; de[t] = ep[n]; over(t); check() } \
	:: d_step { up[n] && st[t] == ABTG && own[t] == n -> printf("n%d: gives its incarnation up for t%d\n", n, t); my[n] = 0; give_up(n); check() } \
	:: d_step { up[n] && (jr[n] & B(t)) && !(dcd[n] & B(t)) && (st[t] == DONE || st[t] == ABTD) && HEARS(n, t, de[t]) -> \
		printf("n%d: hears that t%d is decided\n", n, t); dcd[n] = dcd[n] | B(t); check() } \
	:: d_step { up[n] && (jr[n] & dcd[n] & B(t)) && INC(ep[n], own[t]) == oi[t] && POS(n, own[t]) <= oi[t] && IN_ORDER(n, t) -> \
		printf("n%d: applies t%d at epoch %d\n", n, t, ep[n]); \
		if :: !(jab[n] & B(t)) -> put(n, t) :: else fi; prune(n, t); check() } \
	LOOK(t, 0) \
	LOOK(t, 1)
/* who does not know the outcome looks at an open shard */
#define LOOK(t, s) \
	:: d_step { st[t] == DEAD && told[t] == 0 && WRITES(t, s) && SERVES(n, s) && ep[n] == cur -> \
		if :: AP(n, s) & B(t) -> told[t] = ACK :: else -> told[t] = ABORT fi; \
		printf("n%d: client looks for t%d in shard %d: told %d\n", n, t, s, told[t]); check() }

#if N == 3
#define OTHER(n, x) (3 - n - x)
#else
#define OTHER(n, x) ((n + x) % N)
#endif
#define PEER(x) \
	:: d_step { x < N && x != n && HEIRS && MAY_PROPOSE(n) && LOST(x) && (upm[cur] & B(x)) && ((MI(cur, 0) | MI(cur, 1)) & B(x)) -> \
		w = 0; fail(n, x, OTHER(n, x)); printf("MAP %d: n%d failed, leader n%d; primaries n%d n%d\n", cur, x, n, MP(cur, 0), MP(cur, 1)); forget(); check() } \
	:: d_step { x < N && x != n && MAY_PROPOSE(n) && LOST(x) && (upm[cur] & B(x)) && ((MI(cur, 0) | MI(cur, 1)) & B(x)) -> \
		w = 0; fail(n, x, n); printf("MAP %d: n%d failed, leader n%d; primaries n%d n%d\n", cur, x, n, MP(cur, 0), MP(cur, 1)); forget(); check() } \
	/* as primary of some shards, or as leader */ \
	:: d_step { x < N && LEAVES && x != n && MAY_PROPOSE(n) && LOST(x) && ((MP(cur, 0) == n && (MI(cur, 0) & B(x))) || (MP(cur, 1) == n && (MI(cur, 1) & B(x)))) -> \
		next_map(); leave(x, n); printf("MAP %d: n%d left out by n%d\n", cur, x, n); forget(); check() } \
	:: d_step { x < N && LEAVES && x != n && MAY_PROPOSE(n) && LOST(x) && ph[n] != 0 && ((MP(cur, 0) != x && (MI(cur, 0) & B(x))) || (MP(cur, 1) != x && (MI(cur, 1) & B(x)))) -> \
		next_map(); leave(x, N); printf("MAP %d: n%d left out by leader n%d\n", cur, x, n); forget(); check() } \
	:: d_step { x < N && TAKE_LEAD && MAY_PROPOSE(n) && LDR(cur, x) != 0 && LDR(cur, x) != n + 1 && LDR(cur, x) != x + 1 -> \
		next_map(); LDR(cur, x) = n + 1; printf("MAP %d: n%d leads for n%d\n", cur, n, x); forget(); check() } \
	:: d_step { x < N && up[n] && my[n] != 0 && ph[n] == 0 && LDR(ep[n], x) == n + 1 -> \
		printf("n%d: settles n%d under epoch %d\n", n, x, ep[n]); \
		ph[n] = TAILS; lo[n] = x; le[n] = ep[n]; uto[n] = INC(ep[n], x) - ((upm[ep[n]] & B(x)) -> 1 : 0) } \
	:: d_step { x < N && up[n] && ph[n] == TAILS && ((ASKED(le[n], lo[n]) & ~lg[n]) & B(x)) && OBEYS(n, x) -> \
		enter(n, x); lg[n] = lg[n] | B(x); k = 0; \
		do \
		:: k < NT -> \
			if :: st[k] != IDLE && own[k] == lo[n] && oi[k] <= uto[n] && !PASSED(x, k, lo[n]) && !(dcd[x] & B(k)) -> \
				if :: (jr[x] & B(k)) && SPEAKS(n, x, k) -> un[n] = un[n] | B(k) :: else fi; \
				if :: (jab[x] & B(k)) && F4_ABORTS -> ub[n] = ub[n] | B(k) :: else fi \
			:: else fi; \
			k++ \
		:: else -> break \
		od; \
		k = 0; printf("n%d: tail of n%d: union %d aborts %d\n", n, x, un[n], ub[n]); check() } \
	:: d_step { x < N && up[n] && ph[n] == JOURNAL && ((ASKED(le[n], lo[n]) & ~lg[n]) & B(x)) && OBEYS(n, x) && F4_JOURNAL -> \
		enter(n, x); lg[n] = lg[n] | B(x); k = 0; \
		do \
		:: k < NT -> \
			if :: st[k] != IDLE && own[k] == lo[n] && POS(x, lo[n]) <= oi[k] && !(pas[x] & B(k)) -> \
				if :: un[n] & B(k) -> jr[x] = jr[x] | B(k) :: else fi; \
				if :: ub[n] & B(k) -> jab[x] = jab[x] | B(k) :: else fi \
			:: else fi; \
			k++ \
		:: else -> break \
		od; \
		k = 0; printf("n%d: n%d journals the union\n", n, x); check() } \
	:: d_step { x < N && up[n] && ph[n] == APPLY && ((ASKED(le[n], lo[n]) & ~lg[n]) & B(x)) && OBEYS(n, x) && F4_APPLY -> \
		enter(n, x); lg[n] = lg[n] | B(x); y = 0; \
		do \
		:: y < NT -> \
			if :: st[y] != IDLE && own[y] == lo[n] && oi[y] <= uto[n] && !PASSED(x, y, lo[n]) && ((jr[x] | (F4_JOURNAL -> 0 : un[n])) & ~pas[x] & B(y)) -> \
				if :: !((jab[x] | (F4_JOURNAL -> 0 : ub[n])) & B(y)) -> put(x, y) :: else fi; \
				prune(x, y) \
			:: else fi; \
			y++ \
		:: else -> break \
		od; \
		y = 0; \
		if :: POS(x, lo[n]) <= uto[n] -> POS(x, lo[n]) = uto[n] + 1 :: else fi; \
		printf("n%d: n%d applies\n", n, x); check() } \
	SWITCH(x)
#if J5
#define SWITCH(x) \
	:: d_step { x < N && x != n && MAY_PROPOSE(n) && ep[n] == cur && MP(cur, 0) == n && MW(cur, 0) == 0 && (MI(cur, 0) & B(x)) && my[x] != 0 && \
		(!BUSY(n) || !J5_DRAIN) && (!OWED(n) || !J5_APPLIED) -> \
		next_map(); MP(cur, 0) = x; MT(cur, 0) = MT(cur, 0) + 1; \
		printf("MAP %d: switchover of shard 0 from n%d to n%d\n", cur, n, x); adopt(n, cur); forget(); check() }
#else
#define SWITCH(x)
#endif

proctype Node(byte n)
{
	do
	TRANSACTION(0)
#if NT > 1
	TRANSACTION(1)
#endif
	PEER(0)
	PEER(1)
	PEER(2)
#if N > 3
	PEER(3)
#endif
	:: d_step { up[n] && ep[n] < cur -> adopt(n, ep[n] + 1); printf("n%d: adopts epoch %d\n", n, ep[n]); check() }
	:: d_step { up[n] && my[n] != 0 && (!(upm[ep[n]] & B(n)) || INC(ep[n], n) != my[n]) -> printf("n%d: has failed, by the map\n", n); my[n] = 0; stop_leading(n); give_up(n); check() }
	:: d_step { up[n] && STARTS && my[n] == 0 && cur < ME - 1 && UPS > N / 2 -> start(n); forget(); printf("MAP %d: n%d starts as %d\n", cur, n, ninc); check() }
	/* through with a step */
	:: d_step { up[n] && ph[n] == TAILS && ((ASKED(le[n], lo[n]) & ~lg[n]) == 0 || (!F4_ALL && lg[n] != 0)) ->
		if
		:: NEEDS_ORIGIN(n) && F4_ORIGIN -> printf("n%d: waits for n%d itself\n", n, lo[n]); stop_leading(n)
		:: else -> ph[n] = JOURNAL; lg[n] = 0
		fi; forget() }
	:: d_step { up[n] && ph[n] == JOURNAL && ((ASKED(le[n], lo[n]) & ~lg[n]) == 0 || !F4_JOURNAL) -> ph[n] = APPLY; lg[n] = 0 }
	:: d_step { up[n] && ph[n] == APPLY && ((ASKED(le[n], lo[n]) & ~lg[n]) == 0 || !F4_APPLY) -> ph[n] = SETTLED; lg[n] = 0 }
	:: d_step { up[n] && ph[n] == SETTLED && cur < ME - 1 && UPS > N / 2 ->
		if
		:: LDR(cur, lo[n]) == 0 || uto[n] > INC(cur, lo[n]) || (uto[n] == INC(cur, lo[n]) && (upm[cur] & B(lo[n]))) ||
			(F5_FORMER && uto[n] < ((upm[cur] & B(lo[n])) -> FRM(cur, lo[n]) : INC(cur, lo[n]))) -> skip
		:: else ->
			agree(n, 0); agree(n, 1);
			next_map(); k = 0;
			do :: k < NS -> MW(cur, k) = MW(cur, k) & ~B(lo[n]); k++ :: else -> break od;
			STL(cur, lo[n]) = uto[n]; LDR(cur, lo[n]) = 0; k = 0;
			printf("MAP %d: n%d is settled up to %d\n", cur, lo[n], uto[n])
		fi;
		stop_leading(n); forget(); check() }
	:: d_step { up[n] && ph[n] != 0 && ep[n] > le[n] -> printf("n%d: gives up leading\n", n); stop_leading(n); forget() }
	:: d_step { up[n] && nc > 0 -> printf("n%d: CRASH\n", n); nc--; up[n] = 0; my[n] = 0; dcd[n] = 0; stop_leading(n); give_up(n); forget(); check() }
	:: d_step { !up[n] -> printf("n%d: RESTART\n", n); up[n] = 1 }
	od
}

init
{
	d_step {
		MI(0, 0) = I0; MI(0, 1) = I1; upm[0] = ALLN; nc = NC; ninc = N; k = 0;
		do :: k < N -> INC(0, k) = k + 1; my[k] = k + 1; up[k] = 1; k++ :: else -> break od;
		k = 0
	}
	atomic {
		run Node(0); run Node(1); run Node(2);
#if N > 3
		run Node(3)
#endif
	}
}
