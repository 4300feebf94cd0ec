/* aspis prepare TEXT... --out DIR: text to shards of tokens (data/shards.h), for data.kind: shards. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/bpe.h"
#include "data/shards.h"
#include "train/command.h"
#include "train/format.h"

static Status open_named(const char *name, Tokenizer **tokenizer) {
  if (tokenizer_is_file(name)) return tokenizer_read(name, tokenizer);
  if (strcmp(name, "byte") != 0)
    return status_fail(CODE_USAGE, "prepare: --tokenizer: found \"%s\", expected byte or a tokenizer.json", name);
  *tokenizer = tokenizer_new_byte();
  return STATUS_OK;
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
                            .force = command_has(command, "force")};
  if (!options.out) return status_fail(CODE_USAGE, "prepare: --out: found nothing, expected a folder for the shards");
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

static Status cmd_prepare(const Command *command) {
  Tokenizer *tokenizer;
  TRY(open_named(command_text(command, "tokenizer", "byte"), &tokenizer));
  Status status = prepare(command, tokenizer);
  tokenizer_free(tokenizer);
  return status;
}

const CommandSpec command_prepare = {
    .name = "prepare",
    .summary = "text to shards of tokens, for data.kind: shards",
    .usage = "prepare TEXT... --out DIR [options]",
    .examples = {"aspis prepare books/ --out shards/books --tokenizer tokenizer.json",
                 "aspis prepare web.txt --out shards/web --tokenizer tokenizer.json --document-end '<|endoftext|>'"},
    .options =
        (const OptionSpec[]){
            {"out", "DIR", "the folder; one that was begun is gone on with", false},
            {"tokenizer", "byte|FILE.json", "bytes (default), or a Hugging Face tokenizer.json", false},
            {"document-end", "TEXT", "what documents end with in a file; else a file is a document", false},
            {"end-token", "TEXT", "an added token to be put behind every document", false},
            {"shard-mib", "N", "text of one shard in MiB (256)", false},
            {"force", NULL, "make the folder anew", false},
            {0}},
    .args = "TEXT...",
    .min_args = 1,
    .max_args = -1,
    .run = cmd_prepare,
};
