/*
 * dirty.c
 *		Which keys must a placement that is out get, when it comes back (J1)?
 *
 * One row per (node, shard, table, key) in payshard.dirty_key, written in the
 * transaction that changes the row here: by the committing backend on the
 * primary, by the apply process on a secondary.  Joining placements are out,
 * too, for this: a join may fail.  table_id 0 stands for all keys of the shard.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "ground/wire.h"
#include "miscadmin.h"
#include "node/fault.h"
#include "node/map.h"
#include "node/relation.h"
#include "utils/snapmgr.h"
#include "write/dirty.h"
#include "write/row.h"

static SPIPlanPtr insert_plan = NULL;

static bytea *
to_bytea(const void *data, size_t bytes)
{
	bytea	   *value = palloc(bytes + VARHDRSZ);

	SET_VARSIZE(value, bytes + VARHDRSZ);
	if (bytes > 0)
		memcpy(VARDATA(value), data, bytes);
	return value;
}

/*
 * Not as the user who commits, who has no right to the table, and not by the
 * snapshot of a REPEATABLE READ transaction, in which a key that another one
 * has noted since would be a serialization failure: both would be a PANIC.
 */
void
ps_dirty_record_key(uint32 node, int shard, uint32 table_id, const void *key, size_t bytes)
{
	Oid			types[4] = {INT4OID, INT4OID, INT8OID, BYTEAOID};
	Datum		values[4];
	Oid			user;
	int			context;

	values[0] = Int32GetDatum(node);
	values[1] = Int32GetDatum(shard);
	values[2] = Int64GetDatum(key ? table_id : 0);
	values[3] = PointerGetDatum(to_bytea(key, key ? bytes : 0));
	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	SPI_connect();
	if (insert_plan == NULL)
	{
		insert_plan = SPI_prepare("INSERT INTO payshard.dirty_key VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
								  4, types);
		SPI_keepplan(insert_plan);
	}
	SPI_execute_snapshot(insert_plan, values, NULL, GetLatestSnapshot(), InvalidSnapshot,
						 false, false, 0);
	SPI_finish();
	SetUserIdAndSecContext(user, context);
	pg_atomic_fetch_add_u64(&ps_shared->dirty_keys, 1);
}

static void
record_for_all(PsNodeSet out, int shard, uint32 table_id, const void *key, size_t bytes)
{
	for (uint32 node = 1; out >> node; node++)
		if (PS_HAS_NODE(out, node))
			ps_dirty_record_key(node, shard, table_id, key, bytes);
}

/* The keys of one operation: the old one, and the new one where it differs. */
static void
record_op(PsNodeSet out, const PsOp *op)
{
	StringInfoData key;
	Relation	rel;
	Oid			parent;

	if (op->kind == PS_OP_TRUNCATE)
	{
		record_for_all(out, op->shard, 0, NULL, 0);
		return;
	}
	if (op->n_key > 0)
		record_for_all(out, op->shard, op->table_id, op->key, op->key_bytes);
	if (op->n_row == 0)
		return;
	parent = ps_relation_by_id(op->table_id);
	if (!OidIsValid(parent))
	{
		/* dropped, or its DDL is still prepared here: the whole shard, to be safe */
		record_for_all(out, op->shard, 0, NULL, 0);
		return;
	}
	rel = table_open(ps_relation_partition(parent, op->shard), AccessShareLock);
	initStringInfo(&key);
	if (!ps_row_key_of(&key, ps_row_format(rel), op->row, op->row_bytes))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("a row in the journal does not fit its table")));
	if (key.len != op->key_bytes || memcmp(key.data, op->key, key.len) != 0)
		record_for_all(out, op->shard, op->table_id, key.data, key.len);
	pfree(key.data);
	table_close(rel, AccessShareLock);
}

void
ps_dirty_record_op(uint32 node, const PsOp *op)
{
	record_op(PS_NODE_BIT(node), op);
}

void
ps_dirty_record_ops(const uint8 *ops, size_t bytes)
{
	PsReader	reader;
	PsOp		op;
	int			known_shard = -1;
	PsNodeSet	out = 0;

	if (!PS_RULE("J1"))
		return;
	ps_reader_init(&reader, ops, bytes);
	while (ps_op_next(&reader, &op))
	{
		if (op.shard != known_shard)
		{
			PsMapShard	state;

			known_shard = op.shard;
			out = ps_map_shard(op.shard, &state) ? state.placements & ~state.in_sync : 0;
			out &= ~PS_NODE_BIT(ps_map_self());
		}
		if (out != 0)
			record_op(out, &op);
	}
	if (reader.bad)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("operations of a write-set are damaged")));
}
