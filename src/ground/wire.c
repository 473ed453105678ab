/*
 * wire.c
 *		What do the bytes between nodes and in journals mean, and are they
 *		whole?  (W3; the tables of bytes are in wire.h.)
 *
 * Owns the encoding of integers, names, batches, records, operations and
 * tuples.  Knows nothing of types, tables or maps, and copies no value when
 * it reads: what it hands out points into the bytes it was given.
 *
 * Who checks what, when a batch arrives:
 *
 *	ps_batch_read		length, magic, version; then the checksum; only then
 *						any other field; then every record, down to the
 *						columns of its operations
 *	ps_record_next		one record's own header and lengths
 *	ps_op_next			one operation, up to the end of its tuples
 *	ps_tuple_read		the columns of one tuple
 *
 * The checksum proves that bytes were not damaged, not that the sender made
 * sense; and a journal is read record by record without one.  So every
 * reader checks again and trusts no length.
 *
 * A batch that passed can be taken apart without further checks: the walk
 * over its records and operations meets no error.
 *
 * Memory: writers let StringInfo grow, which fails as it always does when
 * there is no memory or a buffer reaches 1 GB.  Nothing else here can fail
 * other than by an answer.
 */
#include "ground/wire.h"

#include "port/pg_bswap.h"
#include "port/pg_crc32c.h"

/* Offsets in a batch's header of what ps_batch_end patches. */
#define EPOCH_AT 26
#define DECIDED_AT 46
#define LAST_SEQ_AT 62
#define N_RECORDS_AT 70
#define RECORDS_BYTES_AT 74

#define CRC_BYTES 4
#define SHARD_BYTES 10			/* of a shard and its term in a record */
#define SHARD_WORDS (PS_SHARDS_MAX / 64)

/* The shards of one record, as bits: its operations may touch no other. */
typedef struct ShardSet
{
	uint64		words[SHARD_WORDS];
	int			end;			/* highest of them + 1 */
} ShardSet;

/* Reading: integers, bytes, names */

void
ps_reader_init(PsReader *reader, const void *data, size_t bytes)
{
	reader->at = data;
	reader->end = reader->at + bytes;
	reader->bad = false;
}

const uint8 *
ps_read_bytes(PsReader *reader, size_t bytes)
{
	const uint8 *start = reader->at;

	if (reader->bad || (size_t) (reader->end - reader->at) < bytes)
	{
		reader->bad = true;
		return NULL;
	}
	reader->at += bytes;
	return start;
}

uint8
ps_read_u8(PsReader *reader)
{
	const uint8 *at = ps_read_bytes(reader, 1);

	return at == NULL ? 0 : *at;
}

uint16
ps_read_u16(PsReader *reader)
{
	const uint8 *at = ps_read_bytes(reader, 2);
	uint16		value;

	if (at == NULL)
		return 0;
	memcpy(&value, at, sizeof(value));
	return pg_ntoh16(value);
}

uint32
ps_read_u32(PsReader *reader)
{
	const uint8 *at = ps_read_bytes(reader, 4);
	uint32		value;

	if (at == NULL)
		return 0;
	memcpy(&value, at, sizeof(value));
	return pg_ntoh32(value);
}

uint64
ps_read_u64(PsReader *reader)
{
	const uint8 *at = ps_read_bytes(reader, 8);
	uint64		value;

	if (at == NULL)
		return 0;
	memcpy(&value, at, sizeof(value));
	return pg_ntoh64(value);
}

/* The rest of `out` is zeroed too, so that equal names are equal bytes. */
void
ps_read_name(PsReader *reader, char *out)
{
	size_t		bytes = ps_read_u16(reader);
	const uint8 *name;

	memset(out, 0, PS_NAME_MAX);
	name = ps_read_bytes(reader, bytes);
	if (name == NULL)
		return;
	if (bytes >= PS_NAME_MAX || memchr(name, '\0', bytes) != NULL)
	{
		reader->bad = true;
		return;
	}
	memcpy(out, name, bytes);
}

/* Writing: integers, names */

void
ps_put_u8(StringInfo buf, uint8 value)
{
	appendBinaryStringInfoNT(buf, (const char *) &value, sizeof(value));
}

void
ps_put_u16(StringInfo buf, uint16 value)
{
	value = pg_hton16(value);
	appendBinaryStringInfoNT(buf, (const char *) &value, sizeof(value));
}

void
ps_put_u32(StringInfo buf, uint32 value)
{
	value = pg_hton32(value);
	appendBinaryStringInfoNT(buf, (const char *) &value, sizeof(value));
}

void
ps_put_u64(StringInfo buf, uint64 value)
{
	value = pg_hton64(value);
	appendBinaryStringInfoNT(buf, (const char *) &value, sizeof(value));
}

/* A name that is too long is cut: the reader would refuse it. */
void
ps_put_name(StringInfo buf, const char *name)
{
	size_t		bytes = strnlen(name, PS_NAME_MAX - 1);

	Assert(name[bytes] == '\0');
	ps_put_u16(buf, (uint16) bytes);
	appendBinaryStringInfoNT(buf, name, (int) bytes);
}

void
ps_patch_u32(StringInfo buf, int offset, uint32 value)
{
	Assert(offset >= 0 && offset + (int) sizeof(value) <= buf->len);
	value = pg_hton32(value);
	memcpy(buf->data + offset, &value, sizeof(value));
}

/* Batches */

uint32
ps_checksum(const void *data, size_t bytes)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, data, bytes);
	FIN_CRC32C(crc);
	return crc;
}

void
ps_seal(StringInfo buf)
{
	ps_put_u32(buf, ps_checksum(buf->data, (size_t) buf->len));
}

const char *
ps_unseal(const void *data, size_t *bytes)
{
	PsReader	tail;

	if (*bytes < CRC_BYTES)
		return "the message is shorter than its checksum";
	*bytes -= CRC_BYTES;
	ps_reader_init(&tail, (const uint8 *) data + *bytes, CRC_BYTES);
	if (ps_read_u32(&tail) != ps_checksum(data, *bytes))
		return "the checksum does not match";
	return NULL;
}

void
ps_hello_put(StringInfo buf, const PsHello *hello)
{
	Assert(buf->len == 0);
	ps_put_u32(buf, PS_HELLO_MAGIC);
	ps_put_u32(buf, hello->version);
	ps_put_u64(buf, hello->cluster_id);
	ps_put_u32(buf, hello->sender);
	ps_put_u64(buf, hello->incarnation);
	ps_put_u64(buf, hello->epoch);
	ps_put_u64(buf, hello->attach_seq);
	ps_seal(buf);
}

const char *
ps_hello_read(PsHello *hello, const void *data, size_t bytes)
{
	PsReader	reader;
	const char *wrong = ps_unseal(data, &bytes);

	memset(hello, 0, sizeof(*hello));
	if (wrong)
		return wrong;
	ps_reader_init(&reader, data, bytes);
	if (ps_read_u32(&reader) != PS_HELLO_MAGIC)
		return "the bytes are not a hello";
	hello->version = ps_read_u32(&reader);
	if (hello->version != PS_PEER_VERSION && !reader.bad)
		return NULL;
	hello->cluster_id = ps_read_u64(&reader);
	hello->sender = ps_read_u32(&reader);
	hello->incarnation = ps_read_u64(&reader);
	hello->epoch = ps_read_u64(&reader);
	hello->attach_seq = ps_read_u64(&reader);
	if (reader.bad || reader.at != reader.end)
		return "the length of the hello is wrong";
	return NULL;
}

void
ps_batch_begin(StringInfo buf, const PsBatch *batch)
{
	Assert(buf->len == 0);
	Assert(batch->sender >= 1 && batch->sender < PS_NODES_MAX);
	Assert(batch->target >= 1 && batch->target < PS_NODES_MAX);
	ps_put_u32(buf, PS_WIRE_MAGIC);
	ps_put_u8(buf, PS_WIRE_VERSION);
	ps_put_u8(buf, 0);
	ps_put_u64(buf, batch->cluster_id);
	ps_put_u32(buf, batch->sender);
	ps_put_u64(buf, batch->incarnation);
	ps_put_u64(buf, batch->epoch);
	ps_put_u32(buf, batch->target);
	ps_put_u64(buf, batch->lsn);
	ps_put_u64(buf, batch->decided_seq);
	ps_put_u64(buf, batch->prev_seq);
	ps_put_u64(buf, batch->prev_seq);	/* last_seq, until the end is known */
	ps_put_u32(buf, 0);
	ps_put_u32(buf, 0);
	Assert(buf->len == PS_BATCH_HEADER_BYTES);
}

/* Overwrites eight bytes at `offset`. */
static void
patch_u64(StringInfo buf, int offset, uint64 value)
{
	ps_patch_u32(buf, offset, (uint32) (value >> 32));
	ps_patch_u32(buf, offset + 4, (uint32) value);
}

void
ps_batch_set(StringInfo buf, uint64 epoch, uint64 decided_seq)
{
	patch_u64(buf, EPOCH_AT, epoch);
	patch_u64(buf, DECIDED_AT, decided_seq);
}

void
ps_batch_end(StringInfo buf, uint32 n_records, uint64 last_seq)
{
	Assert(buf->len >= PS_BATCH_HEADER_BYTES);
	patch_u64(buf, LAST_SEQ_AT, last_seq);
	ps_patch_u32(buf, N_RECORDS_AT, n_records);
	ps_patch_u32(buf, RECORDS_BYTES_AT,
				 (uint32) (buf->len - PS_BATCH_HEADER_BYTES));
	ps_put_u32(buf, ps_checksum(buf->data, (size_t) buf->len));
}

const char *const ps_no_such_shard = "a record names a shard that the cluster does not have";

/* Fills `set`; a shard out of range or named twice is an error. */
static const char *
gather_shards(ShardSet *set, const PsRecord *record)
{
	memset(set, 0, sizeof(*set));
	for (int i = 0; i < record->n_shards; i++)
	{
		uint16		shard = ps_record_shard(record, i);
		uint64		bit = UINT64CONST(1) << (shard % 64);

		if (shard >= PS_SHARDS_MAX)
			return "a record names a shard that cannot exist";
		if (set->words[shard / 64] & bit)
			return "a record names a shard twice";
		set->words[shard / 64] |= bit;
		set->end = Max(set->end, shard + 1);
	}
	return NULL;
}

/* Every operation is whole and in one of the record's shards. */
static const char *
check_ops(const PsRecord *record, const ShardSet *set)
{
	PsReader	reader;
	PsOp		op;

	ps_reader_init(&reader, record->ops, record->ops_bytes);
	while (ps_op_next(&reader, &op))
	{
		if (op.shard >= PS_SHARDS_MAX ||
			!(set->words[op.shard / 64] & UINT64CONST(1) << (op.shard % 64)))
			return "an operation is in a shard that its record does not name";
	}
	return reader.bad ? "an operation is malformed" : NULL;
}

/*
 * `prev` is the record before, of which only seq is valid (= the batch's
 * prev_seq, kind 0) when this is the first.
 */
static const char *
check_order(const PsRecord *prev, const PsRecord *record)
{
	bool		continues;

	if (record->seq <= prev->seq)
		return "seqs do not ascend";
	continues = record->kind == PS_RECORD_ENTRY &&
		record->ref_seq < record->seq;
	if (continues && record->seq != prev->seq + 1)
		return "a fragment is missing";
	if (prev->kind == 0)
		return NULL;
	if ((prev->flags & PS_RECORD_MORE) && record->kind == PS_RECORD_ABORT &&
		record->ref_seq == prev->ref_seq)
		return NULL;			/* the rest was not sent */
	if (continues != ((prev->flags & PS_RECORD_MORE) != 0))
		return "a fragment is missing";
	if (continues && prev->ref_seq != record->ref_seq)
		return "a fragment belongs to another entry";
	return NULL;
}

const char *
ps_record_check(const PsRecord *record, int n_shards)
{
	ShardSet	set;
	const char *wrong = gather_shards(&set, record);

	if (wrong == NULL && set.end > n_shards)
		wrong = ps_no_such_shard;
	return wrong ? wrong : check_ops(record, &set);
}

static const char *
check_records(PsBatch *batch)
{
	PsReader	reader;
	PsRecord	prev = {.seq = batch->prev_seq};
	PsRecord	record;
	ShardSet	set;
	const char *wrong;
	uint32		n = 0;

	ps_reader_init(&reader, batch->records, batch->records_bytes);
	while (ps_record_next(&reader, &record))
	{
		if ((wrong = check_order(&prev, &record)) != NULL ||
			(wrong = gather_shards(&set, &record)) != NULL ||
			(wrong = check_ops(&record, &set)) != NULL)
			return wrong;
		batch->shards_end = Max(batch->shards_end, set.end);
		prev = record;
		n++;
	}
	if (reader.bad)
		return "a record is malformed";
	if (n != batch->n_records)
		return "the number of records is not the one announced";
	if (prev.seq != batch->last_seq)
		return "the last record is not the one announced";
	return NULL;
}

const char *
ps_batch_read(PsBatch *batch, const void *data, size_t bytes)
{
	PsReader	reader;
	PsReader	tail;
	uint8		flags;

	memset(batch, 0, sizeof(*batch));
	if (bytes < PS_BATCH_HEADER_BYTES + CRC_BYTES)
		return "the batch is shorter than its header";
	ps_reader_init(&reader, data, bytes - CRC_BYTES);
	ps_reader_init(&tail, reader.end, CRC_BYTES);
	if (ps_read_u32(&reader) != PS_WIRE_MAGIC)
		return "the bytes are not a batch";
	if (ps_read_u8(&reader) != PS_WIRE_VERSION)
		return "the batch has another version";
	if (ps_read_u32(&tail) != ps_checksum(data, bytes - CRC_BYTES))
		return "the checksum does not match";
	flags = ps_read_u8(&reader);
	batch->cluster_id = ps_read_u64(&reader);
	batch->sender = ps_read_u32(&reader);
	batch->incarnation = ps_read_u64(&reader);
	batch->epoch = ps_read_u64(&reader);
	batch->target = ps_read_u32(&reader);
	batch->lsn = ps_read_u64(&reader);
	batch->decided_seq = ps_read_u64(&reader);
	batch->prev_seq = ps_read_u64(&reader);
	batch->last_seq = ps_read_u64(&reader);
	batch->n_records = ps_read_u32(&reader);
	batch->records_bytes = ps_read_u32(&reader);
	batch->records = reader.at;
	if (flags != 0)
		return "the batch has unknown flags";
	if (batch->sender < 1 || batch->sender >= PS_NODES_MAX ||
		batch->target < 1 || batch->target >= PS_NODES_MAX)
		return "a node id is out of range";
	if (batch->records_bytes != (size_t) (reader.end - reader.at))
		return "the length of the records is not the one announced";
	return check_records(batch);
}

/* Records */

int
ps_record_begin(StringInfo buf, uint8 kind, uint8 flags, uint64 seq,
				uint64 xid, uint64 ref_seq,
				const uint16 *shards, const uint64 *terms, int n_shards)
{
	int			offset = buf->len;

	Assert(kind == PS_RECORD_ENTRY || kind == PS_RECORD_ABORT);
	Assert(kind == PS_RECORD_ENTRY ? ref_seq <= seq : ref_seq < seq);
	Assert(ref_seq >= 1 && n_shards >= 0 && n_shards <= PS_SHARDS_MAX);
	ps_put_u32(buf, 0);
	ps_put_u8(buf, kind);
	ps_put_u8(buf, flags);
	ps_put_u64(buf, seq);
	ps_put_u64(buf, xid);
	ps_put_u64(buf, ref_seq);
	ps_put_u16(buf, (uint16) n_shards);
	Assert(buf->len - offset == PS_RECORD_HEADER_BYTES);
	for (int i = 0; i < n_shards; i++)
	{
		ps_put_u16(buf, shards[i]);
		ps_put_u64(buf, terms[i]);
	}
	return offset;
}

void
ps_record_end(StringInfo buf, int offset)
{
	ps_patch_u32(buf, offset, (uint32) (buf->len - offset));
}

/* What one record's header must satisfy by itself. */
static bool
is_record_sound(const PsRecord *record)
{
	if (record->ref_seq == 0 || record->n_shards > PS_SHARDS_MAX)
		return false;
	if (record->kind == PS_RECORD_ENTRY)
		return (record->flags & ~PS_RECORD_MORE) == 0 &&
			record->ref_seq <= record->seq && record->n_shards > 0;
	if (record->kind == PS_RECORD_ABORT)
		return record->flags == 0 && record->xid == 0 &&
			record->ref_seq < record->seq && record->ops_bytes == 0;
	return false;
}

bool
ps_record_next(PsReader *reader, PsRecord *record)
{
	PsReader	inner;

	memset(record, 0, sizeof(*record));
	if (reader->bad || reader->at == reader->end)
		return false;
	record->raw = reader->at;
	record->raw_bytes = ps_read_u32(reader);
	if (reader->bad || record->raw_bytes < PS_RECORD_HEADER_BYTES ||
		ps_read_bytes(reader, record->raw_bytes - 4) == NULL)
	{
		reader->bad = true;
		return false;
	}
	ps_reader_init(&inner, record->raw + 4, record->raw_bytes - 4);
	record->kind = ps_read_u8(&inner);
	record->flags = ps_read_u8(&inner);
	record->seq = ps_read_u64(&inner);
	record->xid = ps_read_u64(&inner);
	record->ref_seq = ps_read_u64(&inner);
	record->n_shards = ps_read_u16(&inner);
	record->shards = ps_read_bytes(&inner,
								   (size_t) record->n_shards * SHARD_BYTES);
	record->ops = inner.at;
	record->ops_bytes = (size_t) (inner.end - inner.at);
	if (inner.bad || !is_record_sound(record))
		reader->bad = true;
	return !reader->bad;
}

uint16
ps_record_shard(const PsRecord *record, int i)
{
	PsReader	reader;

	Assert(i >= 0 && i < record->n_shards);
	ps_reader_init(&reader, record->shards + i * SHARD_BYTES, SHARD_BYTES);
	return ps_read_u16(&reader);
}

uint64
ps_record_term(const PsRecord *record, int i)
{
	PsReader	reader;

	Assert(i >= 0 && i < record->n_shards);
	ps_reader_init(&reader, record->shards + i * SHARD_BYTES + 2,
				   SHARD_BYTES - 2);
	return ps_read_u64(&reader);
}

/* Operations and tuples */

void
ps_op_begin(StringInfo buf, uint8 kind, uint32 table_id, uint16 shard)
{
	ps_put_u8(buf, kind);
	ps_put_u32(buf, table_id);
	ps_put_u16(buf, shard);
}

static void
read_column(PsReader *reader, PsColumn *column)
{
	column->format = ps_read_u8(reader);
	column->bytes = 0;
	column->value = NULL;
	switch (column->format)
	{
		case PS_COLUMN_NULL:
			break;
		case PS_COLUMN_BINARY:
		case PS_COLUMN_TEXT:
			column->bytes = ps_read_u32(reader);
			column->value = ps_read_bytes(reader, column->bytes);
			break;
		default:
			reader->bad = true;
	}
}

/* Goes past one tuple: its bytes with the count, and how many columns. */
static int
skip_tuple(PsReader *reader, const uint8 **tuple, size_t *bytes)
{
	const uint8 *start = reader->at;
	int			n = ps_read_u16(reader);
	PsColumn	column;

	if (n > PS_WIRE_COLUMNS_MAX)
		reader->bad = true;
	for (int i = 0; i < n && !reader->bad; i++)
		read_column(reader, &column);
	if (reader->bad)
		return 0;
	*tuple = start;
	*bytes = (size_t) (reader->at - start);
	return n;
}

bool
ps_op_next(PsReader *reader, PsOp *op)
{
	memset(op, 0, sizeof(*op));
	if (reader->bad || reader->at == reader->end)
		return false;
	op->kind = ps_read_u8(reader);
	op->table_id = ps_read_u32(reader);
	op->shard = ps_read_u16(reader);
	if (op->kind != PS_OP_INSERT && op->kind != PS_OP_UPDATE &&
		op->kind != PS_OP_DELETE && op->kind != PS_OP_TRUNCATE)
		reader->bad = true;
	if (op->kind == PS_OP_UPDATE || op->kind == PS_OP_DELETE)
	{
		op->n_key = skip_tuple(reader, &op->key, &op->key_bytes);
		if (op->n_key == 0)
			reader->bad = true; /* no key finds no row, or every row */
	}
	if (op->kind == PS_OP_INSERT || op->kind == PS_OP_UPDATE)
		op->n_row = skip_tuple(reader, &op->row, &op->row_bytes);
	if (reader->bad)
		memset(op, 0, sizeof(*op));
	return !reader->bad;
}

int
ps_tuple_read(PsReader *reader, PsColumn *columns, int max)
{
	int			n = ps_read_u16(reader);

	if (n > max || n > PS_WIRE_COLUMNS_MAX)
		reader->bad = true;
	for (int i = 0; i < n && !reader->bad; i++)
		read_column(reader, &columns[i]);
	return reader->bad ? -1 : n;
}
