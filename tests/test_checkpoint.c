/* Checkpoints: what was saved is what loads, and nothing else does; a save that fails or is killed costs nothing. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tensor/h5.h"
#include "tensor/rng.h"
#include "tests/support/rundir.h"
#include "tests/support/store.h"

/* HDF5 1.10.8 loses some of its own memory when it refuses damaged metadata or a close fails. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:libhdf5"; }

static char *run;

static void enter(void) {
  run = rundir_make();
  char *folder = base_format("%s/checkpoints", run);
  cr_assert_eq(mkdir(folder, 0777), 0, "%s", folder);
  free(folder);
}

static void leave(void) { rundir_remove(run); }

TestSuite(checkpoint, .init = enter, .fini = leave, .timeout = 300);

static void save_step(const Store *store, int64_t step) {
  CheckpointInfo info = store_info(step);
  char *path = checkpoint_step_path(run, step);
  store_ok(checkpoint_save(path, &info, &store->params), "save");
  free(path);
  checkpoint_info_free(&info);
}

/* Loads into `loaded` and compares everything with what was saved; false: refused, and nothing was written (`loaded` and
 * `before` are equal on entry). */
static bool loads_as(const char *path, const Store *saved, const CheckpointInfo *info, Store *loaded,
                     const Store *before, const char *name) {
  CheckpointInfo found = {0};
  Status status = checkpoint_load(path, &found, &loaded->params, true);
  bool ok = status.code == CODE_OK;
  if (ok) {
    cr_assert(store_equal(saved, loaded, true), "%s: loaded, but tensors differ from those saved", name);
    cr_assert(store_info_equal(info, &found), "%s: loaded, but attributes differ from those saved", name);
    store_copy(loaded, before);
  } else {
    cr_assert_eq(status.code, CODE_CHECKPOINT, "%s: %s", name, status.line);
    cr_assert(store_equal(before, loaded, true), "%s: refused, but parameters were written", name);
  }
  status_clear(&status);
  checkpoint_info_free(&found);
  return ok;
}

Test(checkpoint, loads_bitwise_what_was_saved) {
  for (int large = 0; large < 2; large++) {
    Store *saved = store_new(F32, true, large, 1), *loaded = store_new(F32, true, large, 2);
    CheckpointInfo info = store_info(12), found;
    char *path = checkpoint_step_path(run, 12);
    store_ok(checkpoint_save(path, &info, &saved->params), "save");
    store_ok(checkpoint_load(path, &found, &loaded->params, true), "load");
    cr_assert(store_equal(saved, loaded, true), "large %d: tensors", large);
    cr_assert(store_info_equal(&info, &found), "large %d: info", large);
    checkpoint_info_free(&info);
    checkpoint_info_free(&found);
    free(path);
    store_free(saved);
    store_free(loaded);
  }
}

Test(checkpoint, keeps_the_masters_of_a_bf16_model) {
  Store *saved = store_new(BF16, true, false, 1), *loaded = store_new(BF16, true, false, 2);
  Store *plain = store_new(F32, false, false, 3), *narrow = store_new(BF16, false, false, 4);
  save_step(saved, 5);
  char *path = checkpoint_step_path(run, 5);
  Store *targets[] = {loaded, plain, narrow};
  for (int i = 0; i < 3; i++) {
    CheckpointInfo found;
    store_ok(checkpoint_load(path, &found, &targets[i]->params, i == 0), "load");
    cr_assert_eq(found.step, 5, "target %d", i);
    checkpoint_info_free(&found);
  }
  cr_assert(store_equal(saved, loaded, true), "values, masters and moments");
  for (int i = 0; i < saved->params.n_params; i++) {
    Param *from = saved->params.params[i];
    cr_assert(!memcmp(param_exact(from)->data, plain->params.params[i]->value.data,
                      tensor_bytes(&plain->params.params[i]->value)),
              "%s: the float32 model gets the masters", from->name);
    cr_assert(!memcmp(from->value.data, narrow->params.params[i]->value.data, tensor_bytes(&from->value)),
              "%s: the bf16 model gets them rounded", from->name);
  }
  free(path);
  for (int i = 0; i < 3; i++) store_free(targets[i]);
  store_free(saved);
}

Test(checkpoint, equal_content_is_equal_bytes) {
  Store *store = store_new(F32, true, true, 1);
  char *paths[2];
  char *bytes[2];
  size_t n[2];
  for (int i = 0; i < 2; i++) {
    paths[i] = base_format("%s/copy-%d.h5", run, i);
    CheckpointInfo info = store_info(3);
    pid_t child = i ? fork() : 0; /* once from another process and another second */
    if (i && child == 0) {
      sleep(1);
      _exit(checkpoint_save(paths[i], &info, &store->params).code);
    }
    if (i == 0) store_ok(checkpoint_save(paths[i], &info, &store->params), "save");
    int how = 0;
    if (i) cr_assert(waitpid(child, &how, 0) == child && WIFEXITED(how) && WEXITSTATUS(how) == 0, "the child saves");
    bytes[i] = store_read(paths[i], &n[i]);
    checkpoint_info_free(&info);
  }
  cr_assert(n[0] == n[1] && !memcmp(bytes[0], bytes[1], n[0]), "%zu and %zu bytes", n[0], n[1]);
  for (int i = 0; i < 2; i++) free(paths[i]), free(bytes[i]);
  store_free(store);
}

Test(checkpoint, without_moments_serves_for_weights_only) {
  Store *saved = store_new(F32, false, false, 1), *loaded = store_new(F32, true, false, 2);
  save_step(saved, 1);
  char *path = checkpoint_step_path(run, 1);
  CheckpointInfo found;
  store_expect(checkpoint_load(path, &found, &loaded->params, true), CODE_CHECKPOINT,
               "optim/m/backbone.embedding.weight: missing", "with moments");
  store_ok(checkpoint_load(path, &found, &loaded->params, false), "without");
  cr_assert(!found.has_optimizer, "has_optimizer");
  checkpoint_info_free(&found);
  free(path);
  store_free(saved);
  store_free(loaded);
}

Test(checkpoint, of_another_model_is_refused_with_every_difference) {
  Store *saved = store_new(F32, true, false, 1);
  Device device;
  store_ok(device_open(&device, "cpu", F32, DEVICE_SIZES_ROOMY), "device");
  ParamTable other = {0};
  params_add(&other, "backbone.embedding.weight", false, 2, (const int64_t[]){5, 7}, (Init){0}, true);
  params_add(&other, "backbone.layers.0.norm.weight", false, 1, (const int64_t[]){5}, (Init){0}, true);
  params_add(&other, "lm_head.weight", false, 2, (const int64_t[]){7, 5}, (Init){0}, true);
  params_alloc(&other, &device, F32, true, 0);
  for (int64_t i = 0; i < 5; i++) tensor_set(&other.params[1]->value, i, 42);
  save_step(saved, 1);
  char *path = checkpoint_step_path(run, 1);
  static const char *const PHRASES[] = {"model/backbone.embedding.weight: found (7, 5), expected (5, 7)",
                                        "model/lm_head.weight: missing", "model/backbone.norm_f.weight: unexpected",
                                        "optim/v/lm_head.weight: missing"};
  for (int i = 0; i < 4; i++) {
    CheckpointInfo found;
    store_expect(checkpoint_load(path, &found, &other, true), CODE_CHECKPOINT, PHRASES[i], PHRASES[i]);
  }
  cr_assert_eq(tensor_get(&other.params[1]->value, 2), 42, "a matching tensor was written though the file is refused");
  free(path);
  params_free(&other);
  device_close(&device);
  store_free(saved);
}

Test(checkpoint, of_a_newer_format_is_refused_with_both_versions) {
  char *path = base_format("%s/new.h5", run);
  H5File *file;
  store_ok(h5_create(path, 1000, true, CODE_CHECKPOINT, &file), "create");
  store_ok(h5_set_int(file, "format", 2), "format");
  store_ok(h5_write_text(file, "text/version", "9.0"), "text");
  store_ok(h5_commit(file), "commit");
  CheckpointInfo info;
  store_expect(checkpoint_read_info(path, &info), CODE_CHECKPOINT, "found 2, expected 1", "newer");
  free(path);
}

Test(checkpoint, truncated_at_any_length_is_refused) {
  Store *store = store_new(F32, false, false, 1);
  save_step(store, 1);
  char *path = checkpoint_step_path(run, 1);
  struct stat st;
  cr_assert_eq(stat(path, &st), 0, "stat");
  for (off_t length = st.st_size - 1; length >= 0; length--) {
    cr_assert_eq(truncate(path, length), 0, "truncate");
    CheckpointInfo info;
    Status status = checkpoint_read_info(path, &info);
    cr_assert_eq(status.code, CODE_CHECKPOINT, "length %lld of %lld was accepted", (long long)length,
                 (long long)st.st_size);
    status_clear(&status);
  }
  free(path);
  store_free(store);
}

Test(checkpoint, with_a_flipped_bit_is_refused_or_identical) {
  Store *store = store_new(F32, true, false, 1), *loaded = store_new(F32, true, false, 2);
  Store *before = store_new(F32, true, false, 2);
  CheckpointInfo info = store_info(1);
  save_step(store, 1);
  char *path = checkpoint_step_path(run, 1), *damaged = base_format("%s/damaged.h5", run);
  size_t n;
  char *bytes = store_read(path, &n);
  Rng rng = rng_make(7, RNG_TEST, 1, 0);
  int refused = 0;
  for (int i = 0; i < 1000; i++) {
    uint32_t at = rng_below(&rng, (uint32_t)n), bit = rng_below(&rng, 8);
    bytes[at] = (char)(bytes[at] ^ (1 << bit));
    store_write(damaged, bytes, n);
    char name[64];
    snprintf(name, sizeof name, "byte %u bit %u", at, bit);
    refused += !loads_as(damaged, store, &info, loaded, before, name);
    bytes[at] = (char)(bytes[at] ^ (1 << bit));
  }
  cr_assert_gt(refused, 500, "only %d of 1000 damaged files were refused", refused);
  free(bytes), free(path), free(damaged);
  checkpoint_info_free(&info);
  store_free(store), store_free(loaded), store_free(before);
}

/* Every single byte of the hashes and attributes matters: changes that HDF5 itself cannot see, because they come with
 * right checksums of its own. */
Test(checkpoint, rewritten_through_the_library_is_refused) {
  Store *store = store_new(F32, true, false, 1);
  save_step(store, 1);
  char *path = checkpoint_step_path(run, 1);
  H5File *from, *to;
  char *forged = base_format("%s/forged.h5", run);
  store_ok(h5_open_read(path, CODE_CHECKPOINT, &from), "open");
  store_ok(h5_create(forged, 1000, false, CODE_CHECKPOINT, &to), "create");
  int64_t digest;
  store_ok(h5_attr_int(from, "/", "digest", &digest), "digest");
  store_ok(h5_set_int(to, "digest", digest), "digest");
  store_ok(h5_set_int(to, "step", 2), "step");
  store_ok(h5_commit(to), "commit");
  h5_close(from);
  CheckpointInfo info;
  store_expect(checkpoint_read_info(forged, &info), CODE_CHECKPOINT, "does not match its digest", "forged");
  free(path), free(forged);
  store_free(store);
}

static void set_file_limit(rlim_t bytes) {
  struct rlimit limit;
  cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0, "getrlimit");
  limit.rlim_cur = bytes;
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0, "setrlimit");
}

Test(checkpoint, on_a_full_disk_leaves_the_old_one) {
  Store *old = store_new(F32, true, false, 1), *new = store_new(F32, true, false, 2);
  CheckpointInfo info = store_info(1);
  save_step(old, 1);
  char *path = checkpoint_step_path(run, 1), *folder = base_format("%s/checkpoints", run);
  size_t n, n_now;
  char *before = store_read(path, &n);
  rlim_t step = (rlim_t)n / 250 + 1;
  for (rlim_t limit = 0; limit < n; limit += step) {
    set_file_limit(limit);
    Status status = checkpoint_save(path, &info, &new->params);
    set_file_limit(RLIM_INFINITY);
    cr_assert_eq(status.code, CODE_CHECKPOINT, "limit %llu: code %d", (unsigned long long)limit, status.code);
    cr_assert(strstr(status.line, path), "limit %llu: \"%s\" names the file", (unsigned long long)limit, status.line);
    status_clear(&status);
    char *now = store_read(path, &n_now);
    cr_assert(n_now == n && !memcmp(before, now, n), "limit %llu: the old checkpoint changed",
              (unsigned long long)limit);
    free(now);
    cr_assert_eq(store_count_files(folder, ".tmp-"), 0, "limit %llu: the temp file is left", (unsigned long long)limit);
  }
  store_ok(checkpoint_save(path, &info, &new->params), "with room again");
  checkpoint_info_free(&info);
  store_ok(checkpoint_load(path, &info, &old->params, true), "after the failures");
  cr_assert(store_equal(old, new, true), "the new one loads");
  free(before), free(path), free(folder);
  checkpoint_info_free(&info);
  store_free(old), store_free(new);
}

Test(checkpoint, into_a_folder_that_cannot_be_written_says_so) {
  Store *store = store_new(F32, false, false, 1);
  CheckpointInfo info = store_info(1);
  char *missing = base_format("%s/nowhere/a.h5", run), *locked = base_format("%s/checkpoints/a.h5", run);
  store_expect(checkpoint_save(missing, &info, &store->params), CODE_CHECKPOINT, "No such file or directory",
               "missing");
  char *folder = base_format("%s/checkpoints", run);
  cr_assert(chmod(run, 0755) == 0 && chmod(folder, 0555) == 0, "chmod");
  pid_t child = fork(); /* permissions mean nothing to root */
  if (child == 0) {
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) _exit(99);
    Status status = checkpoint_save(locked, &info, &store->params);
    _exit(status.code == CODE_CHECKPOINT && strstr(status.line, "Permission denied") ? 0 : 1);
  }
  int how;
  cr_assert(waitpid(child, &how, 0) == child && WIFEXITED(how) && WEXITSTATUS(how) == 0, "read-only: status %x", how);
  cr_assert_eq(chmod(folder, 0755), 0, "chmod");
  free(missing), free(locked), free(folder);
  checkpoint_info_free(&info);
  store_free(store);
}

/* Saves steps 1, 2, ... for ever; *acknowledged is the last one that returned. */
static void save_for_ever(const Store *store, int64_t from, volatile int64_t *acknowledged) {
  for (int64_t step = from;; step++) {
    CheckpointInfo info = store_info(step);
    char *path = checkpoint_step_path(run, step);
    if (checkpoint_save(path, &info, &store->params).code != CODE_OK) _exit(1);
    *acknowledged = step;
    checkpoint_info_free(&info);
    free(path);
    if (checkpoint_prune(run, 2).code != CODE_OK) _exit(2);
  }
}

Test(checkpoint, survives_kill_at_any_moment) {
  Store *store = store_new(F32, true, false, 1), *loaded = store_new(F32, true, false, 2);
  Store *before = store_new(F32, true, false, 2);
  volatile int64_t *acknowledged =
      mmap(NULL, sizeof *acknowledged, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  cr_assert_neq((void *)acknowledged, MAP_FAILED, "mmap");
  *acknowledged = 0;
  Rng rng = rng_make(11, RNG_TEST, 2, 0);
  for (int round = 0; round < 60; round++) {
    pid_t child = fork();
    if (child == 0) save_for_ever(store, *acknowledged + 1, acknowledged);
    int64_t wanted = *acknowledged + rng_below(&rng, 3);
    while (*acknowledged < wanted && kill(child, 0) == 0) usleep(100);
    usleep(rng_below(&rng, 10000));
    kill(child, SIGKILL);
    int how;
    cr_assert(waitpid(child, &how, 0) == child && WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL, "round %d: status %x",
              round, how);
    Checkpoint *last;
    char *message;
    store_ok(checkpoint_open_last(run, &last, &message), "find");
    cr_assert_null(message, "round %d: a published file is damaged: %s", round, message);
    if (*acknowledged == 0) {
      checkpoint_close(last);
      continue;
    }
    cr_assert_not_null(last, "round %d: step %lld is lost", round, (long long)*acknowledged);
    const int64_t step = last->info.step;
    cr_assert(step == *acknowledged || step == *acknowledged + 1, "round %d: found step %lld, acknowledged %lld", round,
              (long long)step, (long long)*acknowledged);
    CheckpointInfo expected = store_info(step);
    cr_assert(loads_as(last->path, store, &expected, loaded, before, "after kill"),
              "round %d: the last one does not load", round);
    checkpoint_info_free(&expected);
    checkpoint_close(last);
  }
  cr_assert_gt(*acknowledged, 30, "too few saves (%lld) for a test of kills", (long long)*acknowledged);
  save_step(store, *acknowledged + 1);
  char *folder = base_format("%s/checkpoints", run);
  cr_assert_eq(store_count_files(folder, ".tmp-"), 0, "temp files of killed processes are left");
  free(folder);
  store_free(store), store_free(loaded), store_free(before);
}

Test(checkpoint, temp_files_of_the_living_are_left_alone) {
  Store *store = store_new(F32, false, false, 1);
  char *theirs = base_format("%s/checkpoints/step-00000009.h5.tmp-%ld", run, (long)getppid());
  store_write(theirs, "x", 1);
  save_step(store, 1);
  cr_assert_eq(access(theirs, F_OK), 0, "a temp file of a running process was removed");
  free(theirs);
  store_free(store);
}

static void damage(int64_t step) {
  char *path = checkpoint_step_path(run, step);
  size_t n;
  char *bytes = store_read(path, &n);
  bytes[n / 2] = (char)(bytes[n / 2] ^ 0x10), bytes[n / 3] = (char)(bytes[n / 3] ^ 1);
  cr_assert_eq(truncate(path, (off_t)n - 1), 0, "truncate");
  free(bytes), free(path);
}

static void expect_last(int64_t step, const char *said) {
  Checkpoint *last;
  char *message, *expected = step ? checkpoint_step_path(run, step) : NULL;
  store_ok(checkpoint_open_last(run, &last, &message), "find");
  const char *path = last ? last->path : NULL;
  cr_assert((!path && !expected) || (path && expected && !strcmp(path, expected)), "found %s, expected %s",
            path ? path : "none", expected ? expected : "none");
  cr_assert(said ? message && strstr(message, said) : !message, "said \"%s\"", message ? message : "");
  checkpoint_close(last);
  free(message), free(expected);
}

Test(checkpoint, the_last_good_one_is_found) {
  Store *store = store_new(F32, false, false, 1);
  expect_last(0, NULL);
  save_step(store, 2), save_step(store, 10), save_step(store, 100000000);
  char *best = checkpoint_best_path(run), *noise = base_format("%s/checkpoints/step-0000003.h5", run);
  store_write(best, "x", 1), store_write(noise, "x", 1);
  expect_last(100000000, NULL);
  damage(100000000);
  expect_last(10, "step-100000000.h5");
  damage(10), damage(2);
  Checkpoint *last;
  char *message;
  store_expect(checkpoint_open_last(run, &last, &message), CODE_CHECKPOINT, "none of its 3 checkpoints", "all damaged");
  free(best), free(noise);
  store_free(store);
}

static void expect_steps(const int64_t *steps, int n, const char *name) {
  char *folder = base_format("%s/checkpoints", run);
  cr_assert_eq(store_count_files(folder, "step-"), n, "%s: number of files", name);
  for (int i = 0; i < n; i++) {
    char *path = checkpoint_step_path(run, steps[i]);
    cr_assert_eq(access(path, F_OK), 0, "%s: %s", name, path);
    free(path);
  }
  free(folder);
}

Test(checkpoint, pruning_keeps_the_newest_and_the_best) {
  Store *store = store_new(F32, false, false, 1);
  for (int64_t step = 1; step <= 5; step++) save_step(store, step);
  char *best = checkpoint_best_path(run);
  store_write(best, "x", 1);
  store_ok(checkpoint_prune(run, 3), "prune");
  expect_steps((const int64_t[]){3, 4, 5}, 3, "keep 3");
  damage(5);
  store_expect(checkpoint_prune(run, 1), CODE_CHECKPOINT, "step-00000005.h5", "the newest is damaged");
  expect_steps((const int64_t[]){3, 4, 5}, 3, "nothing goes while the newest is damaged");
  cr_assert_eq(access(best, F_OK), 0, "best.h5 stays");
  free(best);
  store_free(store);
}
