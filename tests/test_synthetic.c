/* synthetic: the state-tracking tasks, held to a recursive-descent parser over the symbols as text, in plain integers. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/dataset.h"

typedef struct Parser {
  const char *at;
  int depth, deepest;
  bool failed;
} Parser;

static int64_t mod5(int64_t x) { return (x % 5 + 5) % 5; }

static int64_t parse_sum(Parser *p);

static int64_t parse_operand(Parser *p) {
  if (*p->at >= '0' && *p->at <= '4') return *p->at++ - '0';
  if (*p->at++ != '(') return p->failed = true, 0;
  if (++p->depth > p->deepest) p->deepest = p->depth;
  int64_t value = parse_sum(p);
  p->depth--;
  if (*p->at++ != ')') p->failed = true;
  return value;
}

static int64_t parse_product(Parser *p) {
  int64_t value = parse_operand(p);
  while (!p->failed && *p->at == '*') p->at++, value = mod5(value * parse_operand(p));
  return value;
}

static int64_t parse_sum(Parser *p) {
  int64_t value = parse_product(p);
  while (!p->failed && (*p->at == '+' || *p->at == '-')) {
    int sign = *p->at++ == '+' ? 1 : -1;
    value = mod5(value + sign * parse_product(p));
  }
  return value;
}

/* Value of text[0..n), which must be a whole expression. */
static int evaluate(const char *text, int64_t n, int *deepest, const char *name) {
  char copy[512];
  memcpy(copy, text, (size_t)n), copy[n] = '\0';
  Parser p = {.at = copy};
  int64_t value = parse_sum(&p);
  cr_assert(!p.failed && *p.at == '\0', "%s: not an expression: %s", name, copy);
  if (deepest) *deepest = p.deepest;
  return (int)value;
}

/* length: of the whole sequence, its start token included. */
static void assert_targets(const char *task, const int32_t *token, const int32_t *target, int64_t length, int start,
                           const char *name) {
  static const char SYMBOL[] = "01234+-*()=";
  char text[512];
  cr_assert(token[0] == start && target[0] == -1, "%s: starts with %d, target %d", name, token[0], target[0]);
  token++, target++, length--;
  for (int64_t t = 0; t < length; t++) {
    cr_assert(token[t] >= 0 && token[t] < 11, "%s: token %d at %lld", name, token[t], (long long)t);
    text[t] = SYMBOL[token[t]];
  }
  text[length] = '\0';
  for (int64_t t = 0, ones = 0; t < length; t++) {
    int expected = -1;
    if (strcmp(task, "parity") == 0) {
      cr_assert(token[t] <= 1, "%s: token %d", name, token[t]);
      expected = (int)((ones += token[t]) % 2);
    } else if (strcmp(task, "mod_arith") == 0) {
      if (token[t] < 5) expected = evaluate(text, t + 1, NULL, name);
    } else if (t == length - 1) {
      cr_assert(text[t] == '=', "%s: ends in %c", name, text[t]);
      expected = evaluate(text, t, NULL, name);
    }
    cr_assert(target[t] == expected, "%s: %s: target %d at %lld, expected %d", name, text, target[t], (long long)t,
              expected);
  }
}

static const struct {
  char name[24];
  int vocab_size, shortest, stride, n_answers;
} TASKS[] = {{"parity", 3, 1, 1, 2}, {"mod_arith", 9, 1, 2, 5}, {"mod_arith_brackets", 12, 2, 2, 5}};

Test(synthetic, targets_are_what_an_independent_evaluator_finds) {
  for (int k = 0; k < 3; k++) {
    char task[24], name[64];
    strcpy(task, TASKS[k].name);
    DataConfig config = task_config(task);
    Dataset *dataset = open_or_fail(&config, 11, NULL, task);
    double chance = 0;
    cr_assert(dataset_vocab_size(dataset) == TASKS[k].vocab_size, "%s: vocabulary of %d", task,
              dataset_vocab_size(dataset));
    cr_assert(dataset_scores_last(dataset, &chance) && chance == 1.0 / TASKS[k].n_answers, "%s: chance %g", task,
              chance);
    cr_assert(!dataset_tokenizer_json(dataset), "%s: no tokenizer", task);
    cr_assert(dataset_n_samples(dataset, PART_VAL) == 50, "%s: validation samples", task);
    for (int length = TASKS[k].shortest; length <= 160; length += TASKS[k].stride) {
      sprintf(name, "%s of %d", task, length);
      Batch batch = batch_new(20, length + 1);
      dataset_fill(dataset, PART_TRAIN, 1000 * length, &batch);
      for (int s = 0; s < 20; s++)
        assert_targets(task, batch.token + s * (length + 1), batch.target + s * (length + 1), length + 1,
                       TASKS[k].vocab_size - 1, name);
      batch_free(&batch);
    }
    int64_t length = dataset_max_length(dataset, PART_VAL);
    cr_assert(length == 257 - (k == 1), "%s: %lld", task, (long long)length);
    Batch batch = batch_new(50, length);
    dataset_fill(dataset, PART_VAL, 0, &batch);
    for (int s = 0; s < 50; s++)
      assert_targets(task, batch.token + s * length, batch.target + s * length, length, TASKS[k].vocab_size - 1,
                     "validation");
    batch_free(&batch);
    dataset_close(dataset);
  }
}

Test(synthetic, samples_are_pure_functions_of_their_index) {
  for (int k = 0; k < 3; k++) {
    char task[24];
    strcpy(task, TASKS[k].name);
    DataConfig config = task_config(task);
    assert_pure(&config, PART_TRAIN, 43 - (k == 1), task);
    assert_pure(&config, PART_VAL, 257 - (k == 1), task);
  }
}

/* Five standard errors around equal shares: the draws are fixed, so this passes always or never. */
static void assert_uniform(const int *count, int n, double slack, const char *name, int64_t position) {
  int total = 0;
  for (int i = 0; i < n; i++) total += count[i];
  double share = 1.0 / n, bound = 5 * sqrt(share * (1 - share) / total) + slack;
  for (int i = 0; i < n; i++)
    cr_assert(fabs((double)count[i] / total - share) < bound, "%s: position %lld: %d is drawn %d times in %d", name,
              (long long)position, i, count[i], total);
}

Test(synthetic, symbols_and_answers_are_uniform) {
  enum { N = 10000 };
  for (int k = 0; k < 3; k++) {
    char task[24];
    strcpy(task, TASKS[k].name);
    DataConfig config = task_config(task);
    Dataset *dataset = open_or_fail(&config, 5, NULL, task);
    const int length = k == 1 ? 100 : 101;
    Batch batch = batch_new(N, length);
    dataset_fill(dataset, PART_TRAIN, 0, &batch);
    for (int t = 1; t < length; t++) {
      int symbols[12] = {0};
      for (int s = 0; s < N; s++) symbols[batch.token[s * length + t]]++;
      if (k == 0) assert_uniform(symbols, 2, 0, task, t);
      if (k == 1) assert_uniform(t % 2 ? symbols : symbols + 5, t % 2 ? 5 : 3, 0, task, t);
    }
    int answers[5] = {0};
    for (int s = 0; s < N; s++) answers[batch.target[s * length + length - 1]]++;
    /* Products favour 0 where brackets leave few terms. */
    assert_uniform(answers, TASKS[k].n_answers, k == 2 ? 0.01 : 0, task, length - 1);
    batch_free(&batch);
    dataset_close(dataset);
  }
}

Test(synthetic, brackets_nest_deep_but_within_bounds) {
  enum { N = 10000, LENGTH = 100 };
  DataConfig config = task_config("mod_arith_brackets");
  Dataset *dataset = open_or_fail(&config, 5, NULL, "brackets");
  Batch batch = batch_new(N, LENGTH + 1);
  dataset_fill(dataset, PART_TRAIN, 0, &batch);
  int deepest = 0, n_nested = 0;
  for (int s = 0; s < N; s++) {
    char text[LENGTH];
    int depth = 0;
    for (int t = 0; t < LENGTH; t++) text[t] = "01234+-*()="[batch.token[s * (LENGTH + 1) + 1 + t]];
    evaluate(text, LENGTH - 1, &depth, "brackets");
    deepest = depth > deepest ? depth : deepest;
    n_nested += depth >= 2;
  }
  cr_assert(deepest == 8, "deepest %d", deepest);
  cr_assert(n_nested > N * 3 / 4, "%d of %d nest", n_nested, N);
  batch_free(&batch);
  dataset_close(dataset);
}

Test(synthetic, training_lengths_follow_the_curriculum) {
  for (int k = 0; k < 3; k++) {
    char task[24];
    strcpy(task, TASKS[k].name);
    DataConfig config = task_config(task);
    Dataset *dataset = open_or_fail(&config, 5, NULL, task);
    int64_t longest_early = 0, longest = 0, shortest = INT64_MAX;
    for (int64_t step = 0; step < 20000; step++) {
      int64_t length = dataset_train_length(dataset, step) - 1; /* without the start token */
      int64_t allowed = step < 100 ? 40 + 120 * step / 100 : 160;
      cr_assert((length - TASKS[k].shortest) % TASKS[k].stride == 0, "%s: step %lld: length %lld cannot be made", task,
                (long long)step, (long long)length);
      cr_assert(length >= 3 - (k == 2) && length <= allowed, "%s: step %lld: length %lld of %lld", task,
                (long long)step, (long long)length, (long long)allowed);
      if (step < 10) longest_early = max_i64(longest_early, length);
      longest = max_i64(longest, length), shortest = min_i64(shortest, length);
    }
    cr_assert(longest_early <= 50, "%s: %lld in the first steps", task, (long long)longest_early);
    cr_assert(longest + 1 == dataset_max_length(dataset, PART_TRAIN) && longest == 160 - (k == 1), "%s: longest %lld",
              task, (long long)longest);
    cr_assert(shortest == 3 - (k == 2), "%s: shortest %lld", task, (long long)shortest);
    dataset_close(dataset);
    config.curriculum_steps = 0, config.start_max_length = 0;
    dataset = open_or_fail(&config, 5, NULL, task);
    for (int64_t step = 0; step < 200; step++)
      longest_early = max_i64(longest_early, dataset_train_length(dataset, step));
    cr_assert(longest_early > 100, "%s: no curriculum, yet only %lld", task, (long long)longest_early);
    dataset_close(dataset);
  }
}

Test(synthetic, parts_seeds_and_indices_draw_apart) {
  for (int k = 0; k < 3; k++) {
    char task[24];
    strcpy(task, TASKS[k].name);
    DataConfig config = task_config(task);
    config.eval_length = 100; /* as long as a training sequence, so that they could be alike */
    Dataset *dataset = open_or_fail(&config, 5, NULL, task), *other = open_or_fail(&config, 6, NULL, task);
    int64_t length = dataset_max_length(dataset, PART_VAL);
    Batch train = batch_new(50, length), val = batch_new(50, length), seed = batch_new(50, length);
    dataset_fill(dataset, PART_TRAIN, 0, &train);
    dataset_fill(dataset, PART_VAL, 0, &val);
    dataset_fill(other, PART_TRAIN, 0, &seed);
    const size_t row = sizeof(int32_t) * (size_t)length;
    for (int a = 0; a < 50; a++)
      for (int b = 0; b < 50; b++) {
        const int32_t *sample = train.token + a * length;
        cr_assert(memcmp(sample, val.token + b * length, row), "%s: training %d is validation %d", task, a, b);
        cr_assert(memcmp(sample, seed.token + b * length, row), "%s: %d is %d of another seed", task, a, b);
        cr_assert(a == b || memcmp(sample, train.token + b * length, row), "%s: %d is %d", task, a, b);
      }
    batch_free(&train), batch_free(&val), batch_free(&seed);
    dataset_close(dataset), dataset_close(other);
  }
}

Test(synthetic, impossible_synthetic_configs_are_refused_by_key) {
  DataConfig good = task_config("mod_arith_brackets"), bad;
  dataset_close(open_or_fail(&good, 1, NULL, "good"));
#define REFUSED(key, field, value)                                                                                     \
  bad = good, bad.field = value, assert_refused(&bad, NULL, CODE_USAGE, "data." key ": found ", #field " = " #value)
  REFUSED("task", task, "sorting");
  REFUSED("max_length", max_length, 257);
  REFUSED("max_length", max_length, 1);
  REFUSED("min_length", min_length, 1);
  REFUSED("min_length", min_length, 161);
  REFUSED("start_max_length", start_max_length, 2);
  REFUSED("start_max_length", start_max_length, 161);
  REFUSED("curriculum_steps", curriculum_steps, -1);
  REFUSED("eval_length", eval_length, 1);
  REFUSED("eval_sequences", eval_sequences, 0);
#undef REFUSED
}
