/*
 * settings.c
 *		Which payshard.* settings are there, with unit, range and default?
 *
 * POSTMASTER for what sizes shared memory, SIGHUP for timeouts, SUSET for what
 * weakens a guarantee.
 */
#include "postgres.h"

#include <limits.h>

#include "node/settings.h"
#include "utils/guc.h"

char	   *ps_database;
int			ps_queue_size_kb;
int			ps_batch_size_kb;
int			ps_pipeline_depth;
int			ps_peer_timeout_ms;
int			ps_call_timeout_ms;
int			ps_gate_timeout_ms;
int			ps_switchover_timeout_ms;
int			ps_switchover_pause_ms;
int			ps_commit_timeout_ms;
int			ps_abort_timeout_ms;
int			ps_shutdown_timeout_ms;
int			ps_keepalive_ms;
int			ps_apply_delay_ms;
int			ps_min_in_sync;
int			ps_dirty_keys_max;
int			ps_copy_batch_kb;
int			ps_copy_rate_kb;
int			ps_move_shards;
int			ps_replace_after_s;
int			ps_plans_kept;
bool		ps_auto_failover;
int			ps_suspect_timeout_ms;
int			ps_fall_memory_s;
int			ps_failover_wait_ms;
int			ps_lease_timeout_ms;
bool		ps_log_remote;

typedef struct IntSetting
{
	const char *name;
	const char *what;
	int		   *value;
	int			initial;
	int			low;
	int			high;
	GucContext	context;
	int			flags;
} IntSetting;

static const IntSetting int_settings[] = {
	{"payshard.queue_size", "Memory for journal entries on their way to other nodes.",
	&ps_queue_size_kb, 64 * 1024, 1024, 1024 * 1024, PGC_POSTMASTER, GUC_UNIT_KB},
	{"payshard.batch_size", "A batch of journal entries is sent when it has this size, or when nothing waits.",
	&ps_batch_size_kb, 256, 1, 16 * 1024, PGC_SIGHUP, GUC_UNIT_KB},
	{"payshard.pipeline_depth", "Batches of journal entries in flight to one node; more than one helps where the way there is long.",
	&ps_pipeline_depth, 1, 1, 64, PGC_SIGHUP, 0},
	{"payshard.peer_timeout", "Silence after which a secondary is taken out of the in-sync sets.",
	&ps_peer_timeout_ms, 3000, 100, 600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"payshard.call_timeout", "Longest wait for one call to another node, connecting included.",
	&ps_call_timeout_ms, 5000, 100, 600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"payshard.lease_timeout", "Time for which this node promises a primary that it lets nobody take its place; 0: it promises nothing, serves without a lease and is not failed over by itself.",
	&ps_lease_timeout_ms, 2000, 0, 600000, PGC_POSTMASTER, GUC_UNIT_MS},
	{"payshard.suspect_timeout", "Silence after which a node is suspected to be gone; a majority that does fails it over.",
	&ps_suspect_timeout_ms, 2500, 100, 600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"payshard.fall_memory", "Time without a fall after which one is forgotten; who falls three times or more is given pauses, longer each time.",
	&ps_fall_memory_s, 30, 1, 86400, PGC_SIGHUP, GUC_UNIT_S},
	{"payshard.failover_wait", "Longest wait of a statement for the failover or recovery of a node that it needs; 0: it fails at once.",
	&ps_failover_wait_ms, 10000, 0, 600000, PGC_USERSET, GUC_UNIT_MS},
	{"payshard.plans_kept", "Plans that a session keeps, one for each prepared statement and shard; 0: statements whose key is a parameter are planned at each execution.",
	&ps_plans_kept, 1024, 0, 1000000, PGC_USERSET, 0},
	{"payshard.gate_timeout", "Longest wait of a commit before it is enqueued: for a closed gate, a full queue or a missing copy.",
	&ps_gate_timeout_ms, 30000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"payshard.switchover_timeout", "Longest time for which a switchover is tried: then a transaction that does not end, or a node that does not follow, is in the way.",
	&ps_switchover_timeout_ms, 30000, 100, 3600000, PGC_USERSET, GUC_UNIT_MS},
	{"payshard.switchover_pause", "Longest time for which one try of a switchover makes writes wait before it gives way to them.",
	&ps_switchover_pause_ms, 1000, 10, 600000, PGC_USERSET, GUC_UNIT_MS},
	{"payshard.commit_timeout", "Longest wait of a commit for the other copies; then it is aborted everywhere.",
	&ps_commit_timeout_ms, 30000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"payshard.abort_timeout", "Longest wait for an abort to be confirmed by the other nodes; then the outcome is unknown.",
	&ps_abort_timeout_ms, 15000, 100, 3600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"payshard.shutdown_timeout", "Longest wait for the outcome of a commit after the session was told to end.",
	&ps_shutdown_timeout_ms, 10000, 100, 600000, PGC_SIGHUP, GUC_UNIT_MS},
	{"payshard.keepalive", "Idle time after which another node hears from this one.",
	&ps_keepalive_ms, 200, 10, 60000, PGC_SIGHUP, GUC_UNIT_MS},
	{"payshard.apply_delay", "Time for which decided journal entries gather before they are applied together.",
	&ps_apply_delay_ms, 20, 0, 1000, PGC_SIGHUP, GUC_UNIT_MS},
	{"payshard.min_in_sync", "Durable copies a commit needs at least; with fewer in sync, writes are refused.",
	&ps_min_in_sync, 1, 1, 8, PGC_SIGHUP, 0},
	{"payshard.dirty_keys_max", "Keys remembered for a placement that is out; with more it gets a full copy.",
	&ps_dirty_keys_max, 1000000, 0, INT_MAX, PGC_SIGHUP, 0},
	{"payshard.copy_batch_size", "Rows sent in one message to a placement that joins.",
	&ps_copy_batch_kb, 1024, 16, 64 * 1024, PGC_SIGHUP, GUC_UNIT_KB},
	{"payshard.copy_rate", "Most that this primary sends in a second to a placement that arrives by a move; 0: as fast as it goes.",
	&ps_copy_rate_kb, 0, 0, 1024 * 1024, PGC_SIGHUP, GUC_UNIT_KB},
	{"payshard.move_shards", "Shards that a primary copies to one node at once when they are moved.",
	&ps_move_shards, 4, 1, 1024, PGC_SIGHUP, 0},
	{"payshard.replace_after", "Time after which a lost node's shards get another place, where nodes and zones allow; -1: never.",
	&ps_replace_after_s, 900, -1, 30 * 86400, PGC_SIGHUP, GUC_UNIT_S},
};

void
ps_settings_define(void)
{
	DefineCustomStringVariable("payshard.database",
							   "The database that is this server's payshard node.",
							   NULL, &ps_database, "postgres",
							   PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("payshard.log_remote_commands",
							 "Logs each statement sent to another node.",
							 NULL, &ps_log_remote, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("payshard.auto_failover",
							 "Fails a primary over when a majority suspects it to be gone, where that loses nothing; needs three voters and leases.",
							 NULL, &ps_auto_failover, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	for (int i = 0; i < lengthof(int_settings); i++)
	{
		const IntSetting *s = &int_settings[i];

		DefineCustomIntVariable(s->name, s->what, NULL, s->value, s->initial,
								s->low, s->high, s->context, s->flags,
								NULL, NULL, NULL);
	}
	MarkGUCPrefixReserved("payshard");
}
