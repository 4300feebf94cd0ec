/* sample: text made by the model while it trains, one file an occasion. */
#pragma once

#include "train/run.h"

/* Tokens of the longest prefix that sample_write computes: what memory is planned for. 0: this task has no samples. */
int64_t sample_max_length(const Config *config);
/* A drawn sample of the present weights into samples/; does nothing for data without text. */
void sample_write(Run *run);
