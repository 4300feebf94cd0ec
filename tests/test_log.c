/* The run log: what it promises about files after kills, resumes and full disks; TensorBoard's format; numbers. */
#include "train/log.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/rundir.h"
#include "train/tfevents.h"

static RunLog *open_log(const char *directory, int64_t resume_step) {
  RunLog *log = NULL;
  Status status = runlog_open(&(RunLogOptions){.directory = directory,
                                               .resume_step = resume_step,
                                               .config_yaml = "seed: 1\n",
                                               .command = "aspis train \"a b\".yaml",
                                               .quiet = true},
                              &log);
  cr_assert_eq(status.code, CODE_OK, "the log opens: %s", status.line ? status.line : "");
  return log;
}

static StepMetrics step_metrics(int64_t step, double seconds) {
  return (StepMetrics){.step = step,
                       .steps = 100,
                       .tokens = step * 512,
                       .loss = (float)(4.0 / (double)step),
                       .lr = 1e-3 / (double)step,
                       .grad_norm = (float)(1.0 / 3),
                       .tok_per_s = 1000 / seconds,
                       .seconds = seconds,
                       .mem_bytes = 1 << 20,
                       .mfu = NAN};
}

static void log_steps(RunLog *log, int64_t first, int64_t last, double seconds) {
  for (int64_t step = first; step <= last; step++) {
    StepMetrics m = step_metrics(step, seconds * (double)step);
    runlog_step(log, &m);
    if (step % 5 == 0) runlog_eval(log, step, m.tokens, &(NamedValue){"val_loss", m.loss / 2}, 1);
  }
}

/* metrics.jsonl without what may differ between runs. */
static char *comparable_metrics(const char *directory) {
  char *text = rundir_read(directory, "metrics.jsonl");
  StrBuf out = {0};
  for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
    json_t *object = json_loads(line, 0, NULL);
    cr_assert(json_is_object(object), "every line of metrics is a JSON object: %s", line);
    json_object_del(object, "seconds");
    json_object_del(object, "tok_per_s");
    json_object_del(object, "mem_mib");
    char *dumped = json_dumps(object, JSON_SORT_KEYS);
    strbuf_printf(&out, "%s\n", dumped);
    free(dumped);
    json_decref(object);
  }
  free(text);
  return out.data;
}

Test(log, resumed_run_leaves_the_same_metrics_as_an_uninterrupted_one) {
  char *straight = rundir_make(), *resumed = rundir_make();
  RunLog *log = open_log(straight, -1);
  log_steps(log, 1, 20, 0.1);
  runlog_close(log);

  log = open_log(resumed, -1);
  log_steps(log, 1, 13, 0.2); /* checkpoint at 10, then killed in the middle of a line */
  runlog_close(log);
  rundir_append(resumed, "metrics.jsonl", "{\"step\":14,\"tok");
  log = open_log(resumed, 10);
  log_steps(log, 11, 20, 0.3);
  runlog_close(log);

  char *expected = comparable_metrics(straight), *found = comparable_metrics(resumed);
  cr_assert_str_eq(found, expected, "metrics after a kill at step 13 and a resume from step 10");
  free(expected);
  free(found);
  rundir_remove(straight);
  rundir_remove(resumed);
}

Test(log, fresh_run_forgets_the_lines_of_one_that_left_no_checkpoint) {
  char *directory = rundir_make();
  rundir_append(directory, "metrics.jsonl", "{\"step\":0,\"tokens\":0,\"val_loss\":5}\n{\"step\":1}\n");
  runlog_close(open_log(directory, -1));
  char *text = rundir_read(directory, "metrics.jsonl");
  cr_assert_str_eq(text, "", "a fresh run starts with empty metrics");
  free(text);
  rundir_remove(directory);
}

Test(log, damaged_lines_are_dropped_on_resume_and_good_ones_kept_to_the_byte) {
  char *directory = rundir_make();
  rundir_append(
      directory, "metrics.jsonl",
      "{\"step\":1, \"loss\":2.50}\nnot json\n{\"loss\":1}\n{\"step\":2,\"loss\":2}\n{\"step\":3}\n{\"step\":");
  runlog_close(open_log(directory, 2));
  char *text = rundir_read(directory, "metrics.jsonl");
  cr_assert_str_eq(text, "{\"step\":1, \"loss\":2.50}\n{\"step\":2,\"loss\":2}\n", "kept lines");
  free(text);
  rundir_remove(directory);
}

Test(log, each_line_is_on_disk_as_soon_as_it_is_logged) {
  char *directory = rundir_make();
  RunLog *log = open_log(directory, -1);
  StepMetrics m = step_metrics(1, 0.5);
  runlog_step(log, &m);
  char *text = rundir_read(directory, "metrics.jsonl");
  cr_assert_str_eq(text,
                   "{\"step\":1,\"tokens\":512,\"loss\":4,\"lr\":0.001,\"grad_norm\":0.3333333432674408,"
                   "\"tok_per_s\":2000,\"mem_mib\":1,\"seconds\":0.5}\n",
                   "the first line before the log is closed");
  free(text);
  runlog_close(log);
  rundir_remove(directory);
}

Test(log, nonfinite_numbers_are_null_with_their_kind) {
  char *directory = rundir_make();
  RunLog *log = open_log(directory, -1);
  runlog_eval(log, 3, 7, (NamedValue[]){{"val_loss", NAN}, {"perplexity", INFINITY}, {"accuracy", 0.25}}, 3);
  char *text = rundir_read(directory, "metrics.jsonl");
  cr_assert_str_eq(text,
                   "{\"step\":3,\"tokens\":7,\"val_loss\":null,\"perplexity\":null,\"accuracy\":0.25,"
                   "\"nonfinite\":\"nan,inf\"}\n",
                   "a line with nan and inf");
  free(text);
  runlog_close(log);
  rundir_remove(directory);
}

Test(log, full_disk_loses_no_line_once_there_is_room_again) {
  char *directory = rundir_make();
  signal(SIGXFSZ, SIG_IGN);
  RunLog *log = open_log(directory, -1);
  log_steps(log, 1, 2, 0.1);
  struct rlimit full = {.rlim_cur = 400, .rlim_max = RLIM_INFINITY}; /* in the middle of a line */
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &full), 0, "the file size limit is set");
  StderrCapture capture = stderr_capture_begin();
  log_steps(log, 3, 8, 0.1);
  char *said = stderr_capture_end(capture);
  full.rlim_cur = RLIM_INFINITY;
  cr_assert_eq(setrlimit(RLIMIT_FSIZE, &full), 0, "the file size limit is lifted");
  log_steps(log, 9, 10, 0.1);
  runlog_close(log);

  char *whole = rundir_make();
  log = open_log(whole, -1);
  log_steps(log, 1, 10, 0.1);
  runlog_close(log);
  char *expected = rundir_read(whole, "metrics.jsonl"), *found = rundir_read(directory, "metrics.jsonl");
  cr_assert_str_eq(found, expected, "metrics with the disk full from step 3 to step 8");
  char *first = strstr(said, "warning: ");
  cr_assert_not_null(first, "the trouble is told, stderr was: %s", said);
  cr_assert_null(strstr(first + 1, "warning: "), "the trouble is told once, stderr was: %s", said);
  free(said);
  free(expected);
  free(found);
  rundir_remove(directory);
  rundir_remove(whole);
}

Test(log, status_follows_the_run_and_remembers_resumes) {
  char *directory = rundir_make();
  RunLog *log = open_log(directory, -1);
  log_steps(log, 1, 4, 0.1);
  runlog_state(log, RUN_STOPPED, CODE_STOPPED, "SIGTERM");
  runlog_close(log);
  runlog_close(open_log(directory, 4));
  log = open_log(directory, 2); /* goes back behind the resume at 4 */
  runlog_state(log, RUN_DONE, 0, NULL);
  runlog_close(log);
  char *text = rundir_read(directory, "status.json");
  json_t *status = json_loads(text, 0, NULL);
  cr_assert_str_eq(json_string_value(json_object_get(status, "state")), "done", "state in %s", text);
  cr_assert_eq(json_integer_value(json_object_get(status, "pid")), getpid(), "pid in %s", text);
  cr_assert_eq(json_integer_value(json_object_get(status, "step")), 2, "step in %s", text);
  cr_assert(json_is_null(json_object_get(status, "reason")), "reason in %s", text);
  cr_assert_str_eq(json_string_value(json_object_get(status, "command")), "aspis train \"a b\".yaml", "command in %s",
                   text);
  json_t *resumes = json_object_get(status, "resumes");
  cr_assert_eq(json_array_size(resumes), 1, "resumes in %s", text);
  cr_assert_eq(json_integer_value(json_array_get(resumes, 0)), 2, "resumes in %s", text);
  json_decref(status);
  free(text);
  rundir_remove(directory);
}

Test(log, progress_line_reads_as_documented) {
  char *directory = rundir_make();
  RunLog *log = NULL;
  Status status = runlog_open(&(RunLogOptions){.directory = directory, .resume_step = 200}, &log);
  cr_assert_eq(status.code, CODE_OK, "the log opens");
  StepMetrics m = {.step = 1200,
                   .steps = 20000,
                   .tokens = 1,
                   .loss = 3.28412,
                   .lr = 2.9e-4,
                   .grad_norm = 0.841,
                   .tok_per_s = 412345,
                   .seconds = 357.5,
                   .mem_bytes = (int64_t)(61.2 * (1 << 30)),
                   .mfu = 0.381};
  StderrCapture capture = stderr_capture_begin();
  runlog_step(log, &m);
  m.mfu = NAN;
  runlog_step(log, &m);
  runlog_note(log, "saved %s", "step 1200");
  char *said = stderr_capture_end(capture);
  cr_assert_str_eq(
      said,
      "step 1200/20000 | loss 3.2841 | lr 2.9e-04 | norm 0.84 | 412k tok/s | 38.1% MFU | 61.2 GiB | eta 1h52m\n"
      "step 1200/20000 | loss 3.2841 | lr 2.9e-04 | norm 0.84 | 412k tok/s | 61.2 GiB | eta 1h52m\nsaved step 1200\n",
      "progress on something that is no terminal");
  free(said);
  runlog_close(log);
  rundir_remove(directory);
}

Test(log, samples_are_files_of_their_step) {
  char *directory = rundir_make();
  RunLog *log = open_log(directory, -1);
  runlog_sample(log, 40, "to be\nor not");
  char *text = rundir_read(directory, "samples/step-00000040.txt");
  cr_assert_str_eq(text, "to be\nor not", "the sample of step 40");
  free(text);
  runlog_close(log);
  rundir_remove(directory);
}

Test(log, other_ranks_log_nothing) {
  StepMetrics m = step_metrics(1, 1);
  runlog_step(NULL, &m);
  runlog_eval(NULL, 1, 1, NULL, 0);
  runlog_sample(NULL, 1, "x");
  runlog_note(NULL, "x");
  runlog_sync(NULL);
  runlog_state(NULL, RUN_DONE, 0, NULL);
  runlog_close(NULL);
  cr_assert(true, "NULL logs are accepted");
}

Test(log, missing_directory_is_one_line_about_data) {
  RunLog *log = NULL;
  Status status =
      runlog_open(&(RunLogOptions){.directory = "/nonexistent/run", .resume_step = -1, .quiet = true}, &log);
  cr_assert_eq(status.code, CODE_DATA, "code of a log in a missing directory");
  cr_assert_str_eq(status.line, "/nonexistent/run/metrics.jsonl: cannot write: No such file or directory", "its line");
  status_clear(&status);
}

Test(lock, second_trainer_is_refused_by_name_until_the_first_has_gone) {
  char *directory = rundir_make();
  int ready[2], leave[2], lock = -1;
  cr_assert(pipe(ready) == 0 && pipe(leave) == 0, "pipes");
  pid_t holder = fork();
  if (holder == 0) {
    char byte = 0;
    close(leave[1]); /* so that the end of the test ends this process too */
    Status taken = runlock_take(directory, &lock);
    if (taken.code != CODE_OK || write(ready[1], &byte, 1) != 1) _exit(1);
    _exit(read(leave[0], &byte, 1) < 0);
  }
  char byte, expected[64];
  cr_assert_eq(read(ready[0], &byte, 1), 1, "the holder has the lock");
  Status status = runlock_take(directory, &lock);
  snprintf(expected, sizeof expected, "(pid %d on host ", (int)holder);
  cr_assert_eq(status.code, CODE_USAGE, "code of the second trainer");
  cr_assert_not_null(strstr(status.line, expected), "the line names the holder: %s", status.line);
  status_clear(&status);
  close(leave[1]);
  cr_assert_eq(waitpid(holder, NULL, 0), holder, "the holder ends");
  status = runlock_take(directory, &lock);
  cr_assert_eq(status.code, CODE_OK, "the lock is free after its holder's end: %s", status.line ? status.line : "");
  runlock_release(lock);
  rundir_remove(directory);
}

/* TensorBoard --------------------------------------------------------------------------------------------------- */

Test(tfevents, crc32c_has_the_known_answers) {
  cr_assert_eq(crc32c("123456789", 9), 0xe3069283u, "CRC-32C of the check string");
  cr_assert_eq(crc32c("", 0), 0u, "CRC-32C of nothing");
  cr_assert_eq(crc32c((char[32]){0}, 32), 0x8a9136aau, "CRC-32C of 32 zeros (RFC 3720, B.4)");
}

static uint64_t read_fixed(const unsigned char *p, int n) {
  uint64_t value = 0;
  for (int i = n; i-- > 0;) value = value << 8 | p[i];
  return value;
}

static uint64_t read_varint(const unsigned char **p) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    value |= (uint64_t)(**p & 0x7f) << shift;
    if (!(*(*p)++ & 0x80)) return value;
  }
}

/* Writes a protobuf message as "field:value" pairs, descending into the fields named in `nested` by their path. */
static void decode(StrBuf *out, const unsigned char *p, size_t n, const char *path) {
  static const char *const nested[] = {".5", ".5.1", ".5.1.8", ".5.1.8.2", ".5.1.8.2.2", ".5.1.9", ".5.1.9.1", ".7"};
  const unsigned char *end = p + n;
  while (p < end) {
    uint64_t key = read_varint(&p);
    char here[64];
    snprintf(here, sizeof here, "%s.%d", path, (int)(key >> 3));
    bool descend = false;
    for (size_t i = 0; i < sizeof nested / sizeof *nested; i++) descend |= !strcmp(nested[i], here);
    if ((key & 7) == 0) strbuf_printf(out, "%s=%lld ", here, (long long)read_varint(&p));
    else if ((key & 7) == 1) {
      double value;
      uint64_t bits = read_fixed(p, 8);
      memcpy(&value, &bits, 8);
      strbuf_printf(out, "%s=%g ", here, value);
      p += 8;
    } else if ((key & 7) == 5) {
      float value;
      uint32_t bits = (uint32_t)read_fixed(p, 4);
      memcpy(&value, &bits, 4);
      strbuf_printf(out, "%s=%g ", here, value);
      p += 4;
    } else {
      cr_assert_eq(key & 7, 2, "wire type of %s", here);
      size_t length = read_varint(&p);
      cr_assert_leq(length, (size_t)(end - p), "length of %s", here);
      if (descend) decode(out, p, length, here);
      else strbuf_printf(out, "%s='%.*s' ", here, (int)length, (const char *)p);
      p += length;
    }
  }
}

static uint32_t unmasked(uint32_t masked) {
  uint32_t rotated = masked - 0xa282ead8u;
  return rotated >> 17 | rotated << 15;
}

Test(tfevents, written_events_decode_back) {
  StrBuf file = {0}, text = {0};
  tfevents_version(&file, 1.5);
  tfevents_session_start(&file, 2.5, 301);
  tfevents_scalar(&file, 3.5, 300, "train/loss", 0.25);
  tfevents_text(&file, 4.5, 7, "sample", "to be");
  for (size_t at = 0; at < file.n;) {
    const unsigned char *record = (const unsigned char *)file.data + at;
    size_t n = read_fixed(record, 8);
    cr_assert_eq(unmasked((uint32_t)read_fixed(record + 8, 4)), crc32c(record, 8), "CRC of the length at byte %zu", at);
    cr_assert_leq(at + 16 + n, file.n, "record at byte %zu ends within the file", at);
    cr_assert_eq(unmasked((uint32_t)read_fixed(record + 12 + n, 4)), crc32c(record + 12, n), "CRC of the event at %zu",
                 at);
    decode(&text, record + 12, n, "");
    strbuf_puts(&text, "\n");
    at += 16 + n;
  }
  cr_assert_str_eq(text.data,
                   ".1=1.5 .2=0 .3='brain.Event:2' \n"
                   ".1=2.5 .2=301 .7.1=1 \n"
                   ".1=3.5 .2=300 .5.1.1='train/loss' .5.1.2=0.25 \n"
                   ".1=4.5 .2=7 .5.1.1='sample' .5.1.8.1=7 .5.1.8.2.2.1=1 .5.1.8.8='to be' .5.1.9.1.1='text' \n",
                   "events by field numbers");
  free(file.data);
  free(text.data);
}

/* Numbers ------------------------------------------------------------------------------------------------------- */

Test(format, doubles_are_short_and_read_back_exactly) {
  const struct {
    double value;
    char text[32];
  } cases[] = {{0.1, "0.1"},   {0, "0"},         {3e-4, "0.0003"}, {1.0 / 3, "0.3333333333333333"},
               {-2.5, "-2.5"}, {1e300, "1e+300"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    cr_assert_str_eq(format_double(cases[i].value).text, cases[i].text, "case %zu", i);
  uint64_t bits = 88172645463325252u; /* xorshift64 over all bit patterns */
  for (int i = 0; i < 20000; i++) {
    bits ^= bits << 13, bits ^= bits >> 7, bits ^= bits << 17;
    double value;
    memcpy(&value, &bits, 8);
    if (isfinite(value)) cr_assert_eq(strtod(format_double(value).text, NULL), value, "double %a", value);
  }
}

Test(format, people_get_three_digits_and_a_unit) {
  const struct {
    char found[32], expected[32];
  } cases[] = {
      {"", "950"},     {"", "412k"}, {"", "1.24M"}, {"", "1.00M"}, {"", "0"},     {"", "n/a"},   {"", "61.2 GiB"},
      {"", "512 MiB"}, {"", "42s"},  {"", "3m05s"}, {"", "1h52m"}, {"", "2d03h"}, {"", "1m00s"}, {"", "n/a"},
  };
  Short found[] = {format_count(950),          format_count(412345),    format_count(1.236e6),
                   format_count(999999),       format_count(0),         format_count(NAN),
                   format_bytes(65712999629.), format_bytes(512 << 20), format_duration(42.4),
                   format_duration(185),       format_duration(6720),   format_duration(51 * 3600 + 100),
                   format_duration(59.6),      format_duration(NAN)};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    cr_assert_str_eq(found[i].text, cases[i].expected, "case %zu", i);
}

Test(format, sparkline_speaks_the_terminals_alphabet) {
  const double values[] = {0, 1, 2, 3, NAN, 5, 6, 7};
  setenv("LC_ALL", "en_US.UTF-8", 1);
  char *line = format_sparkline(values, 8, 8);
  cr_assert_str_eq(line, "▁▂▃▄ ▆▇█", "UTF-8, a column a value");
  free(line);
  line = format_sparkline((double[]){0, 0, 4, 4}, 4, 2);
  cr_assert_str_eq(line, "▁█", "columns are means");
  free(line);
  setenv("LC_ALL", "C", 1);
  line = format_sparkline(values, 8, 80);
  cr_assert_str_eq(line, "_.-~ +*#", "ASCII");
  free(line);
  line = format_sparkline(values, 0, 10);
  cr_assert_str_eq(line, "", "no values");
  free(line);
  line = format_sparkline((double[]){2, 2}, 2, 10);
  cr_assert_str_eq(line, "__", "equal values");
  free(line);
}
