// Memory that JSON lacked. jansson leaves out of a document what it cannot take memory for, and seldom says so: a command that prints
// one watches, and prints nothing where something was lost.
#pragma once
#include <stdbool.h>

// json_lost_watch begins to watch; what was lost before is forgotten.
void json_lost_watch(void);

// json_lost says whether something was lost since.
bool json_lost(void);
