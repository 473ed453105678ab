/*
 * mirror.c
 *		What must a session at another node have in common with ours?
 *
 * Statements are sent as text: the settings that say what text means are the
 * same there as they are here at that moment.  So are settings that applications
 * make up (app.tenant): policies, triggers and functions look at them.
 */
#include "postgres.h"

#include "compat.h"
#include "lib/stringinfo.h"
#include "link/mirror.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/guc_tables.h"

/* What the other side needs to know to understand text as we do. */
static const char *const propagated[] = {
	"search_path", "TimeZone", "DateStyle", "IntervalStyle",
	"extra_float_digits", "bytea_output", "xmlbinary", "row_security",
	"default_text_search_config", "lock_timeout", "check_function_bodies"
};

static void
append_own(StringInfo sql)
{
	int			n;
	struct config_generic **all = ps_all_settings(&n);

	for (int i = 0; i < n; i++)
	{
		const char *value;

		if ((all[i]->flags & GUC_CUSTOM_PLACEHOLDER) == 0)
			continue;
		value = GetConfigOption(all[i]->name, true, false);
		appendStringInfo(sql, ", pg_catalog.set_config(%s, %s, false)",
						 quote_literal_cstr(all[i]->name), quote_literal_cstr(value ? value : ""));
	}
}

char *
ps_mirror_settings(void)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT pg_catalog.set_config('payshard.shipped', 'on', false)");
	for (int i = 0; i < lengthof(propagated); i++)
	{
		const char *value = GetConfigOption(propagated[i], true, false);

		if (value == NULL)
			continue;
		/* names without schema in shipped texts are pg_catalog's */
		appendStringInfo(&sql, ", pg_catalog.set_config('%s', ", propagated[i]);
		if (i == 0)
			value = value[0] ? psprintf("pg_catalog, %s", value) : "pg_catalog";
		appendStringInfo(&sql, "%s, false)", quote_literal_cstr(value));
	}
	append_own(&sql);
	return sql.data;
}
