/*
 * distributable.c
 *		May this table be distributed by this key?
 *
 * A list of reasons why not.  Each is a query that yields nothing for a table
 * that passes, else one row: message, detail, hint.  $1 is the table, $2 the
 * key columns (text[]); k(name) below are the key columns, in $2's order.  The
 * first reason that applies is told: the list goes from what the table is to
 * what depends on it.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "compat.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "node/relation.h"
#include "route/distributable.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/syscache.h"

typedef struct Reason
{
	int			code;
	const char *query;
} Reason;

#define NOT_SUPPORTED ERRCODE_FEATURE_NOT_SUPPORTED
#define FROM_TABLE " FROM pg_class c WHERE c.oid = $1 AND "

/* What kind of relation it is. */
static const Reason of_relation[] = {
	{ERRCODE_DUPLICATE_OBJECT,
		"SELECT format('table \"%s\" is distributed already', c.relname), "
		"format('Its key is (%s).', array_to_string(d.key_columns, ', ')), "
		"'To change its key, call payshard.undistribute_table() first.' "
	"FROM pg_class c JOIN payshard.distributed_table d ON d.relid = c.oid WHERE c.oid = $1"},
	{ERRCODE_WRONG_OBJECT_TYPE,
		"SELECT format('\"%s\" is not an ordinary table', c.relname), "
		"format('It is a %s.', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' "
		"WHEN 'f' THEN 'foreign table' WHEN 'S' THEN 'sequence' WHEN 'p' THEN 'partitioned table' "
		"WHEN 'i' THEN 'index' ELSE 'relation of another kind' END), "
	"'Only ordinary tables can be distributed.'" FROM_TABLE "c.relkind <> 'r'"},
	{NOT_SUPPORTED,
		"SELECT format('table \"%s\" cannot be distributed', c.relname), 'It is a table of the system or of payshard itself.', "
	"'Only tables of users can be distributed.'"
	FROM_TABLE "c.relnamespace IN ('pg_catalog'::regnamespace, 'payshard'::regnamespace, 'payshard_data'::regnamespace)"},
	{NOT_SUPPORTED,
		"SELECT format('table \"%s\" cannot be distributed', c.relname), "
		"CASE c.relpersistence WHEN 't' THEN 'It is a temporary table.' ELSE 'It is an unlogged table.' END, "
		"CASE c.relpersistence WHEN 't' THEN 'Make it a permanent table.' ELSE format('Run ALTER TABLE %s SET LOGGED first.', c.oid::regclass) END"
	FROM_TABLE "c.relpersistence <> 'p'"},
	{NOT_SUPPORTED,
		"SELECT format('table \"%s\" cannot be distributed', c.relname), "
		"CASE WHEN c.relispartition THEN 'It is a partition of another table.' "
		"WHEN c.reloftype <> 0 THEN 'It is a table of a composite type.' "
		"ELSE 'It inherits from another table, or another inherits from it.' END, "
		"'Detach it first (ALTER TABLE ... DETACH PARTITION, NO INHERIT or NOT OF).'" FROM_TABLE
		"(c.relispartition OR c.reloftype <> 0 OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid OR inhparent = c.oid))"},
};

#define KEYS "unnest($2) WITH ORDINALITY k(name, n) "
#define KEY_COLUMNS KEYS "JOIN pg_attribute a ON a.attrelid = $1 AND a.attname = k.name AND a.attnum > 0 AND NOT a.attisdropped "

/* What is wrong with the key. */
static const Reason of_key[] = {
	{ERRCODE_INVALID_PARAMETER_VALUE,
		"SELECT 'a distribution key has 1 to 4 columns', format('There are %s.', cardinality($2)), "
		"'Name the columns by which rows are distributed.' "
	"WHERE cardinality($2) NOT BETWEEN 1 AND 4 OR array_ndims($2) > 1"},
	{ERRCODE_UNDEFINED_COLUMN,
		"SELECT format('column \"%s\" of table \"%s\" does not exist', k.name, c.relname), 'It is named as a column of the distribution key.', "
		"format('Its columns are: %s.', (SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute "
		"WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)) "
		"FROM pg_class c, " KEYS "WHERE c.oid = $1 AND NOT EXISTS (SELECT FROM pg_attribute "
	"WHERE attrelid = $1 AND attname = k.name AND attnum > 0 AND NOT attisdropped)"},
	{ERRCODE_DUPLICATE_COLUMN,
	"SELECT format('column \"%s\" appears twice in the distribution key', k.name), "
	"format('The key is (%s).', array_to_string($2, ', ')), 'Name each column once.' FROM " KEYS "GROUP BY k.name HAVING count(*) > 1"},
	{ERRCODE_DATATYPE_MISMATCH,
		"SELECT format('column \"%s\" cannot be a distribution key', a.attname), "
		"format('Its type is %s.', format_type(a.atttypid, a.atttypmod)), "
		"'Types of keys: bigint, integer, smallint, uuid, text, character varying.' FROM " KEY_COLUMNS
	"WHERE a.atttypid NOT IN (20, 21, 23, 25, 1043, 2950)"},
	{ERRCODE_COLLATION_MISMATCH,
		"SELECT format('column \"%s\" cannot be a distribution key', a.attname), "
		"format('Its collation \"%s\" is not deterministic: strings that are equal may differ in their bytes, and so in their shard.', l.collname), "
		"'Use a deterministic collation for this column.' FROM " KEY_COLUMNS
	"JOIN pg_collation l ON l.oid = a.attcollation AND NOT l.collisdeterministic"},
	{ERRCODE_INVALID_OBJECT_DEFINITION,
		"SELECT format('column \"%s\" cannot be a distribution key', a.attname), 'It is a generated column.', "
	"'Use a column that is stored as it is given.' FROM " KEY_COLUMNS
	"WHERE a.attgenerated <> ''"},
	{ERRCODE_INVALID_TABLE_DEFINITION,
		"SELECT format('table \"%s\" has no primary key', c.relname), 'Changes of a row are replicated by its primary key.', "
		"format('Add one which contains the distribution key: ALTER TABLE %s ADD PRIMARY KEY (%s, ...).', c.oid::regclass, array_to_string($2, ', '))"
	FROM_TABLE "NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)"},
	{ERRCODE_INVALID_COLUMN_REFERENCE,
		"SELECT format('%s \"%s\" does not contain the distribution key', CASE WHEN i.indisprimary THEN 'primary key' "
		"ELSE 'unique index' END, x.relname), format('Column \"%s\" is missing in it: a shard cannot see what is unique in the others.', k.name), "
		"'Add the key columns to it, or distribute by columns that it has.' "
		"FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid, " KEY_COLUMNS
		"WHERE i.indrelid = $1 AND i.indisunique AND NOT a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) "
	"ORDER BY i.indisprimary DESC, x.relname, k.n"},
};

#define FOREIGN_KEYS "FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid " \
	"JOIN pg_class r ON r.oid = f.confrelid WHERE f.contype = 'f' AND f.conparentid = 0 AND "
#define KEY_TYPES "(SELECT array_agg(format_type(a.atttypid, NULL) ORDER BY k.n) FROM " KEY_COLUMNS ")"

/* Types of columns, and what arrays, domains, ranges and composite types are made of. */
#define TYPES "WITH RECURSIVE t(type, name) AS (" \
	"SELECT atttypid, attname FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped UNION " \
	"SELECT p.type, t.name FROM t JOIN pg_type y ON y.oid = t.type, LATERAL (" \
	"SELECT y.typelem UNION SELECT y.typbasetype UNION SELECT a.atttypid FROM pg_attribute a " \
	"WHERE a.attrelid = y.typrelid AND a.attnum > 0 AND NOT a.attisdropped UNION " \
	"SELECT r.rngsubtype FROM pg_range r WHERE y.oid IN (r.rngtypid, r.rngmultitypid)) p(type)) "

/* What belongs to it or depends on it. */
static const Reason of_dependents[] = {
	/* an object's number is another object elsewhere; an empty int2vector is not received */
	{NOT_SUPPORTED,
		TYPES "SELECT format('column \"%s\" cannot be in a distributed table', t.name), "
		"format('It holds values of type %s, which mean something in the catalogs of one server only.', format_type(y.oid, NULL)), "
		"'Use text instead, and cast where it is used.' FROM t JOIN pg_type y ON y.oid = t.type "
		"WHERE y.typnamespace = 'pg_catalog'::regnamespace AND y.typname ~ "
		"'^(reg.*|aclitem|oidvector|int2vector|gtsvector|pg_(node_tree|ndistinct|dependencies|mcv_list|brin_.*))$' "
	"ORDER BY t.name LIMIT 1"},
	{NOT_SUPPORTED,
		"SELECT format('table \"%s\" cannot be distributed', c.relname), format('It has the exclusion constraint \"%s\".', x.conname), "
		"format('Drop it first: ALTER TABLE %s DROP CONSTRAINT %I.', c.oid::regclass, x.conname) "
	"FROM pg_constraint x JOIN pg_class c ON c.oid = x.conrelid WHERE c.oid = $1 AND x.contype = 'x'"},
	{ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
		"SELECT format('table \"%s\" cannot be distributed', c.relname), format('Its foreign key \"%s\" is not validated.', f.conname), "
		"format('Run ALTER TABLE %s VALIDATE CONSTRAINT %I first.', c.oid::regclass, f.conname) " FOREIGN_KEYS
	"c.oid = $1 AND NOT f.convalidated"},
	{ERRCODE_INVALID_FOREIGN_KEY,
		"SELECT format('table \"%s\" cannot be distributed', c.relname), "
		"format('Its foreign key \"%s\" references \"%s\", which is not distributed by the same types of key.', f.conname, r.relname), "
		"format('Distribute \"%s\" first, by a key of the same types; or drop the constraint.', r.relname) " FOREIGN_KEYS
		"c.oid = $1 AND r.oid <> $1 AND NOT EXISTS (SELECT FROM payshard.distributed_table d WHERE d.relid = r.oid "
	"AND d.colocation = array_to_string(" KEY_TYPES ", ','))"},
	{ERRCODE_INVALID_FOREIGN_KEY,
		"SELECT format('table \"%s\" cannot be distributed', c.relname), "
		"format('Its foreign key \"%s\" does not relate the distribution keys of both tables: the referenced row could be in another shard.', f.conname), "
		"'Make the key columns of both tables part of the foreign key.' " FOREIGN_KEYS
		"c.oid = $1 AND EXISTS (SELECT FROM unnest($2, CASE WHEN r.oid = $1 THEN $2 ELSE "
		"(SELECT key_columns::text[] FROM payshard.distributed_table WHERE relid = r.oid) END) k(ours, theirs) "
		"WHERE NOT EXISTS (SELECT FROM unnest(f.conkey, f.confkey) p(o, t) "
		"JOIN pg_attribute ao ON ao.attrelid = c.oid AND ao.attnum = p.o AND ao.attname = k.ours "
	"JOIN pg_attribute at ON at.attrelid = r.oid AND at.attnum = p.t AND at.attname = k.theirs))"},
	{NOT_SUPPORTED,
		"SELECT format('table \"%s\" cannot be distributed', c.relname), format('It has the rule \"%s\".', w.rulename), "
		"format('Drop it first: DROP RULE %I ON %s.', w.rulename, c.oid::regclass) "
	"FROM pg_rewrite w JOIN pg_class c ON c.oid = w.ev_class WHERE c.oid = $1"},
	{NOT_SUPPORTED,
		"SELECT format('table \"%s\" cannot be distributed', c.relname), "
		"format('The default of column \"%s\" uses the sequence \"%s\", which no column of this table owns.', a.attname, s.relname), "
		"format('Run ALTER SEQUENCE %s OWNED BY %s.%I first.', s.oid::regclass, c.oid::regclass, a.attname) "
		"FROM pg_attrdef f JOIN pg_class c ON c.oid = f.adrelid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = f.adnum "
		"JOIN pg_depend d ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass "
		"JOIN pg_class s ON s.oid = d.refobjid AND s.relkind = 'S' "
	"WHERE c.oid = $1 AND NOT EXISTS (SELECT FROM payshard.table_sequences($1) q WHERE q.sequence = s.oid)"},
	{NOT_SUPPORTED,
		"SELECT format('table \"%s\" cannot be distributed', $1::regclass), "
		"format('The sequence \"%s\" of column \"%s\" %s.', q.sequence, q.column_name, "
		"CASE WHEN s.seqcycle THEN 'cycles' ELSE 'descends' END), "
		"'Numbers are unique over all nodes only for ascending sequences without CYCLE.' "
		"FROM payshard.table_sequences($1) q JOIN pg_sequence s ON s.seqrelid = q.sequence "
	"WHERE s.seqcycle OR s.seqincrement < 0"},
	{ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED,
		"SELECT format('table \"%s\" cannot be distributed', $1::regclass), "
		"format('The sequence \"%s\" ends at %s; each node would have %s numbers left for column \"%s\".', q.sequence, s.seqmax, "
		"greatest(trunc((s.seqmax::numeric - t.top) / (64 * s.seqincrement::numeric)), 0), q.column_name), "
		"'Each node gives out every 64th number only. Change the column and its sequence to bigint first.' "
		"FROM payshard.table_sequences($1) q JOIN pg_sequence s ON s.seqrelid = q.sequence, "
		"LATERAL (SELECT (payshard.sequence_floors($1)->>q.column_name)::bigint AS top) t "
	"WHERE (s.seqmax::numeric - t.top) / (64 * s.seqincrement::numeric) < 100000"},
};

/* What depends on it, before it is distributed and after. */
static const Reason of_references[] = {
	{ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
		"SELECT format('table \"%s\" is referenced by another', r.relname), "
		"format('The foreign key \"%s\" of table \"%s\" references it.', f.conname, c.relname), "
		"'Drop the constraint first. To distribute both tables: this one, then add the constraint, then the other.' "
	FOREIGN_KEYS "r.oid = $1 AND c.oid <> $1"},
	{ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
		"SELECT format('table \"%s\" has views', $1::regclass), "
		"format('Views depend on it: %s.', string_agg(DISTINCT v.oid::regclass::text, ', ')), "
		"'Drop them, and make them again afterwards.' "
		"FROM pg_depend d JOIN pg_rewrite w ON w.oid = d.objid JOIN pg_class v ON v.oid = w.ev_class "
		"WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 "
	"AND w.ev_class <> $1 HAVING count(*) > 0"},
};

/* Runs one query; ERROR when it yields a row. */
static void
check(const Reason *reason, Datum *args)
{
	Oid			types[2] = {REGCLASSOID, TEXTARRAYOID};
	char	   *texts[3];

	if (SPI_execute_with_args(reason->query, 2, types, args, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not check a table: %s", reason->query);
	if (SPI_processed == 0)
		return;
	for (int i = 0; i < 3; i++)
		texts[i] = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, i + 1);
	ereport(ERROR,
			(errcode(reason->code),
			 errmsg_internal("%s", texts[0]),
			 texts[1] ? errdetail_internal("%s", texts[1]) : 0,
			 texts[2] ? errhint("%s", texts[2]) : 0));
}

static void
check_all(const Reason *reasons, int n, Datum *args)
{
	for (int i = 0; i < n; i++)
		check(&reasons[i], args);
}

void
ps_require_table_owner(Oid relid)
{
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Form_pg_class form;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation %u does not exist", relid)));
	form = (Form_pg_class) GETSTRUCT(tuple);
	if (!ps_owns_table(relid, GetUserId()))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of table \"%s\"", NameStr(form->relname)),
				 errdetail("Its owner is \"%s\".", GetUserNameFromId(form->relowner, false)),
				 errhint("Call it as the owner, or as a superuser.")));
	ReleaseSysCache(tuple);
}

/* Who names zones wants copies apart (P3). */
static void
warn_of_zones(const PsMap *map)
{
	const char *zones[PS_NODES_MAX];
	int			n_zones = 0;

	for (int i = 0; i < map->n_nodes; i++)
	{
		int			z = 0;

		while (z < n_zones && strcmp(zones[z], map->nodes[i].zone) != 0)
			z++;
		if (z == n_zones && map->nodes[i].weight > 0)
			zones[n_zones++] = map->nodes[i].zone;
	}
	if ((n_zones > 1 || (n_zones == 1 && zones[0][0] != '\0')) && n_zones < (int) map->copies)
		ereport(WARNING,
				(errcode(ERRCODE_WARNING),
				 errmsg("there are fewer zones than copies of each shard (%u)", map->copies),
				 errdetail_plural("The nodes with weight are in %d zone: copies of a shard share it and are lost with it.",
								  "The nodes with weight are in %d zones: copies of a shard share one and are lost with it.",
								  n_zones, n_zones),
				 errhint("Add nodes in other zones, or set zones with payshard.set_node().")));
}

void
ps_require_distributable(Oid relid, ArrayType *keys, const PsMap *map)
{
	Datum		args[2] = {ObjectIdGetDatum(relid), PointerGetDatum(keys)};
	int			nodes = pg_popcount64(ps_map_data_nodes(map));
	int			nest = NewGUCNestLevel();

	/* nobody's own operators or tables in these queries; names come qualified */
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	check_all(of_relation, lengthof(of_relation), args);
	check_all(of_key, lengthof(of_key), args);
	check_all(of_references, lengthof(of_references), args);
	check_all(of_dependents, lengthof(of_dependents), args);
	SPI_finish();
	AtEOXact_GUC(true, nest);
	if ((int) map->copies > nodes)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("there are too few nodes for %u copies of each shard", map->copies),
				 errdetail_plural("The cluster has %d node with weight.",
								  "The cluster has %d nodes with weight.", nodes, nodes),
				 errhint("Add nodes with payshard.add_node().")));
	warn_of_zones(map);
}

void
ps_require_undistributable(Oid relid)
{
	Datum		args[2] = {ObjectIdGetDatum(relid),
						   PointerGetDatum(construct_empty_array(TEXTOID))};

	SPI_connect();
	check_all(of_references, lengthof(of_references), args);
	SPI_finish();
}

void
ps_require_still_distributable(Oid relid)
{
	Datum		args[2] = {ObjectIdGetDatum(relid), 0};
	Oid			type = OIDOID;
	bool		isnull;
	Oid			user;
	int			context;
	int			nest = NewGUCNestLevel();

	GetUserIdAndSecContext(&user, &context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, context | SECURITY_LOCAL_USERID_CHANGE);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	SPI_connect();
	if (SPI_execute_with_args("SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_partitioned_table p, "
							  "unnest(p.partattrs::int2[]) WITH ORDINALITY k(attnum, n), pg_attribute a "
							  "WHERE p.partrelid = $1 AND a.attrelid = $1 AND a.attnum = k.attnum",
							  1, &type, args, NULL, false, 1) != SPI_OK_SELECT ||
								SPI_processed != 1)
		elog(ERROR, "could not read the key of relation %u", relid);
	args[1] = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	check_all(of_key, lengthof(of_key), args);
	check_all(of_dependents, lengthof(of_dependents), args);
	SPI_finish();
	AtEOXact_GUC(true, nest);
	SetUserIdAndSecContext(user, context);
}

void
ps_require_all_open(const PsMap *map)
{
	for (int i = 0; i < map->n_shards; i++)
		if (map->shards[i].waits != 0)
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("shard %d is not open", i),
					 errdetail("Its primary is being recovered."),
					 errhint("Retry when payshard.shards shows all of them open.")));
}

void
ps_require_all_in_sync(const PsMap *map)
{
	for (int i = 0; i < map->n_shards; i++)
	{
		const PsMapShard *shard = &map->shards[i];

		if (shard->waits != 0 || shard->in_sync != shard->placements)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("shard %d is not whole", i),
					 errdetail("Every placement of every shard must be in sync while a table with rows is distributed."),
					 errhint("Wait until payshard.placements shows all of them in sync, and retry.")));
	}
}
