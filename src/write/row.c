/*
 * row.c
 *		How does a row become bytes, and bytes a row?
 *
 * Not as in logical replication: that sends an on-disk TOAST pointer as
 * "unchanged", and an AFTER trigger's row is full of them.  A type's send
 * function detoasts what it is given.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "node/relation.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "write/pin.h"
#include "write/row.h"

static HTAB *formats = NULL;
static MemoryContext formats_context = NULL;

static void
forget(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS seq;
	PsRowFormat *format;

	if (formats == NULL)
		return;
	if (OidIsValid(relid))
	{
		format = hash_search(formats, &relid, HASH_FIND, NULL);
		if (format)
			format->is_valid = false;
		return;
	}
	hash_seq_init(&seq, formats);
	while ((format = hash_seq_search(&seq)) != NULL)
		format->is_valid = false;
}

static void
init_cache(void)
{
	HASHCTL		control = {0};

	formats_context = AllocSetContextCreate(CacheMemoryContext, "payshard row formats", ALLOCSET_DEFAULT_SIZES);
	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(PsRowFormat);
	control.hcxt = formats_context;
	formats = hash_create("payshard row formats", 128, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	CacheRegisterRelcacheCallback(forget, (Datum) 0);
}

/*
 * Is what the type's send function gives free of oids of types of users?  Those
 * are others on another node: arrays tell that of their element, composite
 * types those of their columns, ranges what their bounds do.
 */
static bool
is_free_of_oids(Oid type)
{
	Oid			base = getBaseType(type);
	Oid			element = get_element_type(base);
	Oid			range = type_is_multirange(base) ? get_multirange_range(base) : base;
	TupleDesc	desc;
	bool		is_free = true;

	if (OidIsValid(element))
		return element < FirstNormalObjectId && is_free_of_oids(element);
	if (type_is_range(range))
		return is_free_of_oids(get_range_subtype(range));
	if (get_typtype(base) != TYPTYPE_COMPOSITE)
		return true;
	desc = lookup_rowtype_tupdesc(base, -1);
	for (int i = 0; i < desc->natts && is_free; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		is_free = att->attisdropped ||
			(att->atttypid < FirstNormalObjectId && is_free_of_oids(att->atttypid));
	}
	ReleaseTupleDesc(desc);
	return is_free;
}

/* Functions by which values of a type leave and enter. */
static void
fill_column(PsRowFormat *format, int i, Form_pg_attribute att)
{
	HeapTuple	type = SearchSysCache1(TYPEOID, ObjectIdGetDatum(att->atttypid));
	Form_pg_type form;

	if (!HeapTupleIsValid(type))
		elog(ERROR, "cache lookup failed for type %u", att->atttypid);
	form = (Form_pg_type) GETSTRUCT(type);
	format->is_binary[i] = OidIsValid(form->typsend) && OidIsValid(form->typreceive) &&
		is_free_of_oids(att->atttypid);
	format->has_text |= !format->is_binary[i];
	fmgr_info_cxt(format->is_binary[i] ? form->typsend : form->typoutput,
				  &format->out[i], formats_context);
	fmgr_info_cxt(format->is_binary[i] ? form->typreceive : form->typinput,
				  &format->in[i], formats_context);
	format->io_param[i] = getTypeIOParam(type);
	format->typmod[i] = att->atttypmod;
	ReleaseSysCache(type);
}

static void
fill_key(PsRowFormat *format, Relation rel)
{
	Relation	index;

	format->key_index = ps_primary_key_index(rel);
	format->n_key = 0;
	if (!OidIsValid(format->key_index))
		return;
	index = index_open(format->key_index, AccessShareLock);
	format->n_key = IndexRelationGetNumberOfKeyAttributes(index);
	format->key = palloc(sizeof(AttrNumber) * format->n_key);
	for (int i = 0; i < format->n_key; i++)
		format->key[i] = index->rd_index->indkey.values[i];
	index_close(index, AccessShareLock);
}

static void
fill(PsRowFormat *format, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const PsRelation *known = ps_relation(RelationGetRelid(rel));
	MemoryContext old = MemoryContextSwitchTo(formats_context);
	int			n = desc->natts;

	/* what a former version pointed to is left to the context: DDL is rare */
	format->table_id = known ? known->table_id : 0;
	format->shard = known ? known->shard : -1;
	format->n_attrs = n;
	format->row = palloc(sizeof(AttrNumber) * n);
	format->out = palloc0(sizeof(FmgrInfo) * n);
	format->in = palloc0(sizeof(FmgrInfo) * n);
	format->io_param = palloc0(sizeof(Oid) * n);
	format->typmod = palloc0(sizeof(int32) * n);
	format->is_binary = palloc0(sizeof(bool) * n);
	format->has_text = false;
	format->n_row = 0;
	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || att->attgenerated)
			continue;
		format->row[format->n_row++] = i + 1;
		fill_column(format, i, att);
	}
	fill_key(format, rel);
	MemoryContextSwitchTo(old);
	format->is_valid = true;
}

const PsRowFormat *
ps_row_format(Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	PsRowFormat *format;
	bool		found;

	if (formats == NULL)
		init_cache();
	format = hash_search(formats, &relid, HASH_ENTER, &found);
	if (!found)
		format->is_valid = false;
	if (!format->is_valid)
		fill(format, rel);
	return format;
}

static void
put_columns(StringInfo buf, const PsRowFormat *format, TupleTableSlot *slot,
			const AttrNumber *columns, int n)
{
	int			nest = format->has_text ? ps_pin_settings() : 0;

	slot_getallattrs(slot);
	ps_put_u16(buf, n);
	for (int i = 0; i < n; i++)
	{
		int			c = columns[i] - 1;

		if (slot->tts_isnull[c])
			ps_put_u8(buf, PS_COLUMN_NULL);
		else if (format->is_binary[c])
		{
			bytea	   *value = SendFunctionCall(&format->out[c], slot->tts_values[c]);

			ps_put_u8(buf, PS_COLUMN_BINARY);
			ps_put_u32(buf, VARSIZE(value) - VARHDRSZ);
			appendBinaryStringInfo(buf, VARDATA(value), VARSIZE(value) - VARHDRSZ);
			pfree(value);
		}
		else
		{
			char	   *value = OutputFunctionCall(&format->out[c], slot->tts_values[c]);

			ps_put_u8(buf, PS_COLUMN_TEXT);
			ps_put_u32(buf, strlen(value));
			appendStringInfoString(buf, value);
			pfree(value);
		}
	}
	if (nest)
		AtEOXact_GUC(true, nest);
}

void
ps_row_put(StringInfo buf, const PsRowFormat *format, TupleTableSlot *slot)
{
	put_columns(buf, format, slot, format->row, format->n_row);
}

void
ps_row_put_key(StringInfo buf, const PsRowFormat *format, TupleTableSlot *slot)
{
	put_columns(buf, format, slot, format->key, format->n_key);
}

/* Where a column stands in a row tuple, -1 = nowhere. */
static int
place_in_row(const PsRowFormat *format, AttrNumber column)
{
	for (int i = 0; i < format->n_row; i++)
		if (format->row[i] == column)
			return i;
	return -1;
}

bool
ps_row_key_of(StringInfo buf, const PsRowFormat *format, const uint8 *row, size_t bytes)
{
	PsColumn	columns[PS_WIRE_COLUMNS_MAX];
	PsReader	reader;

	ps_reader_init(&reader, row, bytes);
	if (ps_tuple_read(&reader, columns, format->n_row) != format->n_row)
		return false;
	ps_put_u16(buf, format->n_key);
	for (int i = 0; i < format->n_key; i++)
	{
		int			at = place_in_row(format, format->key[i]);

		if (at < 0)
			return false;
		ps_put_u8(buf, columns[at].format);
		if (columns[at].format == PS_COLUMN_NULL)
			continue;
		ps_put_u32(buf, columns[at].bytes);
		appendBinaryStringInfo(buf, (const char *) columns[at].value, columns[at].bytes);
	}
	return true;
}

static void
misfit(const PsRowFormat *format, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("a row from another node does not fit table \"%s\"", get_rel_name(format->relid)),
			 errdetail("%s", what),
			 errhint("The table must be defined alike on all nodes.")));
}

static Datum
get_value(const PsRowFormat *format, int c, const PsColumn *column)
{
	StringInfoData buf;
	Datum		value;

	initStringInfo(&buf);
	appendBinaryStringInfo(&buf, (const char *) column->value, column->bytes);
	if (column->format == PS_COLUMN_TEXT)
		return InputFunctionCall((FmgrInfo *) &format->in[c], buf.data,
								 format->io_param[c], format->typmod[c]);
	value = ReceiveFunctionCall((FmgrInfo *) &format->in[c], &buf,
								format->io_param[c], format->typmod[c]);
	if (buf.cursor != buf.len)
		misfit(format, "A value has more bytes than its type takes.");
	return value;
}

static void
get_columns(const PsRowFormat *format, const uint8 *data, size_t bytes,
			const AttrNumber *columns, int n, TupleTableSlot *slot)
{
	PsColumn	read[PS_WIRE_COLUMNS_MAX];
	PsReader	reader;
	int			nest = format->has_text ? ps_pin_settings() : 0;

	ps_reader_init(&reader, data, bytes);
	if (ps_tuple_read(&reader, read, n) != n)
		misfit(format, psprintf("It does not have %d columns.", n));
	ExecClearTuple(slot);
	memset(slot->tts_isnull, true, sizeof(bool) * slot->tts_tupleDescriptor->natts);
	memset(slot->tts_values, 0, sizeof(Datum) * slot->tts_tupleDescriptor->natts);
	for (int i = 0; i < n; i++)
	{
		int			c = columns[i] - 1;

		if (read[i].format == PS_COLUMN_NULL)
			continue;
		if ((read[i].format == PS_COLUMN_BINARY) != format->is_binary[c])
			misfit(format, "A column has another type.");
		slot->tts_values[c] = get_value(format, c, &read[i]);
		slot->tts_isnull[c] = false;
	}
	ExecStoreVirtualTuple(slot);
	if (nest)
		AtEOXact_GUC(true, nest);
}

void
ps_row_get(const PsRowFormat *format, const uint8 *data, size_t bytes, TupleTableSlot *slot)
{
	get_columns(format, data, bytes, format->row, format->n_row, slot);
}

void
ps_row_get_key(const PsRowFormat *format, const uint8 *data, size_t bytes, TupleTableSlot *slot)
{
	get_columns(format, data, bytes, format->key, format->n_key, slot);
}

void
ps_row_scan_keys(ScanKey keys, Relation index, const PsRowFormat *format, TupleTableSlot *key)
{
	for (int i = 0; i < format->n_key; i++)
	{
		Oid			type = index->rd_opcintype[i];
		Oid			family = index->rd_opfamily[i];
		Oid			op = get_opfamily_member(family, type, type, BTEqualStrategyNumber);
		int			column = format->key[i] - 1;

		if (!OidIsValid(op))
			elog(ERROR, "missing equality operator for index %u", RelationGetRelid(index));
		ScanKeyEntryInitialize(&keys[i], 0, i + 1, BTEqualStrategyNumber, InvalidOid,
							   index->rd_indcollation[i], get_opcode(op), key->tts_values[column]);
	}
}
