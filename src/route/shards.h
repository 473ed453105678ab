/*
 * shards.h
 *		In which shards are the rows a statement is about, once its values are
 *		known?
 */
#ifndef PS_ROUTE_SHARDS_H
#define PS_ROUTE_SHARDS_H

#include "postgres.h"
#include "route/key.h"

/*
 * ps_shards_find
 *		The shards a target's rows can be in.
 *
 * Returns 1 with the set in *shards, 0 when any shard may be concerned, -1 when
 * it is only known at execution.  params: bound parameters or NULL.  is_final:
 * evaluate stable functions too, never answer -1.
 */
extern int	ps_shards_find(PsTarget *target, ParamListInfo params, bool is_final,
						   Bitmapset **shards);

/*
 * ps_shards_fix
 *		Replaces, in every INSERT .. VALUES into a distributed table, key values
 *		that are computed (nextval, random, now) by what they are this time.
 */
extern void ps_shards_fix(Query *query, ParamListInfo params);

#endif
