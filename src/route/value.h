/*
 * value.h
 *		What is the value of an expression without Vars: now, at execution, or
 *		never the same?
 */
#ifndef PS_ROUTE_VALUE_H
#define PS_ROUTE_VALUE_H

#include "postgres.h"
#include "nodes/params.h"
#include "nodes/pg_list.h"
#include "nodes/primnodes.h"

typedef enum PsValue
{
	PS_VALUE_KNOWN,
	PS_VALUE_LATER,				/* known at execution */
	PS_VALUE_IMPOSSIBLE,		/* no value of the wanted type equals it */
	PS_VALUE_UNKNOWN			/* cannot be said at all */
} PsValue;

/*
 * ps_value_of
 *		The value of an expression as a Datum of `type` (by integer conversion
 *		or binary coercion).  is_final: stable functions are evaluated.
 */
extern PsValue ps_value_of(Node *expr, Oid type, ParamListInfo params, bool is_final,
						   Datum *value, bool *isnull);

/* The elements of an array expression, as a list of lists of one Const or Expr. */
extern PsValue ps_value_elements(Node *array, ParamListInfo params, bool is_final,
								 List **tuples);

/* The expression below relabellings (casts that change no bytes). */
extern Node *ps_value_strip(Node *expr);

/* Is anything in an expression not the same for all rows?  Volatile functions may be. */
extern bool ps_value_depends_on_rows(Node *expr);

/* Evaluates an expression, volatile functions too; a Const. */
extern Node *ps_value_now(Node *expr, ParamListInfo params);

#endif
