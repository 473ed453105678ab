/*
 * pin.c
 *		Under which settings are values written and read as text?
 *
 * Always the same, on every node and in every session: text then is the same
 * for the same value, nothing is rounded, and what is read is what was written.
 */
#include "postgres.h"

#include "utils/guc.h"
#include "write/pin.h"

static const char *const settings[][2] = {
	{"datestyle", "ISO, YMD"},
	{"intervalstyle", "postgres"},
	{"timezone", "UTC"},
	{"extra_float_digits", "3"},
	{"bytea_output", "hex"},
	{"lc_monetary", "C"},
	{"xmloption", "content"},
	{"search_path", "pg_catalog, pg_temp"},
};

int
ps_pin_settings(void)
{
	int			nest = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return nest;
}
