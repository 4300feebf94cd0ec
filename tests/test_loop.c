/* The loop over steps: what a bad step, a run that cannot begin and one that goes on from a checkpoint leave behind and read. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/dataset.h"
#include "tests/support/small_run.h"

TestSuite(loop, .init = workplace_enter, .fini = workplace_leave);

/* ---- bad steps */

/* Exact values and moments as bytes, malloc'ed. */
static char *copy_weights(const Run *run, size_t *bytes) {
  const ParamTable *params = &run->model->params;
  char *copy = NULL;
  *bytes = 0;
  for (int i = 0; i < params->n_params; i++) {
    const Tensor *parts[] = {param_exact(params->params[i]), &params->params[i]->m, &params->params[i]->v};
    for (int k = 0; k < 3; k++) {
      copy = base_realloc(copy, *bytes + tensor_bytes(parts[k]));
      memcpy(copy + *bytes, parts[k]->data, tensor_bytes(parts[k]));
      *bytes += tensor_bytes(parts[k]);
    }
  }
  return copy;
}

/* Trains and expects `code`; the weights it leaves. */
static char *weights_after(const char *directory, const char *const *sets, Code code, const char *phrase,
                           size_t *bytes) {
  Run run;
  Config config;
  run_start(&run, &config, directory, sets);
  Status status = loop_train(&run);
  cr_assert_eq(status.code, code, "%s: code %d, expected %d: %s", directory, status.code, code, status.line);
  if (phrase) cr_assert(strstr(status.line, phrase), "%s: \"%s\" does not say \"%s\"", directory, status.line, phrase);
  status_clear(&status);
  char *weights = copy_weights(&run, bytes);
  run_end(&run, &config);
  return weights;
}

Test(loop, stops_before_a_bad_update) {
  static const struct {
    const char *name, *fault, *phrase;
  } FAULTS[] = {{"loss", "debug.fault=nan_loss@3", "step 3: the loss is nan"},
                {"gradient", "debug.fault=nan_grad@3", "step 3: the gradient of backbone.embedding.weight"}};
  size_t n_good, n_bad;
  char *good = weights_after("good", (const char *const[]){"train.steps=2", NULL}, CODE_OK, NULL, &n_good);
  for (size_t i = 0; i < sizeof FAULTS / sizeof *FAULTS; i++) {
    const char *sets[] = {"train.steps=6", "debug.allow=true", FAULTS[i].fault, NULL};
    char *bad = weights_after(FAULTS[i].name, sets, CODE_NONFINITE, FAULTS[i].phrase, &n_bad);
    cr_assert(n_good == n_bad && !memcmp(good, bad, n_good), "%s: the weights are not those of step 2", FAULTS[i].name);
    char *saved = base_format("%s/checkpoints/step-00000002.h5", FAULTS[i].name);
    cr_assert_eq(access(saved, R_OK), 0, "%s: step 2 was not saved", FAULTS[i].name);
    free(saved);
    free(bad);
  }
  free(good);
}

Test(loop, skips_a_bad_update_and_goes_on_when_told) {
  Run run;
  Config config;
  run_start(&run, &config, "skip",
            (const char *const[]){"train.steps=1", "train.nonfinite=skip", "debug.allow=true", "debug.fault=nan_grad@1",
                                  NULL});
  size_t n_before, n_after;
  char *before = copy_weights(&run, &n_before);
  Status status = loop_train(&run);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  char *after = copy_weights(&run, &n_after);
  cr_assert(n_before == n_after && !memcmp(before, after, n_before), "the skipped step moved the weights");
  cr_assert(run.step == 1 && run.cursor == 4, "step %lld, %lld samples: the skipped batch was not consumed",
            (long long)run.step, (long long)run.cursor);
  free(before), free(after);
  run_end(&run, &config);
}

Test(loop, a_run_that_cannot_begin_leaves_no_directory_and_touches_no_other) {
  Config config;
  Run run;
  for (int there = 0; there < 2; there++) {
    if (there) cr_assert(mkdir("unbegun", 0777) == 0, "unbegun");
    Status status = config_parse(SMALL_YAML, "small.yaml", (const char *[]){"data.path=[absent.txt]"}, 1, &config);
    cr_assert_eq(status.code, CODE_OK, "%s", status.line);
    status = run_open(&run, &config, &(RunOptions){.directory = "unbegun", .quiet = true, .dist = &small_run_dist});
    cr_assert(status.code == CODE_DATA && strstr(status.line, "absent.txt"), "code %d: %s", status.code, status.line);
    cr_assert_eq(access("unbegun", F_OK) == 0, there, "the directory is %s", there ? "gone" : "there");
    status_clear(&status);
    config_free(&config);
  }
}

/* ---- resuming */

/* Bytes that this process has asked of files so far. */
static int64_t bytes_read(void) {
  long long n = 0;
  FILE *file = fopen("/proc/self/io", "r");
  cr_assert(file && fscanf(file, "rchar: %lld", &n) == 1, "/proc/self/io");
  fclose(file);
  return n;
}

Test(loop, a_resumed_run_verifies_its_checkpoint_once_and_reads_it_once) {
  const char *sets[] = {"model.d_model=256", "model.n_layer=1",    "data.tbptt.segment=24",
                        "train.steps=1",     "train.eval_every=0", NULL};
  Run run;
  Config config;
  struct stat st;
  run_start(&run, &config, "resumed", sets);
  Status status = loop_train(&run);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  run_end(&run, &config);
  cr_assert(stat("resumed/checkpoints/step-00000001.h5", &st) == 0 && st.st_size > 4 << 20,
            "a checkpoint of %lld bytes", (long long)st.st_size);
  status = config_parse(SMALL_YAML, "small.yaml", sets, 5, &config);
  cr_assert_eq(status.code, CODE_OK, "%s", status.line);
  const int64_t before = bytes_read();
  status =
      run_open(&run, &config,
               &(RunOptions){.directory = "resumed", .resume = RESUME_AUTO, .quiet = true, .dist = &small_run_dist});
  const int64_t n = bytes_read() - before;
  cr_assert(status.code == CODE_OK && run.step == 1 && !run.carry->lost, "step %lld: %s", (long long)run.step,
            status.line);
  cr_assert(n > 1.9 * (double)st.st_size && n < 2.2 * (double)st.st_size, "%lld bytes read of a checkpoint of %lld",
            (long long)n, (long long)st.st_size);
  run_end(&run, &config);
}
