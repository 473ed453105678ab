/*
 * local.h
 *		Has this transaction changed anything at this node that must commit
 *		together with what it writes elsewhere?
 */
#ifndef PS_LINK_LOCAL_H
#define PS_LINK_LOCAL_H

#include "postgres.h"
#include "access/xact.h"

/* A statement that changes or locks rows here, or a command, begins. */
extern void ps_local_note(void);

/*
 * ps_local_has_written
 *		Does the transaction stand here for more than its reading?  A
 *		transaction id alone does not say so: nextval() and txid_current()
 *		take one, too, and lose nothing when the transaction ends otherwise.
 */
extern bool ps_local_has_written(void);

/* The conductor's calls, by way of session.c. */
extern void ps_local_subxact(SubXactEvent event);
extern void ps_local_at_end(void);

#endif
