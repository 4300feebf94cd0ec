/* shards_mix: windows over folders of shards, mixed by weight.
 *
 * Every folder is cut by position as a text is (data/text.c): the first split_train of its tokens are its training part, the next
 * split_val its validation part. Validation is the folders' windows end to end, in order. Training samples come in blocks of
 * M = 4096, of which source s has m_s, its share by the largest remainder, at places that are drawn once. Place p of a block
 * belongs to source s_p, and r_p places before it do:
 *   sample i = b M + p is sample k = b m_s + r_p of source s = s_p,
 * so a source's samples are taken in their order, none twice and none left out, and where a sample lies is a function of i
 * alone: the step is all there is to resume from. Sample k: epoch e = k / n, window j = permute_e(k mod n), token[t] = P[offset_e
 * + j L + t]. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/kind.h"
#include "data/shards.h"
#include "data/tokenizer.h"
#include "tensor/rng.h"

enum { BLOCK = 4096 };

typedef struct Source {
  Shards shards;
  struct {
    int64_t first, n, n_windows;
  } part[2]; /* by DataPart */
  int64_t n_offsets;
  int64_t in_block; /* m_s */
} Source;

typedef struct Mix {
  Dataset base;
  Source *source;
  int n_sources;
  int64_t seq_len;
  struct {
    int16_t source, rank;
  } place[BLOCK]; /* s_p and r_p */
} Mix;

/* A source's own draws: seed and number decide them. */
static uint64_t source_seed(const Mix *mix, int s) { return mix->base.seed + 0x9E3779B97F4A7C15u * (uint64_t)(s + 1); }

static void read_window(const Mix *mix, int s, DataPart part, int64_t at, const Batch *sample) {
  const Source *source = &mix->source[s];
  const int64_t length = mix->seq_len, n = min_i64(length, source->part[part].n - 1 - at),
                first = source->part[part].first + at;
  shards_copy(&source->shards, first, n, sample->token);
  shards_copy(&source->shards, first + 1, n, sample->target);
  for (int64_t t = n; t < length; t++) sample->token[t] = 0, sample->target[t] = -1;
}

static void train_sample(const Mix *mix, int64_t index, const Batch *sample) {
  const int64_t block = index / BLOCK;
  const int s = mix->place[index % BLOCK].source;
  const Source *source = &mix->source[s];
  const int64_t k = block * source->in_block + mix->place[index % BLOCK].rank, n = source->part[PART_TRAIN].n_windows;
  const uint32_t epoch = (uint32_t)(k / n);
  const uint64_t seed = source_seed(mix, s);
  Rng rng = rng_make(seed, RNG_SHUFFLE, epoch, 0);
  const int64_t offset = rng_below(&rng, (uint32_t)source->n_offsets);
  read_window(mix, s, PART_TRAIN,
              offset + mix->seq_len * (int64_t)rng_permute(seed, RNG_SHUFFLE, epoch, (uint64_t)n, (uint64_t)(k % n)),
              sample);
}

static void mix_sample(const Dataset *dataset, DataPart part, int64_t index, const Batch *sample) {
  const Mix *mix = (const Mix *)dataset;
  CHECK(sample->length == mix->seq_len, "windows of %lld tokens, batch of %lld", (long long)mix->seq_len,
        (long long)sample->length);
  if (part == PART_TRAIN) {
    train_sample(mix, index, sample);
    return;
  }
  int s = 0;
  for (; index >= mix->source[s].part[PART_VAL].n_windows; s++) index -= mix->source[s].part[PART_VAL].n_windows;
  read_window(mix, s, PART_VAL, index * mix->seq_len, sample);
}

static int64_t mix_train_length(const Dataset *dataset, int64_t step) {
  (void)step;
  return ((const Mix *)dataset)->seq_len;
}

static void mix_close(Dataset *dataset) {
  Mix *mix = (Mix *)dataset;
  for (int s = 0; s < mix->n_sources; s++) shards_close(&mix->source[s].shards);
  free(mix->source);
  free(mix);
}

static Status cut(const DataConfig *config, Mix *mix, Source *source) {
  const double train = config->split_train, val = config->split_val;
  const int64_t n = source->shards.n_tokens, end = llround(train * (double)n), L = mix->seq_len;
  source->part[PART_TRAIN].n = end;
  source->part[PART_VAL].first = end;
  source->part[PART_VAL].n = min_i64(llround((train + val) * (double)n), n) - end;
  for (DataPart part = PART_TRAIN; part <= PART_VAL; part++)
    if (source->part[part].n < L + 1)
      return status_fail(
          CODE_DATA,
          "%s: has %lld tokens, its %s part %lld, expected at least seq_len + 1 = %lld; give more text, a smaller "
          "data.seq_len or another data.split",
          source->shards.folder, (long long)n, part == PART_TRAIN ? "training" : "validation",
          (long long)source->part[part].n, (long long)L + 1);
  source->part[PART_TRAIN].n_windows = max_i64(1, end / L - 1);
  source->n_offsets = min_i64(L, end - source->part[PART_TRAIN].n_windows * L);
  source->part[PART_VAL].n_windows = ceil_div(source->part[PART_VAL].n - 1, L);
  return STATUS_OK;
}

/* Which source has which place: runs of each, permuted. */
static void draw_places(Mix *mix) {
  int16_t source_of[BLOCK], n_before[DATA_MAX_SHARDS] = {0};
  int64_t at = 0;
  for (int s = 0; s < mix->n_sources; s++)
    for (int64_t i = 0; i < mix->source[s].in_block; i++) source_of[at++] = (int16_t)s;
  for (int p = 0; p < BLOCK; p++) {
    const int16_t s = source_of[rng_permute(0, RNG_SHUFFLE, 0, BLOCK, (uint64_t)p)];
    mix->place[p].source = s, mix->place[p].rank = n_before[s]++;
  }
}

/* Shares of a block: rounded down, then one more each for the largest remainders. */
static Status share(const DataConfig *config, Mix *mix) {
  double sum = 0, *weight = base_alloc((size_t)mix->n_sources * sizeof *weight);
  for (int s = 0; s < mix->n_sources; s++)
    sum += weight[s] = config->n_weights ? config->weights[s] : (double)mix->source[s].part[PART_TRAIN].n_windows;
  int64_t left = BLOCK;
  for (int s = 0; s < mix->n_sources; s++) {
    weight[s] *= BLOCK / sum;
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
      return status_fail(CODE_USAGE, "data.weights: %s has less than a sample in %d; give it more, or leave it out",
                         mix->source[s].shards.folder, BLOCK);
  draw_places(mix);
  return STATUS_OK;
}

/* Bytes of text behind a target: of validation exactly, of training as an average of the folders. */
static void count_bytes(Mix *mix, const Tokenizer *tokenizer) {
  double bytes = 0, n = 0, all_bytes = 0, all = 0;
  int32_t token[1024];
  for (int s = 0; s < mix->n_sources; s++) {
    const Source *source = &mix->source[s];
    all_bytes += (double)source->shards.n_text_bytes, all += (double)source->shards.n_tokens;
    for (int64_t at = 1, got; at < source->part[PART_VAL].n; at += got) {
      got = min_i64(1024, source->part[PART_VAL].n - at);
      shards_copy(&source->shards, source->part[PART_VAL].first + at, got, token);
      for (int64_t t = 0; t < got; t++) {
        int piece = 0;
        if (tokenizer_piece(tokenizer, token[t], &piece)) bytes += piece;
      }
      n += (double)got;
    }
  }
  mix->base.bytes_per_token[PART_VAL] = bytes / n;
  mix->base.bytes_per_token[PART_TRAIN] = all_bytes / all;
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
    TRY(cut(config, mix, &mix->source[s]));
  }
  return share(config, mix);
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
    for (int s = 0; s < mix->n_sources; s++) mix->base.n_samples[part] += mix->source[s].part[part].n_windows;
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
