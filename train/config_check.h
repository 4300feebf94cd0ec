/* config_check: what no single key can be wrong about: combinations, each with the fix in its message. */
#pragma once

#include "train/config.h"

/* Receives one mistake: the key at fault and what is wrong, "found 3, expected a divisor of 32". */
typedef void ConfigReport(void *user, const char *key, const char *what);

void config_check(const Config *config, ConfigReport *report, void *user);
