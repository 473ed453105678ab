/*
 * wire_test.c
 *		Goal: what is written is read back the same, and what is not whole is
 *		refused.  Method: one batch with every kind of record and operation;
 *		then each rule broken by itself, with a checksum that fits.
 */
#include "ground/wire.h"

#include "port/pg_crc32c.h"
#include "tap.h"
#include "wire_samples.h"

static void
fix_checksum(StringInfo buf)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, buf->data, (size_t) buf->len - 4);
	FIN_CRC32C(crc);
	ps_patch_u32(buf, buf->len - 4, crc);
}

static void
test_integers(void)
{
	StringInfoData buf;
	PsReader	reader;
	char		name[PS_NAME_MAX];

	initStringInfo(&buf);
	ps_put_u8(&buf, 0xfe);
	ps_put_u16(&buf, 0xfedc);
	ps_put_u32(&buf, 0xfedcba98);
	ps_put_u64(&buf, UINT64CONST(0xfedcba9876543210));
	ps_put_name(&buf, "node1");
	ok(memcmp(buf.data + 1, "\xfe\xdc\xfe\xdc\xba\x98", 6) == 0,
	   "integers are big-endian");
	ps_patch_u32(&buf, 3, 7);
	ps_reader_init(&reader, buf.data, (size_t) buf.len);
	ok(ps_read_u8(&reader) == 0xfe && ps_read_u16(&reader) == 0xfedc &&
	   ps_read_u32(&reader) == 7 &&
	   ps_read_u64(&reader) == UINT64CONST(0xfedcba9876543210),
	   "integers come back, a patched one too");
	ps_read_name(&reader, name);
	ok(strcmp(name, "node1") == 0 && !reader.bad && reader.at == reader.end,
	   "a name comes back");
	ok(ps_read_u8(&reader) == 0 && reader.bad, "past the end is bad");
	ps_reader_init(&reader, buf.data, 3);
	ok(ps_read_u32(&reader) == 0 && ps_read_u8(&reader) == 0 && reader.bad,
	   "bad is sticky");
	ps_reader_init(&reader, "\0\2a\0", 4);
	ps_read_name(&reader, name);
	ok(reader.bad && name[0] == '\0', "a name with a NUL is refused");
	resetStringInfo(&buf);
	ps_put_u16(&buf, PS_NAME_MAX);
	for (int i = 0; i < PS_NAME_MAX; i++)
		ps_put_u8(&buf, 'x');
	ps_reader_init(&reader, buf.data, (size_t) buf.len);
	ps_read_name(&reader, name);
	ok(reader.bad, "a name that is too long is refused");
	pfree(buf.data);
}

static void
test_round_trip(void)
{
	StringInfoData buf;
	PsBatch		batch;
	PsReader	records;
	PsReader	ops;
	PsReader	tuple;
	PsRecord	record;
	PsOp		op;
	PsColumn	columns[2];

	initStringInfo(&buf);
	put_sample_batch(&buf);
	ok(ps_batch_read(&batch, buf.data, (size_t) buf.len) == NULL,
	   "a whole batch is accepted");
	ok(batch.cluster_id == 42 && batch.sender == 1 && batch.target == 63 &&
	   batch.incarnation == 5 && batch.epoch == 9 && batch.lsn == 0x1234 &&
	   batch.decided_seq == 8 && batch.prev_seq == 10 &&
	   batch.last_seq == 15 && batch.n_records == 4, "its header comes back");
	ps_reader_init(&records, batch.records, batch.records_bytes);
	ok(ps_record_next(&records, &record) && record.kind == PS_RECORD_ENTRY &&
	   record.seq == 11 && record.xid == 100 && record.ref_seq == 11 &&
	   record.n_shards == 2 && ps_record_shard(&record, 1) == 1023 &&
	   ps_record_term(&record, 0) == 7 &&
	   ps_record_term(&record, 1) == UINT64CONST(0x1122334455667788),
	   "an entry's header and shards come back");
	ps_reader_init(&ops, record.ops, record.ops_bytes);
	ok(ps_op_next(&ops, &op) && op.kind == PS_OP_INSERT && op.shard == 3 &&
	   op.table_id == 16384 && op.n_row == 2 && op.key == NULL, "insert");
	ps_reader_init(&tuple, op.row, op.row_bytes);
	ok(ps_tuple_read(&tuple, columns, 2) == 2 && columns[0].bytes == 3 &&
	   memcmp(columns[0].value, "row", 3) == 0 &&
	   columns[1].format == PS_COLUMN_NULL && tuple.at == tuple.end,
	   "its columns");
	ps_reader_init(&tuple, op.row, op.row_bytes);
	ok(ps_tuple_read(&tuple, columns, 1) == -1, "more columns than room");
	ok(ps_op_next(&ops, &op) && op.kind == PS_OP_UPDATE && op.n_key == 1 &&
	   op.n_row == 2 && op.key_bytes == 10 && op.row == op.key + 10,
	   "update");
	ok(ps_op_next(&ops, &op) && op.kind == PS_OP_DELETE && op.n_key == 1 &&
	   op.n_row == 0, "delete");
	ok(ps_op_next(&ops, &op) && op.kind == PS_OP_TRUNCATE, "truncate");
	ok(!ps_op_next(&ops, &op) && !ops.bad, "the operations end well");
	ok(ps_record_next(&records, &record) && record.flags == PS_RECORD_MORE &&
	   ps_record_next(&records, &record) && record.ref_seq == 12,
	   "fragments");
	ok(ps_record_next(&records, &record) && record.kind == PS_RECORD_ABORT &&
	   record.ref_seq == 13, "an abort");
	ok(!ps_record_next(&records, &record) && !records.bad,
	   "the records end well");
	pfree(buf.data);
}

/* Sets one byte of the sample and tells whether the refusal is `wanted`. */
static void
refuses(int offset, uint8 value, const char *wanted)
{
	StringInfoData buf;
	PsBatch		batch;
	const char *wrong;

	initStringInfo(&buf);
	put_sample_batch(&buf);
	buf.data[offset] = (char) value;
	fix_checksum(&buf);
	wrong = ps_batch_read(&batch, buf.data, (size_t) buf.len);
	if (!ok(wrong != NULL && strcmp(wrong, wanted) == 0, wanted))
		printf("# offset %d: %s\n", offset, wrong ? wrong : "accepted");
	pfree(buf.data);
}

static void
test_refusals(void)
{
	StringInfoData buf;
	PsBatch		batch;
	PsReader	reader;
	PsRecord	record;
	int			n_accepted = 0;
	int			at[4];			/* the records' offsets */

	initStringInfo(&buf);
	put_sample_batch(&buf);
	(void) ps_batch_read(&batch, buf.data, (size_t) buf.len);
	ps_reader_init(&reader, batch.records, batch.records_bytes);
	for (int i = 0; ps_record_next(&reader, &record); i++)
		at[i] = (int) (record.raw - (const uint8 *) buf.data);

	refuses(0, 'X', "the bytes are not a batch");
	refuses(4, 2, "the batch has another version");
	refuses(5, 1, "the batch has unknown flags");
	refuses(17, 64, "a node id is out of range");
	refuses(37, 0, "a node id is out of range");
	refuses(61, 11, "seqs do not ascend");
	refuses(69, 16, "the last record is not the one announced");
	refuses(73, 3, "the number of records is not the one announced");
	refuses(77, 0, "the length of the records is not the one announced");
	refuses(at[0] + 3, 31, "a record is malformed");
	refuses(at[0] + 4, 'Q', "a record is malformed");
	refuses(at[0] + 5, 2, "a record is malformed");
	refuses(at[0] + 5, 1, "a fragment is missing");
	refuses(at[0] + 29, 12, "a record is malformed");
	refuses(at[0] + 31, 0, "a record is malformed");
	refuses(at[0] + 32, 4, "a record names a shard that cannot exist");
	refuses(at[0] + 33, 4,
			"an operation is in a shard that its record does not name");
	refuses(at[0] + 52, 'x', "an operation is malformed");
	refuses(at[1] + 5, 0, "a fragment is missing");
	refuses(at[2] + 29, 11, "a fragment belongs to another entry");
	refuses(at[2] + 29, 13, "a fragment is missing");
	refuses(at[3] + 21, 1, "a record is malformed");
	refuses(at[3] + 29, 15, "a record is malformed");
	refuses(at[2] + 5, 1, "a fragment is missing");

	/* the entry is given up amid its fragments: its ABORT ends it, no other's */
	buf.data[at[2] + 5] = 1;
	buf.data[at[3] + 29] = 12;
	fix_checksum(&buf);
	ok(ps_batch_read(&batch, buf.data, (size_t) buf.len) == NULL,
	   "an abort in place of the last fragment");
	resetStringInfo(&buf);
	put_sample_batch(&buf);

	for (int i = 0; i < buf.len; i++)
	{
		for (int bit = 0; bit < 8; bit++)
		{
			buf.data[i] = (char) (buf.data[i] ^ (1 << bit));
			n_accepted += ps_batch_read(&batch, buf.data,
										(size_t) buf.len) == NULL;
			buf.data[i] = (char) (buf.data[i] ^ (1 << bit));
		}
		n_accepted += ps_batch_read(&batch, buf.data, (size_t) i) == NULL;
	}
	ok(n_accepted == 0, "no flipped bit and no cut passes the checksum");
	pfree(buf.data);
}

static void
test_seal(void)
{
	PsHello		hello = {.version = PS_PEER_VERSION, .cluster_id = 7, .sender = 3, .incarnation = 5, .epoch = 9, .attach_seq = 11};
	PsHello		read;
	StringInfoData buf;
	size_t		bytes;
	int			n_accepted = 0;

	initStringInfo(&buf);
	ps_hello_put(&buf, &hello);
	ok(ps_hello_read(&read, buf.data, (size_t) buf.len) == NULL && read.cluster_id == 7 &&
	   read.sender == 3 && read.incarnation == 5 && read.epoch == 9 && read.attach_seq == 11,
	   "a hello is read as it was written");
	for (int i = 0; i < buf.len; i++)
	{
		for (int bit = 0; bit < 8; bit++)
		{
			buf.data[i] = (char) (buf.data[i] ^ (1 << bit));
			n_accepted += ps_hello_read(&read, buf.data, (size_t) buf.len) == NULL;
			buf.data[i] = (char) (buf.data[i] ^ (1 << bit));
		}
		bytes = (size_t) i;
		n_accepted += ps_hello_read(&read, buf.data, bytes) == NULL;
		n_accepted += ps_unseal(buf.data, &bytes) == NULL;
	}
	ok(n_accepted == 0, "no flipped bit and no cut passes a seal");
	resetStringInfo(&buf);
	hello.version++;
	ps_hello_put(&buf, &hello);
	ok(ps_hello_read(&read, buf.data, (size_t) buf.len) == NULL &&
	   read.version == PS_PEER_VERSION + 1 && read.sender == 0,
	   "of a hello of another version that is read, and no more");
	resetStringInfo(&buf);
	appendStringInfoString(&buf, "not a hello");
	ps_seal(&buf);
	bytes = (size_t) buf.len;
	ok(ps_unseal(buf.data, &bytes) == NULL && bytes == 11, "a seal comes off");
	ok(ps_hello_read(&read, buf.data, (size_t) buf.len) != NULL, "what is sealed and no hello is refused");
	pfree(buf.data);
}

int
main(void)
{
	test_integers();
	test_seal();
	test_round_trip();
	test_refusals();
	return done_testing();
}
