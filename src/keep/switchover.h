#ifndef PS_KEEP_SWITCHOVER_H
#define PS_KEEP_SWITCHOVER_H
#include "postgres.h"
extern void ps_switch_shards(const bool *shards, uint32 to);
#endif
