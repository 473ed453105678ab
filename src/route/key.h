/*
 * key.h
 *		Which rows of which distributed tables can a query touch, as far as
 *		its text says?
 */
#ifndef PS_ROUTE_KEY_H
#define PS_ROUTE_KEY_H

#include "postgres.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "node/relation.h"
#include "utils/partcache.h"

/* One mention of a distributed table, or of one of its partitions. */
typedef struct PsTarget
{
	Oid			relid;			/* as mentioned */
	Oid			parent;			/* the distributed table */
	int			shard;			/* of a partition; -1 = the table */
	Oid			user;			/* whose rights count; 0 = the current user's */
	bool		is_written;		/* INSERT, UPDATE, DELETE or MERGE here */
	bool		is_locked;		/* FOR UPDATE and the like */
	bool		is_moved;		/* the key of existing rows is assigned: */
	List	   *moved_to;		/* the tuple it becomes, as below; NIL = any key */
	bool		is_sampled;		/* TABLESAMPLE */

	/*
	 * What the key is: a list of tuples, each a list of one expression per key
	 * column (a Const, a Param, anything without Vars); NIL = any key.
	 * or: array, an expression whose elements are keys of one column; else NULL.
	 */
	List	   *tuples;
	Node	   *array;
} PsTarget;

/* What a query mentions, at all its levels. */
typedef struct PsMention
{
	List	   *targets;		/* of PsTarget */
	bool		has_other;		/* ordinary tables too */
} PsMention;

/* Is a distributed table mentioned anywhere?  Quick. */
extern bool ps_key_is_distributed(Query *query);

/* Finds all mentions and what their keys are. */
extern PsMention *ps_key_find(Query *query);

/*
 * ps_key_of
 *		The partition key of a distributed table; the caller closes *rel
 *		(RelationClose) when it is done with it.  ERROR 42P01 when it is gone.
 */
extern PartitionKey ps_key_of(Oid parent, Relation *rel);

#endif
