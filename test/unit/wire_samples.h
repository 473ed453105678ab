/*
 * wire_samples.h
 *		Valid bytes for wire_test and wire_fuzz to begin with.
 */
#ifndef PS_TEST_WIRE_SAMPLES_H
#define PS_TEST_WIRE_SAMPLES_H

#include "ground/wire.h"

static inline void
put_text_tuple(StringInfo buf, const char *value, bool with_null)
{
	ps_put_u16(buf, with_null ? 2 : 1);
	ps_put_u8(buf, PS_COLUMN_TEXT);
	ps_put_u32(buf, (uint32) strlen(value));
	appendBinaryStringInfoNT(buf, value, (int) strlen(value));
	if (with_null)
		ps_put_u8(buf, PS_COLUMN_NULL);
}

/*
 * prev_seq 10; 11: two shards, all four operations; 12 and 13: an entry in
 * two fragments; 15: an abort of 13 (14 went elsewhere).
 */
static inline void
put_sample_batch(StringInfo buf)
{
	const uint16 shards[2] = {3, 1023};
	const uint64 terms[2] = {7, UINT64CONST(0x1122334455667788)};
	PsBatch		batch = {.cluster_id = 42, .sender = 1, .incarnation = 5,
	.epoch = 9, .target = 63, .lsn = 0x1234, .decided_seq = 8, .prev_seq = 10};
	int			offset;

	ps_batch_begin(buf, &batch);
	offset = ps_record_begin(buf, PS_RECORD_ENTRY, 0, 11, 100, 11, shards,
							 terms, 2);
	ps_op_begin(buf, PS_OP_INSERT, 16384, 3);
	put_text_tuple(buf, "row", true);
	ps_op_begin(buf, PS_OP_UPDATE, 16384, 1023);
	put_text_tuple(buf, "key", false);
	put_text_tuple(buf, "new row", true);
	ps_op_begin(buf, PS_OP_DELETE, 16385, 3);
	put_text_tuple(buf, "", false);
	ps_op_begin(buf, PS_OP_TRUNCATE, 16386, 3);
	ps_record_end(buf, offset);
	for (uint64 seq = 12; seq <= 13; seq++)
	{
		offset = ps_record_begin(buf, PS_RECORD_ENTRY,
								 seq == 12 ? PS_RECORD_MORE : 0, seq, 101,
								 12, shards, terms, 1);
		ps_op_begin(buf, PS_OP_DELETE, 16384, 3);
		put_text_tuple(buf, "gone", false);
		ps_record_end(buf, offset);
	}
	offset = ps_record_begin(buf, PS_RECORD_ABORT, 0, 15, 0, 13, shards,
							 terms, 2);
	ps_record_end(buf, offset);
	ps_batch_end(buf, 4, 15);
}

#endif
