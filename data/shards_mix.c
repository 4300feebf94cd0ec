/* shards_mix: folders of shards, mixed by weight. Each is a row of tokens cut into samples as a text is (data/cut.h), by draws of
 * its own.
 *
 * Validation is the folders' samples end to end, in order. Training samples come in blocks of M, of which source s has m_s, its
 * share by the largest remainder, at places that are drawn once. Place p of a block belongs to source s_p, and r_p places before
 * it do:
 *   sample i = b M + p is sample k = b m_s + r_p of source s = s_p,
 * so a source's samples are taken in their order, none twice and none left out, and where a sample lies is a function of i
 * alone: the step is all there is to resume from. M is 4096 or, with data.tbptt, the rows of a batch: then a place is a row, which
 * stays with its folder, and its samples go on from step to step. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/cut.h"
#include "data/kind.h"
#include "data/shards.h"
#include "data/tokenizer.h"
#include "tensor/rng.h"

enum { BLOCK = 4096 };

typedef struct Source {
  Shards shards;
  Cut cut;
  int64_t in_block; /* m_s */
} Source;

typedef struct Place {
  int32_t source, rank; /* s_p and r_p */
} Place;

typedef struct Mix {
  Dataset base;
  Source *source;
  int n_sources;
  int64_t seq_len;
  int64_t n_places; /* M */
  Place *place;
} Mix;

/* A source's own draws: seed and number decide them. */
static uint64_t source_seed(const Mix *mix, int s) { return mix->base.seed + 0x9E3779B97F4A7C15u * (uint64_t)(s + 1); }

static void copy_tokens(const void *row, int64_t first, int64_t n, int32_t *to) { shards_copy(row, first, n, to); }

static void mix_sample(const Dataset *dataset, DataPart part, int64_t index, const Batch *sample) {
  const Mix *mix = (const Mix *)dataset;
  int s = 0;
  if (part == PART_TRAIN) {
    const Place place = mix->place[index % mix->n_places];
    s = place.source;
    index = index / mix->n_places * mix->source[s].in_block + place.rank;
  } else {
    for (; index >= mix->source[s].cut.part[part].n_samples; s++) index -= mix->source[s].cut.part[part].n_samples;
  }
  cut_sample(&mix->source[s].cut, source_seed(mix, s), part, index, sample);
}

static int64_t mix_train_length(const Dataset *dataset, int64_t step) {
  (void)step;
  return ((const Mix *)dataset)->seq_len;
}

static void mix_close(Dataset *dataset) {
  Mix *mix = (Mix *)dataset;
  for (int s = 0; s < mix->n_sources; s++) {
    cut_free(&mix->source[s].cut);
    shards_close(&mix->source[s].shards);
  }
  free(mix->source), free(mix->place);
  free(mix);
}

/* Which source has which place: runs of each, permuted. */
static void draw_places(Mix *mix) {
  const int64_t n = mix->n_places;
  int32_t *source_of = base_alloc((size_t)n * sizeof *source_of), n_before[DATA_MAX_SHARDS] = {0};
  int64_t at = 0;
  for (int s = 0; s < mix->n_sources; s++)
    for (int64_t i = 0; i < mix->source[s].in_block; i++) source_of[at++] = s;
  mix->place = base_alloc((size_t)n * sizeof *mix->place);
  for (int64_t p = 0; p < n; p++) {
    const int32_t s = source_of[rng_permute(0, RNG_SHUFFLE, 0, (uint64_t)n, (uint64_t)p)];
    mix->place[p] = (Place){s, n_before[s]++};
  }
  free(source_of);
}

/* By default, the windows of its training part. */
static double weight_of(const DataConfig *config, const Mix *mix, int s) {
  const int64_t n = llround(config->split_train * (double)mix->source[s].shards.n_tokens);
  return config->n_weights ? config->weights[s] : (double)max_i64(1, n / config->seq_len - 1);
}

/* Shares of a block: rounded down, then one more each for the largest remainders. */
static Status share(const DataConfig *config, Mix *mix) {
  double sum = 0, *weight = base_alloc((size_t)mix->n_sources * sizeof *weight);
  for (int s = 0; s < mix->n_sources; s++) sum += weight[s] = weight_of(config, mix, s);
  int64_t left = mix->n_places = config->tbptt_segment ? config->tbptt_rows : BLOCK;
  for (int s = 0; s < mix->n_sources; s++) {
    weight[s] *= (double)mix->n_places / sum;
    left -= mix->source[s].in_block = (int64_t)floor(weight[s]);
  }
  for (; left > 0; left--) {
    int most = 0;
    for (int s = 1; s < mix->n_sources; s++)
      if (weight[s] - (double)mix->source[s].in_block > weight[most] - (double)mix->source[most].in_block) most = s;
    mix->source[most].in_block++;
  }
  free(weight);
  for (int s = 0; s < mix->n_sources; s++)
    if (mix->source[s].in_block == 0)
      return status_fail(CODE_USAGE, "data.weights: %s has less than a %s in %lld; give it more, or leave it out",
                         mix->source[s].shards.folder,
                         config->tbptt_segment ? "row of a batch (train.batch_size)" : "sample",
                         (long long)mix->n_places);
  draw_places(mix);
  return STATUS_OK;
}

/* Bytes of text behind a target: of validation exactly, of training as an average of the folders. */
static void count_bytes(Mix *mix, const Tokenizer *tokenizer) {
  double bytes = 0, all_bytes = 0, all = 0;
  int64_t n = 0;
  for (int s = 0; s < mix->n_sources; s++) {
    const Source *source = &mix->source[s];
    all_bytes += (double)source->shards.n_text_bytes, all += (double)source->shards.n_tokens;
    cut_count_bytes(&source->cut, PART_VAL, tokenizer, source->shards.special_tokens, &bytes, &n);
  }
  mix->base.bytes_per_token[PART_VAL] = n ? bytes / (double)n : 0;
  mix->base.bytes_per_token[PART_TRAIN] = all_bytes / all;
}

static Status cut_source(const DataConfig *config, Source *source) {
  Cut *cut = &source->cut;
  *cut = (Cut){.copy = copy_tokens, .row = &source->shards, .n_tokens = source->shards.n_tokens};
  if (config->pack) TRY(shards_documents(&source->shards, &cut->doc_end, &cut->n_docs));
  char *what = base_format("%s:", source->shards.folder);
  Status status = cut_lay(cut, config, what, source->in_block);
  free(what), free(cut->doc_end);
  cut->doc_end = NULL;
  return status;
}

static Status open_sources(const DataConfig *config, const char *vocabulary, Mix *mix) {
  const int64_t SMALL = (int64_t)1 << 30; /* bytes whose hashes are worth looking at every time */
  mix->source = base_zalloc((size_t)config->n_shards * sizeof *mix->source);
  for (int s = 0; s < config->n_shards; s++) {
    Shards *shards = &mix->source[s].shards;
    TRY(shards_open(config->shards[s], false, shards));
    mix->n_sources++;
    if (shards->n_tokens * shards->width <= SMALL) {
      shards_close(shards);
      TRY_OR(shards_open(config->shards[s], true, shards), mix->n_sources--);
    }
    const char *other = s > 0 ? mix->source[0].shards.tokenizer_json : vocabulary;
    if (other && strcmp(other, shards->tokenizer_json) != 0)
      return status_fail(CODE_DATA, "%s: was made with another tokenizer than %s: expected the same", shards->folder,
                         s > 0 ? mix->source[0].shards.folder : "the model");
    if (shards->special_tokens != config->special_tokens)
      return status_fail(CODE_DATA, "%s: was prepared with%s --special-tokens, expected data.special_tokens: %s",
                         shards->folder, shards->special_tokens ? "" : "out",
                         shards->special_tokens ? "true" : "false");
  }
  TRY(share(config, mix));
  for (int s = 0; s < mix->n_sources; s++) TRY(cut_source(config, &mix->source[s]));
  return STATUS_OK;
}

static Status open_mix(const DataConfig *config, const char *vocabulary, Mix *mix) {
  if (config->n_shards == 0)
    return status_fail(CODE_USAGE, "data.shards: found nothing, expected folders made by aspis prepare");
  if (config->n_weights > 0 && config->n_weights != config->n_shards)
    return status_fail(CODE_USAGE, "data.weights: found %d, expected one for each of the %d folders of data.shards",
                       config->n_weights, config->n_shards);
  mix->seq_len = config->seq_len;
  TRY(open_sources(config, vocabulary, mix));
  const Shards *first = &mix->source[0].shards;
  mix->base.vocab_size = first->vocab_size;
  mix->base.tokenizer_json = first->tokenizer_json;
  for (DataPart part = PART_TRAIN; part <= PART_VAL; part++) {
    mix->base.max_length[part] = config->seq_len;
    for (int s = 0; s < mix->n_sources; s++) {
      const CutPart *cut = &mix->source[s].cut.part[part];
      mix->base.n_samples[part] += cut->n_samples;
      mix->base.max_pieces[part] = max_i64(mix->base.max_pieces[part], cut->max_pieces);
      mix->base.max_run[part] = max_i64(mix->base.max_run[part], cut->max_run);
    }
    if (config->tbptt_segment) mix->base.n_rows[part] = part == PART_TRAIN ? mix->n_places : 1;
  }
  Tokenizer *tokenizer;
  TRY(tokenizer_from_json(first->tokenizer_json, &tokenizer));
  count_bytes(mix, tokenizer);
  tokenizer_free(tokenizer);
  return STATUS_OK;
}

static Status mix_open(const DataConfig *config, const char *vocabulary, Dataset **dataset) {
  Mix *mix = base_zalloc(sizeof *mix);
  TRY_OR(open_mix(config, vocabulary, mix), mix_close(&mix->base));
  *dataset = &mix->base;
  return STATUS_OK;
}

const DatasetKind dataset_shards = {mix_open, mix_close, mix_train_length, mix_sample};
