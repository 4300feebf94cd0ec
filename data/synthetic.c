/* synthetic: state-tracking tasks, made as they are asked for; the tasks of the Mamba-3 paper (Table 5b), after Grazzi
 * et al. 2025 (arXiv 2411.12537) and Deletang et al. 2023 (arXiv 2207.02098).
 *
 *   parity              tokens are bits; target[t] = (token[0] + ... + token[t]) mod 2.
 *   mod_arith           digit {operator digit}; digits 0..4, operators + - *, * before + and -, modulo 5. The target at
 *                       a digit is the value of the expression up to there; operators have none. Odd lengths.
 *   mod_arith_brackets  expression =; an operand is a digit or ( expression ), nested at most BRACKET_DEPTH deep. Only
 *                       = has a target, the value modulo 5. Even lengths.
 *
 * Every sequence begins with a start token (the last id of the vocabulary; no target), as a text begins with one: it is what
 * a state can be counted from. Lengths in the config count what follows it.
 *
 * Digits and operators are uniform. Answers are too, but for short expressions, where products favour 0: it is the answer
 * to 25 % of mod_arith and 23 % of mod_arith_brackets at 3 digits and operators, 20.0 % and 20.5 % at 255.
 *
 * A length between those that a task can make is rounded down. Sample i of the training part depends on (seed, i, its
 * length), validation sample i on (seed, i) in a stream of its own, the length of step s on (seed, s). */
#include <stdlib.h>
#include <string.h>

#include "data/kind.h"
#include "tensor/rng.h"

enum { MODULUS = 5, PLUS = MODULUS, MINUS, TIMES, OPEN, CLOSE, EQUALS, N_SYMBOLS, N_OPERATORS = 3, BRACKET_DEPTH = 8 };

/* What the numbers are for: the first coordinate of RNG_TASK. */
enum { DRAW_TRAIN, DRAW_VAL, DRAW_LENGTH };

/* The value of an expression so far, modulo 5: the terms already closed, and the product still open to a "*". */
typedef struct Value {
  int closed, open;
} Value;

static Value value_take(Value v, int op, int operand) {
  if (op == TIMES) return (Value){v.closed, v.open * operand % MODULUS};
  return (Value){(v.closed + v.open) % MODULUS, op == PLUS ? operand : (MODULUS - operand) % MODULUS};
}

static int value_of(Value v) { return (v.closed + v.open) % MODULUS; }

static void make_parity(Rng *rng, int64_t length, int32_t *token, int32_t *target) {
  int32_t parity = 0;
  uint32_t bits = 0;
  for (int64_t t = 0; t < length; t++) {
    bits = t % 32 == 0 ? rng_u32(rng) : bits >> 1;
    token[t] = (int32_t)(bits & 1);
    target[t] = parity ^= token[t];
  }
}

static void make_mod_arith(Rng *rng, int64_t length, int32_t *token, int32_t *target) {
  Value value = {0, 0};
  for (int64_t t = 0; t < length; t += 2) {
    int draw = (int)rng_below(rng, MODULUS * N_OPERATORS), digit = draw % MODULUS;
    int op = t == 0 ? PLUS : PLUS + draw / MODULUS;
    if (t > 0) token[t - 1] = op, target[t - 1] = -1;
    value = value_take(value, op, digit);
    token[t] = digit;
    target[t] = value_of(value);
  }
}

/* Writes an expression of exactly `length` (odd) tokens and returns its value. */
static int make_expression(Rng *rng, int64_t length, int depth, int32_t *token) {
  Value value = {0, 0};
  int op = PLUS;
  for (int64_t t = 0;;) {
    int operand;
    int64_t left = length - t; /* odd: what follows an operand is nothing, or an operator and more */
    if (depth > 0 && left >= 3 && rng_below(rng, 2)) {
      int64_t inner = 1 + 2 * (int64_t)rng_below(rng, (uint32_t)((left - 1) / 2));
      token[t] = OPEN;
      operand = make_expression(rng, inner, depth - 1, token + t + 1);
      token[t + 1 + inner] = CLOSE;
      t += inner + 2;
    } else {
      token[t++] = operand = (int)rng_below(rng, MODULUS);
    }
    value = value_take(value, op, operand);
    if (t == length) return value_of(value);
    token[t++] = op = PLUS + (int)rng_below(rng, N_OPERATORS);
  }
}

static void make_mod_arith_brackets(Rng *rng, int64_t length, int32_t *token, int32_t *target) {
  const int answer = make_expression(rng, length - 1, BRACKET_DEPTH, token);
  for (int64_t t = 0; t < length - 1; t++) target[t] = -1;
  token[length - 1] = EQUALS;
  target[length - 1] = answer;
}

typedef struct Task {
  const char *name;
  int n_symbols, n_answers; /* the start token is id n_symbols */
  int shortest, stride;     /* lengths it can make: shortest + k stride */
  void (*make)(Rng *rng, int64_t length, int32_t *token, int32_t *target);
} Task;

static const Task TASKS[] = {
    {"parity", 2, 2, 1, 1, make_parity},
    {"mod_arith", OPEN, MODULUS, 1, 2, make_mod_arith},
    {"mod_arith_brackets", N_SYMBOLS, MODULUS, 2, 2, make_mod_arith_brackets},
};

typedef struct Synthetic {
  Dataset base;
  const Task *task;
  int64_t min_length, max_length, start_max_length, curriculum_steps;
} Synthetic;

static int64_t makeable(const Task *task, int64_t length) { return length - (length - task->shortest) % task->stride; }

enum { START_TOKENS = 1 };

static int64_t synthetic_train_length(const Dataset *dataset, int64_t step) {
  const Synthetic *s = (const Synthetic *)dataset;
  int64_t longest = s->max_length;
  if (step < s->curriculum_steps)
    longest = s->start_max_length + (s->max_length - s->start_max_length) * step / s->curriculum_steps;
  Rng rng = rng_make(dataset->seed, RNG_TASK, DRAW_LENGTH, (uint64_t)step);
  int64_t drawn = s->min_length + rng_below(&rng, (uint32_t)(longest - s->min_length + 1));
  return START_TOKENS + makeable(s->task, drawn);
}

static void synthetic_sample(const Dataset *dataset, DataPart part, int64_t index, const Batch *sample) {
  const Task *task = ((const Synthetic *)dataset)->task;
  const int64_t length = sample->length, n = length - START_TOKENS;
  CHECK(n >= task->shortest && length <= dataset->max_length[part] && n == makeable(task, n),
        "%s cannot make a sequence of %lld tokens", task->name, (long long)length);
  Rng rng = rng_make(dataset->seed, RNG_TASK, part == PART_TRAIN ? DRAW_TRAIN : DRAW_VAL, (uint64_t)index);
  sample->token[0] = task->n_symbols;
  sample->target[0] = -1;
  task->make(&rng, n, sample->token + START_TOKENS, sample->target + START_TOKENS);
}

static void synthetic_close(Dataset *dataset) { free(dataset); }

static Status find_task(const char *name, const Task **task) {
  for (size_t i = 0; i < sizeof TASKS / sizeof *TASKS; i++) {
    *task = &TASKS[i];
    if (strcmp(TASKS[i].name, name) == 0) return STATUS_OK;
  }
  return status_fail(CODE_USAGE, "data.task: found %s, expected parity, mod_arith or mod_arith_brackets", name);
}

/* A length in the config that must lie in [low, high]. */
typedef struct Bound {
  const char *key;
  int64_t value, low, high;
} Bound;

static Status synthetic_open(const DataConfig *config, const char *vocabulary, Dataset **dataset) {
  (void)vocabulary; /* the tasks fix their own */
  const Task *task;
  TRY(find_task(config->task, &task));
  const bool grows = config->curriculum_steps > 0;
  const Bound bounds[] = {
      {"max_length", config->max_length, task->shortest, config->seq_len},
      {"min_length", config->min_length, task->shortest, config->max_length},
      {"curriculum_steps", config->curriculum_steps, 0, INT32_MAX},
      {"start_max_length", grows ? config->start_max_length : config->max_length, config->min_length,
       config->max_length},
      {"eval_length", config->eval_length, task->shortest, INT32_MAX},
      {"eval_sequences", config->eval_sequences, 1, INT32_MAX},
  };
  for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++)
    if (bounds[i].value < bounds[i].low || bounds[i].value > bounds[i].high)
      return status_fail(CODE_USAGE, "data.%s: found %lld, expected %lld to %lld for task %s and these other lengths",
                         bounds[i].key, (long long)bounds[i].value, (long long)bounds[i].low, (long long)bounds[i].high,
                         task->name);
  Synthetic *s = base_zalloc(sizeof *s);
  *s = (Synthetic){
      .base = {.vocab_size = task->n_symbols + 1,
               .n_samples = {[PART_TRAIN] = INT64_MAX / 4, [PART_VAL] = config->eval_sequences},
               .max_length = {[PART_TRAIN] = START_TOKENS + makeable(task, config->max_length),
                              [PART_VAL] = START_TOKENS + makeable(task, config->eval_length)},
               .scores_last = true,
               .chance = 1.0 / task->n_answers},
      .task = task,
      .min_length = config->min_length,
      .max_length = config->max_length,
      .start_max_length = config->start_max_length,
      .curriculum_steps = config->curriculum_steps,
  };
  *dataset = &s->base;
  return STATUS_OK;
}

const DatasetKind dataset_synthetic = {synthetic_open, synthetic_close, synthetic_train_length, synthetic_sample};
