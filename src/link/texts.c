/*
 * texts.c
 *		Which statements were sent on a connection before?
 *
 * One table per connection, in memory of its own.  A text counts as known only
 * with the same types of its parameters and the same shape of its result: what
 * was prepared for others would read their bytes wrongly.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "link/texts.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define PS_TEXTS_MAX 256		/* remembered per connection */

struct PsTexts
{
	MemoryContext memory;		/* of this struct and all below */
	HTAB	   *table;			/* of PsText */
};

static PsTexts *
make_texts(void)
{
	HASHCTL		control = {0};
	MemoryContext memory = AllocSetContextCreate(TopMemoryContext, "payshard statements",
												 ALLOCSET_DEFAULT_SIZES);
	PsTexts    *texts = MemoryContextAlloc(memory, sizeof(PsTexts));

	control.keysize = sizeof(uint64);
	control.entrysize = sizeof(PsText);
	control.hcxt = memory;
	texts->memory = memory;
	texts->table = hash_create("payshard statements", 64, &control,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	return texts;
}

static uint64
hash_of(const char *sql, int n, const Oid *types, uint64 shape)
{
	uint64		hash = DatumGetUInt64(hash_any_extended((const unsigned char *) sql, strlen(sql),
														shape));

	if (n > 0)
		hash = DatumGetUInt64(hash_any_extended((const unsigned char *) types, n * sizeof(Oid),
												hash));
	return hash;
}

PsText *
ps_texts_find(PsTexts **texts, const char *sql, int n, const Oid *types, uint64 shape, bool *found)
{
	uint64		hash = hash_of(sql, n, types, shape);
	Size		size = n * sizeof(Oid);
	PsText	   *text;

	if (*texts == NULL)
		*texts = make_texts();
	text = hash_search((*texts)->table, &hash, HASH_ENTER, found);
	if (!*found)
	{
		text->name = 0;
		text->sql = MemoryContextStrdup((*texts)->memory, sql);
		text->shape = shape;
		text->n = n;
		text->types = MemoryContextAlloc((*texts)->memory, Max(size, sizeof(Oid)));
		if (n > 0)
			memcpy(text->types, types, size);
	}
	else if (strcmp(text->sql, sql) != 0 || text->shape != shape || text->n != n ||
			 (n > 0 && memcmp(text->types, types, size) != 0))
		return NULL;
	return text;
}

bool
ps_texts_is_full(const PsTexts *texts)
{
	return texts && hash_get_num_entries(texts->table) >= PS_TEXTS_MAX;
}

void
ps_texts_forget(PsTexts **texts)
{
	if (*texts)
		MemoryContextDelete((*texts)->memory);
	*texts = NULL;
}
