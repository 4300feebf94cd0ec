/* store: what the tests of checkpoints and weights share: small parameter tables, infos, whole files as bytes. Helpers
 * fail the test. */
#pragma once

#include "train/checkpoint.h"

/* Parameters on a CPU device of their own. */
typedef struct Store {
  Device device;
  ParamTable params;
} Store;

/* Six parameters, one of them larger than a chunk when `large`; random values, infinities, NaN and -0 among them. */
Store *store_new(Dtype act, bool training, bool large, uint64_t seed);
void store_free(Store *store);
/* Values, masters and moments as bytes. */
bool store_equal(const Store *a, const Store *b, bool moments);
/* Values, masters and moments of `from`, which is made alike. */
void store_copy(Store *to, const Store *from);

/* An info with every field set; texts are its own. */
CheckpointInfo store_info(int64_t step);
bool store_info_equal(const CheckpointInfo *a, const CheckpointInfo *b);

/* A whole file, malloc'ed. */
char *store_read(const char *path, size_t *bytes);
void store_write(const char *path, const void *data, size_t bytes);
/* Files in the folder whose name contains `part`. */
int store_count_files(const char *folder, const char *part);
/* The status failed with this code and its line contains the phrase; clears it. */
void store_expect(Status status, Code code, const char *phrase, const char *name);
/* The status is OK, else the test fails with its line. */
void store_ok(Status status, const char *name);
