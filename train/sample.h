/* sample: text made by the model while it trains, one file an occasion. */
#pragma once

#include "train/run.h"

/* Tokens of the longest prefix that sample_write computes: what memory is planned for. 0: this task has no samples. */
int64_t sample_max_length(const Config *config);
/* Greedy-free sample of the present weights into samples/; does nothing for data without text. */
void sample_write(Run *run);

/* Grows a text by tokens as they come; holds nothing back. */
typedef struct SampleText {
  const Tokenizer *tokenizer;
  char *text;
  size_t bytes, capacity;
} SampleText;
void sample_text_add(SampleText *sample, int32_t token);
