/*
 * wire_fuzz.c
 *		Goal: no bytes make a reader of batches or maps read past the end, loop
 *		or crash, and what is accepted can be walked without an error and is
 *		written back the same.  Method: bytes, their checksum made to fit, go
 *		to the readers; under libFuzzer (built with clang) from its corpus,
 *		else valid ones changed at random, the same in every run.
 */
#include "ground/state.h"
#include "ground/step.h"
#include "ground/wire.h"

#include "port/pg_bswap.h"
#include "port/pg_crc32c.h"
#include "tap.h"
#include "wire_samples.h"

#define MUTATIONS 200000

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static int	n_accepted = 0;

static void
must(bool holds, const char *what)
{
	if (!holds)
	{
		printf("Bail out! %s\n", what);
		fflush(stdout);
		abort();
	}
}

static void
fix_checksum(uint8 *data, size_t bytes)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, data, bytes - 4);
	FIN_CRC32C(crc);
	crc = pg_hton32(crc);
	memcpy(data + bytes - 4, &crc, 4);
}

/* Every column of every operation of an accepted batch. */
static void
walk_ops(const PsRecord *record)
{
	static PsColumn columns[PS_WIRE_COLUMNS_MAX];
	PsReader	ops;
	PsReader	tuple;
	PsOp		op;

	ps_reader_init(&ops, record->ops, record->ops_bytes);
	while (ps_op_next(&ops, &op))
	{
		if (op.key != NULL)
		{
			ps_reader_init(&tuple, op.key, op.key_bytes);
			must(ps_tuple_read(&tuple, columns, PS_WIRE_COLUMNS_MAX) ==
				 op.n_key && tuple.at == tuple.end, "a key cannot be split");
		}
		if (op.row != NULL)
		{
			ps_reader_init(&tuple, op.row, op.row_bytes);
			must(ps_tuple_read(&tuple, columns, PS_WIRE_COLUMNS_MAX) ==
				 op.n_row && tuple.at == tuple.end, "a row cannot be split");
		}
	}
	must(!ops.bad, "an accepted operation is bad");
}

static void
try_batch(const uint8 *data, size_t bytes)
{
	PsBatch		batch;
	PsReader	reader;
	PsRecord	record;

	/* As a journal is read: records without the batch's checks. */
	if (bytes > PS_BATCH_HEADER_BYTES)
	{
		ps_reader_init(&reader, data + PS_BATCH_HEADER_BYTES,
					   bytes - PS_BATCH_HEADER_BYTES);
		while (ps_record_next(&reader, &record))
		{
			PsReader	ops;
			PsOp		op;

			ps_reader_init(&ops, record.ops, record.ops_bytes);
			while (ps_op_next(&ops, &op))
				continue;
		}
	}
	if (ps_batch_read(&batch, data, bytes) != NULL)
		return;
	n_accepted++;
	ps_reader_init(&reader, batch.records, batch.records_bytes);
	while (ps_record_next(&reader, &record))
		walk_ops(&record);
	must(!reader.bad, "an accepted record is bad");
}

static void
try_map(const uint8 *data, size_t bytes)
{
	static PsMap map;
	StringInfoData again;

	if (ps_map_read(&map, data, bytes) != NULL)
		return;
	n_accepted++;
	initStringInfo(&again);
	ps_map_put(&again, &map);
	must((size_t) again.len == bytes && memcmp(again.data, data, bytes) == 0,
		 "an accepted map is written differently");
	pfree(again.data);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	uint8	   *copy;

	if (bytes < 4)
		return 0;
	copy = malloc(bytes);		/* of exact size: the sanitizer sees the end */
	memcpy(copy, data, bytes);
	try_batch(copy, bytes);
	fix_checksum(copy, bytes);
	try_batch(copy, bytes);
	try_map(copy, bytes);
	free(copy);
	return 0;
}

#ifndef PS_LIBFUZZER
static void
put_sample_map(StringInfo buf)
{
	static PsMap map;
	PsMapNode	node = {.name = "a", .zone = "z", .weight = 1};
	uint32		id;

	must(ps_step_create(&map, "c", 7, 4, 2, 110, &node) == NULL, "create");
	strcpy(node.name, "b");
	must(ps_step_add_node(&map, &node, &id) == NULL, "add");
	must(ps_step_place(&map, false) == NULL, "place");
	must(ps_step_fail(&map, 2, 1, NULL, NULL) == NULL, "fail");
	ps_map_put(buf, &map);
}

/* Changes up to four places: a bit, a byte, a run repeated, or the length. */
static size_t
mutate(uint8 *data, size_t bytes, uint64 *random)
{
	for (uint64 n = next_random(random) % 4 + 1; n > 0; n--)
	{
		uint64		dice = next_random(random);
		size_t		at = (size_t) (dice >> 8) % bytes;
		size_t		from = (size_t) (dice >> 32) % bytes;

		if (dice % 8 < 3)
			data[at] = (uint8) (data[at] ^ (1 << (dice >> 61)));
		else if (dice % 8 < 5)
			data[at] = (uint8) (dice >> 56);
		else if (dice % 8 < 6)
			memmove(data + at, data + from, Min(bytes - Max(at, from), 12));
		else if (dice % 8 < 7)
			data[at] = (dice >> 63) ? 0xff : 0;
		else if (bytes > 8)
			bytes -= (size_t) (dice >> 59) % 8;
	}
	return bytes;
}

int
main(void)
{
	StringInfoData samples[2];
	uint8		data[4096];
	uint64		random = 1;

	initStringInfo(&samples[0]);
	initStringInfo(&samples[1]);
	put_sample_batch(&samples[0]);
	put_sample_map(&samples[1]);
	for (int i = 0; i < MUTATIONS; i++)
	{
		size_t		bytes = (size_t) samples[i % 2].len;

		memcpy(data, samples[i % 2].data, bytes);
		bytes = mutate(data, bytes, &random);
		(void) LLVMFuzzerTestOneInput(data, bytes);
	}
	pfree(samples[0].data);
	pfree(samples[1].data);
	printf("# %d of %d mutations were accepted\n", n_accepted, MUTATIONS);
	ok(true, "no mutation of a batch or a map breaks a reader");
	ok(n_accepted > MUTATIONS / 100, "mutations reach behind the checks");
	return done_testing();
}
#endif
