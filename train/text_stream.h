/* text_stream: text that comes in pieces of any bytes, told on as it becomes certain: whole UTF-8 characters, and nothing of a
 * stop string or behind it. Bytes that are not UTF-8 are told as U+FFFD. */
#pragma once

#include "train/format.h"

typedef struct TextStream {
  const char *const *stops; /* none of them empty */
  int n_stops;
  void (*write)(void *user, const char *text, size_t n);
  void *user;
  StrBuf held; /* what is not certain yet */
  bool ended;
} TextStream;

/* False once a stop string has been read: the text ends before it. */
bool text_stream_put(TextStream *stream, const char *bytes, size_t n);
/* Tells what is still held; an unfinished character as U+FFFD. Frees; in any case. */
void text_stream_end(TextStream *stream);
