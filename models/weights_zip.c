/* weights_zip: see weights_zip.h. Nothing in the file is believed before it lies within the file. */
#include "models/weights_zip.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ENTRIES = 1 << 20 };

Status zip_refuse(const Zip *zip, const char *problem) {
  return status_fail(
      CODE_CHECKPOINT,
      "%s: %s: expected the zip that torch.save writes; save it anew with a recent PyTorch, or as safetensors",
      zip->path, problem);
}

static bool zip_has(const Zip *zip, uint64_t at, uint64_t bytes) { return at <= zip->n && bytes <= zip->n - at; }

/* The sizes and the place of an entry, from its extra field where the fields of 32 bits say so. */
static bool zip64(const unsigned char *extra, size_t n, uint64_t *size, uint64_t *packed, uint64_t *offset) {
  for (size_t at = 0; at + 4 <= n;) {
    const size_t length = (size_t)little(extra + at + 2, 2);
    if (length > n - at - 4) return false;
    if (little(extra + at, 2) == 1) {
      size_t from = at + 4, end = from + length;
      uint64_t *fields[] = {size, packed, offset};
      for (int i = 0; i < 3; i++)
        if (*fields[i] == UINT32_MAX) {
          if (from + 8 > end) return false;
          *fields[i] = little(extra + from, 8);
          from += 8;
        }
      return true;
    }
    at += 4 + length;
  }
  return *size != UINT32_MAX && *packed != UINT32_MAX && *offset != UINT32_MAX;
}

/* One record of the central directory; *at moves behind it. */
static Status zip_read_entry(Zip *zip, uint64_t *at, ZipEntry *entry) {
  if (!zip_has(zip, *at, 46) || little(zip->bytes + *at, 4) != 0x02014B50)
    return zip_refuse(zip, "a damaged directory");
  const unsigned char *record = zip->bytes + *at;
  const uint64_t n_name = little(record + 28, 2), n_extra = little(record + 30, 2), n_comment = little(record + 32, 2);
  uint64_t packed = little(record + 20, 4), size = little(record + 24, 4), offset = little(record + 42, 4);
  if (!zip_has(zip, *at + 46, n_name + n_extra + n_comment)) return zip_refuse(zip, "a damaged directory");
  if (little(record + 10, 2) != 0 || (little(record + 8, 2) & 1))
    return zip_refuse(zip, "a compressed or encrypted entry");
  if (!zip64(record + 46 + n_name, n_extra, &size, &packed, &offset) || size != packed)
    return zip_refuse(zip, "a damaged directory");
  *at += 46 + n_name + n_extra + n_comment;
  if (!zip_has(zip, offset, 30) || little(zip->bytes + offset, 4) != 0x04034B50)
    return zip_refuse(zip, "a damaged entry");
  const uint64_t begin = offset + 30 + little(zip->bytes + offset + 26, 2) + little(zip->bytes + offset + 28, 2);
  if (!zip_has(zip, begin, size)) return zip_refuse(zip, "an entry outside of the file");
  *entry = (ZipEntry){(const char *)record + 46, (size_t)n_name, zip->bytes + begin, size};
  return STATUS_OK;
}

Status zip_read(Zip *zip) {
  uint64_t end = zip->n < 22 ? 0 : zip->n - 22, first = zip->n > 65557 ? zip->n - 65557 : 0;
  if (zip->n < 22 || little(zip->bytes, 4) != 0x04034B50) return zip_refuse(zip, "not a zip");
  while (end > first && little(zip->bytes + end, 4) != 0x06054B50) end--;
  if (little(zip->bytes + end, 4) != 0x06054B50) return zip_refuse(zip, "no end of a directory");
  uint64_t n = little(zip->bytes + end + 10, 2), at = little(zip->bytes + end + 16, 4);
  if (end >= 20 && little(zip->bytes + end - 20, 4) == 0x07064B50) {
    const uint64_t wide = little(zip->bytes + end - 12, 8);
    if (!zip_has(zip, wide, 56) || little(zip->bytes + wide, 4) != 0x06064B50)
      return zip_refuse(zip, "no end of a directory");
    n = little(zip->bytes + wide + 32, 8), at = little(zip->bytes + wide + 48, 8);
  }
  if (n == 0 || n > MAX_ENTRIES) return zip_refuse(zip, "no entries");
  zip->entry = base_zalloc((size_t)n * sizeof *zip->entry);
  for (; zip->n_entries < n; zip->n_entries++) TRY(zip_read_entry(zip, &at, &zip->entry[zip->n_entries]));
  const char *slash = memchr(zip->entry[0].name, '/', zip->entry[0].n_name);
  zip->n_prefix = slash ? (size_t)(slash + 1 - zip->entry[0].name) : 0;
  return STATUS_OK;
}

const ZipEntry *zip_find(const Zip *zip, const char *name) {
  const size_t n = strlen(name);
  for (size_t i = 0; i < zip->n_entries; i++) {
    const ZipEntry *entry = &zip->entry[i];
    if (entry->n_name == zip->n_prefix + n && memcmp(entry->name, zip->entry[0].name, zip->n_prefix) == 0 &&
        memcmp(entry->name + zip->n_prefix, name, n) == 0)
      return entry;
  }
  return NULL;
}
