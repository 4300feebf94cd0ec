/* config_check: what no single key can be wrong about: combinations, each with the fix in its message. */
#pragma once

#include "train/config/config.h"

/* Receives one mistake: the key at fault and what is wrong, "found 3, expected a divisor of 32". */
typedef void ConfigReport(void *user, const char *key, const char *what);

/* Fills in what the weights of model.init_from decide, which is set: every key of the model but those of how it is trained. stated:
 * of each key, whether the config says it; one that contradicts is reported. Weights that cannot be read are, too, unless nothing
 * is left for them to decide. */
void config_take_weights(Config *config, const bool *stated, ConfigReport *report, void *user);
void config_check(const Config *config, ConfigReport *report, void *user);
