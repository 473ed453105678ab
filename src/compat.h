/*
 * compat.h
 *		The one place that asks which PostgreSQL this is (15 to 18).
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
