/*
 * rows.c
 *		How do the rows of a table get to where they belong when it becomes
 *		distributed, and back?
 *
 * Rows travel in the text format of COPY, in batches of about
 * PS_ROWS_BATCH_BYTES, and go in through the server's own COPY FROM.  Text, and
 * not binary: every type has it, and names of schema objects (regclass) are
 * right on the other side, where oids differ.  Settings that change how text
 * is written or read are pinned on both sides.
 *
 * Rows are loaded with the rights of the table's owner in a
 * security-restricted operation: check constraints and generated columns are
 * the owner's code.  session_replication_role is replica meanwhile: the rows
 * are not new, they have passed triggers and foreign keys before.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/copy.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "node/map.h"
#include "node/relation.h"
#include "parser/parse_node.h"
#include "parser/parse_relation.h"
#include "route/allnodes.h"
#include "route/rows.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"
#include "write/pin.h"

PS_FUNCTION(payshard_peer_load);
PS_FUNCTION(payshard_peer_rows);

#define PS_ROWS_BATCH_BYTES (1024 * 1024)
#define PS_ROWS_FETCH 1000

/* Values as text, and no triggers; the caller ends it with AtEOXact_GUC(true, result). */
static int
pin_settings(void)
{
	int			nest = ps_pin_settings();

	(void) set_config_option("session_replication_role", "replica", PGC_SUSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	return nest;
}

List *
ps_rows_columns(Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	List	   *columns = NIL;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && !att->attgenerated)
			columns = lappend(columns, pstrdup(NameStr(att->attname)));
	}
	table_close(rel, AccessShareLock);
	return columns;
}

/*
 * Reading: COPY FROM takes its bytes from here.
 */
static struct
{
	const char *next;
	size_t		left;
} feed;

static int
read_feed(void *outbuf, int minread, int maxread)
{
	int			n = (int) Min((size_t) maxread, feed.left);

	memcpy(outbuf, feed.next, n);
	feed.next += n;
	feed.left -= n;
	return n;
}

static void
copy_in(Relation rel, List *columns, const char *data, size_t bytes)
{
	ParseState *pstate = make_parsestate(NULL);
	List	   *names = NIL;
	List	   *options;
	ListCell   *cell;
	CopyFromState cstate;

	foreach(cell, columns)
		names = lappend(names, makeString(lfirst(cell)));
	/* the text has been converted to the database's encoding already */
	options = list_make1(makeDefElem("encoding",
									 (Node *) makeString(pstrdup(GetDatabaseEncodingName())), -1));
	(void) addRangeTableEntryForRelation(pstate, rel, RowExclusiveLock, NULL, false, false);
	feed.next = data;
	feed.left = bytes;
	cstate = BeginCopyFrom(pstate, rel, NULL, NULL, false, read_feed, names, options);
	(void) CopyFrom(cstate);
	EndCopyFrom(cstate);
	free_parsestate(pstate);
}

/* Loads a batch into a relation of this node, as its owner. */
static void
load_batch(Oid relid, List *columns, const char *data, size_t bytes)
{
	Relation	rel = table_open(relid, RowExclusiveLock);
	Oid			user;
	int			context;
	int			nest = pin_settings();

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(rel->rd_rel->relowner,
						   context | SECURITY_RESTRICTED_OPERATION | SECURITY_LOCAL_USERID_CHANGE);
	PushActiveSnapshot(GetTransactionSnapshot());
	copy_in(rel, columns, data, bytes);
	PopActiveSnapshot();
	SetUserIdAndSecContext(user, context);
	AtEOXact_GUC(true, nest);
	table_close(rel, NoLock);
	CommandCounterIncrement();
}

/* The relation of a qualified name. */
static Oid
relation_of(text *name)
{
	RangeVar   *var = makeRangeVarFromNameList(textToQualifiedNameList(name));

	return RangeVarGetRelid(var, AccessShareLock, false);
}

static void
require_superuser(const char *what)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for %s", what),
				 errhint("Only nodes call it on each other, as a superuser.")));
}

/* peer_load(relation, columns, rows) */
Datum
payshard_peer_load(PG_FUNCTION_ARGS)
{
	Oid			relid;
	text	   *rows = PG_GETARG_TEXT_PP(2);
	Datum	   *elements;
	int			n;
	List	   *columns = NIL;

	require_superuser("peer_load");
	relid = relation_of(PG_GETARG_TEXT_PP(0));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(1), TEXTOID, -1, false, TYPALIGN_INT, &elements,
					  NULL, &n);
	for (int i = 0; i < n; i++)
		columns = lappend(columns, TextDatumGetCString(elements[i]));
	load_batch(relid, columns, VARDATA_ANY(rows), VARSIZE_ANY_EXHDR(rows));
	PG_RETURN_VOID();
}

/*
 * Writing
 */

/* How the columns of a relation are written; arrays of n. */
typedef struct Writer
{
	int			n;
	AttrNumber *attnums;
	FmgrInfo   *output;
} Writer;

static Writer *
make_writer(Relation rel, List *columns)
{
	Writer	   *writer = palloc(sizeof(Writer));
	ListCell   *cell;

	writer->n = 0;
	writer->attnums = palloc(sizeof(AttrNumber) * list_length(columns));
	writer->output = palloc(sizeof(FmgrInfo) * list_length(columns));
	foreach(cell, columns)
	{
		AttrNumber	attnum = get_attnum(RelationGetRelid(rel), lfirst(cell));
		Oid			function;
		bool		is_varlena;

		getTypeOutputInfo(TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid, &function,
						  &is_varlena);
		fmgr_info(function, &writer->output[writer->n]);
		writer->attnums[writer->n++] = attnum;
	}
	return writer;
}

/* A value with the escapes of COPY's text format. */
static void
put_escaped(StringInfo buf, const char *value)
{
	for (const char *c = value; *c; c++)
	{
		switch (*c)
		{
			case '\\':
				appendStringInfoString(buf, "\\\\");
				break;
			case '\n':
				appendStringInfoString(buf, "\\n");
				break;
			case '\r':
				appendStringInfoString(buf, "\\r");
				break;
			case '\t':
				appendStringInfoString(buf, "\\t");
				break;
			default:
				appendStringInfoCharMacro(buf, *c);
		}
	}
}

/* One row as a line, its end included. */
static void
put_row(StringInfo buf, Writer *writer, TupleTableSlot *slot)
{
	for (int i = 0; i < writer->n; i++)
	{
		int			at = writer->attnums[i] - 1;

		if (i > 0)
			appendStringInfoChar(buf, '\t');
		if (slot->tts_isnull[at])
			appendStringInfoString(buf, "\\N");
		else
			put_escaped(buf, OutputFunctionCall(&writer->output[i], slot->tts_values[at]));
	}
	appendStringInfoChar(buf, '\n');
}

/* Where rows go: to the other nodes by index, here last. */
typedef struct Spread
{
	Oid			target;
	const char *name;			/* of the target, qualified */
	List	   *columns;
	const char *columns_array;	/* as text[] */
	int			n_remotes;
	PsNodeSet	here;			/* this node as a set */
	StringInfoData *bufs;		/* n_remotes + 1 */
} Spread;

static void
flush(Spread *spread, int i)
{
	StringInfo	buf = &spread->bufs[i];

	if (buf->len == 0)
		return;
	if (i == spread->n_remotes)
		load_batch(spread->target, spread->columns, buf->data, buf->len);
	else
	{
		PsArg		args[3] = {ps_arg_text(spread->name), ps_arg_text(spread->columns_array),
							   ps_arg_text(buf->data)};

		ps_allnodes_send(i, "SELECT payshard.peer_load($1, $2::text[], $3)", 3, args);
	}
	if (buf->maxlen > 4 * PS_ROWS_BATCH_BYTES)
	{
		pfree(buf->data);
		initStringInfo(buf);
	}
	resetStringInfo(buf);
}

/* A list of names as the text of an array. */
static const char *
array_text(List *names)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(1, list_length(names)));
	int			n = 0;
	ListCell   *cell;
	Oid			output;
	bool		is_varlena;

	foreach(cell, names)
		elements[n++] = CStringGetTextDatum(lfirst(cell));
	getTypeOutputInfo(TEXTARRAYOID, &output, &is_varlena);
	return OidOutputFunctionCall(output, PointerGetDatum(construct_array(elements, n, TEXTOID,
																		 -1, false, TYPALIGN_INT)));
}

static Spread *
make_spread(Oid source, Oid target)
{
	Spread	   *spread = palloc0(sizeof(Spread));

	spread->target = target;
	spread->name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(target)),
											  get_rel_name(target));
	spread->columns = ps_rows_columns(source);
	spread->columns_array = array_text(spread->columns);
	spread->n_remotes = ps_allnodes_count();
	spread->here = PS_NODE_BIT(ps_map_self());
	spread->bufs = palloc(sizeof(StringInfoData) * (spread->n_remotes + 1));
	for (int i = 0; i <= spread->n_remotes; i++)
		initStringInfo(&spread->bufs[i]);
	return spread;
}

/* One row to the buffers of all nodes that hold its shard. */
static void
spread_row(Spread *spread, Writer *writer, const AttrNumber *key, int n_key, const PsMap *map,
		   TupleTableSlot *slot, StringInfo line)
{
	Datum		values[PS_KEY_COLUMNS_MAX];
	bool		nulls[PS_KEY_COLUMNS_MAX];
	PsNodeSet	members;

	slot_getallattrs(slot);
	for (int i = 0; i < n_key; i++)
	{
		values[i] = slot->tts_values[key[i] - 1];
		nulls[i] = slot->tts_isnull[key[i] - 1];
	}
	members = map->shards[ps_relation_shard(spread->target, values, nulls)].in_sync;
	resetStringInfo(line);
	put_row(line, writer, slot);
	for (int i = 0; i <= spread->n_remotes; i++)
	{
		PsNodeSet	node = i == spread->n_remotes ? spread->here : PS_NODE_BIT(ps_allnodes_node(i));

		if ((members & node) == 0)
			continue;
		appendBinaryStringInfo(&spread->bufs[i], line->data, line->len);
		if (spread->bufs[i].len >= PS_ROWS_BATCH_BYTES)
			flush(spread, i);
	}
}

uint64
ps_rows_spread(Oid source, Oid target)
{
	Relation	rel = table_open(source, AccessExclusiveLock);
	Spread	   *spread = make_spread(source, target);
	Writer	   *writer = make_writer(rel, spread->columns);
	PsRelation	table = *ps_relation(target);
	PsMap	   *map = ps_map_copy();
	AttrNumber	key[PS_KEY_COLUMNS_MAX];
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "payshard row", ALLOCSET_DEFAULT_SIZES);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	StringInfoData line;
	uint64		n = 0;
	int			nest = pin_settings();

	initStringInfo(&line);
	for (int i = 0; i < table.n_key; i++)
		key[i] = get_attnum(source, get_attname(target, table.key[i], false));
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(per_row);

		CHECK_FOR_INTERRUPTS();
		spread_row(spread, writer, key, table.n_key, map, slot, &line);
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
		n++;
	}
	for (int i = 0; i <= spread->n_remotes; i++)
		flush(spread, i);
	for (int i = 0; i < spread->n_remotes; i++)
		PQclear(ps_allnodes_await(i));
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	AtEOXact_GUC(true, nest);
	table_close(rel, NoLock);
	return n;
}

/* Takes one line of a local partition. */
typedef void (*RowSink) (void *arg, StringInfo line);

static uint64
scan_lines(Oid relid, List *columns, RowSink sink, void *arg)
{
	Relation	rel = table_open(relid, AccessShareLock);
	Writer	   *writer = make_writer(rel, columns);
	MemoryContext per_row = AllocSetContextCreate(CurrentMemoryContext, "payshard row", ALLOCSET_DEFAULT_SIZES);
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	StringInfoData line;
	uint64		n = 0;
	int			nest = pin_settings();

	initStringInfo(&line);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		MemoryContext old = MemoryContextSwitchTo(per_row);

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		resetStringInfo(&line);
		put_row(&line, writer, slot);
		MemoryContextSwitchTo(old);
		sink(arg, &line);
		MemoryContextReset(per_row);
		n++;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	AtEOXact_GUC(true, nest);
	table_close(rel, NoLock);
	return n;
}

static void
sink_to_result(void *arg, StringInfo line)
{
	ReturnSetInfo *info = arg;
	Datum		value = PointerGetDatum(cstring_to_text_with_len(line->data, line->len));
	bool		isnull = false;

	tuplestore_putvalues(info->setResult, info->setDesc, &value, &isnull);
	pfree(DatumGetPointer(value));
}

/* peer_rows(relation, shard) -> setof line */
Datum
payshard_peer_rows(PG_FUNCTION_ARGS)
{
	Oid			relid;

	require_superuser("peer_rows");
	relid = relation_of(PG_GETARG_TEXT_PP(0));
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	scan_lines(ps_relation_partition(relid, PG_GETARG_INT32(1)), ps_rows_columns(relid),
			   sink_to_result, fcinfo->resultinfo);
	return (Datum) 0;
}

/* What ps_rows_gather collects into. */
typedef struct Collected
{
	Oid			target;
	List	   *columns;
	StringInfoData buf;
} Collected;

static void
gather_flush(Collected *gather)
{
	if (gather->buf.len > 0)
		load_batch(gather->target, gather->columns, gather->buf.data, gather->buf.len);
	resetStringInfo(&gather->buf);
}

static void
sink_to_gather(void *arg, StringInfo line)
{
	Collected	   *gather = arg;

	appendBinaryStringInfo(&gather->buf, line->data, line->len);
	if (gather->buf.len >= PS_ROWS_BATCH_BYTES)
		gather_flush(gather);
}

/* All rows of one shard from the i-th other node. */
static uint64
gather_remote(Collected *gather, int i, const char *name, int shard)
{
	PsArg		args[2] = {ps_arg_text(name), ps_arg_int8(shard)};
	uint64		n = 0;
	int			got;

	ps_allnodes_send(i, "DECLARE payshard_rows NO SCROLL CURSOR FOR SELECT * FROM payshard.peer_rows($1, $2::int)", 2, args);
	do
	{
		PGresult   *result;

		ps_allnodes_send(i, psprintf("FETCH %d FROM payshard_rows", PS_ROWS_FETCH), 0, NULL);
		result = ps_allnodes_await(i);
		got = PQntuples(result);
		for (int row = 0; row < got; row++)
		{
			StringInfoData line;

			line.data = PQgetvalue(result, row, 0);
			line.len = PQgetlength(result, row, 0);
			sink_to_gather(gather, &line);
		}
		PQclear(result);
		n += got;
	} while (got > 0);
	ps_allnodes_send(i, "CLOSE payshard_rows", 0, NULL);
	PQclear(ps_allnodes_await(i));
	return n;
}

uint64
ps_rows_gather(Oid source, const char *name, Oid target)
{
	Collected		gather;
	PsMap	   *map = ps_map_copy();
	uint64		n = 0;

	gather.target = target;
	gather.columns = ps_rows_columns(source);
	initStringInfo(&gather.buf);
	for (int shard = 0; shard < map->n_shards; shard++)
	{
		uint32		primary = map->shards[shard].primary;

		if (primary == ps_map_self())
			n += scan_lines(ps_relation_partition(source, shard), gather.columns,
							sink_to_gather, &gather);
		else
			for (int i = 0; i < ps_allnodes_count(); i++)
				if (ps_allnodes_node(i) == primary)
					n += gather_remote(&gather, i, name, shard);
	}
	gather_flush(&gather);
	return n;
}
