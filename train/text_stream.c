/* text_stream: see text_stream.h. */
#include "train/text_stream.h"

#include <stdlib.h>
#include <string.h>

#include "data/tokenizer.h"

/* Whether the last `left` bytes may be the beginning of a character whose end is to come. */
static bool unfinished(const char *text, size_t left) {
  const unsigned char lead = (unsigned char)*text;
  const size_t whole = lead >= 0xF0 && lead <= 0xF4 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 0;
  if (lead > 0xF4 || left >= whole) return false;
  for (size_t i = 1; i < left; i++)
    if (((unsigned char)text[i] & 0xC0) != 0x80) return false;
  return true;
}

/* Where the first stop string begins; n: there is none. */
static size_t find_stop(const TextStream *stream, size_t n) {
  size_t first = n;
  for (int i = 0; i < stream->n_stops && n > 0; i++) {
    const char *at = memmem(stream->held.data, n, stream->stops[i], strlen(stream->stops[i]));
    if (at && (size_t)(at - stream->held.data) < first) first = (size_t)(at - stream->held.data);
  }
  return first;
}

/* How many of the last bytes could be the beginning of a stop string. */
static size_t begun_stop(const TextStream *stream) {
  size_t most = 0;
  for (int i = 0; i < stream->n_stops; i++) {
    const size_t length = strlen(stream->stops[i]);
    for (size_t n = length - 1; n > most; n--)
      if (n <= stream->held.n && memcmp(stream->held.data + stream->held.n - n, stream->stops[i], n) == 0) most = n;
  }
  return most;
}

/* Tells n of the held bytes, and drops them; an unfinished character at their end stays unless `all`. */
static void tell(TextStream *stream, size_t n, bool all) {
  const char *text = stream->held.data;
  size_t at = 0, told = 0;
  uint32_t code;
  while (at < n) {
    const size_t bytes = utf8_decode(text + at, n - at, &code);
    if (bytes > 0) {
      at += bytes;
      continue;
    }
    if (!all && unfinished(text + at, n - at)) break;
    if (at > told) stream->write(stream->user, text + told, at - told);
    stream->write(stream->user, "\xEF\xBF\xBD", 3);
    told = ++at;
  }
  if (at > told) stream->write(stream->user, text + told, at - told);
  if (at > 0) memmove(stream->held.data, text + at, stream->held.n - at);
  stream->held.n -= at;
}

bool text_stream_put(TextStream *stream, const char *bytes, size_t n) {
  if (stream->ended || n == 0) return !stream->ended;
  strbuf_add(&stream->held, bytes, n);
  const size_t stop = find_stop(stream, stream->held.n);
  if (stop < stream->held.n) {
    tell(stream, stop, true);
    stream->held.n = 0;
    stream->ended = true;
    return false;
  }
  tell(stream, stream->held.n - begun_stop(stream), false);
  return true;
}

void text_stream_end(TextStream *stream) {
  if (stream->held.n > 0) tell(stream, stream->held.n, true);
  free(stream->held.data);
  stream->held = (StrBuf){0};
}
