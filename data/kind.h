/* kind: what data.c knows of a kind of dataset. Most of what is asked about a dataset is fixed when it is opened and
 * lies in the struct as plain facts; only the lengths of training steps and the samples themselves are functions.
 *
 * A kind's own struct starts with a Dataset. */
#pragma once

#include "data/data.h"

typedef struct DatasetKind {
  /* Sets *dataset, its facts included, only on success. The caller fills in `kind` and `seed`. */
  Status (*open)(const DataConfig *config, const char *vocabulary, Dataset **dataset);
  void (*close)(Dataset *dataset); /* what the kind allocated, the struct included */
  int64_t (*train_length)(const Dataset *dataset, int64_t step);
  /* One sample into a batch of one; index is within the part, sample->length is one that the kind can make. */
  void (*sample)(const Dataset *dataset, DataPart part, int64_t index, const Batch *sample);
} DatasetKind;

struct Dataset {
  const DatasetKind *kind;
  uint64_t seed;
  int vocab_size;
  int64_t max_pieces[3]; /* 0: sequences are one piece */
  int64_t n_rows[3];     /* 0: samples stand alone */
  int64_t max_run[3];
  int64_t n_samples[3], max_length[3]; /* by DataPart; every validation sample has the longest length */
  double bytes_per_token[3];
  const char *tokenizer_json; /* owned by the kind */
  const SeriesInfo *series;   /* owned by the kind; NULL of the others */
  bool scores_last;
  double chance;
};

extern const DatasetKind dataset_text, dataset_synthetic, dataset_series_kind, dataset_shards;
