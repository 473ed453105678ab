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
#include "catalog/pg_type.h"
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

/* No register has 1 as a mark: 0 would say that this node was never started. */
void
ps_identity_disown(void)
{
	ps_identity_confirm(1);
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
