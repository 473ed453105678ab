/*
 * event.h
 *		The log of what this node has noticed and what is no change of the map:
 *		payshard.event_log, append-only, durable with the transaction.
 *
 * kind			node			since						detail
 * peer_lost	who is silent	its last answer				-, with the shards it is primary of
 * peer_heard	who is back		its last answer before		-
 * not_failed_over	who is suspected	-				why it keeps its shards
 * divergence	whose copy		-							what was found
 * drill_started	who is to die	-						how
 * drill_ended	the same		-							what was measured
 * stranger		this node		-							why
 * payments_stopped	this node	begin						why (outage.h), with the shards
 * payments_resumed	this node	begin, and until when		the same
 */
#ifndef PS_NODE_EVENT_H
#define PS_NODE_EVENT_H

#include "postgres.h"
#include "utils/timestamp.h"

/*
 * ps_event_write
 *		Appends one event in the current transaction.  since 0 and detail NULL
 *		= null.  Needs a transaction; nothing is written outside a cluster.
 */
extern void ps_event_write(const char *kind, uint32 node, TimestampTz since, const char *detail);

/* The same with an end (0 = null) and the shards it is about (n = 0: null). */
extern void ps_event_write_span(const char *kind, uint32 node, TimestampTz since, TimestampTz until,
								const int *shards, int n, const char *detail);

#endif
