#include "postgres.h"
#include "keep/duties.h"
bool ps_duty_leave(void) { return false; }
bool ps_duty_rejoin(void) { return false; }
bool ps_duty_recover(void) { return false; }
