/* aspis score MODEL --tokens FILE.h5 --out OUT.h5: logits and negative log-likelihoods of given tokens. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/command.h"
#include "train/format.h"
#include "train/score.h"

static Status cmd_score(const Command *command) {
  ScoreFiles files = {.tokens = command_text(command, "tokens", NULL),
                      .out = command_text(command, "out", NULL),
                      .state_in = command_text(command, "state-in", NULL),
                      .state_out = command_text(command, "state-out", NULL),
                      .hidden = command_has(command, "hidden")};
  if (!files.tokens || !files.out) return status_fail(CODE_USAGE, "score: expected --tokens FILE.h5 and --out OUT.h5");
  if (files.state_out && strcmp(files.out, files.state_out) == 0)
    return status_fail(CODE_USAGE, "score: --out and --state-out both name %s, expected two files", files.out);
  OpenModel open;
  TRY(open_find(&open, command->args[0], NULL, NULL, 0));
  open_warn(&open);
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
