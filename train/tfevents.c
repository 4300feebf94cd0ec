/* tfevents: see tfevents.h. */
#include "train/tfevents.h"

#include <stdlib.h>
#include <string.h>

uint32_t crc32c(const void *bytes, size_t n) {
  const unsigned char *p = bytes;
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < n; i++) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
  }
  return ~crc;
}

static void put_fixed(StrBuf *out, uint64_t value, int n_bytes) {
  for (int i = 0; i < n_bytes; i++) strbuf_add(out, &(char){(char)(value >> 8 * i)}, 1);
}

static void put_varint(StrBuf *out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) strbuf_add(out, &(char){(char)(value | 0x80)}, 1);
  strbuf_add(out, &(char){(char)value}, 1);
}

/* Protobuf's wire types. */
enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static void put_key(StrBuf *out, int field, int wire) { put_varint(out, (uint64_t)field << 3 | (uint64_t)wire); }

static void put_int(StrBuf *out, int field, int64_t value) {
  put_key(out, field, WIRE_VARINT);
  put_varint(out, (uint64_t)value);
}

static void put_bytes(StrBuf *out, int field, const char *bytes, size_t n) {
  put_key(out, field, WIRE_BYTES);
  put_varint(out, n);
  strbuf_add(out, bytes, n);
}

static void put_string(StrBuf *out, int field, const char *string) { put_bytes(out, field, string, strlen(string)); }

/* Writes a finished submessage as a field of its parent, and empties it. */
static void put_message(StrBuf *out, int field, StrBuf *message) {
  put_bytes(out, field, message->data, message->n);
  free(message->data);
  *message = (StrBuf){0};
}

static uint32_t masked_crc(const void *bytes, size_t n) {
  uint32_t crc = crc32c(bytes, n);
  return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static StrBuf event_begin(double wall_time, int64_t step) {
  StrBuf event = {0};
  uint64_t bits;
  memcpy(&bits, &wall_time, 8);
  put_key(&event, 1, WIRE_FIXED64);
  put_fixed(&event, bits, 8);
  put_int(&event, 2, step);
  return event;
}

static void event_end(StrBuf *out, StrBuf *event) {
  StrBuf length = {0};
  put_fixed(&length, event->n, 8);
  strbuf_add(out, length.data, 8);
  put_fixed(out, masked_crc(length.data, 8), 4);
  strbuf_add(out, event->data, event->n);
  put_fixed(out, masked_crc(event->data, event->n), 4);
  free(length.data);
  free(event->data);
}

void tfevents_version(StrBuf *out, double wall_time) {
  StrBuf event = event_begin(wall_time, 0);
  put_string(&event, 3, "brain.Event:2");
  event_end(out, &event);
}

void tfevents_session_start(StrBuf *out, double wall_time, int64_t step) {
  StrBuf event = event_begin(wall_time, step), session = {0};
  put_int(&session, 1, 1); /* SessionLog.status = START */
  put_message(&event, 7, &session);
  event_end(out, &event);
}

/* Event.summary.value */
static void event_end_value(StrBuf *out, StrBuf *event, StrBuf *value) {
  StrBuf summary = {0};
  put_message(&summary, 1, value);
  put_message(event, 5, &summary);
  event_end(out, event);
}

void tfevents_scalar(StrBuf *out, double wall_time, int64_t step, const char *tag, double value) {
  StrBuf event = event_begin(wall_time, step), entry = {0};
  float single = (float)value;
  uint32_t bits;
  memcpy(&bits, &single, 4);
  put_string(&entry, 1, tag);
  put_key(&entry, 2, WIRE_FIXED32); /* simple_value */
  put_fixed(&entry, bits, 4);
  event_end_value(out, &event, &entry);
}

void tfevents_text(StrBuf *out, double wall_time, int64_t step, const char *tag, const char *text) {
  StrBuf event = event_begin(wall_time, step), entry = {0}, tensor = {0}, shape = {0}, dim = {0}, metadata = {0},
         plugin = {0};
  put_string(&entry, 1, tag);
  put_int(&dim, 1, 1);
  put_message(&shape, 2, &dim);
  put_int(&tensor, 1, 7); /* DT_STRING */
  put_message(&tensor, 2, &shape);
  put_string(&tensor, 8, text);
  put_message(&entry, 8, &tensor);
  put_string(&plugin, 1, "text");
  put_message(&metadata, 1, &plugin);
  put_message(&entry, 9, &metadata);
  event_end_value(out, &event, &entry);
}
