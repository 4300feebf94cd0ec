/* readable: whoever reads a file, what is no regular one is refused at once and in the same words. */
#include "tensor/readable.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/csv.h"
#include "data/files.h"
#include "data/tokenizer.h"
#include "models/aspis.h"
#include "models/weights_file.h"
#include "tensor/h5.h"
#include "tests/support/dataset.h"

TestSuite(readable, .init = workplace_enter, .fini = workplace_leave);

static Status read_csv(const char *path) { return csv_open(path, 0, HEADER_AUTO, &(Csv){0}); }
static Status read_h5(const char *path) { return h5_open_read(path, CODE_DATA, &(H5File *){0}); }
static Status read_texts(const char *path) {
  char *paths[] = {(char *)(uintptr_t)path};
  return files_read(paths, 1, &(SourceText){0});
}
static Status read_tokenizer(const char *path) { return tokenizer_read(path, &(Tokenizer *){0}); }

/* A weights directory whose file of this name leads there. */
static void lead(const char *name, const char *path) {
  unlink(name);
  char *target = base_format("../%s", path);
  cr_assert(symlink(target, name) == 0, "%s", name);
  free(target);
}
static Status read_config(const char *path) {
  lead("weights/config.json", path);
  return weights_read_config("weights", &(ModelConfig){0});
}
static Status read_weights(const char *path) {
  lead("weights/model.safetensors", path);
  return weights_file_open("weights", &(WeightsFile){0});
}

Test(readable, whoever_reads_it_what_is_no_regular_file_is_refused_in_the_same_words) {
  static const struct {
    const char *name;
    Status (*read)(const char *path);
    bool takes_folders;
  } READERS[] = {{"csv", read_csv, false},       {"HDF5", read_h5, false},
                 {"texts", read_texts, true},    {"tokenizer", read_tokenizer, false},
                 {"config", read_config, false}, {"weights", read_weights, false}};
  static const struct {
    const char *path, *words;
  } PLACES[] = {{"pipe", ": found a pipe or a device, expected a regular file"},
                {"folder", ": found a folder, expected a regular file"},
                {"absent", ": cannot read: No such file or directory"}};
  cr_assert(mkfifo("pipe", 0600) == 0 && mkdir("folder", 0777) == 0 && mkdir("weights", 0777) == 0, "places");
  for (size_t p = 0; p < sizeof PLACES / sizeof *PLACES; p++)
    for (size_t r = 0; r < sizeof READERS / sizeof *READERS; r++) {
      if (READERS[r].takes_folders && !strcmp(PLACES[p].path, "folder")) continue;
      if (!strcmp(READERS[r].name, "weights") && !strcmp(PLACES[p].path, "absent"))
        continue; /* then other forms are tried */
      Status status = READERS[r].read(PLACES[p].path);
      cr_assert(status.code == CODE_DATA || status.code == CODE_CHECKPOINT, "%s, %s: code %d", READERS[r].name,
                PLACES[p].path, (int)status.code);
      const size_t n = strlen(status.line), n_words = strlen(PLACES[p].words);
      cr_assert(n > n_words && !strcmp(status.line + n - n_words, PLACES[p].words),
                "%s, %s: \"%s\" does not end in \"%s\"", READERS[r].name, PLACES[p].path, status.line, PLACES[p].words);
      status_clear(&status);
    }
}

Test(readable, a_text_is_whole_and_one_that_is_none_is_refused_by_what_it_should_have_been) {
  char *text = NULL;
  write_text("a.json", "{}");
  Status status = readable_text("a.json", 2, "a config.json", CODE_CHECKPOINT, &text);
  cr_assert(status.code == CODE_OK && !strcmp(text, "{}"), "%s", status.line);
  free(text);
  write_text("a.json", "");
  status = readable_text("a.json", 2, "a config.json", CODE_CHECKPOINT, &text);
  cr_assert(status.code == CODE_OK && !*text, "an empty one: %s", status.line);
  free(text);
  static const struct {
    const char *bytes;
    size_t n;
    const char *line;
  } BAD[] = {{"{ }", 3, "a.json: not a config.json: found 3 bytes, expected at most 2"},
             {"{\0", 2, "a.json: not a config.json: it has zero bytes"}};
  for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
    write_file("a.json", BAD[i].bytes, BAD[i].n);
    status = readable_text("a.json", 2, "a config.json", CODE_CHECKPOINT, &text);
    cr_assert(status.code == CODE_CHECKPOINT && !strcmp(status.line, BAD[i].line), "%s", status.line);
    status_clear(&status);
  }
}
