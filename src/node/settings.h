/*
 * settings.h
 *		Every payshard.* setting; defined, with unit and range, in settings.c.
 */
#ifndef PS_NODE_SETTINGS_H
#define PS_NODE_SETTINGS_H

#include "postgres.h"

extern char *ps_database;			/* the node's database */
extern int	ps_queue_size_kb;		/* bytes waiting for peers, all together */
extern int	ps_batch_size_kb;		/* a batch is closed above this */
extern int	ps_pipeline_depth;		/* batches in flight per peer */
extern int	ps_peer_timeout_ms;		/* silence after which a peer is left out */
extern int	ps_call_timeout_ms;		/* one call to a peer, connect included */
extern int	ps_gate_timeout_ms;		/* wait for a closed gate or a full queue */
extern int	ps_switchover_timeout_ms;	/* all tries together */
extern int	ps_switchover_pause_ms; /* one try */
extern int	ps_commit_timeout_ms;	/* wait for the in-sync members, then abort */
extern int	ps_abort_timeout_ms;	/* W7: wait for ABORT entries to be journaled */
extern int	ps_shutdown_timeout_ms; /* W7: outcome awaited after terminate */
extern int	ps_keepalive_ms;		/* idle time after which a peer hears from us */
extern int	ps_apply_delay_ms;	/* decided entries gather for that long */
extern int	ps_min_in_sync;			/* durable copies a commit needs at least */
extern int	ps_dirty_keys_max;		/* per absent node; more = all */
extern int	ps_copy_batch_kb;		/* rows per message while a placement joins */
extern int	ps_copy_rate_kb;		/* most that is sent in a second for a move; 0 = no limit */
extern int	ps_move_shards;			/* copied to one node at once by a move */
extern int	ps_replace_after_s;		/* a lost node's shards get another place then */
extern int	ps_plans_kept;			/* by a session: statements x shards */
extern bool ps_auto_failover;	/* takes part in automatic failover */
extern int	ps_suspect_timeout_ms;	/* silence after which a node is suspected */
extern int	ps_fall_memory_s;		/* a fall is forgotten after that without another */
extern int	ps_failover_wait_ms;	/* a statement waits for a failover */
extern int	ps_lease_timeout_ms;	/* a voter's promise to a primary (Q1); 0 = no leases */
extern bool ps_log_remote;			/* log statements sent to other nodes */

/* Defines them all; called once, from _PG_init. */
extern void ps_settings_define(void);

#endif
