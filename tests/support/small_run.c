/* small_run: see small_run.h. */
#include "tests/support/small_run.h"

#include <criterion/criterion.h>

#include "tensor/rng.h"
#include "tests/support/dataset.h"

const char SMALL_YAML[] = "name: small\n"
                          "out_dir: .\n"
                          "seed: 3\n"
                          "model: {d_model: 16, n_layer: 2, ssm_cfg: {layer: Mamba3, d_state: 8, headdim: 8}}\n"
                          "data: {kind: text, path: [text.txt], tokenizer: byte, seq_len: 24}\n"
                          "optim: {lr: 1.0e-2, schedule: constant}\n"
                          "train: {steps: 3, batch_size: 4, virtual_ranks: 2, micro_batch_size: 1, eval_every: 2,\n"
                          "        eval_batches: 1, save_every: 0, sample_every: 2}\n";

Dist small_run_dist = {.size = 1, .local_size = 1};

void write_words(char text[TEXT_BYTES]) {
  Rng rng = rng_make(2, RNG_TEST, 1, 0);
  for (int i = 0; i < TEXT_BYTES; i++) text[i] = "abcdefgh "[rng_below(&rng, 9)];
  write_file("text.txt", text, TEXT_BYTES);
}

void run_start(Run *run, Config *config, const char *directory, const char *const *sets) {
  char text[TEXT_BYTES];
  write_words(text);
  int n_sets = 0;
  while (sets && sets[n_sets]) n_sets++;
  Status status = config_parse(SMALL_YAML, "small.yaml", sets, n_sets, config);
  cr_assert_eq(status.code, CODE_OK, "%s: %s", directory, status.line);
  status = run_open(run, config, &(RunOptions){.directory = directory, .quiet = true, .dist = &small_run_dist});
  cr_assert_eq(status.code, CODE_OK, "%s: %s", directory, status.line);
}

void run_end(Run *run, Config *config) {
  run_close(run);
  config_free(config);
}
