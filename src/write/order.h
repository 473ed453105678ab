/*
 * order.h
 *		The place of an operation in the write-set (W1).
 */
#ifndef PS_WRITE_ORDER_H
#define PS_WRITE_ORDER_H

#include "postgres.h"
#include "commands/trigger.h"
#include "write/capture.h"
#include "write/row.h"

/*
 * ps_order_row
 *		What stands in the write-set's last chunk from offset `begin` on is the operation
 *		of this event: puts it in front of those that followed on it.
 */
extern void ps_order_row(PsWriteSet *set, int begin, const PsRowFormat *format,
						 const TriggerData *data);

/* The same for what was done to all of a table: it is the last one. */
extern void ps_order_table(PsWriteSet *set, int begin);

/* For savepoints: what is known, and back to that. */
extern int	ps_order_mark(void);
extern void ps_order_cut_back(int mark);
extern void ps_order_at_end(void);

#endif
