/* tfevents: TensorBoard's event file, written by hand.
 *
 * A file is a row of records: length (u64), masked CRC-32C of those 8 bytes, the event, masked CRC-32C of the event; all
 * little-endian. masked(c) = rotate_right(c, 15) + 0xa282ead8. The event is the protobuf message tensorflow.Event:
 * wall_time = 1 (double), step = 2 (varint), file_version = 3, summary = 5, session_log = 7 (TensorFlow's
 * core/util/event.proto, core/framework/summary.proto, core/lib/hash/crc32c.h). The functions append one record each. */
#pragma once

#include "train/format.h"

/* CRC-32C (Castagnoli), reflected, as of "123456789" = e3069283. */
uint32_t crc32c(const void *bytes, size_t n);

/* The first record of every file. */
void tfevents_version(StrBuf *out, double wall_time);
/* Tells TensorBoard to forget points at or after `step` from files of earlier sessions. */
void tfevents_session_start(StrBuf *out, double wall_time, int64_t step);
void tfevents_scalar(StrBuf *out, double wall_time, int64_t step, const char *tag, double value);
/* A text for the text tab (shown as Markdown). */
void tfevents_text(StrBuf *out, double wall_time, int64_t step, const char *tag, const char *text);
