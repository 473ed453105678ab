/*
 * wire.h
 *		The bytes that nodes exchange and journals keep: batches, records and
 *		row operations.
 *
 * Ground floor: no catalog, no libpq, no shared memory, never throws.  What
 * is read may come from anywhere: every read is checked against the end, and
 * a reader that went wrong stays wrong (`bad`) and returns zeros.
 *
 * All integers are big-endian.
 *
 * A batch is what one sender hands one receiver at once (W3):
 *
 *	offset	bytes	field
 *	0		4		magic "PSB1"
 *	4		1		version (1)
 *	5		1		flags (none yet, 0)
 *	6		8		cluster id
 *	14		4		sender node
 *	18		8		sender's incarnation
 *	26		8		sender's epoch
 *	34		4		target node
 *	38		8		sender's flushed WAL position (M3)
 *	46		8		decided up to this seq (W5)
 *	54		8		previous seq sent to this target, 0 = none
 *	62		8		last seq in this batch; = previous seq when empty
 *	70		4		number of records
 *	74		4		bytes of records
 *	78		...		records
 *	end		4		CRC-32C of all before it
 *
 * A record is an entry, a fragment of one, or an ABORT:
 *
 *	0		4		bytes of this record, header included
 *	4		1		kind: 'E' entry, 'A' abort
 *	5		1		flags: 1 = more fragments of this entry follow
 *	6		8		seq
 *	14		8		xid of the origin's transaction (full, 64 bits); 'A': 0
 *	22		8		seq of the first fragment of the entry; 'A': of the
 *					entry that is aborted
 *	30		2		number of shards; repeated in every fragment
 *	32		10 each	shard (2), term (8)
 *	...		...		entry: operations, up to the end of the record
 *
 * Fragments of an entry have consecutive seqs and stand at operation
 * boundaries; the entry is known by the seq of its last fragment.  An entry
 * that is given up before all of it is sent (W7) ends with its ABORT instead.
 *
 * An operation is one row change:
 *
 *	0		1		kind: 'I' insert, 'U' update, 'D' delete, 'T' truncate
 *	1		4		table id
 *	5		2		shard
 *	7		...		'U', 'D': the old key, a tuple of the key columns
 *			...		'I', 'U': the new row, a tuple of all live, not
 *					generated columns
 *
 * A tuple is: 2 bytes number of columns; each column 1 byte format ('n' null,
 * 'b' binary as by the type's send function, 't' text) and, unless null, 4
 * bytes length and the value.
 */
#ifndef PS_GROUND_WIRE_H
#define PS_GROUND_WIRE_H

#include "ground/base.h"
#include "lib/stringinfo.h"

#define PS_WIRE_MAGIC 0x50534231	/* "PSB1" */
#define PS_HELLO_MAGIC 0x50534831	/* "PSH1" */
#define PS_WIRE_VERSION 1
#define PS_PEER_VERSION 1		/* of all that nodes say to each other, maps and SQL
								 * functions too: goes up when nodes that differ in
								 * it do not understand each other */
#define PS_WIRE_COLUMNS_MAX 1664
#define PS_BATCH_HEADER_BYTES 78
#define PS_RECORD_HEADER_BYTES 32

#define PS_RECORD_ENTRY 'E'
#define PS_RECORD_ABORT 'A'
#define PS_RECORD_MORE 1			/* flag: more fragments follow */

#define PS_OP_INSERT 'I'
#define PS_OP_UPDATE 'U'
#define PS_OP_DELETE 'D'
#define PS_OP_TRUNCATE 'T'

#define PS_COLUMN_NULL 'n'
#define PS_COLUMN_BINARY 'b'
#define PS_COLUMN_TEXT 't'

typedef struct PsReader
{
	const uint8 *at;			/* next byte */
	const uint8 *end;			/* one past the last */
	bool		bad;			/* ran past the end or met nonsense: sticky */
} PsReader;

extern void ps_reader_init(PsReader *reader, const void *data, size_t bytes);
extern uint8 ps_read_u8(PsReader *reader);
extern uint16 ps_read_u16(PsReader *reader);
extern uint32 ps_read_u32(PsReader *reader);
extern uint64 ps_read_u64(PsReader *reader);

/* The next `bytes` bytes, in place (not copied); NULL when there are fewer. */
extern const uint8 *ps_read_bytes(PsReader *reader, size_t bytes);

/* A name: 2 bytes length, bytes without NUL; out has room for PS_NAME_MAX. */
extern void ps_read_name(PsReader *reader, char *out);

extern void ps_put_u8(StringInfo buf, uint8 value);
extern void ps_put_u16(StringInfo buf, uint16 value);
extern void ps_put_u32(StringInfo buf, uint32 value);
extern void ps_put_u64(StringInfo buf, uint64 value);
extern void ps_put_name(StringInfo buf, const char *name);
/* Overwrites four bytes at `offset`, which must exist. */
extern void ps_patch_u32(StringInfo buf, int offset, uint32 value);

/*
 * ps_seal, ps_unseal
 *		Appends the CRC-32C of all bytes of buf, and takes it off again: *bytes
 *		becomes the length without it.  For messages that are no batch: a hello,
 *		an answer to a batch, rows of a copy, records of a settlement.
 *
 * Returns (unseal) NULL when the bytes are whole, else what is wrong.
 */
extern void ps_seal(StringInfo buf);
extern uint32 ps_checksum(const void *data, size_t bytes);
extern const char *ps_unseal(const void *data, size_t *bytes);

/* What a sender says first: who it is, and from which seq on it sends. */
typedef struct PsHello
{
	uint32		version;		/* PS_PEER_VERSION of the sender */
	uint64		cluster_id;
	uint32		sender;
	uint64		incarnation;
	uint64		epoch;
	uint64		attach_seq;
} PsHello;

/*
 * Its bytes: magic, the fields in their order, seal.  Read as ps_batch_read; of
 * another version only that is read, and the rest is zero.
 */
extern void ps_hello_put(StringInfo buf, const PsHello *hello);
extern const char *ps_hello_read(PsHello *hello, const void *data, size_t bytes);

typedef struct PsBatch
{
	uint64		cluster_id;
	uint32		sender;
	uint64		incarnation;
	uint64		epoch;
	uint32		target;
	uint64		lsn;
	uint64		decided_seq;
	uint64		prev_seq;
	uint64		last_seq;
	uint32		n_records;
	const uint8 *records;		/* in place */
	uint32		records_bytes;
	int			shards_end;		/* as read: highest shard of the records + 1; the
								 * reader compares it with those of its map */
} PsBatch;

typedef struct PsRecord
{
	uint8		kind;			/* PS_RECORD_... */
	uint8		flags;
	uint64		seq;
	uint64		xid;
	uint64		ref_seq;		/* first fragment's seq of (ABORT: the aborted) entry */
	int			n_shards;
	const uint8 *shards;		/* n_shards x 10 bytes, in place */
	const uint8 *ops;			/* in place */
	size_t		ops_bytes;
	const uint8 *raw;			/* the whole record, in place */
	size_t		raw_bytes;
} PsRecord;

typedef struct PsColumn
{
	uint8		format;			/* PS_COLUMN_... */
	uint32		bytes;			/* 0 when null */
	const uint8 *value;			/* in place; not NUL-terminated */
} PsColumn;

typedef struct PsOp
{
	uint8		kind;			/* PS_OP_... */
	uint32		table_id;
	uint16		shard;
	int			n_key;			/* 0 unless 'U', 'D' */
	int			n_row;			/* 0 unless 'I', 'U' */
	const uint8 *key;			/* the key tuple's bytes (with its count) */
	size_t		key_bytes;
	const uint8 *row;			/* the row tuple's bytes (with its count) */
	size_t		row_bytes;
} PsOp;

/*
 * ps_batch_begin, ps_batch_end
 *		Writes a batch: begin puts the header (n_records, records_bytes and
 *		last_seq are patched by end), the caller appends whole records, end
 *		closes it with the checksum.  buf must be empty at begin.
 */
extern void ps_batch_begin(StringInfo buf, const PsBatch *batch);
/* Between the two: epoch and decided seq are known when records are taken. */
extern void ps_batch_set(StringInfo buf, uint64 epoch, uint64 decided_seq);
extern void ps_batch_end(StringInfo buf, uint32 n_records, uint64 last_seq);

/*
 * ps_batch_read
 *		Checks magic, version, lengths and checksum and fills `batch`; the
 *		records are checked too: each well-formed, seqs ascending, the first
 *		above prev_seq, the last equal to last_seq, as many as announced.
 *
 * Returns NULL when all is well, else what is wrong, as a phrase for a DETAIL.
 */
extern const char *ps_batch_read(PsBatch *batch, const void *data, size_t bytes);

/*
 * ps_record_begin, ps_record_end
 *		Writes a record: begin puts the header and the shards, the caller
 *		appends operations, end patches the length.
 *
 * Returns (begin) the record's offset in buf, to be handed to end.
 */
extern int	ps_record_begin(StringInfo buf, uint8 kind, uint8 flags, uint64 seq,
							uint64 xid, uint64 ref_seq,
							const uint16 *shards, const uint64 *terms, int n_shards);
extern void ps_record_end(StringInfo buf, int offset);

/*
 * ps_record_check
 *		Are its shards below n_shards, each named once, and its operations whole
 *		and in one of them?  NULL when they are, else what is wrong.
 */
extern const char *ps_record_check(const PsRecord *record, int n_shards);
extern const char *const ps_no_such_shard;

/* The next record of `reader`; false at the end or when bad. */
extern bool ps_record_next(PsReader *reader, PsRecord *record);
/* The i-th shard of a record and its term. */
extern uint16 ps_record_shard(const PsRecord *record, int i);
extern uint64 ps_record_term(const PsRecord *record, int i);

/* The next operation of a record's ops; false at the end or when bad. */
extern bool ps_op_next(PsReader *reader, PsOp *op);
/* Starts an operation; the caller appends the tuples. */
extern void ps_op_begin(StringInfo buf, uint8 kind, uint32 table_id, uint16 shard);

/*
 * ps_tuple_read
 *		Splits a tuple into columns, in place; columns has room for max.
 *
 * Returns how many, or -1 when the bytes are wrong or there are more than max.
 */
extern int	ps_tuple_read(PsReader *reader, PsColumn *columns, int max);

#endif
