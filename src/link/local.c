/*
 * local.c
 *		Has this transaction changed anything at this node that must commit
 *		together with what it writes elsewhere?
 *
 * Whoever runs a statement that changes or locks rows of this node's tables, or
 * a command, says so (route.c, copy.c, capture.c); temporary tables do not
 * count, they end with the session.  Remembered is the nesting level at which it
 * happened first: when that subtransaction is rolled back it has not happened.
 */
#include "postgres.h"

#include "link/local.h"

static int	level_written = 0;	/* 0 = nothing was */

void
ps_local_note(void)
{
	if (level_written == 0)
		level_written = GetCurrentTransactionNestLevel();
}

bool
ps_local_has_written(void)
{
	return level_written > 0 && TransactionIdIsValid(GetTopTransactionIdIfAny());
}

void
ps_local_subxact(SubXactEvent event)
{
	int			level = GetCurrentTransactionNestLevel();

	if (level_written < level)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		level_written = 0;
	else if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
		level_written = level - 1;
}

void
ps_local_at_end(void)
{
	level_written = 0;
}
