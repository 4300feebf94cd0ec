/* tokenize TOKENIZER.json [COUNT]: standard input's tokens as 32-bit integers on standard output; with COUNT only their number,
 * the text being read COUNT times, and the processor time a time. For tests/scripts/compare_tokenizers.py. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "data/tokenizer.h"

int main(int argc, char **argv) {
  Tokenizer *tokenizer = NULL;
  Status status = argc < 2 ? status_fail(CODE_USAGE, "tokenize TOKENIZER.json [COUNT] < TEXT")
                           : tokenizer_read(argv[1], &tokenizer);
  size_t n = 0, capacity = 1 << 20, got;
  char *text = base_alloc(capacity);
  while ((got = fread(text + n, 1, capacity - n, stdin)) > 0)
    if ((n += got) == capacity) text = base_realloc(text, capacity *= 2);
  const int count = argc > 2 ? atoi(argv[2]) : 0;
  for (int i = 0; i < (count > 0 ? count : 1) && status.code == CODE_OK; i++) {
    TokenRow row = {.width = 4};
    const clock_t begin = clock();
    status = tokenizer_encode_to(tokenizer, "standard input", text, n, &row);
    const double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    if (count > 0) printf("%lld tokens, %.1f MB/s\n", (long long)row.n, 1e-6 * (double)n / seconds);
    else fwrite(row.token, 4, (size_t)row.n, stdout);
    free(row.token);
  }
  if (status.code != CODE_OK) fprintf(stderr, "tokenize: %s\n", status.line);
  tokenizer_free(tokenizer);
  free(text);
  return (int)status.code;
}
