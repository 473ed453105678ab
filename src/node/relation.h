/*
 * relation.h
 *		Which shard of which distributed table is this relation?
 */
#ifndef PS_NODE_RELATION_H
#define PS_NODE_RELATION_H

#include "postgres.h"
#include "access/attnum.h"

#define PS_KEY_COLUMNS_MAX 4

/* A distributed table (shard = -1) or one of its partitions. */
typedef struct PsRelation
{
	Oid			relid;			/* cache key */
	bool		is_distributed; /* else the rest is not valid */
	Oid			parent;			/* the partitioned table; = relid for itself */
	uint32		table_id;		/* the same on all nodes */
	int			shard;			/* -1 = the partitioned table itself */
	int			n_key;			/* columns of the distribution key */
	AttrNumber	key[PS_KEY_COLUMNS_MAX];	/* of the relation itself */
} PsRelation;

/*
 * ps_relation
 *		Looks a relation up; NULL when it is not (part of) a distributed table.
 *		The answer is valid until the next invalidation: copy what must last.
 *		Cached per process; needs a transaction.
 */
extern const PsRelation *ps_relation(Oid relid);

/* The partition of a distributed table for a shard; ERROR when there is none. */
extern Oid	ps_relation_partition(Oid parent, int shard);

/* The distributed table of an id, InvalidOid when it is not here (yet). */
extern Oid	ps_relation_by_id(uint32 table_id);

/*
 * ps_relation_shard
 *		The shard of a row by its key values (n_key of them, in the order of
 *		the distribution key): PostgreSQL's own partition hash (P2).
 */
extern int	ps_relation_shard(Oid parent, const Datum *values, const bool *nulls);

#endif
