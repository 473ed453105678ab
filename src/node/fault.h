/*
 * fault.h
 *		Named points at which a test makes something go wrong.
 *
 * Empty unless built with PAYSHARD_FAULTS=1.  Points are armed for the whole
 * server by the test-only extension payshard_fault:
 *
 *	error		ereport(ERROR)
 *	panic		ereport(PANIC): the server crashes and restarts
 *	pause		waits until the point is disarmed
 *	disconnect	ereport(FATAL): this process, and so its connection, ends
 */
#ifndef PS_NODE_FAULT_H
#define PS_NODE_FAULT_H

#ifdef PAYSHARD_FAULTS
#define PS_FAULT(point) ps_fault_hit(point)
extern void ps_fault_hit(const char *point);
extern void ps_fault_install(void);
#else
#define PS_FAULT(point) ((void) 0)
#define ps_fault_install() ((void) 0)
#endif

#endif
