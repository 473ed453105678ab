/*
 * fault.h
 *		Named points at which a test makes something go wrong.
 *
 * Empty unless built with PAYSHARD_FAULTS=1.  Points are armed for the whole
 * server by the test-only extension payshard_fault:
 *
 *	error		ereport(ERROR)
 *	full		ereport(ERROR), as of a full disk, at each passage until it is disarmed
 *	panic		ereport(PANIC): the server crashes and restarts
 *	pause		waits until the point is disarmed
 *	disconnect	ereport(FATAL): this process, and so its connection, ends
 *
 * PS_RULE("F3") is true; a negative control arms "F3" with the action "off" and
 * makes it false: that rule of doc/protocol.md is then not kept.  "F4.last" is
 * one clause of F4.
 *
 * PS_FAULT_AT(point, node) and PS_RULE_AT(rule, node) are about one other node,
 * too: they heed "point" and "point.node".
 */
#ifndef PS_NODE_FAULT_H
#define PS_NODE_FAULT_H

#ifdef PAYSHARD_FAULTS
#define PS_FAULT(point) ps_fault_hit(point)
#define PS_FAULT_AT(point, node) ps_fault_hit_at(point, node)
#define PS_RULE(name) ps_fault_rule(name)
#define PS_RULE_AT(name, node) ps_fault_rule_at(name, node)
extern void ps_fault_hit(const char *point);
extern void ps_fault_hit_at(const char *point, const char *node);
extern bool ps_fault_rule(const char *rule);
extern bool ps_fault_rule_at(const char *rule, const char *node);
extern void ps_fault_install(void);
#else
#define PS_FAULT(point) ((void) 0)
#define PS_FAULT_AT(point, node) ((void) 0)
#define PS_RULE(name) (true)
#define PS_RULE_AT(name, node) (true)
#define ps_fault_install() ((void) 0)
#endif

#endif
