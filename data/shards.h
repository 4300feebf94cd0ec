/* shards: a folder of token files made by `aspis prepare`: manifest.json, tokenizer.json and shard-%05d.bin, each a row of
 * little-endian unsigned integers of 16 or 32 bits. One long row of tokens, mapped and not read. Beside each, shard-%05d.ends: for
 * each document that ends in it, the number of its tokens up to there, little-endian integers of 64 bits. */
#pragma once

#include "data/data.h"
#include "tensor/readable.h"

typedef struct ShardFile {
  char *name;
  int64_t n_tokens;
  uint64_t hash;       /* XXH3 of its bytes */
  int64_t n_documents; /* that end in it; -1: of a version that did not keep where */
  uint64_t ends_hash;  /* XXH3 of the bytes of shard-%05d.ends */
} ShardFile;

typedef struct Shards {
  char *folder, *tokenizer_json;
  int vocab_size, width;
  bool complete;
  bool special_tokens; /* each document stands within what the tokenizer puts around a text */
  int64_t n_tokens, n_text_bytes, n_documents;
  ShardFile *file;
  int n_files;
  Mapped *map;    /* [n_files]; NULL until opened */
  int64_t *first; /* [n_files + 1]: tokens before each file */
  /* Of how it was made, to be gone on with. */
  char *sources; /* the JSON of the list of texts and their sizes, and of the options */
  int next_file;
  int64_t next_offset;
  bool next_within; /* a document that has begun */
} Shards;

/* Reads the manifest and the tokenizer alone. What is no such folder, or does not fit together, is CODE_DATA. */
Status shards_read(const char *folder, Shards *shards);
/* The same of a complete folder, its files mapped and their sizes held to the manifest; verify: their hashes, too. */
Status shards_open(const char *folder, bool verify, Shards *shards);
void shards_close(Shards *shards);
/* Tokens [first, first + n). */
void shards_copy(const Shards *shards, int64_t first, int64_t n, int32_t *to);
/* Where the documents of an open folder end, in tokens, increasing, the last one with the folder; malloc'ed. Documents without
 * tokens are left out. A folder that does not say is CODE_DATA, as is one that was damaged. */
Status shards_documents(const Shards *shards, int64_t **end, int64_t *n);
/* Writes the manifest; atomic. */
Status shards_write_manifest(const Shards *shards);

typedef struct PrepareOptions {
  char *const *paths; /* files, folders, globs */
  int n_paths;
  const struct Tokenizer *tokenizer;
  const char *out;
  const char *document_end; /* what documents end with, in a file; NULL: a file is a document */
  int32_t end_token;        /* put behind every document; -1: none */
  bool special_tokens; /* put around every document what the tokenizer puts around a text; the end token behind that */
  int64_t shard_bytes; /* of text in a shard, about */
  int64_t block_bytes; /* a document longer than this is cut where it may be */
  bool force;          /* begin anew where there is something */
  int stop_after;      /* shards, then stop as if killed; 0: go on to the end */
} PrepareOptions;
/* Text to shards: read in blocks, encoded by all threads; the files do not depend on their number. What was begun and not ended
 * is gone on with behind its last whole shard. *shards: what is there at the end, to be closed. */
Status shards_prepare(const PrepareOptions *options, Shards *shards);
