/*
 * distributable.h
 *		May this table be distributed by this key?
 */
#ifndef PS_ROUTE_DISTRIBUTABLE_H
#define PS_ROUTE_DISTRIBUTABLE_H

#include "postgres.h"
#include "ground/state.h"
#include "utils/array.h"

/*
 * ps_require_distributable
 *		ERROR with a class of its own for each reason why not, detail and hint;
 *		nothing is changed.  keys: text[], the key columns.
 */
extern void ps_require_distributable(Oid relid, ArrayType *keys, const PsMap *map);

/* The reasons about key, constraints and sequences, after a change of a
 * distributed table. */
extern void ps_require_still_distributable(Oid relid);

/* 2BP01 and others when something depends on a distributed table. */
extern void ps_require_undistributable(Oid relid);

/* 42501 unless the current user owns the table. */
extern void ps_require_table_owner(Oid relid);

/*
 * 55000 unless all shards are open and all placements in sync, so that rows
 * can be moved to them; NOTICE when zones are fewer than copies.
 */
extern void ps_require_all_in_sync(const PsMap *map);

/* 57P03 unless all shards are open. */
extern void ps_require_all_open(const PsMap *map);

#endif
