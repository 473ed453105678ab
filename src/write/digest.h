/*
 * digest.h
 *		Are two placements of a shard equal?  (J4, Q3)
 *
 * A digest is the sum, in two lanes of 64 bits, of the hashes of all rows as
 * they travel (wire.h: tuple): it does not depend on the order of rows, on
 * TOAST, on oids or on the machine.  The lanes have different seeds, and the
 * table's id is part of them.
 */
#ifndef PS_WRITE_DIGEST_H
#define PS_WRITE_DIGEST_H

#include "postgres.h"

typedef struct PsDigest
{
	uint64		rows;
	uint64		sum[2];
} PsDigest;

/* A digest as text: 32 hex digits and the NUL. */
#define PS_DIGEST_TEXT_BYTES 33

/*
 * ps_digest_partition
 *		Adds the rows of one partition of a distributed table to *out, as the
 *		active snapshot sees them.  Interruptible.
 *
 * Errors: 42809 when the relation is not a partition of a distributed table.
 */
extern void ps_digest_partition(Oid relid, PsDigest *out);

/*
 * ps_digest_shard
 *		The digest of a shard: all its rows in all distributed tables of this
 *		node, as the active snapshot sees them.  A table that is not here is as
 *		one without rows.
 */
extern void ps_digest_shard(int shard, PsDigest *out);

extern bool ps_digest_equal(const PsDigest *a, const PsDigest *b);

/* The sums as 32 hex digits, into text[PS_DIGEST_TEXT_BYTES]. */
extern void ps_digest_text(const PsDigest *digest, char *text);

/*
 * ps_digest_tables
 *		The distributed tables of this node as the active snapshot sees them:
 *		oids, ascending by table id, palloc'd; how many to *n.
 */
extern Oid *ps_digest_tables(int *n);

#endif
