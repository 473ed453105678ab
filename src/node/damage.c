/*
 * damage.c
 *		What happens to bytes from another node that are not whole?
 *
 * Nothing of them is used, and the connection they came by is closed: what
 * else it brought, or will bring, is no better.  Who sent them connects again.
 */
#include "postgres.h"

#include "node/damage.h"

void
ps_damaged(const char *what, const char *wrong)
{
	ereport(FATAL,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("%s is damaged", what),
			 errdetail("It was refused: %s.", wrong),
			 errhint("The sender connects again. If it happens again, check network and memory of both machines, and that both run the same version.")));
	pg_unreachable();
}
