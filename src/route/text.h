/*
 * text.h
 *		A query as text that another node understands the same way.
 */
#ifndef PS_ROUTE_TEXT_H
#define PS_ROUTE_TEXT_H

#include "postgres.h"
#include "executor/execdesc.h"
#include "link/session.h"
#include "nodes/execnodes.h"
#include "nodes/parsenodes.h"

/*
 * ps_text_of
 *		The text of a query; names are qualified unless they are pg_catalog's.
 *
 * $n in it is the n-th of *params: expressions to be evaluated here at
 * execution, namely the parameters it uses and what is stable but might differ
 * over there (now(), current_user).
 */
extern char *ps_text_of(const Query *query, List **params);

/* Evaluates the parameters for one execution, into the current context. */
extern PsLinkParams *ps_text_params(List *params, List *states, ExprContext *context);

/* Do values of this type travel as bytes? */
extern bool ps_text_is_binary(Oid type);

/* Can an expression be evaluated at another node with the same result? */
extern bool ps_text_is_shippable(Node *expr);

#endif
