/*
 * tables.c
 *		Which oids have the extension's own tables?
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "commands/extension.h"
#include "node/tables.h"
#include "utils/lsyscache.h"

static const char *const names[PS_TABLE_COUNT] = {
	[PS_TABLE_CHOSEN_MAP] = "chosen_map",
	[PS_TABLE_JOURNAL] = "journal",
	[PS_TABLE_JOURNAL_ABORT] = "journal_abort",
	[PS_TABLE_POSITION] = "position",
	[PS_TABLE_FEED] = "feed",
	[PS_TABLE_DIRTY_KEY] = "dirty_key",
	[PS_TABLE_DISTRIBUTED] = "distributed_table",
};

Oid
ps_table_oid(PsTable table)
{
	Oid			schema = get_namespace_oid(PS_SCHEMA, true);
	Oid			oid = InvalidOid;

	if (OidIsValid(schema))
		oid = get_relname_relid(names[table], schema);
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
