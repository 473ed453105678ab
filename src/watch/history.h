/*
 * history.h
 *		What has happened, by the maps that were chosen (S3).
 *
 *	payshard.map_changes(before bytea, after bytea)
 *		-> setof (kind, node, shards, detail): the difference of two maps;
 *		before null: everything in the first map is new
 *	payshard.map_incidents()
 *		-> one row per failure or restart of a node, from all of
 *		payshard.map_history (see the view payshard.incidents)
 */
#ifndef PS_WATCH_HISTORY_H
#define PS_WATCH_HISTORY_H

#include "compat.h"

PS_DECLARE(payshard_map_changes);
PS_DECLARE(payshard_map_incidents);

#endif
