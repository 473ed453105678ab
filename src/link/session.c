/* session.c stub, replaced by route */
#include "postgres.h"
#include "link/session.h"
PGconn *ps_session(uint32 node, bool may_write) { return NULL; }
uint32 ps_session_writes_at(void) { return 0; }
void ps_session_pre_commit(void) {}
void ps_session_at_end(bool is_commit) {}
void ps_session_subxact(SubXactEvent event, SubTransactionId id) {}
