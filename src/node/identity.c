/*
 * identity.c
 *		Which node of which cluster is this database, and for the how many-th
 *		time has it started?
 *
 * Not part of a logical dump: what is restored wakes up as nobody.  A physical
 * copy carries it all; the register's boot counter tells copies apart (M3).
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "node/identity.h"
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
ps_identity_count_boot(void)
{
	uint64		boot = 0;
	bool		isnull;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute("UPDATE payshard.node_self SET boot = boot + 1 RETURNING boot", false, 1);
	if (SPI_processed == 1)
		boot = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	PopActiveSnapshot();
	SPI_finish();
	ForceSyncCommit();
	return boot;
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
