/*
 * capture.h
 *		The write-set of the current transaction: what its row triggers saw (W1).
 */
#ifndef PS_WRITE_CAPTURE_H
#define PS_WRITE_CAPTURE_H

#include "compat.h"
#include "access/xact.h"
#include "lib/stringinfo.h"
#include "write/queue.h"

PS_DECLARE(payshard_capture);
PS_DECLARE(payshard_capture_truncate);
PS_DECLARE(payshard_peer_capture_off);

/*
 * Rows written while this is true are not captured: they are themselves what
 * another node, or create_distributed_table, has placed.  Reset at the end of
 * the transaction.
 */
extern bool ps_capture_off;

typedef struct PsWriteSet
{
	uint64		incarnation;	/* of the first write; 0 = nothing is written */
	PsTouched  *touched;
	int			n_touched;
	int			touched_size;
	StringInfo *chunks;			/* operations, each chunk at operation boundaries */
	int			n_chunks;
	int			chunks_size;
} PsWriteSet;

/* The current transaction's; never NULL. */
extern const PsWriteSet *ps_write_set(void);

/* The conductor's calls. */
extern void ps_capture_subxact(SubXactEvent event);
extern void ps_capture_at_end(void);

#endif
