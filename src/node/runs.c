/*
 * runs.c
 *		Which transaction ids did a crash lose, so that others have them now?
 *
 * The id of a transaction of which a crash left nothing in the WAL is given out
 * again by the next run of the server.  Whoever then asks the commit log about
 * it is told of a stranger (F1).  So for each run the first id that it gave
 * out is kept, in payshard.run_end; ids from there on say nothing of entries
 * of the runs before.
 *
 * The keeper writes that row.  Before it gets there the server takes other
 * transactions, and may crash again: a run of which no row tells.  So the
 * postmaster counts runs in a file of its own, before recovery begins, and notes
 * for a run that was not told of what pg_control still says of its first id:
 *
 *	run 1: first id 90; the keeper notes it; an entry of id 100 is sent, crash
 *	run 2: first id 100; a stranger commits as 100; crash before the keeper notes
 *	run 3: first id 101.  Without the file: 100 < 101, "100 has committed"
 *
 * Where pg_control does not say it any more (a checkpoint since): 0, which trusts no
 * id.  Entries are then rolled forward again, in order, onto what is there.
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/rmgr.h"
#include "access/xact.h"
#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "catalog/pg_type.h"
#include "common/controldata_utils.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "node/runs.h"
#include "node/shared.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "utils/snapmgr.h"

#define PS_RUNS_FILE "payshard_runs"
#define PS_RUNS_MAGIC 0x70737232	/* "psr2" */

/* The file: 32 bytes in the server's own byte order. */
typedef struct Runs
{
	uint32		magic;
	uint32		n_untold;		/* runs that began since the keeper's last note */
	uint64		first_xid;		/* lowest first id of these but the newest */
	uint64		checkpoint;		/* the newest one when the newest run began */
	uint32		state;			/* DBState, when the newest run began */
	pg_crc32c	crc;			/* of the bytes before */
} Runs;

static pg_crc32c
crc_of(const Runs *runs)
{
	pg_crc32c	crc;

	INIT_CRC32C(crc);
	COMP_CRC32C(crc, runs, offsetof(Runs, crc));
	FIN_CRC32C(crc);
	return crc;
}

/* A file that is not there, or damaged, says that nothing is known: 0. */
static Runs
read_file(void)
{
	Runs		runs = {0};
	int			fd = OpenTransientFile(PS_RUNS_FILE, O_RDONLY | PG_BINARY);
	bool		is_whole = false;

	if (fd >= 0)
	{
		is_whole = read(fd, &runs, sizeof(runs)) == sizeof(runs) &&
			runs.magic == PS_RUNS_MAGIC && runs.crc == crc_of(&runs);
		CloseTransientFile(fd);
	}
	if (!is_whole)
		memset(&runs, 0, sizeof(runs));
	return runs;
}

static void
write_file(uint32 n_untold, uint64 first_xid, uint64 checkpoint, uint32 state)
{
	Runs		runs = {PS_RUNS_MAGIC, n_untold, first_xid, checkpoint, state, 0};
	int			fd = OpenTransientFile(PS_RUNS_FILE ".new", O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);

	runs.crc = crc_of(&runs);
	if (fd < 0 || write(fd, &runs, sizeof(runs)) != sizeof(runs) || pg_fsync(fd) != 0 ||
		CloseTransientFile(fd) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not write file \"%s\": %m", PS_RUNS_FILE ".new"),
				 errhint("payshard keeps there which transaction ids a crash may have lost.")));
	(void) durable_rename(PS_RUNS_FILE ".new", PS_RUNS_FILE, ERROR);
}

/*
 * Is the newest checkpoint one that ended a recovery or a run?  Its record in the
 * WAL says so; in pg_control an idle server's online checkpoint looks alike.
 */
static bool
is_at_start(const ControlFileData *control)
{
	XLogRecPtr	at = control->checkPoint;
	int			segment_size = control->xlog_seg_size;
	XLogSegNo	segment;
	XLogRecord	record;
	char		path[MAXPGPATH];
	int			fd;
	bool		is_read;

	XLByteToSeg(at, segment, segment_size);
	XLogFilePath(path, control->checkPointCopy.ThisTimeLineID, segment, segment_size);
	/* a header on two pages is left alone: not known */
	if (at % control->xlog_blcksz + SizeOfXLogRecord > control->xlog_blcksz ||
		(fd = OpenTransientFile(path, O_RDONLY | PG_BINARY)) < 0)
		return false;
	is_read = pg_pread(fd, &record, SizeOfXLogRecord, XLogSegmentOffset(at, segment_size)) ==
		SizeOfXLogRecord;
	CloseTransientFile(fd);
	return is_read && record.xl_rmid == RM_XLOG_ID &&
		(record.xl_info & ~XLR_INFO_MASK) == XLOG_CHECKPOINT_SHUTDOWN;
}

/*
 * nextXid by the checkpoint with which a run began, when that is still the
 * newest one; otherwise 0.
 */
static uint64
xid_of_checkpoint(const ControlFileData *control)
{
	return is_at_start(control) ? U64FromFullTransactionId(control->checkPointCopy.nextXid) : 0;
}

/*
 * Has the newest run, of which no row tells, given out no id?  After a crash the
 * checkpoint at the end of recovery comes before the first one; otherwise nothing does
 * but the state.
 */
static bool
has_not_begun(const Runs *runs, const ControlFileData *control)
{
	bool		was_crash = runs->state == DB_IN_PRODUCTION ||
		runs->state == DB_IN_CRASH_RECOVERY || runs->state == DB_SHUTDOWNING;

	return control->checkPoint == runs->checkpoint && (was_crash || control->state == runs->state);
}

void
ps_runs_begin(void)
{
	Runs		runs = read_file();
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	uint64		first_xid = runs.first_xid;

	if (runs.n_untold > 0 && !(crc_ok && has_not_begun(&runs, control)))
		first_xid = !crc_ok || control->state != DB_IN_PRODUCTION ? 0 :
			Min(first_xid, xid_of_checkpoint(control));
	write_file(runs.n_untold + 1, first_xid, control->checkPoint, control->state);
	pfree(control);
}

/* The first id of this run, and of those before it of which no row tells. */
static uint64
first_xid(void)
{
	Runs		runs = read_file();
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);
	uint64		xid = crc_ok ? xid_of_checkpoint(control) : 0;

	pfree(control);
	return Min(xid, runs.first_xid);
}

void
ps_runs_note(uint64 incarnation)
{
	Oid			types[2] = {INT8OID, INT8OID};
	Datum		args[2];

	if (pg_atomic_read_u32(&ps_shared->run_noted) != 0)
		return;
	args[0] = Int64GetDatum(incarnation);
	args[1] = Int64GetDatum(first_xid());
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("INSERT INTO payshard.run_end AS r VALUES ($1, $2) ON CONFLICT (incarnation) "
						  "DO UPDATE SET next_xid = least(r.next_xid, excluded.next_xid)",
						  2, types, args, NULL, false, 0);
	PopActiveSnapshot();
	SPI_finish();
	ForceSyncCommit();
	CommitTransactionCommand();
	write_file(0, PG_UINT64_MAX, 0, 0);
	pg_atomic_write_u32(&ps_shared->run_noted, 1);
	StartTransactionCommand();
}

uint64
ps_runs_end(uint64 incarnation)
{
	Oid			type = INT8OID;
	Datum		arg = Int64GetDatum(incarnation);
	uint64		xid = PG_UINT64_MAX;
	bool		isnull;
	Datum		value;

	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_execute_with_args("SELECT min(next_xid) FROM payshard.run_end WHERE incarnation >= $1",
						  1, &type, &arg, NULL, true, 1);
	value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	if (!isnull)
		xid = DatumGetInt64(value);
	PopActiveSnapshot();
	SPI_finish();
	return xid;
}
