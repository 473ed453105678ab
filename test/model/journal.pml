/* journal.pml - W, F and J for one shard; one shard, replicas 0,1,2 (0 = first primary).
 * Map register = atomic majority compare-and-set with history; nodes learn it late.  Messages are delivered at any later time or never.
 * All of a node's durable things survive a crash (map epoch, journal, ABORT marks, committed rows, dirty keys); the rest is lost.
 * NT transactions, ME epochs (0..ME-1), NC crashes.  CONF: all transactions write the same row.  JOIN2: joining is a map state of its own.
 * STRONG adds inductive (not client-visible) invariants.  Each switch turns ONE rule off:
 *  NO_FENCE   F3  survivor answers with its tail without adopting the map          NO_EXCL  W3 journaling / adoption not exclusive
 *  NO_ABORTJ  W7  told aborted before ABORT is journaled                          NO_INC   F1 restarted primary keeps its old incarnation
 *  LOCALFIRST F1/F4 roll-forward commits locally before all in-sync have it      NO_DISCARD J2 X keeps its unapplied tail
 *  NO_TAILKEY J2  keys of X's own tail not copied                                 NO_DKSEC J1 secondaries record no dirty keys
 *  NO_DKPRI   J1  primary records none                                           DK_ENQ   W6 dirty keys by the map at enqueue, not at commit
 *  NO_M2DEC   M2  'decided' processed under an older map than the sender's       NO_GATE  W8 enqueue before the outcome of an addition is known
 *  NO_DRAIN   J3  joining starts with transactions waiting                        NO_DKCOPY (new) X does not get the dirty sets of other out placements
 *  ALLTAILS   F1 as written: tails of ALL nodes, also out ones                    ABANY    ABORT told after ANY one member has it
 *  KEEPJ      (JOIN2) joining set survives a new incarnation                      EARLYDISC X discards its tail before the copy is complete
 *  ONEORIGIN  F4 as written: only the entries of the origin that just failed     EAGER    W5 apply at once when journaled
 */
#ifndef NT
#define NT 2
#endif
#ifndef ME
#define ME 4
#endif
#ifndef NC
#define NC 1
#endif
#define MI (ME+1)
#define IDLE 0
#define WAIT 1
#define DONE 2
#define DEAD 3
#define ABTG 4   /* abort decided, ABORT entries on their way */
#define ABD 5    /* aborted */
#define ACK 1
#define ABORT 2
#define B(x) (1<<(x))
#define ALL 7
#define ISP(n) (P[ep[n]]==(n))
#define MAJ (up[0]+up[1]+up[2] >= 2)

byte P[ME]; byte I[ME]; byte J[ME]; byte inc[ME]; byte term[ME]; byte cur; byte ninc; byte nc;
bit up[3]; byte ep[3]; bit open[3]; bit pend[3]; bit stale[3];
byte ap[3]; byte jr[3]; byte jab[3]; byte inf[3]; byte dk[9];
#ifdef CONF
byte val[3];
#endif
byte got[3]; byte un[3]; byte uab[3]; byte dcf[3]; bit dec[3];
byte st[NT]; byte own[NT]; byte oi[NT]; byte snd[NT]; byte ack[NT]; byte aack[NT]; byte told[NT];
#ifdef DK_ENQ
byte eq[NT];
#endif
byte sq[NT]; byte nseq;
byte dep[NT*MI];           /* 'decided' messages: [t][incarnation] 0 none, e+1 committed, e+1+16 aborted, e = sender's epoch */
byte cmt[MI];              /* committer of each term */
byte k, q, w, bm, y;       /* scratch, always 0 between steps */

#define DEP(t,i) dep[(t)*MI+(i)]
#ifdef CONF
#define VSET(x,t) val[x]=(t)+1
#else
#define VSET(x,t) skip
#endif

inline check() {
  k = 0;
  do :: k<NT -> assert(!(told[k]==ABORT && ((ap[0]|ap[1]|ap[2]) & B(k)))); k++ :: else -> break od;
  q = P[cur];
  if
  :: up[q] && open[q] && ep[q]==cur ->
     assert(((ap[0]|ap[1]|ap[2]) & ~ap[q])==0);                /* applied anywhere => committed at the primary */
     w = 0; k = 0;
     do
     :: k<NT ->
        assert(!(told[k]==ACK && !(ap[q] & B(k))));            /* acknowledged, lost */
        if :: (st[k]==WAIT || st[k]==ABTG) && own[k]==q && oi[k]==inc[cur] -> w = w | B(k) :: else fi;
        k++
     :: else -> break
     od;
     y = 0;
     do
     :: y<3 ->
        if
        :: (I[cur] & B(y)) && y!=q ->
           assert((ap[q] & ~(ap[y]|jr[y]))==0);                /* in-sync member cannot become equal */
#ifdef STRONG
           assert((ap[q] & jab[y] & jr[y])==0);
           assert((jr[y] & ~jab[y] & ~ap[q] & ~w)==0);         /* leftover that a later recovery would bring back */
#endif
           k = 0;
           do :: k<NT -> assert(!((jr[y] & ap[q] & B(k)) && DEP(k,inc[cur])==0)); k++ :: else -> break od; /* would never be told 'decided' */
#ifdef CONF
           assert(!(ap[y]==ap[q] && val[y]!=val[q]))
#endif
        :: else
        fi; y++
     :: else -> break
     od
  :: else
  fi;
  k=0; q=0; w=0; y=0
}
inline mark(n,m) {   /* J1 */
  if :: !(I[ep[n]]&1) -> dk[n*3] = dk[n*3] | (m) :: else fi;
  if :: !(I[ep[n]]&2) -> dk[n*3+1] = dk[n*3+1] | (m) :: else fi;
  if :: !(I[ep[n]]&4) -> dk[n*3+2] = dk[n*3+2] | (m) :: else fi
}
#ifdef NO_DKSEC
#define MARKS(n,m) skip
#else
#define MARKS(n,m) mark(n,m)
#endif
#ifdef NO_DKPRI
#define MARKP(n,m) skip
#else
#ifdef DK_ENQ
#define MARKP(n,m) if :: !(eq[t_]&1) -> dk[n*3]=dk[n*3]|(m) :: else fi; if :: !(eq[t_]&2) -> dk[n*3+1]=dk[n*3+1]|(m) :: else fi; if :: !(eq[t_]&4) -> dk[n*3+2]=dk[n*3+2]|(m) :: else fi
#else
#define MARKP(n,m) mark(n,m)
#endif
#endif
/* node n adopts map e */
inline adopt(n, e) {
  w = ep[n]; ep[n] = e; got[n]=0; un[n]=0; uab[n]=0; dcf[n]=0; dec[n]=0; pend[n]=0;
  k = 0;
  do :: k<NT -> if :: own[k]==n && (st[k]==WAIT || st[k]==ABTG) && inc[ep[n]]!=oi[k] -> st[k]=DEAD :: else fi; k++ :: else -> break od;
  if :: P[ep[n]]!=n || inc[ep[n]]!=inc[w] -> open[n]=0 :: else fi;
  if :: I[ep[n]]&1 -> dk[n*3]=0 :: else fi;
  if :: I[ep[n]]&2 -> dk[n*3+1]=0 :: else fi;
  if :: I[ep[n]]&4 -> dk[n*3+2]=0 :: else fi;
  k = 0; w = 0
}
inline applyset(x, m) {   /* in seq order */
  q = 0;
  do
  :: q<nseq -> k=0;
     do :: k<NT -> if :: st[k]!=IDLE && sq[k]==q && ((m) & B(k)) && !(ap[x] & B(k)) -> ap[x] = ap[x] | B(k); VSET(x,k) :: else fi; k++ :: else -> break od;
     q++
  :: else -> break
  od; k=0; q=0
}
#if NT==1
#define LOWER(x,t) true
#define LOCKS(t)
#define NOWAIT(n) (!((st[0]==WAIT||st[0]==ABTG) && own[0]==n))
#else
#define LOWER(x,t) (!((jr[x]&B(1-t)) && sq[1-t]<sq[t]))
#define NOWAIT(n) (!((st[0]==WAIT||st[0]==ABTG) && own[0]==n) && !((st[1]==WAIT||st[1]==ABTG) && own[1]==n))
#ifdef CONF
#define LOCKS(t) && !((st[1-t]==WAIT||st[1-t]==ABTG) && own[1-t]==n)
#else
#define LOCKS(t)
#endif
#endif
/* stream order: t may be journaled at x only after the earlier entry of the same stream that was also sent to x */
#if NT==1
#define PREDOK(x,t) true
#else
#define PREDOK(x,t) (!(st[1-t]!=IDLE && oi[1-t]==oi[t] && sq[1-t]<sq[t] && (snd[1-t]&B(x))))
#endif
#define TGT(n) ((I[ep[n]]|J[ep[n]]) & ~B(n))
#ifdef NO_EXCL
#define EXCL(x) true
#else
#define EXCL(x) (inf[x]==0)
#endif
#define ACCEPT(x,t) (inc[ep[x]]==oi[t] && ((I[ep[x]]|J[ep[x]]) & B(x)))
#ifdef NO_GATE
#define GATE(n) true
#else
#define GATE(n) (!pend[n])
#endif
#ifdef NO_DRAIN
#define DRAIN(n) true
#else
#define DRAIN(n) NOWAIT(n)
#endif
#ifdef NO_ABORTJ
#define ABOK(n,t) true
#else
#ifdef ABANY
#define ABOK(n,t) (aack[t]!=0)
#else
#ifdef ABIS
#define ABOK(n,t) ((I[ep[n]] & ~B(n) & ~aack[t])==0)
#else
#define ABOK(n,t) (((I[ep[n]]|J[ep[n]]) & ~B(n) & ~aack[t])==0)
#endif
#endif
#endif
#ifdef NO_M2DEC
#define M2OK(x,d) true
#else
#define M2OK(x,d) (((d)&15) <= ep[x]+1)
#endif
#ifdef EAGER
#define ONJ(x,t) ap[x]=ap[x]|B(t); VSET(x,t); MARKS(x,B(t))
#else
#define ONJ(x,t) skip
#endif

#define TXN(t) \
  :: d_step { up[n] && ISP(n) && open[n] && GATE(n) && st[t]==IDLE && (t==0 || st[t-(t>0)]!=IDLE) LOCKS(t) -> \
       printf("%d: ENQUEUE t%d targets %d inc %d ep %d\n",n,t,TGT(n),inc[ep[n]],ep[n]); \
       st[t]=WAIT; own[t]=n; oi[t]=inc[ep[n]]; sq[t]=nseq; nseq++; snd[t]=TGT(n); EQ(n,t) } \
  :: d_step { up[n] && open[n] && st[t]==WAIT && own[t]==n && ISP(n) && inc[ep[n]]==oi[t] && ((I[ep[n]] & ~B(n)) & ~ack[t])==0 -> \
       printf("%d: COMMIT+ACK t%d ep %d acks %d\n",n,t,ep[n],ack[t]); assert(told[t]!=ABORT); \
       assert(cmt[term[ep[n]]]==0 || cmt[term[ep[n]]]==n+1); cmt[term[ep[n]]]=n+1; \
       ap[n]=ap[n]|B(t); VSET(n,t); TT(t) MARKP(n,B(t)); st[t]=DONE; told[t]=ACK; DEP(t,oi[t])=ep[n]+1; UT check() } \
  :: d_step { up[n] && st[t]==WAIT && own[t]==n -> printf("%d: decides to ABORT t%d\n",n,t); st[t]=ABTG } \
  :: d_step { up[n] && open[n] && st[t]==ABTG && own[t]==n && ISP(n) && inc[ep[n]]==oi[t] && ABOK(n,t) -> \
       printf("%d: client TOLD ABORTED t%d ep %d\n",n,t,ep[n]); st[t]=ABD; told[t]=ABORT; DEP(t,oi[t])=ep[n]+17; check() } \
  /* target n: check, later commit of the journal insert */ \
  :: d_step { up[n] && (snd[t]&B(n)) && inf[n]==0 && ACCEPT(n,t) && PREDOK(n,t) && !((ap[n]|jr[n])&B(t)) -> printf("%d: receives t%d\n",n,t); inf[n]=t+1 } \
  :: d_step { up[n] && inf[n]==t+1 -> printf("%d: JOURNALED t%d at ep %d\n",n,t,ep[n]); inf[n]=0; snd[t]=snd[t]&~B(n); jr[n]=jr[n]|B(t); ack[t]=ack[t]|B(n); ONJ(n,t); check() } \
  /* ABORT entry journaled at n (its own entry precedes it in the stream) */ \
  :: d_step { up[n] && st[t]==ABTG && n!=own[t] && inf[n]==0 && ACCEPT(n,t) && PREDOK(n,t) && !(jab[n]&B(t)) && !(aack[t]&B(n)) -> \
       printf("%d: journals ABORT t%d ep %d\n",n,t,ep[n]); snd[t]=snd[t]&~B(n); jr[n]=jr[n]|B(t); jab[n]=jab[n]|B(t); aack[t]=aack[t]|B(n); check() } \
  /* 'decided' reaches n */ \
  :: d_step { up[n] && !ISP(n) && (jr[n]&B(t)) && DEP(t,inc[ep[n]])!=0 && DEP(t,inc[ep[n]])<16 && ((I[ep[n]]|J[ep[n]])&B(n)) && M2OK(n,DEP(t,inc[ep[n]])) && LOWER(n,t) && inf[n]==0 -> \
       printf("%d: APPLIES t%d ep %d\n",n,t,ep[n]); jr[n]=jr[n]&~B(t); jab[n]=jab[n]&~B(t); ap[n]=ap[n]|B(t); VSET(n,t); MARKS(n,B(t)); check() } \
  :: d_step { up[n] && !ISP(n) && (jr[n]&B(t)) && DEP(t,inc[ep[n]])>16 && ((I[ep[n]]|J[ep[n]])&B(n)) && M2OK(n,DEP(t,inc[ep[n]])) && inf[n]==0 -> \
       printf("%d: prunes aborted t%d\n",n,t); jr[n]=jr[n]&~B(t); jab[n]=jab[n]&~B(t); snd[t]=snd[t]&~B(n); check() } \
  /* status query at an open primary of a later incarnation */ \
  :: d_step { up[n] && ISP(n) && open[n] && st[t]==DEAD && QI(n,t) && ep[n]==cur && !(ap[n]&B(t)) && told[t]==0 -> \
       printf("%d: client TOLD ABORTED t%d (status query)\n",n,t); told[t]=ABORT; check() }
#ifdef NO_INC
#define QI(n,t) (oi[t]<=inc[ep[n]])
#else
#define QI(n,t) (oi[t]<inc[ep[n]])
#endif
#ifdef DK_ENQ
#define EQ(n,t) eq[t]=I[ep[n]]
#define TT(t) bm=t;
#define UT bm=0;
#define t_ bm
#else
#define EQ(n,t) skip
#define TT(t)
#define UT
#endif
/* recovery leader n */
#define RECOVERING(n) (up[n] && ISP(n) && !open[n] && !stale[n])
#ifdef NO_FENCE
#define FENCEOK(n,x) true
#define FENCE(n,x) skip
#else
#define FENCEOK(n,x) (ep[x]<=ep[n] && EXCL(x))
#define FENCE(n,x) if :: ep[x]<ep[n] -> adopt(x, ep[n]) :: else fi
#endif
#ifdef ALLTAILS
#define ASK(n,x) ((I[ep[n]]&B(x)) || inc[ep[n]]>1)
#else
#define ASK(n,x) (I[ep[n]] & B(x))
#endif
#ifdef ONEORIGIN
#define TAIL(n,x) tailof(n,x)
inline tailof(l_,s_) { k=0; w=0; do :: k<NT -> if :: (jr[s_]&B(k)) && oi[k]+1==inc[ep[l_]] -> w=w|B(k) :: else fi; k++ :: else -> break od; un[l_]=un[l_]|w; uab[l_]=uab[l_]|(jab[s_]&w); k=0; w=0 }
#else
#define TAIL(n,x) un[n]=un[n]|jr[x]; uab[n]=uab[n]|jab[x]
#endif
#ifdef LOCALFIRST
#define SELFOK(n) true
#define OPENOK(n) (dcf[n]==I[ep[n]])
#else
#define SELFOK(n) ((dcf[n]|B(n))==I[ep[n]])
#define OPENOK(n) (dcf[n] & B(n))
#endif
#ifdef NO_TAILKEY
#define DIRTY(n,x) dk[n*3+x]
#else
#define DIRTY(n,x) (dk[n*3+x]|jr[x])
#endif
#ifdef NO_DISCARD
#define DISCARD(n,x) skip
#else
#define DISCARD(n,x) jr[x]=0; jab[x]=0
#endif
#ifdef NO_DKCOPY
#define DKCOPY(n,x) skip
#else
#define DKCOPY(n,x) dk[x*3]=dk[x*3]|dk[n*3]; dk[x*3+1]=dk[x*3+1]|dk[n*3+1]; dk[x*3+2]=dk[x*3+2]|dk[n*3+2]
#endif
#ifdef CONF
#define COPYROWS(n,x) if :: bm -> ap[x]=ap[n]; val[x]=val[n] :: else fi
#else
#define COPYROWS(n,x) ap[x]=(ap[x]&~bm)|(ap[n]&bm)
#endif
#ifdef JOIN2
#define JADD(x) I[cur]=I[cur-1]; J[cur]=J[cur-1]|B(x)
#else
#define JADD(x) I[cur]=I[cur-1]|B(x); J[cur]=J[cur-1]
#endif
#ifdef KEEPJ
#define NEWJ(x) J[cur-1]&~B(x)
#else
#define NEWJ(x) 0
#endif
inline clrsnd(x) { k=0; do :: k<NT -> snd[k]=snd[k]&~B(x); k++ :: else -> break od; k=0 }
#if NT==1
#define XHASALL(n,x) (!(st[0]!=IDLE && oi[0]==inc[ep[n]] && (snd[0]&B(x))))
#else
#define XHASALL(n,x) (!(st[0]!=IDLE && oi[0]==inc[ep[n]] && (snd[0]&B(x))) && !(st[1]!=IDLE && oi[1]==inc[ep[n]] && (snd[1]&B(x))))
#endif

#define PEER(x) \
  :: d_step { x!=n && RECOVERING(n) && !dec[n] && ASK(n,x) && !(got[n]&B(x)) && up[x] && FENCEOK(n,x) -> \
       FENCE(n,x); printf("%d: recovery ep %d: tail of %d = %d aborts %d\n",n,ep[n],x,jr[x],jab[x]); \
       TAIL(n,x); got[n]=got[n]|B(x); check() } \
  :: d_step { x!=n && RECOVERING(n) && dec[n] && (I[ep[n]]&B(x)) && !(dcf[n]&B(x)) && up[x] && ep[x]<=ep[n] && EXCL(x) -> \
       if :: ep[x]<ep[n] -> adopt(x, ep[n]) :: else fi; \
       jr[x]=(jr[x]|un[n])&~ap[x]; jab[x]=(jab[x]|uab[n])&jr[x]; dcf[n]=dcf[n]|B(x); printf("%d: recovery ep %d: %d journals %d\n",n,ep[n],x,un[n]); check() } \
  /* remove x (any node may ask; W6) */ \
  :: d_step { up[n] && ep[n]==cur && cur<ME-1 && MAJ && ((I[cur]|J[cur])&B(x)) && P[cur]!=x -> \
       cur++; P[cur]=P[cur-1]; I[cur]=I[cur-1]&~B(x); J[cur]=J[cur-1]&~B(x); term[cur]=term[cur-1]; inc[cur]=inc[cur-1]; \
       printf("MAP %d: primary %d in-sync %d (removed %d, by %d)\n",cur,P[cur],I[cur],x,n); check() } \
  /* failover to x (F2) */ \
  :: d_step { up[n] && ep[n]==cur && cur<ME-1 && MAJ && (I[cur]&B(x)) && P[cur]!=x && up[x] -> \
       cur++; P[cur]=x; I[cur]=I[cur-1]&~B(P[cur-1]); J[cur]=NEWJ(P[cur-1]); ninc++; inc[cur]=ninc; term[cur]=term[cur-1]+1; stale[x]=0; \
       printf("MAP %d: FAILOVER to %d in-sync %d inc %d\n",cur,x,I[cur],ninc); check() } \
  /* J2/J3: x joins at primary n */ \
  :: d_step { x!=n && up[n] && ISP(n) && open[n] && ep[n]==cur && cur<ME-1 && MAJ && up[x] && !((I[cur]|J[cur])&B(x)) && DRAIN(n) && !pend[n] && inf[x]==0 -> \
       adopt(x, cur); bm=DIRTY(n,x); \
       printf("%d JOINS %d: has %d, primary %d, dirty %d, tail %d\n",x,n,ap[x],ap[n],bm,jr[x]); \
       COPYROWS(n,x); DISCARD(n,x); DKCOPY(n,x); bm=0; clrsnd(x); \
       cur++; P[cur]=n; JADD(x); term[cur]=term[cur-1]; inc[cur]=inc[cur-1]; pend[n]=1; adopt(x, cur); check() } \
  EARLY(x) \
  INSYNC(x)
#ifdef EARLYDISC
#define EARLY(x) :: d_step { x!=n && up[n] && ISP(n) && open[n] && ep[n]==cur && up[x] && !((I[cur]|J[cur])&B(x)) && inf[x]==0 && jr[x]!=0 -> \
       adopt(x,cur); printf("%d discards its tail %d (known to %d only); copy does not finish\n",x,jr[x],n); dk[n*3+x]=dk[n*3+x]|jr[x]; jr[x]=0; jab[x]=0 }
#else
#define EARLY(x)
#endif
#ifdef JOIN2
#define INSYNC(x) :: d_step { x!=n && up[n] && ISP(n) && open[n] && ep[n]==cur && cur<ME-1 && MAJ && up[x] && ep[x]==cur && (J[cur]&B(x)) && !pend[n] && inf[x]==0 && XHASALL(n,x) -> \
       cur++; P[cur]=n; I[cur]=I[cur-1]|B(x); J[cur]=J[cur-1]&~B(x); term[cur]=term[cur-1]; inc[cur]=inc[cur-1]; pend[n]=1; printf("MAP %d: %d IN SYNC\n",cur,x); check() }
#else
#define INSYNC(x)
#endif

proctype Node(byte n) {
  do
  TXN(0)
#if NT>1
  TXN(1)
#endif
  PEER(0)
  PEER(1)
  PEER(2)
  :: d_step { up[n] && ep[n]<cur && EXCL(n) -> adopt(n, ep[n]+1); printf("%d adopts ep %d\n",n,ep[n]); check() }
#ifdef NO_INC
  :: d_step { up[n] && stale[n] && ISP(n) && ep[n]==cur && MAJ -> stale[n]=0; printf("%d restarted, keeps its incarnation\n",n) }
#else
  :: d_step { up[n] && stale[n] && ISP(n) && ep[n]==cur && cur<ME-1 && MAJ ->
       cur++; P[cur]=n; I[cur]=I[cur-1]; J[cur]=NEWJ(n); ninc++; inc[cur]=ninc; term[cur]=term[cur-1]; stale[n]=0; adopt(n,cur);
       printf("MAP %d: %d restarted, inc %d\n",cur,n,ninc); check() }
#endif
  :: d_step { RECOVERING(n) && !dec[n] && ((got[n]|B(n))&I[ep[n]])==I[ep[n]] ->
       TAIL(n,n); un[n] = un[n]; dec[n]=1; printf("%d: union %d aborts %d\n",n,un[n],uab[n]) }
  :: d_step { RECOVERING(n) && dec[n] && !(dcf[n]&B(n)) && SELFOK(n) && EXCL(n) ->
       printf("%d: commits union %d locally (had %d)\n",n,un[n]&~uab[n],ap[n]);
       bm = un[n]&~uab[n]; applyset(n, bm);
#ifndef NO_DKPRI
       mark(n, bm);
#endif
       bm=0; jr[n]=jr[n]&~un[n]; jab[n]=0; dcf[n]=dcf[n]|B(n); check() }
  :: d_step { RECOVERING(n) && dec[n] && OPENOK(n) -> printf("%d: OPENS ep %d\n",n,ep[n]); open[n]=1;
       k=0; do :: k<NT -> if :: un[n]&B(k) -> if :: uab[n]&B(k) -> DEP(k,inc[ep[n]])=ep[n]+17 :: else -> DEP(k,inc[ep[n]])=ep[n]+1 fi :: else fi; k++ :: else -> break od; k=0;
       un[n]=0; uab[n]=0; got[n]=0; dcf[n]=0; dec[n]=0; check() }
  :: d_step { up[n] && nc>0 -> printf("%d: CRASH\n",n); nc--; up[n]=0; open[n]=0; got[n]=0; un[n]=0; uab[n]=0; dcf[n]=0; dec[n]=0; pend[n]=0; inf[n]=0;
       k=0; do :: k<NT -> if :: own[k]==n && (st[k]==WAIT||st[k]==ABTG) -> st[k]=DEAD :: else fi; k++ :: else -> break od; k=0 }
  :: d_step { !up[n] -> printf("%d: RESTART\n",n); up[n]=1; if :: ISP(n) || P[cur]==n -> stale[n]=1 :: else fi }
  od
}
init {
  d_step { P[0]=0; I[0]=ALL; nc=NC; inc[0]=1; ninc=1; term[0]=0; up[0]=1; up[1]=1; up[2]=1; open[0]=1 }
  atomic { run Node(0); run Node(1); run Node(2) }
}
