#include "postgres.h"
#include "keep/duties.h"
bool ps_duty_rejoin(void) { return false; }
