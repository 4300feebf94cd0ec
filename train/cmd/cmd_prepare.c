/* aspis prepare TEXT... --out DIR: text to shards of tokens (data/shards.h), for data.kind: shards. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe.h"
#include "data/shards.h"
#include "tensor/publish.h"
#include "train/cmd/command.h"
#include "train/format.h"

static Status open_named(const char *name, Tokenizer **tokenizer) {
  if (tokenizer_is_file(name)) return tokenizer_read(name, tokenizer);
  if (strcmp(name, "byte") != 0)
    return status_fail(CODE_USAGE, "prepare: --tokenizer: found \"%s\", expected byte or a tokenizer.json", name);
  *tokenizer = tokenizer_new_byte();
  return STATUS_OK;
}

static Status print_saved(const char *path, const char *json, const Tokenizer *tokenizer) {
  TRY(publish_bytes(path, json, strlen(json), CODE_DATA));
  printf("%d tokens | %s\n", tokenizer_vocab_size(tokenizer), path);
  return STATUS_OK;
}

/* Trains a tokenizer on the texts; with --out FILE.json it is all that is wanted. */
static Status train_tokenizer(const Command *command, Tokenizer **tokenizer, bool *done) {
  int64_t vocab_size = 0;
  const char *out = command_text(command, "out", NULL);
  TRY(command_int(command, "train-bpe", 257, 1 << 24, &vocab_size));
  if (command_has(command, "tokenizer"))
    return status_fail(CODE_USAGE, "prepare: found --train-bpe beside --tokenizer, expected one of them");
  char *json;
  TRY(bpe_train((char *const *)command->args, command->n_args, (int)vocab_size, &json));
  Status status = tokenizer_from_json(json, tokenizer);
  *done = tokenizer_is_file(out);
  if (status.code == CODE_OK && *done)
    TRY_OR(print_saved(out, json, *tokenizer), (free(json), tokenizer_free(*tokenizer)));
  free(json);
  return status;
}

static Status find_end_token(const Tokenizer *tokenizer, const char *name, int32_t *token) {
  if (!name) return STATUS_OK;
  *token = tokenizer_bpe(tokenizer) ? bpe_added_token(tokenizer_bpe(tokenizer), name) : -1;
  if (*token >= 0) return STATUS_OK;
  return status_fail(CODE_USAGE, "prepare: --end-token: found \"%s\", expected one of the tokenizer's added_tokens",
                     name);
}

static Status prepare(const Command *command, Tokenizer *tokenizer) {
  int64_t shard_mib = 256;
  PrepareOptions options = {.paths = (char *const *)command->args,
                            .n_paths = command->n_args,
                            .tokenizer = tokenizer,
                            .out = command_text(command, "out", NULL),
                            .document_end = command_text(command, "document-end", NULL),
                            .end_token = -1,
                            .block_bytes = 4 << 20,
                            .special_tokens = command_has(command, "special-tokens"),
                            .force = command_has(command, "force")};
  TRY(command_int(command, "shard-mib", 1, 1 << 20, &shard_mib));
  TRY(find_end_token(tokenizer, command_text(command, "end-token", NULL), &options.end_token));
  options.shard_bytes = shard_mib << 20;
  Shards shards;
  TRY(shards_prepare(&options, &shards));
  printf("%" PRId64 " tokens | %" PRId64 " documents | %s of text | %.3f bytes a token | %d shards | %s\n",
         shards.n_tokens, shards.n_documents, format_bytes((double)shards.n_text_bytes).text,
         shards.n_tokens ? (double)shards.n_text_bytes / (double)shards.n_tokens : 0.0, shards.n_files, shards.folder);
  shards_close(&shards);
  return STATUS_OK;
}

/* Before texts are read and tokenizers trained. */
static Status check_out(const Command *command) {
  const char *out = command_text(command, "out", NULL);
  if (!out) return status_fail(CODE_USAGE, "prepare: --out: found nothing, expected a folder for the shards");
  return command_has(command, "train-bpe") && tokenizer_is_file(out) ? publish_check(out, CODE_DATA)
                                                                     : publish_check_folder(out, CODE_DATA);
}

static Status cmd_prepare(const Command *command) {
  Tokenizer *tokenizer;
  bool done = false;
  TRY(check_out(command));
  if (command_has(command, "train-bpe")) TRY(train_tokenizer(command, &tokenizer, &done));
  else TRY(open_named(command_text(command, "tokenizer", "byte"), &tokenizer));
  Status status = done ? STATUS_OK : prepare(command, tokenizer);
  tokenizer_free(tokenizer);
  return status;
}

const CommandSpec command_prepare = {
    .name = "prepare",
    .summary = "text to shards of tokens, or a tokenizer trained on it",
    .usage = "prepare TEXT... --out DIR [options]",
    .examples = {"aspis prepare books/ --out shards/books --tokenizer tokenizer.json",
                 "aspis prepare input.txt --train-bpe 4096 --out tokenizer.json",
                 "aspis prepare web.txt --out shards/web --tokenizer tokenizer.json --document-end '<|endoftext|>'"},
    .options =
        (const OptionSpec[]){
            {"out", "DIR", "the folder; one that was begun is gone on with", false},
            {"tokenizer", "byte|FILE.json", "bytes (default), or a Hugging Face tokenizer.json", false},
            {"train-bpe", "N",
             "train a byte-level tokenizer of N tokens on the texts, and use it; with --out FILE.json: write it and "
             "end",
             false},
            {"document-end", "TEXT", "what documents end with in a file; else a file is a document", false},
            {"end-token", "TEXT", "an added token to be put behind every document", false},
            {"special-tokens", NULL,
             "put around every document what the tokenizer.json puts around a text (its post_processor); for "
             "data.special_tokens",
             false},
            {"shard-mib", "N", "text of one shard in MiB (256)", false},
            {"force", NULL, "make the folder anew", false},
            {0}},
    .args = "TEXT...",
    .min_args = 1,
    .max_args = -1,
    .run = cmd_prepare,
};
