/* replicas: every rank has the same weights, always; a rank whose memory or processor erred has not, and is found here. */
#pragma once

#include "nn/params.h"
#include "train/dist/dist.h"

/* Collective: compares a hash of all values. CODE_PEER on every rank when they differ, naming those that differ from the
 * most. step, good_step: of now, and of the last comparison that went well, for the message. */
Status replicas_compare(Dist *dist, ParamTable *params, int64_t step, int64_t good_step);
