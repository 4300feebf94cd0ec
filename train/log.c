/* log: see log.h. */
#include "train/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "train/tfevents.h"

#define STATUS_INTERVAL_SECONDS 5.0 /* each write waits for the disk */

/* A file that only grows; what the disk refused waits in `pending`. */
typedef struct Sink {
  char *path;
  int fd;
  StrBuf pending;
} Sink;

struct RunLog {
  char *directory;
  Sink metrics, events;
  bool quiet, terminal;
  bool told_trouble; /* since the last write that went well */
  int shown_width;   /* of the progress line now on the terminal, 0: none */
  int64_t first_step, last_step;
  json_t *resumes; /* steps at which sessions took up again */
  json_t *command; /* string or null */
  char started[32];
  double status_written; /* base_seconds of the last status.json */
};

static double wall_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void utc_now(char text[32]) {
  time_t now = time(NULL);
  struct tm parts;
  gmtime_r(&now, &parts);
  strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

/* The terminal ------------------------------------------------------------------------------------------------- */

static void progress_clear(RunLog *log) {
  if (log->shown_width) fprintf(stderr, "\r%*s\r", log->shown_width, "");
  log->shown_width = 0;
}

void runlog_note(RunLog *log, const char *format, ...) {
  if (!log) return;
  va_list args;
  va_start(args, format);
  progress_clear(log);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
}

static void progress_show(RunLog *log, char *line) {
  if (!log->terminal) {
    fprintf(stderr, "%s\n", line);
    return;
  }
  struct winsize window = {0};
  int width = (int)strlen(line), columns = 80;
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1) columns = window.ws_col;
  if (width > columns - 1) width = columns - 1; /* the last column would wrap */
  int padding = log->shown_width > width ? log->shown_width - width : 0;
  if (padding > columns - 1 - width) padding = columns - 1 - width; /* the window has shrunk */
  fprintf(stderr, "\r%.*s%*s", width, line, padding, "");
  log->shown_width = width;
}

/* The files ---------------------------------------------------------------------------------------------------- */

/* failure: "<path>: cannot write: <reason>" */
static void trouble(RunLog *log, const char *failure) {
  if (!log->told_trouble)
    runlog_note(log, "warning: %s; training goes on, what is missing follows when there is room", failure);
  log->told_trouble = true;
}

static void trouble_errno(RunLog *log, const char *path) {
  char *failure = base_format("%s: cannot write: %s", path, strerror(errno));
  trouble(log, failure);
  free(failure);
}

static void sink_flush(RunLog *log, Sink *sink) {
  size_t done = 0;
  while (done < sink->pending.n) {
    ssize_t n = write(sink->fd, sink->pending.data + done, sink->pending.n - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      trouble_errno(log, sink->path);
      break;
    }
    done += (size_t)n;
  }
  if (done) memmove(sink->pending.data, sink->pending.data + done, sink->pending.n - done);
  sink->pending.n -= done;
  if (!sink->pending.n && done) log->told_trouble = false;
}

static Status sink_open(Sink *sink) {
  sink->fd = open(sink->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (sink->fd < 0) return status_fail(CODE_DATA, "%s: cannot write: %s", sink->path, strerror(errno));
  return STATUS_OK;
}

static void sink_close(RunLog *log, Sink *sink) {
  if (sink->fd >= 0) {
    sink_flush(log, sink);
    if (sink->pending.n)
      runlog_note(log, "warning: %s: the last %zu bytes could not be written", sink->path, sink->pending.n);
    close(sink->fd);
  }
  free(sink->pending.data);
  free(sink->path);
}

/* Keeps the whole lines of steps up to `last`. */
static Status metrics_cut(const char *path, int64_t last) {
  if (access(path, F_OK) < 0) return STATUS_OK;
  StrBuf old = {0}, kept = {0};
  TRY_OR(strbuf_load(&old, path), free(old.data));
  for (size_t at = 0; at < old.n;) {
    const char *end = memchr(old.data + at, '\n', old.n - at);
    if (!end) break;
    size_t n = (size_t)(end - (old.data + at)) + 1;
    json_t *line = json_loadb(old.data + at, n, 0, NULL), *step = json_object_get(line, "step");
    if (json_is_integer(step) && json_integer_value(step) <= last) strbuf_add(&kept, old.data + at, n);
    json_decref(line);
    at += n;
  }
  Status status = kept.n == old.n ? STATUS_OK : strbuf_save(&kept, path);
  free(old.data);
  free(kept.data);
  return status;
}

static const char *const state_names[] = {"running", "done", "stopped", "failed"};

static void status_write(RunLog *log, RunState state, int exit_code, const char *reason) {
  char host[64] = "", updated[32];
  gethostname(host, sizeof host - 1);
  utc_now(updated);
  json_t *code = state == RUN_RUNNING ? json_null() : json_integer(exit_code);
  json_t *why = reason ? json_string(reason) : NULL;
  if (!why) why = json_null(); /* no reason, or one that is not UTF-8 */
  json_t *object =
      json_pack("{s:s, s:I, s:i, s:s, s:o, s:o, s:s, s:s, s:O, s:O}", "state", state_names[state], "step",
                (json_int_t)log->last_step, "pid", (int)getpid(), "host", host, "exit_code", code, "reason", why,
                "started", log->started, "updated", updated, "resumes", log->resumes, "command", log->command);
  CHECK(object, "status.json cannot be built (host \"%s\")", host);
  StrBuf text = {0};
  char *dumped = json_dumps(object, JSON_INDENT(2)), *path = base_format("%s/status.json", log->directory);
  CHECK(dumped, "status.json cannot be written as text");
  strbuf_printf(&text, "%s\n", dumped);
  Status status = strbuf_save(&text, path);
  if (status.code != CODE_OK) trouble(log, status.line);
  status_clear(&status);
  free(path);
  free(dumped);
  free(text.data);
  json_decref(object);
  log->status_written = base_seconds();
}

/* The steps of earlier sessions' resumes that the resumed history still contains, and this one's. */
static json_t *resumes_so_far(const char *directory, int64_t resume_step) {
  json_t *resumes = json_array();
  if (resume_step < 0) return resumes;
  char *path = base_format("%s/status.json", directory);
  json_t *old = json_load_file(path, 0, NULL), *value;
  size_t i;
  json_array_foreach(json_object_get(old, "resumes"), i, value) {
    if (json_is_integer(value) && json_integer_value(value) < resume_step) json_array_append(resumes, value);
  }
  json_array_append_new(resumes, json_integer(resume_step));
  json_decref(old);
  free(path);
  return resumes;
}

/* Opening and closing ------------------------------------------------------------------------------------------ */

static void events_begin(RunLog *log, const RunLogOptions *options) {
  double now = wall_seconds();
  tfevents_version(&log->events.pending, now);
  tfevents_session_start(&log->events.pending, now, options->resume_step + 1);
  if (options->config_yaml) {
    StrBuf fenced = {0};
    strbuf_printf(&fenced, "```yaml\n%s\n```\n", options->config_yaml);
    tfevents_text(&log->events.pending, now, log->first_step, "config", fenced.data);
    free(fenced.data);
  }
  sink_flush(log, &log->events);
}

static void runlog_free(RunLog *log) {
  sink_close(log, &log->metrics);
  sink_close(log, &log->events);
  json_decref(log->resumes);
  json_decref(log->command);
  free(log->directory);
  free(log);
}

Status runlog_open(const RunLogOptions *options, RunLog **out) {
  RunLog *log = base_zalloc(sizeof *log);
  char host[64] = "";
  gethostname(host, sizeof host - 1);
  log->directory = base_strdup(options->directory);
  log->metrics = (Sink){base_format("%s/metrics.jsonl", options->directory), -1, {0}};
  log->events = (Sink){base_format("%s/events.out.tfevents.%010lld.%s.%d.0", options->directory, (long long)time(NULL),
                                   host, (int)getpid()),
                       -1,
                       {0}};
  log->quiet = options->quiet;
  log->terminal = isatty(STDERR_FILENO);
  log->first_step = log->last_step = max_i64(options->resume_step, 0);
  log->resumes = resumes_so_far(options->directory, options->resume_step);
  log->command = options->command ? json_string(options->command) : NULL;
  if (!log->command) log->command = json_null(); /* none, or not UTF-8 */
  utc_now(log->started);
  TRY_OR(metrics_cut(log->metrics.path, options->resume_step), runlog_free(log));
  TRY_OR(sink_open(&log->metrics), runlog_free(log));
  TRY_OR(sink_open(&log->events), runlog_free(log));
  events_begin(log, options);
  status_write(log, RUN_RUNNING, 0, NULL);
  *out = log;
  return STATUS_OK;
}

void runlog_close(RunLog *log) {
  if (!log) return;
  if (log->shown_width) fputc('\n', stderr);
  log->shown_width = 0;
  runlog_free(log);
}

/* What is told ------------------------------------------------------------------------------------------------- */

static const char *nonfinite_kind(double value) { return isnan(value) ? "nan" : value > 0 ? "inf" : "-inf"; }

/* One line of metrics, and the same numbers for TensorBoard under <group>/<name>. */
static void metrics_write(RunLog *log, int64_t step, int64_t tokens, const char *group, const NamedValue *values,
                          int n_values) {
  StrBuf *line = &log->metrics.pending, kinds = {0};
  double now = wall_seconds();
  strbuf_printf(line, "{\"step\":%lld,\"tokens\":%lld", (long long)step, (long long)tokens);
  for (int i = 0; i < n_values; i++) {
    CHECK(values[i].name[strspn(values[i].name, "abcdefghijklmnopqrstuvwxyz0123456789_")] == '\0',
          "\"%s\" is not a name for a metric", values[i].name);
    bool finite = isfinite(values[i].value);
    strbuf_printf(line, ",\"%s\":%s", values[i].name, finite ? format_double(values[i].value).text : "null");
    if (!finite) strbuf_printf(&kinds, "%s%s", kinds.n ? "," : "", nonfinite_kind(values[i].value));
    char *tag = base_format("%s/%s", group, values[i].name);
    tfevents_scalar(&log->events.pending, now, step, tag, values[i].value);
    free(tag);
  }
  if (kinds.n) strbuf_printf(line, ",\"nonfinite\":\"%s\"", kinds.data);
  strbuf_puts(line, "}\n");
  free(kinds.data);
  sink_flush(log, &log->metrics);
  sink_flush(log, &log->events);
  log->last_step = step;
}

static double rounded(double value, double scale) { return round(value * scale) / scale; }

void runlog_step(RunLog *log, const StepMetrics *m) {
  if (!log) return;
  NamedValue values[8] = {{"loss", m->loss},
                          {"lr", m->lr},
                          {"grad_norm", m->grad_norm},
                          {"tok_per_s", rounded(m->tok_per_s, 10)},
                          {"mem_mib", rounded((double)m->mem_bytes / (1 << 20), 10)},
                          {"seconds", rounded(m->seconds, 1000)}};
  int n_values = 6;
  if (!isnan(m->mfu)) values[n_values++] = (NamedValue){"mfu", m->mfu};
  if (m->graph_steps > 0) values[n_values++] = (NamedValue){"graph_steps", (double)m->graph_steps};
  metrics_write(log, m->step, m->tokens, "train", values, n_values);
  if (base_seconds() - log->status_written >= STATUS_INTERVAL_SECONDS) status_write(log, RUN_RUNNING, 0, NULL);
  if (log->quiet) return;

  int64_t n_done = m->step - log->first_step;
  double eta = n_done > 0 ? m->seconds / (double)n_done * (double)(m->steps - m->step) : NAN;
  StrBuf line = {0};
  strbuf_printf(&line, "step %lld/%lld | loss %.4f | lr %.1e | norm %.2f | %s tok/s", (long long)m->step,
                (long long)m->steps, m->loss, m->lr, m->grad_norm, format_count(m->tok_per_s).text);
  if (!isnan(m->mfu)) strbuf_printf(&line, " | %.1f%% MFU", 100 * m->mfu);
  strbuf_printf(&line, " | %s | eta %s", format_bytes((double)m->mem_bytes).text, format_duration(eta).text);
  progress_show(log, line.data);
  free(line.data);
}

void runlog_eval(RunLog *log, int64_t step, int64_t tokens, const NamedValue *values, int n) {
  if (!log) return;
  metrics_write(log, step, tokens, "eval", values, n);
  if (log->quiet) return;
  StrBuf line = {0};
  strbuf_printf(&line, "eval at step %lld", (long long)step);
  for (int i = 0; i < n; i++) {
    double value = values[i].value, size = fabs(value);
    const char *format = value == trunc(value) && size < 1e9 ? " | %s %.0f"
                         : size >= 1e-3 && size < 1e4        ? " | %s %.4f"
                                                             : " | %s %.4g";
    strbuf_printf(&line, format, values[i].name, value);
  }
  runlog_note(log, "%s", line.data);
  free(line.data);
}

void runlog_sample(RunLog *log, int64_t step, const char *text) {
  if (!log) return;
  char *folder = base_format("%s/samples", log->directory);
  char *path = base_format("%s/step-%08lld.txt", folder, (long long)step);
  StrBuf buf = {0};
  strbuf_puts(&buf, text);
  mkdir(folder, 0777);
  Status status = strbuf_save(&buf, path);
  if (status.code != CODE_OK) runlog_note(log, "warning: %s; training goes on without this sample", status.line);
  status_clear(&status);
  tfevents_text(&log->events.pending, wall_seconds(), step, "sample", text);
  sink_flush(log, &log->events);
  free(buf.data);
  free(path);
  free(folder);
}

void runlog_sync(RunLog *log) {
  if (!log) return;
  sink_flush(log, &log->metrics);
  if (fdatasync(log->metrics.fd) < 0) trouble_errno(log, log->metrics.path);
}

void runlog_state(RunLog *log, RunState state, int exit_code, const char *reason) {
  if (log) status_write(log, state, exit_code, reason);
}

void runlog_end(const char *directory, int exit_code, const char *reason) {
  char *path = base_format("%s/status.json", directory), updated[32];
  json_t *object = json_load_file(path, 0, NULL);
  if (!object) object = json_object();
  utc_now(updated);
  json_object_set_new(object, "state", json_string(state_names[RUN_FAILED]));
  json_object_set_new(object, "exit_code", json_integer(exit_code));
  json_object_set_new(object, "reason", json_string(reason));
  json_object_set_new(object, "updated", json_string(updated));
  StrBuf text = {0};
  char *dumped = json_dumps(object, JSON_INDENT(2));
  strbuf_printf(&text, "%s\n", dumped ? dumped : "{}");
  Status status = strbuf_save(&text, path); /* the line on stderr has been told; there is nobody else to tell */
  status_clear(&status);
  json_decref(object);
  free(dumped), free(text.data), free(path);
}
