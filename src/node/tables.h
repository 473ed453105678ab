/*
 * tables.h
 *		The extension's own tables: their names and oids.
 */
#ifndef PS_NODE_TABLES_H
#define PS_NODE_TABLES_H

#include "postgres.h"

typedef enum PsTable
{
	PS_TABLE_CHOSEN_MAP,
	PS_TABLE_JOURNAL,
	PS_TABLE_JOURNAL_ABORT,
	PS_TABLE_POSITION,
	PS_TABLE_FEED,
	PS_TABLE_DIRTY_KEY,
	PS_TABLE_DISTRIBUTED,
	PS_TABLE_COUNT
} PsTable;

/* Schemas of the extension and of the partitions. */
#define PS_SCHEMA "payshard"
#define PS_DATA_SCHEMA "payshard_data"

/*
 * ps_table_oid
 *		The oid of one of our tables; ERROR 55000 when the extension is not
 *		there.  Needs a transaction.
 */
extern Oid	ps_table_oid(PsTable table);

/* Is the extension in this database?  Needs a transaction. */
extern bool ps_extension_exists(void);

/*
 * ps_extension_is_current, ps_extension_require_current
 *		Are its SQL objects of the library's version?  ERROR 55000 when they are
 *		not.  Both need a transaction.
 */
extern bool ps_extension_is_current(void);
extern void ps_extension_require_current(void);

#endif
