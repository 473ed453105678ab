/*
 * compat.h
 *		The one place that asks which PostgreSQL this is (15 to 18).
 *
 * Compiled and tested with 15 only.  What is here for 16, 17 and 18 was written from
 * what their headers and other extensions say.
 */
#ifndef PS_COMPAT_H
#define PS_COMPAT_H

#include "postgres.h"
#include "fmgr.h"
#include "storage/proc.h"

#if PG_VERSION_NUM < 150000
#error "payshard needs PostgreSQL 15 or newer"
#endif

#define PG_VERSION_NUM_MAJOR (PG_VERSION_NUM / 10000)

#if PG_VERSION_NUM >= 170000
#define ps_my_procno() ((int) MyProcNumber)
#define ps_my_backend_id() ((int) MyProcNumber)
#else
#define ps_my_procno() (MyProc->pgprocno)
#define ps_my_backend_id() (MyBackendId)
#endif

#if PG_VERSION_NUM >= 160000
#define PS_PERMISSION_INFOS 1	/* rteperminfos instead of fields in the RTE */
#endif

/* All settings; *n of them. */
#if PG_VERSION_NUM >= 160000
#define ps_all_settings(n) get_guc_variables(n)
#else
#define ps_all_settings(n) (*(n) = GetNumConfigOptions(), get_guc_variables())
#endif

/* ExecutorRun and its hook. */
#if PG_VERSION_NUM >= 180000
#define ps_executor_run(desc) ExecutorRun(desc, ForwardScanDirection, 0)
#define PS_EXECUTOR_RUN_ARGUMENTS QueryDesc *desc, ScanDirection direction, uint64 count
#define PS_EXECUTOR_RUN_PASS desc, direction, count
#else
#define ps_executor_run(desc) ExecutorRun(desc, ForwardScanDirection, 0, true)
#define PS_EXECUTOR_RUN_ARGUMENTS \
	QueryDesc *desc, ScanDirection direction, uint64 count, bool execute_once
#define PS_EXECUTOR_RUN_PASS desc, direction, count, execute_once
#endif

/* Varlena macros, and EXPLAIN's functions, have headers of their own in later versions. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif
#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#endif

/* Is the role the owner of a table?  (utils/acl.h, catalog/pg_class.h) */
#if PG_VERSION_NUM >= 160000
#define ps_owns_table(relid, role) object_ownercheck(RelationRelationId, relid, role)
#else
#define ps_owns_table(relid, role) pg_class_ownercheck(relid, role)
#endif

/* For changes by the executor's own routines, which recheck nothing.  (executor/executor.h) */
#if PG_VERSION_NUM >= 160000
#define ps_no_recheck(epq, estate) EvalPlanQualInit(epq, estate, NULL, NIL, -1, NIL)
#else
#define ps_no_recheck(epq, estate) EvalPlanQualInit(epq, estate, NULL, NIL, -1)
#endif

/*
 * Events to wait for; until they are freed, or, where `owner` is not NULL, until
 * that resource owner goes.  (storage/latch.h)
 */
#if PG_VERSION_NUM >= 170000
#include "utils/resowner.h"
#define ps_wait_events(context, owner, n) CreateWaitEventSet(owner, n)
#else
#define ps_wait_events(context, owner, n) CreateWaitEventSet(context, n)
#endif

/* A primary key that is not deferrable; a scan of an index.  (utils/rel.h, access/genam.h) */
#if PG_VERSION_NUM >= 180000
#define ps_primary_key_index(rel) RelationGetPrimaryKeyIndex(rel, false)
#define ps_index_beginscan(rel, index, snapshot, n_keys) \
	index_beginscan(rel, index, snapshot, NULL, n_keys, 0)
#else
#define ps_primary_key_index(rel) RelationGetPrimaryKeyIndex(rel)
#define ps_index_beginscan(rel, index, snapshot, n_keys) \
	index_beginscan(rel, index, snapshot, n_keys, 0)
#endif

/* Opens a relation of the range table that the plan changes. */
#if PG_VERSION_NUM >= 180000
#define ps_range_table_relation(estate, rti) ExecGetRangeTableRelation(estate, rti, true)
#else
#define ps_range_table_relation(estate, rti) ExecGetRangeTableRelation(estate, rti)
#endif

/* Equal to default_version in payshard.control. */
#define PS_EXTENSION_VERSION "1.0"

/* Declares a function callable from SQL, in a header. */
#define PS_DECLARE(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS)

/*
 * Makes it one, in its file.  On 15 PG_FUNCTION_INFO_V1 does not export the
 * function itself when built with -fvisibility=hidden.
 */
#define PS_FUNCTION(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)

#endif
