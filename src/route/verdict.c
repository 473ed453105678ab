/*
 * verdict.c
 *		Which DDL on distributed tables can run on all nodes as it stands, and
 *		which cannot?
 *
 * The text of the statement runs on every node, so it must do the same to each:
 * what would compute values for existing rows (a default that is not
 * constant, a numbering sequence) is refused, and so is what would break the
 * partitions or the capture of writes.  What is not in the lists below is
 * refused: never half a change.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "node/map.h"
#include "node/relation.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_expr.h"
#include "parser/parse_node.h"
#include "route/verdict.h"
#include "utils/lsyscache.h"

#define PS_CAPTURE_TRIGGER "zz_payshard_capture"

static void
refuse(PsVerdict *verdict, const char *why, const char *hint)
{
	if (verdict->refused == NULL)
	{
		verdict->refused = why;
		verdict->hint = hint;
	}
}

/* Notes a relation; false when it has to do with no distributed table. */
static bool
touch_oid(PsVerdict *verdict, Oid relid)
{
	const PsRelation *rel;

	if (!OidIsValid(relid))
		return false;
	if (get_rel_relkind(relid) == RELKIND_INDEX ||
		get_rel_relkind(relid) == RELKIND_PARTITIONED_INDEX)
		relid = IndexGetRelation(relid, true);
	rel = OidIsValid(relid) ? ps_relation(relid) : NULL;
	if (rel == NULL)
		return false;
	verdict->tables = list_append_unique_oid(verdict->tables, rel->parent);
	if (rel->shard >= 0)
		refuse(verdict, "It is about a partition of a distributed table.",
			   "Partitions change with their table: name the table instead.");
	return true;
}

static bool
touch(PsVerdict *verdict, RangeVar *var)
{
	return var && touch_oid(verdict, RangeVarGetRelid(var, NoLock, true));
}

static bool
touch_names(PsVerdict *verdict, List *names)
{
	return touch(verdict, makeRangeVarFromNameList(names));
}

/* A sequence that a column of a distributed table owns. */
static bool
touch_sequence(PsVerdict *verdict, RangeVar *var)
{
	Oid			sequence = var ? RangeVarGetRelid(var, NoLock, true) : InvalidOid;
	Oid			table;
	int32		column;

	if (!OidIsValid(sequence))
		return false;
	if (!sequenceIsOwned(sequence, DEPENDENCY_AUTO, &table, &column) &&
		!sequenceIsOwned(sequence, DEPENDENCY_INTERNAL, &table, &column))
		return false;
	return touch_oid(verdict, table);
}

static void
judge_trigger_name(PsVerdict *verdict, const char *name)
{
	if (name == NULL || strncmp(name, PS_CAPTURE_TRIGGER, strlen(PS_CAPTURE_TRIGGER)) == 0)
		refuse(verdict, "Writes to distributed tables are captured by these triggers.",
			   "Name a trigger of your own.");
}

static bool
is_serial(TypeName *type)
{
	static const char *const names[] = {"serial", "serial2", "serial4", "serial8", "bigserial", "smallserial"};

	for (int i = 0; type && list_length(type->names) == 1 && i < lengthof(names); i++)
		if (strcmp(strVal(linitial(type->names)), names[i]) == 0)
			return true;
	return false;
}

/* Would each node compute another value for the rows that are there? */
static bool
is_mutable(Node *raw)
{
	ParseState *pstate = make_parsestate(NULL);
	Node	   *expr = transformExpr(pstate, copyObject(raw), EXPR_KIND_COLUMN_DEFAULT);

	free_parsestate(pstate);
	return contain_mutable_functions(expr);
}

static void
judge_add_column(PsVerdict *verdict, ColumnDef *column)
{
	ListCell   *cell;

	verdict->changes_shape = true;
	if (is_serial(column->typeName))
		refuse(verdict, "A numbering column cannot be added: each node would number the rows differently.",
			   "Call payshard.undistribute_table(), add the column, and distribute the table again.");
	foreach(cell, column->constraints)
	{
		Constraint *constraint = lfirst(cell);

		if (constraint->contype == CONSTR_IDENTITY)
			refuse(verdict, "A numbering column cannot be added: each node would number the rows differently.",
				   "Call payshard.undistribute_table(), add the column, and distribute the table again.");
		else if (constraint->contype == CONSTR_DEFAULT && constraint->raw_expr &&
				 is_mutable(constraint->raw_expr))
			refuse(verdict, "The default is not constant: each node would compute other values for the rows that are there.",
				   "Add the column without a default, set the default, and then UPDATE the rows.");
	}
}

static void
judge_alter_command(PsVerdict *verdict, AlterTableCmd *command)
{
	switch (command->subtype)
	{
		case AT_AddColumn:
			judge_add_column(verdict, castNode(ColumnDef, command->def));
			break;
		case AT_AlterColumnType:
			verdict->changes_shape = true;
			if (castNode(ColumnDef, command->def)->raw_default)
				refuse(verdict, "ALTER COLUMN TYPE with USING is not supported on distributed tables.",
					   "Add a new column, UPDATE it, and drop the old one.");
			break;
		case AT_DropColumn:
			verdict->changes_shape = true;
			break;
		case AT_AddConstraint:
			if (castNode(Constraint, command->def)->contype == CONSTR_EXCLUSION)
				refuse(verdict, "Exclusion constraints are not supported on distributed tables.", NULL);
			break;
		case AT_EnableTrig:
		case AT_EnableAlwaysTrig:
		case AT_EnableReplicaTrig:
		case AT_DisableTrig:
			judge_trigger_name(verdict, command->name);
			break;
		case AT_EnableTrigAll:
		case AT_EnableTrigUser:
		case AT_DisableTrigAll:
		case AT_DisableTrigUser:
			judge_trigger_name(verdict, NULL);
			break;
		case AT_ColumnDefault:
		case AT_DropNotNull:
		case AT_SetNotNull:
		case AT_SetStatistics:
		case AT_SetStorage:
		case AT_SetCompression:
		case AT_DropConstraint:
		case AT_ValidateConstraint:
		case AT_EnableRowSecurity:
		case AT_DisableRowSecurity:
		case AT_ForceRowSecurity:
		case AT_NoForceRowSecurity:
			break;
		case AT_AttachPartition:
		case AT_DetachPartition:
		case AT_DetachPartitionFinalize:
			refuse(verdict, "Partitions of a distributed table are its shards: none can be attached or detached.", NULL);
			break;
		default:
			refuse(verdict, "This kind of ALTER TABLE is not supported on distributed tables.",
				   "Call payshard.undistribute_table(), change the table, and distribute it again.");
	}
}

static void
judge_alter(PsVerdict *verdict, AlterTableStmt *stmt)
{
	ListCell   *cell;

	if (!touch(verdict, stmt->relation))
		return;
	if (stmt->objtype != OBJECT_TABLE)
		refuse(verdict, "This kind of ALTER is not supported on distributed tables.", NULL);
	foreach(cell, stmt->cmds)
		judge_alter_command(verdict, lfirst(cell));
}

static void
judge_drop(PsVerdict *verdict, DropStmt *stmt)
{
	ListCell   *cell;
	bool		has_other = false;

	foreach(cell, stmt->objects)
	{
		List	   *names = lfirst(cell);

		switch (stmt->removeType)
		{
			case OBJECT_TABLE:
				verdict->is_drop = true;
				/* FALLTHROUGH */
			case OBJECT_INDEX:
				has_other |= !touch_names(verdict, names);
				break;
			case OBJECT_TRIGGER:
			case OBJECT_POLICY:
			case OBJECT_RULE:
				if (touch_names(verdict, list_truncate(list_copy(names), list_length(names) - 1)) &&
					stmt->removeType == OBJECT_TRIGGER)
					judge_trigger_name(verdict, strVal(llast(names)));
				break;
			default:
				return;
		}
	}
	if (verdict->tables && has_other)
		refuse(verdict, "It names distributed tables together with what is on this node only.",
			   "Use a statement for each.");
	if (verdict->tables && stmt->concurrent)
		refuse(verdict, "CONCURRENTLY is not supported on distributed tables.", "Leave it out.");
}

static void
judge_index(PsVerdict *verdict, IndexStmt *stmt)
{
	if (!touch(verdict, stmt->relation))
		return;
	if (stmt->concurrent)
		refuse(verdict, "CONCURRENTLY is not supported on distributed tables.", "Leave it out.");
	if (!stmt->relation->inh)
		refuse(verdict, "ONLY is not supported on distributed tables.", "Leave it out.");
	if (stmt->excludeOpNames)
		refuse(verdict, "Exclusion constraints are not supported on distributed tables.", NULL);
}

static void
judge_rename(PsVerdict *verdict, RenameStmt *stmt)
{
	switch (stmt->renameType)
	{
		case OBJECT_COLUMN:
		case OBJECT_TABLE:
			verdict->changes_shape = true;	/* names of columns travel */
			verdict->changes_key = true;
			/* FALLTHROUGH */
		case OBJECT_INDEX:
		case OBJECT_TABCONSTRAINT:
		case OBJECT_POLICY:
			touch(verdict, stmt->relation);
			break;
		case OBJECT_TRIGGER:
			if (touch(verdict, stmt->relation))
				judge_trigger_name(verdict, stmt->subname);
			break;
		case OBJECT_SEQUENCE:
			touch_sequence(verdict, stmt->relation);
			break;
		default:
			break;
	}
}

static void
judge_grant(PsVerdict *verdict, GrantStmt *stmt)
{
	ListCell   *cell;
	bool		has_other = false;

	verdict->is_shared = true;
	if (stmt->targtype != ACL_TARGET_OBJECT ||
		(stmt->objtype != OBJECT_TABLE && stmt->objtype != OBJECT_SEQUENCE))
		return;
	foreach(cell, stmt->objects)
	{
		RangeVar   *var = lfirst(cell);

		has_other |= !touch(verdict, var) && !touch_sequence(verdict, var);
	}
	if (verdict->tables && has_other)
		refuse(verdict, "It names distributed tables together with what is on this node only.",
			   "Use a statement for each.");
}

static void
judge_comment(PsVerdict *verdict, CommentStmt *stmt)
{
	List	   *names;

	switch (stmt->objtype)
	{
		case OBJECT_TABLE:
		case OBJECT_INDEX:
			touch_names(verdict, castNode(List, stmt->object));
			break;
		case OBJECT_COLUMN:
		case OBJECT_TABCONSTRAINT:
		case OBJECT_TRIGGER:
		case OBJECT_POLICY:
			names = castNode(List, stmt->object);
			if (list_length(names) > 1)
				touch_names(verdict, list_truncate(list_copy(names), list_length(names) - 1));
			break;
		default:
			break;
	}
}

static void
judge_create(PsVerdict *verdict, CreateStmt *stmt)
{
	ListCell   *cell;

	foreach(cell, stmt->inhRelations)
		if (touch(verdict, lfirst(cell)))
			refuse(verdict, "Partitions of a distributed table are its shards: none can be added.", NULL);
}

static void
judge_statistics(PsVerdict *verdict, CreateStatsStmt *stmt)
{
	if (list_length(stmt->relations) == 1 && IsA(linitial(stmt->relations), RangeVar))
		touch(verdict, linitial(stmt->relations));
}

/* Is this node the primary of all shards? */
static bool
is_alone(void)
{
	PsMapShard	state;

	for (int i = 0; i < ps_map_n_shards(); i++)
	{
		if (ps_map_shard(i, &state) && state.primary != ps_map_self())
			return false;
	}
	return true;
}

/* Readers' locks are harmless, and what pg_dump begins with. */
static void
judge_lock(PsVerdict *verdict, LockStmt *stmt)
{
	ListCell   *cell;

	if (stmt->mode <= AccessShareLock || is_alone())
		return;
	foreach(cell, stmt->relations)
	{
		if (touch(verdict, lfirst(cell)))
			refuse(verdict, "It would keep out the statements of this node only.",
				   "Lock rows with SELECT .. FOR UPDATE.");
	}
}

void
ps_verdict(Node *stmt, PsVerdict *verdict)
{
	memset(verdict, 0, sizeof(PsVerdict));
	switch (nodeTag(stmt))
	{
		case T_AlterTableStmt:
			judge_alter(verdict, (AlterTableStmt *) stmt);
			break;
		case T_DropStmt:
			judge_drop(verdict, (DropStmt *) stmt);
			break;
		case T_IndexStmt:
			judge_index(verdict, (IndexStmt *) stmt);
			break;
		case T_RenameStmt:
			judge_rename(verdict, (RenameStmt *) stmt);
			break;
		case T_GrantStmt:
			judge_grant(verdict, (GrantStmt *) stmt);
			break;
		case T_CommentStmt:
			judge_comment(verdict, (CommentStmt *) stmt);
			break;
		case T_CreateStmt:
			judge_create(verdict, (CreateStmt *) stmt);
			break;
		case T_CreateStatsStmt:
			judge_statistics(verdict, (CreateStatsStmt *) stmt);
			break;
		case T_CreateTrigStmt:
			if (touch(verdict, ((CreateTrigStmt *) stmt)->relation))
				judge_trigger_name(verdict, ((CreateTrigStmt *) stmt)->trigname);
			break;
		case T_CreatePolicyStmt:
			touch(verdict, ((CreatePolicyStmt *) stmt)->table);
			break;
		case T_AlterPolicyStmt:
			touch(verdict, ((AlterPolicyStmt *) stmt)->table);
			break;
		case T_AlterObjectSchemaStmt:
			touch(verdict, ((AlterObjectSchemaStmt *) stmt)->relation);
			break;
		case T_RuleStmt:
			if (touch(verdict, ((RuleStmt *) stmt)->relation))
				refuse(verdict, "Rules are not supported on distributed tables.", "Use a trigger.");
			break;
		case T_AlterSeqStmt:
			if (touch_sequence(verdict, ((AlterSeqStmt *) stmt)->sequence))
				refuse(verdict, "The sequence numbers a distributed table: each node gives out numbers of its own.", NULL);
			break;
		case T_LockStmt:
			judge_lock(verdict, (LockStmt *) stmt);
			break;
		case T_ClusterStmt:
			if (touch(verdict, ((ClusterStmt *) stmt)->relation))
				refuse(verdict, "CLUSTER is not supported on distributed tables.", NULL);
			break;
		default:
			break;
	}
}
