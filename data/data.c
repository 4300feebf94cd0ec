/* data: the table of kinds, and the contract's checks in one place; see data.h. */
#include "data/data.h"

#include "data/kind.h"

static const DatasetKind *const KINDS[] = {[DATA_TEXT] = &dataset_text,
                                           [DATA_SYNTHETIC] = &dataset_synthetic,
                                           [DATA_SERIES] = &dataset_series_kind,
                                           [DATA_SHARDS] = &dataset_shards};

Status dataset_open(const DataConfig *config, uint64_t seed, const char *vocabulary, Dataset **dataset) {
  CHECK((size_t)config->kind < sizeof KINDS / sizeof *KINDS, "no kind of dataset %d", (int)config->kind);
  if (config->seq_len < 1)
    return status_fail(CODE_USAGE, "data.seq_len: found %d, expected at least 1", config->seq_len);
  TRY(KINDS[config->kind]->open(config, vocabulary, dataset));
  (*dataset)->kind = KINDS[config->kind];
  (*dataset)->seed = seed;
  return STATUS_OK;
}

void dataset_close(Dataset *dataset) {
  if (dataset) dataset->kind->close(dataset);
}

int dataset_vocab_size(const Dataset *dataset) { return dataset->vocab_size; }
const SeriesInfo *dataset_series(const Dataset *dataset) { return dataset->series; }
double dataset_bytes_per_token(const Dataset *dataset, DataPart part) { return dataset->bytes_per_token[part]; }
const char *dataset_tokenizer_json(const Dataset *dataset) { return dataset->tokenizer_json; }
int64_t dataset_n_samples(const Dataset *dataset, DataPart part) { return dataset->n_samples[part]; }
int64_t dataset_max_length(const Dataset *dataset, DataPart part) { return dataset->max_length[part]; }

int64_t dataset_max_pieces(const Dataset *dataset, DataPart part) { return dataset->max_pieces[part]; }

int64_t dataset_n_rows(const Dataset *dataset, DataPart part) { return dataset->n_rows[part]; }

int64_t dataset_max_run(const Dataset *dataset, DataPart part) { return dataset->max_run[part]; }

int64_t dataset_train_length(const Dataset *dataset, int64_t step) {
  CHECK(step >= 0, "step %lld", (long long)step);
  return dataset->kind->train_length(dataset, step);
}

static Batch batch_row(const SeriesInfo *info, const Batch *batch, int64_t s) {
  Batch row = {.n_seq = 1, .length = batch->length};
  if (info) {
    row.input = batch->input + s * batch->length * info->n_input;
    row.output = batch->output + s * info->horizon * info->n_output;
    row.row = batch->row ? batch->row + s : NULL;
  } else {
    row.token = batch->token + s * batch->length;
    row.target = batch->target + s * batch->length;
    row.begins = batch->begins ? batch->begins + s * batch->length : NULL;
    row.goes_on = batch->goes_on ? batch->goes_on + s : NULL;
  }
  return row;
}

void dataset_fill(Dataset *dataset, DataPart part, int64_t first, Batch *batch) {
  CHECK(first >= 0 && batch->n_seq >= 0, "%lld samples from %lld", (long long)batch->n_seq, (long long)first);
  CHECK(part == PART_TRAIN || first + batch->n_seq <= dataset->n_samples[part], "samples %lld to %lld of %lld",
        (long long)first, (long long)(first + batch->n_seq), (long long)dataset->n_samples[part]);
  batch->first = first;
  for (int64_t s = 0; s < batch->n_seq; s++) {
    if (batch->goes_on) batch->goes_on[s] = 0;
    const Batch sample = batch_row(dataset->series, batch, s);
    dataset->kind->sample(dataset, part, first + s, &sample);
  }
}

bool dataset_scores_last(const Dataset *dataset, double *chance) {
  *chance = dataset->chance;
  return dataset->scores_last;
}
