/*
 * verdict.h
 *		What a utility statement would do to distributed tables.
 */
#ifndef PS_ROUTE_VERDICT_H
#define PS_ROUTE_VERDICT_H

#include "postgres.h"
#include "nodes/parsenodes.h"

typedef struct PsVerdict
{
	List	   *tables;			/* oids of distributed tables it touches; NIL =
								 * none, and nothing else is valid */
	const char *refused;		/* why it is not supported; NULL = it runs on all nodes */
	const char *hint;			/* with refused; or NULL */
	bool		is_drop;		/* the tables themselves go */
	bool		changes_shape;	/* of rows: what is on its way must have arrived */
	bool		changes_key;	/* perhaps the names of key columns */
	bool		is_shared;		/* who may do it need not be the owner */
} PsVerdict;

/* Judges a statement; cheap for those that are never about tables. */
extern void ps_verdict(Node *stmt, PsVerdict *verdict);

#endif
