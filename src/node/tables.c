/*
 * tables.c
 *		Which oids have the extension's own tables, and are they of our version?
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "commands/extension.h"
#include "compat.h"
#include "executor/spi.h"
#include "node/tables.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

static const char *const names[PS_TABLE_COUNT] = {
	[PS_TABLE_CHOSEN_MAP] = "chosen_map",
	[PS_TABLE_JOURNAL] = "journal",
	[PS_TABLE_JOURNAL_ABORT] = "journal_abort",
	[PS_TABLE_POSITION] = "position",
	[PS_TABLE_FEED] = "feed",
	[PS_TABLE_DIRTY_KEY] = "dirty_key",
	[PS_TABLE_DISTRIBUTED] = "distributed_table",
};

/* As this process has found them; forgotten when one of them may be another. */
static Oid	known[PS_TABLE_COUNT];

static void
forget(Datum arg, Oid relid)
{
	for (int i = 0; i < PS_TABLE_COUNT; i++)
		if (!OidIsValid(relid) || known[i] == relid)
			known[i] = InvalidOid;
}

Oid
ps_table_oid(PsTable table)
{
	static bool is_told = false;
	Oid			schema;
	Oid			oid = known[table];

	if (OidIsValid(oid))
		return oid;
	if (!is_told)
		CacheRegisterRelcacheCallback(forget, (Datum) 0);
	is_told = true;
	schema = get_namespace_oid(PS_SCHEMA, true);
	if (OidIsValid(schema))
		oid = known[table] = get_relname_relid(names[table], schema);
	if (!OidIsValid(oid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the extension payshard is not installed in this database"),
				 errhint("Run CREATE EXTENSION payshard.")));
	return oid;
}

bool
ps_extension_exists(void)
{
	return OidIsValid(get_extension_oid("payshard", true));
}

/* The version of the SQL objects, palloc'd; NULL when there are none. */
static char *
sql_version(void)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *version = NULL;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'payshard'", true, 1);
	if (SPI_processed == 1)
		version = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (version)
		version = MemoryContextStrdup(caller, version);
	PopActiveSnapshot();
	SPI_finish();
	return version;
}

bool
ps_extension_is_current(void)
{
	char	   *version = sql_version();

	return version != NULL && strcmp(version, PS_EXTENSION_VERSION) == 0;
}

void
ps_extension_require_current(void)
{
	char	   *version = sql_version();

	if (version != NULL && strcmp(version, PS_EXTENSION_VERSION) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the extension payshard has another version than its library"),
				 errdetail("Its SQL objects in this database are of version %s, the library that this server has loaded is of version %s.", version, PS_EXTENSION_VERSION),
				 errhint("Run ALTER EXTENSION payshard UPDATE; if the library is the older one, install the newer one and restart the server.")));
}
