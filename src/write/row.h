/*
 * row.h
 *		Rows of distributed tables as bytes, and back (wire.h: tuple).
 *
 * Values travel in their type's send format, or as text where that would hold oids
 * of types of users, or a type has none: detoasted, independent of oids, of settings
 * and of the machine.
 */
#ifndef PS_WRITE_ROW_H
#define PS_WRITE_ROW_H

#include "postgres.h"
#include "access/skey.h"
#include "executor/tuptable.h"
#include "ground/wire.h"
#include "utils/rel.h"

/* How rows of one partition are written; columns in attribute order. */
typedef struct PsRowFormat
{
	Oid			relid;			/* cache key */
	bool		is_valid;
	uint32		table_id;
	int			shard;			/* -1: not a partition of a distributed table */
	Oid			key_index;		/* primary key; InvalidOid = none */
	int			n_row;			/* live, not generated columns */
	AttrNumber *row;			/* their numbers */
	int			n_key;			/* columns of the primary key */
	AttrNumber *key;			/* in the order of the index */
	int			n_attrs;		/* length of the arrays below */
	FmgrInfo   *out;			/* send or output function, by attno - 1 */
	FmgrInfo   *in;				/* receive or input function */
	Oid		   *io_param;
	int32	   *typmod;
	bool	   *is_binary;
	bool		has_text;		/* some column is not */
} PsRowFormat;

/*
 * ps_row_format
 *		The format of a relation, from a per-process cache that follows
 *		relcache invalidations; valid for the current command.
 */
extern const PsRowFormat *ps_row_format(Relation rel);

/* Appends the row (or its primary key) in slot as a tuple. */
extern void ps_row_put(StringInfo buf, const PsRowFormat *format, TupleTableSlot *slot);
extern void ps_row_put_key(StringInfo buf, const PsRowFormat *format, TupleTableSlot *slot);

/*
 * ps_row_key_of
 *		Appends the key tuple of a row given as a tuple; false when the bytes
 *		do not fit the table.
 */
extern bool ps_row_key_of(StringInfo buf, const PsRowFormat *format,
						  const uint8 *row, size_t bytes);

/*
 * ps_row_get, ps_row_get_key
 *		Stores a tuple's columns into a virtual slot (the others are null).
 *		Errors: 08P01 when the bytes do not fit the table.
 */
extern void ps_row_get(const PsRowFormat *format, const uint8 *data, size_t bytes,
					   TupleTableSlot *slot);
extern void ps_row_get_key(const PsRowFormat *format, const uint8 *data, size_t bytes,
						   TupleTableSlot *slot);

/*
 * ps_row_scan_keys
 *		Scan keys of the primary key's index for the key in slot, whose columns
 *		are all there (slot_getallattrs).
 */
extern void ps_row_scan_keys(ScanKey keys, Relation index, const PsRowFormat *format,
							 TupleTableSlot *slot);

#endif
