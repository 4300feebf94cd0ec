/* config_hf: the config.json of Hugging Face's Mamba2ForCausalLM. */
#pragma once

#include <jansson.h>

#include "models/aspis.h"

/* root has "model_type". Keys that do not touch the arithmetic are passed over; what ours cannot be is refused, unless
 * model_config_problem does. */
Status config_hf_read(const json_t *root, const char *where, ModelConfig *config);
