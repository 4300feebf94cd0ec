/* config_check: what no single key can be wrong about: combinations, each with the fix in its message. */
#pragma once

#include "train/config.h"

/* Receives one mistake: the key at fault and what is wrong, "found 3, expected a divisor of 32". */
typedef void ConfigReport(void *user, const char *key, const char *what);

/* complete: the config must describe a whole run: steps or epochs, and where the data is. */
void config_check(const Config *config, bool complete, ConfigReport *report, void *user);
