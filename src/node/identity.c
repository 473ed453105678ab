/*
 * identity.c
 *		Which node of which cluster is this database, and which start of it does
 *		the register know?
 *
 * Not part of a logical dump: what is restored wakes up as nobody.  A physical
 * copy carries it all.  Each start asks the register under a random mark, kept
 * durably until the register has it; a directory whose last mark is not the
 * register's was restored or cloned (M3).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_control.h"
#include "catalog/pg_type.h"
#include "common/controldata_utils.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "node/identity.h"
#include "node/shared.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

bool
ps_identity_read(PsIdentity *identity)
{
	bool		found;
	bool		isnull;

	memset(identity, 0, sizeof(*identity));
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute("SELECT cluster_id, node_id, name::text, peer_role, boot FROM payshard.node_self", true, 1);
	found = SPI_processed == 1;
	if (found)
	{
		HeapTuple	row = SPI_tuptable->vals[0];
		TupleDesc	desc = SPI_tuptable->tupdesc;

		identity->cluster_id = DatumGetInt64(SPI_getbinval(row, desc, 1, &isnull));
		identity->node_id = DatumGetInt32(SPI_getbinval(row, desc, 2, &isnull));
		strlcpy(identity->name, SPI_getvalue(row, desc, 3), sizeof(identity->name));
		identity->peer_role = get_role_oid(SPI_getvalue(row, desc, 4), true);
		identity->boot = DatumGetInt64(SPI_getbinval(row, desc, 5, &isnull));
	}
	PopActiveSnapshot();
	SPI_finish();
	return found;
}

Oid
ps_identity_peer_role(void)
{
	PsIdentity	identity;

	if (ps_identity_read(&identity) && OidIsValid(identity.peer_role))
		return identity.peer_role;
	return BOOTSTRAP_SUPERUSERID;
}

uint64
ps_identity_attempt(void)
{
	uint64		fresh = 0;
	uint64		attempt = 0;
	Oid			type = INT8OID;
	Datum		arg;
	bool		isnull;

	while (fresh == 0)
	{
		if (!pg_strong_random(&fresh, sizeof(fresh)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		fresh >>= 1;			/* a positive bigint */
	}
	arg = Int64GetDatum(fresh);
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("UPDATE payshard.node_self SET boot_attempt = coalesce(boot_attempt, $1) "
						  "RETURNING boot_attempt", 1, &type, &arg, NULL, false, 1);
	if (SPI_processed == 1)
		attempt =
			DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	PopActiveSnapshot();
	SPI_finish();
	ForceSyncCommit();
	return attempt;
}

void
ps_identity_confirm(uint64 boot)
{
	Oid			type = INT8OID;
	Datum		arg = Int64GetDatum(boot);

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("UPDATE payshard.node_self SET boot = $1, boot_attempt = NULL",
						  1, &type, &arg, NULL, false, 0);
	PopActiveSnapshot();
	SPI_finish();
	ForceSyncCommit();
}

/*
 * nextXid when this run of the server began, by the checkpoint that ended its
 * recovery (or the shutdown before it).  Should there be a later one already:
 * 0, which distrusts all ids; that is the safe side.
 */
static uint64
first_xid_of_run(void)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	uint64		xid = 0;

	if (crc_ok && control->checkPointCopy.redo == control->checkPoint)
		xid = U64FromFullTransactionId(control->checkPointCopy.nextXid);
	pfree(control);
	return xid;
}

void
ps_identity_note_run_end(uint64 incarnation)
{
	Oid			types[2] = {INT8OID, INT8OID};
	Datum		args[2];

	if (pg_atomic_read_u32(&ps_shared->run_noted) != 0)
		return;
	args[0] = Int64GetDatum(incarnation);
	args[1] = Int64GetDatum(first_xid_of_run());
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("INSERT INTO payshard.run_end VALUES ($1, $2) ON CONFLICT DO NOTHING",
						  2, types, args, NULL, false, 0);
	PopActiveSnapshot();
	SPI_finish();
	ForceSyncCommit();
	CommitTransactionCommand();
	pg_atomic_write_u32(&ps_shared->run_noted, 1);
	StartTransactionCommand();
}

uint64
ps_identity_run_end(uint64 incarnation)
{
	Oid			type = INT8OID;
	Datum		arg = Int64GetDatum(incarnation);
	uint64		xid = PG_UINT64_MAX;
	bool		isnull;
	Datum		value;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("SELECT min(next_xid) FROM payshard.run_end WHERE incarnation >= $1",
						  1, &type, &arg, NULL, true, 1);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		xid = DatumGetInt64(value);
	PopActiveSnapshot();
	SPI_finish();
	return xid;
}

void
ps_require_peer(void)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for a function of payshard's peers"),
				 errhint("Use a superuser, or a role that payshard.grant_peer() was called for.")));
}
