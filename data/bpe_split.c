/* bpe_split: see bpe_split.h. */
#include "data/bpe_split.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Unicode's White_Space, which is Oniguruma's \s; PCRE2's holds U+180E as well. */
#define WHITE_SPACE                                                                                                    \
  "\\x{09}-\\x{0D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

/* Copies an escape, or \p{...}; returns the characters read, 0 where it is none that both libraries read alike. */
static size_t copy_escape(FILE *out, const char *at, bool in_class) {
  const char c = at[1];
  if (c == 's' || c == 'S') {
    if (in_class && c == 'S') return 0;
    fprintf(out, in_class ? WHITE_SPACE : c == 's' ? "[" WHITE_SPACE "]" : "[^" WHITE_SPACE "]");
    return 2;
  }
  if (c == 'p' || c == 'P') {
    const char *end = at[2] == '{' ? strchr(at, '}') : NULL;
    if (!end || end - at > 8 || end - at < 4) return 0;
    for (const char *name = at + 3; name < end; name++)
      if (!strchr("LMNPSZClmunodtscpekif&", *name)) return 0;
    fwrite(at, 1, (size_t)(end + 1 - at), out);
    return (size_t)(end + 1 - at);
  }
  if (c == 'd' || c == 'D' || c == 'r' || c == 'n' || c == 't' || (c && strchr("\\/.*+?()[]{}|^$'\"-&#", c))) {
    fwrite(at, 1, 2, out);
    return 2;
  }
  return 0;
}

/* The pattern as PCRE2 shall read it, malloc'ed; or NULL and what is not read alike. */
static char *translate(const char *pattern, char problem[32]) {
  char *text = NULL;
  size_t bytes = 0, step = 0;
  FILE *out = open_memstream(&text, &bytes);
  CHECK(out, "out of memory for a pattern");
  bool in_class = false;
  const char *at = pattern;
  for (; *at; at += step) {
    step = 1;
    if (*at == '\\') {
      step = copy_escape(out, at, in_class);
      if (step == 0) break;
      continue;
    }
    const bool group = !in_class && at[0] == '(' && at[1] == '?';
    const bool strange = in_class ? *at == '[' || (at[0] == '&' && at[1] == '&')
                                  : *at == '^' || *at == '$' || (*at == '}' && at[1] == '+') ||
                                        (group && strncmp(at + 2, "i:", 2) != 0 && !strchr(":!=>", at[2]));
    if (strange) break;
    if (!in_class && *at == '[') {
      in_class = true;
      fputc('[', out);
      if (at[1] == '^') fputc('^', out), step = 2;
      continue;
    }
    if (in_class && *at == ']') in_class = false;
    fputc(*at, out);
  }
  CHECK(fclose(out) == 0, "out of memory for a pattern");
  if (!*at) return text;
  snprintf(problem, 32, "%.12s", at);
  free(text);
  return NULL;
}

static Status compile(const char *where, const char *pattern, uint32_t options, pcre2_code **code) {
  int error;
  PCRE2_SIZE offset;
  *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | options, &error, &offset, NULL);
  if (!*code) {
    PCRE2_UCHAR message[128];
    pcre2_get_error_message(error, message, sizeof message);
    return status_fail(CODE_DATA, "%s: pattern %.60s: at character %zu: %s", where, pattern, (size_t)offset,
                       (const char *)message);
  }
  pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE); /* where it cannot, matching interprets the pattern: the same, slower */
  return STATUS_OK;
}

Status splitter_new(const char *where, const char *pattern, bool literal, Splitter *splitter) {
  if (!*pattern) return status_fail(CODE_DATA, "%s: found an empty pattern", where);
  if (literal) return compile(where, pattern, PCRE2_LITERAL, &splitter->code);
  char problem[32], *own = translate(pattern, problem);
  if (!own)
    return status_fail(CODE_DATA,
                       "%s: pattern %.60s: found \"%s\", which is not read here as the tokenizers package does", where,
                       pattern, problem);
  Status status = compile(where, own, PCRE2_UCP, &splitter->code);
  free(own);
  return status;
}

/* Only the look ahead that GPT-2's words take, one character far. */
bool splitter_is_local(const char *pattern) {
  for (const char *at = pattern; (at = strstr(at, "(?")); at += 2)
    if (at[2] != ':' && at[2] != 'i' && strncmp(at, "(?!\\S)", 6) != 0) return false;
  return true;
}

void splitter_free(Splitter *splitter) {
  pcre2_code_free(splitter->code);
  splitter->code = NULL;
}

bool splitter_next(const Splitter *splitter, pcre2_match_data *scratch, const char *text, size_t bytes, size_t from,
                   SplitPiece *match) {
  while (from < bytes) {
    int n = pcre2_match(splitter->code, (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK, scratch, NULL);
    if (n == PCRE2_ERROR_NOMATCH) return false;
    if (n == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter's stack is the heap */
      n = pcre2_match(splitter->code, (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, scratch, NULL);
    if (n < 0) return false;
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(scratch);
    if (ends[1] > ends[0]) {
      *match = (SplitPiece){ends[0], ends[1], true};
      return true;
    }
    from = ends[1] + 1;
    while (from < bytes && ((unsigned char)text[from] & 0xC0) == 0x80) from++;
  }
  return false;
}

static void add(SplitPieces *pieces, SplitPiece piece) {
  if (pieces->n == pieces->capacity) {
    pieces->capacity = pieces->capacity ? 2 * pieces->capacity : 64;
    pieces->piece = base_realloc(pieces->piece, pieces->capacity * sizeof *pieces->piece);
  }
  pieces->piece[pieces->n++] = piece;
}

/* Whether a piece is joined to the one before it. */
static bool joins(SplitBehavior behavior, bool match_before, bool match) {
  if (behavior == SPLIT_CONTIGUOUS) return match_before == match;
  if (behavior == SPLIT_MERGED_WITH_PREVIOUS) return match && !match_before;
  return behavior == SPLIT_MERGED_WITH_NEXT && match_before && !match;
}

void splitter_pieces(const Splitter *splitter, pcre2_match_data *scratch, const char *text, size_t bytes,
                     SplitPieces *pieces) {
  pieces->n = 0;
  size_t at = 0;
  for (SplitPiece match; at < bytes; at = match.end) {
    if (!splitter_next(splitter, scratch, text, bytes, at, &match)) match = (SplitPiece){bytes, bytes, true};
    if (match.begin > at) add(pieces, (SplitPiece){at, match.begin, splitter->invert});
    if (match.end > match.begin) add(pieces, (SplitPiece){match.begin, match.end, !splitter->invert});
  }
  size_t n = 0;
  bool match_before = false;
  for (size_t i = 0; i < pieces->n; i++) {
    const SplitPiece piece = pieces->piece[i];
    const bool join = i > 0 && joins(splitter->behavior, match_before, piece.match);
    match_before = piece.match;
    if (splitter->behavior == SPLIT_REMOVED && piece.match) continue;
    if (join) pieces->piece[n - 1].end = piece.end;
    else pieces->piece[n++] = piece;
  }
  pieces->n = n;
}
