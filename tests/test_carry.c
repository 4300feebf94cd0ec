/* Rows that go on (data.tbptt): what the data says of them, what training carries over and what it cuts, and evaluation. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"
#include "tests/support/dataset.h"
#include "tests/support/subject.h"
#include "train/evaluate.h"
#include "train/gradient.h"

TestSuite(carry, .init = workplace_enter, .fini = workplace_leave);

/* ---- the data */

enum { N_TEXT = 700, ROWS = 3, ROW_LENGTH = 8 };

/* Letters in no order and, from one to the next full stop, sentences. */
static void write_sentences(char text[N_TEXT + 1]) {
  Rng rng = rng_make(3, RNG_TEST, 0, 0);
  for (int i = 0; i < N_TEXT; i++) text[i] = rng_below(&rng, 6) ? (char)('a' + rng_below(&rng, 26)) : '.';
  text[N_TEXT] = 0;
  write_text("text.txt", text);
}

static Dataset *open_rows(bool packed, char text[N_TEXT + 1]) {
  write_sentences(text);
  DataConfig config = text_config("byte", 0.7, 0.3, ROW_LENGTH);
  config.tbptt_segment = ROW_LENGTH, config.tbptt_rows = ROWS;
  config.pack = packed, config.document_end = packed ? "." : NULL;
  return open_or_fail(&config, 5, NULL, packed ? "packed rows" : "rows");
}

Test(carry, rows_of_an_epoch_are_stretches_of_the_text_that_go_on_from_step_to_step) {
  char text[N_TEXT + 1];
  Dataset *dataset = open_rows(false, text);
  const int64_t n = dataset_n_samples(dataset, PART_TRAIN), n_steps = n / ROWS;
  cr_assert_eq(n % ROWS, 0, "%d samples in %d rows", (int)n, ROWS);
  for (int64_t epoch = 0; epoch < 3; epoch++) {
    char lanes[N_TEXT + 1] = {0};
    for (int64_t r = 0; r < ROWS; r++)
      for (int64_t s = 0; s < n_steps; s++) {
        const Sample row = sample_of(dataset, PART_TRAIN, epoch * n + s * ROWS + r, ROW_LENGTH);
        cr_assert_eq(row.goes_on, s > 0, "epoch %d, step %d, row %d: goes_on %d", (int)epoch, (int)s, (int)r,
                     row.goes_on);
        for (int t = 0; t < ROW_LENGTH; t++) lanes[(r * n_steps + s) * ROW_LENGTH + t] = (char)row.token[t];
      }
    cr_assert(strlen(lanes) == (size_t)(n * ROW_LENGTH) && strstr(text, lanes),
              "epoch %d is no stretch of the text: %s", (int)epoch, lanes);
  }
  dataset_close(dataset);
}

Test(carry, packed_rows_go_on_where_their_document_does) {
  char text[N_TEXT + 1];
  Dataset *dataset = open_rows(true, text);
  const int64_t n = dataset_n_samples(dataset, PART_TRAIN);
  int n_on = 0;
  for (int64_t i = 0; i < 2 * n; i++) {
    const Sample row = sample_of(dataset, PART_TRAIN, i, ROW_LENGTH);
    n_on += row.goes_on;
    cr_assert_eq(row.begins[0], 1, "sample %d does not begin", (int)i);
    if (i % n < ROWS) {
      cr_assert_eq(row.goes_on, 0, "sample %d goes on from another epoch", (int)i);
      continue;
    }
    const Sample before = sample_of(dataset, PART_TRAIN, i - ROWS, ROW_LENGTH);
    const int32_t next = before.target[ROW_LENGTH - 1];
    cr_assert_eq(row.goes_on, next != -1, "sample %d: goes_on %d behind target %d", (int)i, row.goes_on, next);
    cr_assert(next == -1 || next == row.token[0], "sample %d begins with %d, expected %d", (int)i, row.token[0], next);
  }
  cr_assert(n_on > n / 2, "%d samples go on of %d", n_on, (int)(2 * n));
  dataset_close(dataset);
}

Test(carry, validation_is_one_row) {
  for (int packed = 0; packed < 2; packed++) {
    char text[N_TEXT + 1];
    Dataset *dataset = open_rows(packed, text);
    cr_assert_eq(dataset_n_rows(dataset, PART_VAL), 1);
    for (int64_t i = 0; i < dataset_n_samples(dataset, PART_VAL); i++) {
      const Sample row = sample_of(dataset, PART_VAL, i, ROW_LENGTH);
      const bool expected =
          i > 0 && (!packed || sample_of(dataset, PART_VAL, i - 1, ROW_LENGTH).target[ROW_LENGTH - 1] != -1);
      cr_assert_eq(row.goes_on, expected, "packed %d, sample %d: goes_on %d", packed, (int)i, row.goes_on);
    }
    dataset_close(dataset);
  }
}

Test(carry, a_text_too_short_for_every_row_is_refused) {
  char text[N_TEXT + 1];
  write_sentences(text);
  DataConfig config = text_config("byte", 0.7, 0.3, ROW_LENGTH);
  config.tbptt_segment = ROW_LENGTH, config.tbptt_rows = 1000;
  assert_refused(&config, NULL, CODE_DATA, "train.batch_size * data.seq_len = 8000", "1000 rows");
}

/* ---- training */

enum { N_SEQ = 4, LENGTH = 12 };

static Subject open_kind(int kind, Dtype act) {
  ModelConfig config =
      subject_config(SUBJECT_KINDS[kind].layer, SUBJECT_KINDS[kind].is_mimo, SUBJECT_KINDS[kind].hybrid);
  return subject_open(&config, act);
}
enum { N_KINDS = SUBJECT_N_KINDS };

/* Tokens [at, at + length) of every row of the same random text of N_SEQ rows and 2 * LENGTH tokens. */
static Batch stretch(int64_t at, int64_t length, bool goes_on) {
  Batch batch = batch_new(N_SEQ, length);
  batch.goes_on = malloc(N_SEQ);
  memset(batch.goes_on, goes_on, N_SEQ);
  for (int64_t s = 0; s < N_SEQ; s++)
    for (int64_t t = 0; t < length; t++) {
      Rng rng = rng_make(8, RNG_TEST, (uint32_t)s, (uint32_t)(at + t));
      batch.token[s * length + t] = (int32_t)rng_below(&rng, 29);
      batch.target[s * length + t] = rng_below(&rng, 5) ? (int32_t)rng_below(&rng, 29) : CROSS_ENTROPY_IGNORE;
    }
  return batch;
}

static void stretch_free(Batch *batch) {
  free(batch->goes_on);
  batch_free(batch);
}

/* The sum of nll, gradients of their mean left in the model. */
static double train(Subject *s, const Batch *batch, int segment, Carry *carry) {
  const GradientShape shape = {.batch_size = (int)batch->n_seq,
                               .virtual_ranks = batch->n_seq % 2 ? 1 : 2,
                               .micro_batch_size = 1,
                               .segment = segment};
  return (double)batch_n_targets(batch) * gradient_step(s->model, &s->device, s->act, &shape, batch, carry);
}

static Subject open_trained(int kind, Dtype act) {
  Subject s = open_kind(kind, act);
  free(s.model->params.spare_grads);
  s.model->params.n_spare = 1;
  s.model->params.spare_grads = base_zalloc(sizeof(Tensor));
  const Tensor *flat = &s.model->params.grads_flat;
  s.model->params.spare_grads[0] = *tensor_new1(&s.device.weights, flat->dtype, tensor_count(flat));
  s.model->params.losses = *tensor_new1(&s.device.weights, F64, 2);
  return s;
}

Test(carry, steps_and_segments_read_a_row_as_one_pass_does) {
  static const int SEGMENTS[] = {0, 1, 3, 6, 12};
  for (int k = 0; k < N_KINDS; k++)
    for (size_t i = 0; i < sizeof SEGMENTS / sizeof *SEGMENTS; i++) {
      Subject s = open_trained(k, F64);
      Batch whole = stretch(0, 2 * LENGTH, false), first = stretch(0, LENGTH, false),
            second = stretch(LENGTH, LENGTH, true);
      const double expected = train(&s, &whole, 0, NULL);
      Carry carry = carry_open(s.model, &s.device, N_SEQ, 2 * LENGTH);
      double sum = train(&s, &first, SEGMENTS[i], &carry);
      carry_commit(&carry);
      sum += train(&s, &second, SEGMENTS[i], &carry);
      cr_assert_float_eq(sum, expected, 1e-11 * fabs(expected), "%s, segments of %d: nll %.12g, in one pass %.12g",
                         SUBJECT_KINDS[k].name, SEGMENTS[i], sum, expected);
      stretch_free(&whole), stretch_free(&first), stretch_free(&second);
      subject_close(&s);
    }
}

static double *copy_grads(const Subject *s, double scale) {
  const Tensor *flat = &s->model->params.grads_flat;
  double *values = malloc((size_t)tensor_count(flat) * sizeof *values);
  for (int64_t i = 0; i < tensor_count(flat); i++) values[i] = scale * tensor_get(flat, i);
  return values;
}

static double worst_of(const double *a, const double *b, int64_t n) {
  double worst = 0, largest = 0;
  for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(b[i])), worst = fmax(worst, fabs(a[i] - b[i]));
  return worst / largest;
}

/* By hand: each row's second half from the state behind its first, which is a constant. */
static double *gradients_behind_a_cut(Subject *s, const Batch *first, const Batch *second) {
  params_zero_grads(&s->model->params);
  for (int64_t row = 0; row < N_SEQ; row++) {
    const size_t mark = arena_mark(&s->device.step);
    Batch head = batch_rows(first, &s->model->config, row, 1), tail = batch_rows(second, &s->model->config, row, 1);
    Tape still = tape_make(&s->device, s->act, false), tape = tape_make(&s->device, s->act, true);
    ModelState state = model_state_out(s->model, &still, 1, LENGTH);
    lm_nll(s->model, &still, batch_tensor(&head, head.token, &still), batch_tensor(&head, head.target, &still),
           batch_seqlens(&head, &still), NULL, &state);
    Tensor *nll = lm_nll(s->model, &tape, batch_tensor(&tail, tail.token, &tape),
                         batch_tensor(&tail, tail.target, &tape), batch_seqlens(&tail, &tape), &state, NULL);
    Tensor *dnll = tape_grad(&tape, nll);
    for (int64_t t = 0; t < LENGTH; t++) tensor_set(dnll, t, 1);
    tape_backward(&tape);
    tape_reset(&tape, mark);
  }
  return copy_grads(s, 1);
}

Test(carry, gradients_stop_at_the_border_of_a_step) {
  for (int k = 0; k < N_KINDS; k++) {
    Subject s = open_trained(k, F64);
    const int64_t n = tensor_count(&s.model->params.grads_flat);
    Batch first = stretch(0, LENGTH, false), second = stretch(LENGTH, LENGTH, true);
    double *expected = gradients_behind_a_cut(&s, &first, &second);
    Carry carry = carry_open(s.model, &s.device, N_SEQ, 2 * LENGTH);
    train(&s, &first, 0, &carry);
    carry_commit(&carry);
    train(&s, &second, 0, &carry);
    double *found = copy_grads(&s, (double)batch_n_targets(&second));
    const double error = worst_of(found, expected, n);
    cr_assert_lt(error, 1e-11, "%s: gradients differ by %g", SUBJECT_KINDS[k].name, error);
    free(expected), free(found);
    stretch_free(&first), stretch_free(&second);
    subject_close(&s);
  }
}

Test(carry, a_learned_start_gets_the_gradients_of_the_rows_that_start) {
  enum { MIMO = 2, STARTS = 1 };
  Subject s = open_trained(MIMO, F64);
  const Param *learned = params_find(&s.model->params, "backbone.layers.1.mixer.init_states");
  const int64_t n = tensor_count(&learned->grad);
  Batch first = stretch(0, LENGTH, false), second = stretch(LENGTH, LENGTH, true);
  Batch alone = batch_rows(&second, &s.model->config, STARTS, 1);
  train(&s, &alone, 0, NULL);
  double *expected = malloc((size_t)n * sizeof *expected), *found = malloc((size_t)n * sizeof *found);
  for (int64_t i = 0; i < n; i++) expected[i] = tensor_get(&learned->grad, i) * (double)batch_n_targets(&alone);
  for (int starts = 0; starts < 2; starts++) {
    second.goes_on[STARTS] = !starts;
    Carry carry = carry_open(s.model, &s.device, N_SEQ, 2 * LENGTH);
    train(&s, &first, 0, &carry);
    carry_commit(&carry);
    train(&s, &second, 0, &carry);
    double largest = 0;
    for (int64_t i = 0; i < n; i++) {
      found[i] = tensor_get(&learned->grad, i) * (double)batch_n_targets(&second);
      largest = fmax(largest, fabs(found[i]));
    }
    if (!starts) cr_assert_eq(largest, 0, "rows that go on move the start by %g", largest);
    else cr_assert_lt(worst_of(found, expected, n), 1e-11, "off by %g", worst_of(found, expected, n));
  }
  free(expected), free(found);
  stretch_free(&first), stretch_free(&second);
  subject_close(&s);
}

Test(carry, documents_within_a_row_start_anew_and_the_last_goes_on) {
  enum { BORDER = 5 };
  for (int k = 0; k < N_KINDS; k++) {
    Subject s = open_trained(k, F64);
    Batch first = stretch(0, LENGTH, false), second = stretch(LENGTH, LENGTH, true);
    Batch before = batch_segment(&second, 0, LENGTH), whole = stretch(0, LENGTH, false);
    /* the row's first document ends at BORDER; its second, of the rest, goes on in the next step */
    first.max_pieces = 2, first.begins = base_zalloc(N_SEQ * LENGTH);
    for (int64_t r = 0; r < N_SEQ; r++) first.begins[r * LENGTH] = first.begins[r * LENGTH + BORDER] = 1;
    Carry carry = carry_open(s.model, &s.device, N_SEQ, 2 * LENGTH);
    double found = train(&s, &first, 4, &carry);
    carry_commit(&carry);
    found += train(&s, &before, 0, &carry);
    double expected = 0;
    for (int64_t r = 0; r < N_SEQ; r++) {
      Batch head = batch_new(1, BORDER), tail = batch_new(1, 2 * LENGTH - BORDER);
      for (int64_t t = 0; t < 2 * LENGTH; t++) {
        const Batch *from = t < LENGTH ? &whole : &second, *to = t < BORDER ? &head : &tail;
        const int64_t at = r * LENGTH + t % LENGTH, put = t < BORDER ? t : t - BORDER;
        to->token[put] = from->token[at], to->target[put] = from->target[at];
      }
      expected += train(&s, &head, 0, NULL) + train(&s, &tail, 0, NULL);
      batch_free(&head), batch_free(&tail);
    }
    cr_assert_float_eq(found, expected, 1e-11 * fabs(expected), "%s: nll %.12g, documents by themselves %.12g",
                       SUBJECT_KINDS[k].name, found, expected);
    free(first.begins), first.begins = NULL;
    batch_release(&before);
    stretch_free(&first), stretch_free(&second), stretch_free(&whole);
    subject_close(&s);
  }
}

Test(carry, a_step_that_is_not_committed_changes_nothing) {
  Subject s = open_trained(1, F32);
  Batch first = stretch(0, LENGTH, false), second = stretch(LENGTH, LENGTH, true);
  Carry carry = carry_open(s.model, &s.device, N_SEQ, 2 * LENGTH);
  train(&s, &first, 3, &carry);
  carry_commit(&carry);
  const double once = train(&s, &second, 3, &carry), again = train(&s, &second, 3, &carry);
  carry_commit(&carry);
  const double later = train(&s, &second, 3, &carry);
  cr_assert_eq(once, again, "nll %.9g, then %.9g", once, again);
  cr_assert_neq(once, later, "nll %.9g from another state, too", later);
  stretch_free(&first), stretch_free(&second);
  subject_close(&s);
}

/* Of every kind of layer, and however far its rows' attention has come. */
Test(carry, a_step_that_is_held_leaves_rows_as_they_were) {
  for (int k = 0; k < N_KINDS; k++) {
    Subject s = open_trained(k, F32);
    Batch first = stretch(0, LENGTH, false), second = stretch(LENGTH, LENGTH, true);
    Carry carry = carry_open(s.model, &s.device, N_SEQ, 4 * LENGTH);
    train(&s, &first, 0, &carry);
    carry_commit(&carry);
    double nll[3]; /* from the first stretch; from there again; behind the second */
    for (int i = 0; i < 3; i++) {
      nll[i] = train(&s, &second, 0, &carry);
      *params_verdict(&s.model->params) = (Verdict){.held = i == 0};
      carry_hold(&carry, s.model, &s.device);
      carry_commit(&carry);
    }
    cr_assert_eq(nll[0], nll[1], "%s: nll %.9g, behind a held step %.9g", SUBJECT_KINDS[k].name, nll[0], nll[1]);
    cr_assert_neq(nll[0], nll[2], "%s: nll %.9g behind another step, too", SUBJECT_KINDS[k].name, nll[2]);
    stretch_free(&first), stretch_free(&second);
    subject_close(&s);
  }
}

Test(carry, is_the_same_to_the_bit_however_backward_recomputes) {
  for (int k = 0; k < N_KINDS; k++) {
    double *expected = NULL, expected_nll = 0;
    for (Recompute recompute = RECOMPUTE_NONE; recompute <= RECOMPUTE_BLOCK; recompute++) {
      Subject s = open_trained(k, F32);
      s.model->recompute = recompute;
      Batch first = stretch(0, LENGTH, false), second = stretch(LENGTH, LENGTH, true);
      Carry carry = carry_open(s.model, &s.device, N_SEQ, 2 * LENGTH);
      train(&s, &first, 3, &carry);
      carry_commit(&carry);
      const double nll = train(&s, &second, 3, &carry);
      double *found = copy_grads(&s, 1);
      const int64_t n = tensor_count(&s.model->params.grads_flat);
      if (expected)
        cr_assert(nll == expected_nll && memcmp(found, expected, (size_t)n * sizeof *found) == 0,
                  "%s, recompute %d: other bits", SUBJECT_KINDS[k].name, (int)recompute);
      free(expected);
      expected = found, expected_nll = nll;
      stretch_free(&first), stretch_free(&second);
      subject_close(&s);
    }
    free(expected);
  }
}

/* ---- evaluation */

Test(carry, evaluation_reads_a_long_text_as_one_pass_does) {
  char text[N_TEXT + 1];
  Dataset *dataset = open_rows(false, text);
  for (int k = 0; k < N_KINDS; k++) {
    ModelConfig config = subject_config(SUBJECT_KINDS[k].layer, SUBJECT_KINDS[k].is_mimo, SUBJECT_KINDS[k].hybrid);
    config.vocab_size = 256;
    Subject s = subject_open(&config, F64);
    const Evaluation found = evaluate_part(s.model, &s.device, F64, dataset, PART_VAL, 0, 5, false);
    const int64_t begin = N_TEXT * 7 / 10, n = N_TEXT - begin - 1;
    Batch whole = batch_new(1, n);
    for (int64_t t = 0; t < n; t++)
      whole.token[t] = (unsigned char)text[begin + t], whole.target[t] = (unsigned char)text[begin + t + 1];
    EvalSums sums = {0};
    evaluate_batch(s.model, &s.device, F64, &whole, false, NULL, &sums);
    cr_assert_eq(found.n_targets, n, "%s: %d targets of %d", SUBJECT_KINDS[k].name, (int)found.n_targets, (int)n);
    cr_assert_float_eq(found.nll, sums.nll / (double)n, 1e-11, "%s: nll %.12g, in one pass %.12g",
                       SUBJECT_KINDS[k].name, found.nll, sums.nll / (double)n);
    batch_free(&whole);
    subject_close(&s);
  }
  dataset_close(dataset);
}
