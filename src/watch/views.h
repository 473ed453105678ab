/*
 * views.h
 *		Set-returning functions under the views on the map: payshard.nodes,
 *		shards, placements.  Columns and their meaning: the views' comments.
 */
#ifndef PS_WATCH_VIEWS_H
#define PS_WATCH_VIEWS_H

#include "compat.h"

PS_DECLARE(payshard_show_nodes);
PS_DECLARE(payshard_show_leases);
PS_DECLARE(payshard_show_shards);
PS_DECLARE(payshard_show_placements);

#endif
