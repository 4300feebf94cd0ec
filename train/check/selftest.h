/* selftest: whether a GPU computes with this build what the processor computes, asked at its first use and remembered.
 *
 * Small models that together run every row of kernels.def make a step on both, float32 and BF16: loss, each parameter's
 * gradient, the gradients' norm, the update from equal gradients, and (language models) logits of a prompt and of tokens
 * behind it. What passed is a line in $XDG_CACHE_HOME/aspis/selftest (~/.cache where that is not set): the GPU, its driver,
 * the plug-in's bytes and date, and the commit; another of any is asked again. */
#pragma once

#include "tensor/device.h"

/* CODE_OK for the processor and for a GPU that passed now or before. ASPIS_SELFTEST=never leaves it out, =always asks anew,
 * =once asks the host's twin of a GPU, too, which else is not. CODE_CHECK_FAILED: one line with what is off and by how much.
 * Fails as device_open does, too. */
Status selftest_once(const char *device);
