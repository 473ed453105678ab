/* switchover.c: stand-in until the real one is merged */
#include "postgres.h"
#include "keep/switchover.h"
void
ps_switch_shards(const bool *shards, uint32 to)
{
	ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("switchover is not there yet")));
}
