/* aspis score MODEL --tokens FILE.h5 --out OUT.h5: logits and negative log-likelihoods of given tokens. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "train/cmd/command.h"
#include "train/format.h"
#include "train/resolve.h"
#include "train/score.h"

static bool same_file(const char *a, const char *b) {
  struct stat x, y;
  if (strcmp(a, b) == 0) return true;
  return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* What is written must replace nothing that is read, but a state by the one that follows it. */
static Status check_files(const ScoreFiles *f) {
  const struct {
    const char *option, *file, *other, *other_file;
  } pairs[] = {{"--out", f->out, "--tokens", f->tokens},
               {"--out", f->out, "--state-in", f->state_in},
               {"--out", f->out, "--state-out", f->state_out},
               {"--state-out", f->state_out, "--tokens", f->tokens}};
  for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
    if (pairs[i].file && pairs[i].other_file && same_file(pairs[i].file, pairs[i].other_file))
      return status_fail(CODE_USAGE, "score: %s and %s both name %s, expected two files", pairs[i].option,
                         pairs[i].other, pairs[i].file);
  return STATUS_OK;
}

static Status cmd_score(const Command *command) {
  ScoreFiles files = {.tokens = command_text(command, "tokens", NULL),
                      .out = command_text(command, "out", NULL),
                      .state_in = command_text(command, "state-in", NULL),
                      .state_out = command_text(command, "state-out", NULL),
                      .hidden = command_has(command, "hidden")};
  if (!files.tokens || !files.out) return status_fail(CODE_USAGE, "score: expected --tokens FILE.h5 and --out OUT.h5");
  TRY(check_files(&files));
  TRY(command_check_output(command, "out"));
  TRY(command_check_output(command, "state-out"));
  OpenModel open;
  TRY(open_find(&open, command->args[0], NULL, NULL, 0));
  resolve_warn(open.passed_over);
  ScoreSummary summary;
  Status status = score_files(&open, &files, &summary);
  open_close(&open);
  TRY(status);
  if (command_has(command, "json"))
    printf("{\"sequences\": %lld, \"length\": %lld, \"nll\": %s}\n", (long long)summary.n_seq,
           (long long)summary.length, isnan(summary.nll) ? "null" : format_double(summary.nll).text);
  else
    printf("%lld sequences of %lld tokens | mean nll %.6f | %s\n", (long long)summary.n_seq, (long long)summary.length,
           summary.nll, files.out);
  return STATUS_OK;
}

const CommandSpec command_score = {
    .name = "score",
    .summary = "logits and log-likelihoods of given tokens",
    .usage = "score MODEL --tokens FILE.h5 --out OUT.h5 [options]",
    .examples = {"aspis score runs/shakespeare --tokens tokens.h5 --out scores.h5",
                 "aspis score weights/ --tokens tokens.h5 --out scores.h5 --json",
                 "aspis score weights/ --tokens next.h5 --out next-scores.h5 --state-in S.h5 --state-out S.h5"},
    .options =
        (const OptionSpec[]){{"tokens", "FILE.h5", "dataset tokens (B, T) of integers", false},
                             {"out", "OUT.h5", "gets logits (B, T, V) and nll (B, T-1), float32", false},
                             {"state-in", "S.h5", "states the sequences start from (default: zero)", false},
                             {"state-out", "S.h5", "gets the states after the last tokens", false},
                             {"hidden", NULL, "also hidden/<i> (B, T, D): the residual stream after layer i", false},
                             OPTION_JSON,
                             {0}},
    .args = "MODEL",
    .min_args = 1,
    .max_args = 1,
    .run = cmd_score,
};
