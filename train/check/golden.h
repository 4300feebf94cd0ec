/* golden: golden files of an independent float64 recurrence, against this build. They say that what we compute is Mamba.
 *
 * The files' layout and how they are made: tests/golden/reference/README.md. A case is a file mixer_*.h5 or
 * forecaster_*.h5, or a folder lm_*; compared are outputs, states, every gradient, hidden states, logits, greedy tokens
 * and a short training run, as far as the case has them. */
#pragma once

#include "models/aspis.h"
#include "tensor/h5.h"

/* What is compared, each kind with its tolerance. */
typedef enum GoldenKind {
  GOLDEN_FORWARD,  /* outputs, of the tensor's largest value */
  GOLDEN_STATE,    /* states, likewise */
  GOLDEN_ANGLE,    /* states that are angles: modulo 2 pi */
  GOLDEN_GRADIENT, /* of the tensor's largest value */
  GOLDEN_LOSS,     /* absolute, nats or squared error */
  GOLDEN_NORM,     /* relative */
  GOLDEN_TRAINED,  /* parameters after training, of the tensor's largest value: f64 only, AdamW's division magnifies */
  GOLDEN_TOKENS,   /* number of tokens that differ: none may, but for bf16, where they are not compared */
  GOLDEN_N_KINDS
} GoldenKind;

/* The comparison that used most of its tolerance. */
typedef struct GoldenResult {
  double error, tolerance;
  bool ok;
  char where[128]; /* tensor, or "train/loss, step 3" */
} GoldenResult;

/* One case while it is checked. */
typedef struct GoldenCase {
  Device *device;
  Dtype act;
  double tolerance; /* one for all kinds but tokens; 0: the dtype's own */
  const char *path;
  H5File *file;
  Arena host; /* what is read of the file */
  GoldenResult *result;
} GoldenCase;

/* Checks the case at `path` (kind by its name). A file that cannot be read or is not laid out as expected is
 * CODE_CHECKPOINT; being out of tolerance is not an error but a result. Leaves device's arenas as they were. */
Status golden_check(Device *device, Dtype act, double tolerance, const char *path, GoldenResult *result);
/* Paths of all cases in a folder, sorted, malloc'ed; none, or no such folder: CODE_DATA. */
Status golden_list(const char *folder, char ***paths, int *n);
void golden_list_free(char **paths, int n);

/* ---- for the kinds of cases (golden_mixer.c, golden_model.c) */

Status golden_check_mixer(GoldenCase *c);
Status golden_check_lm(GoldenCase *c); /* c->path: the folder */
Status golden_check_forecaster(GoldenCase *c);

/* A dataset as F64 (or I32) tensor of the host, in c->host, at most four dimensions; a scalar has one of 1. */
Status golden_read(GoldenCase *c, const char *name, Tensor **out);
Status golden_read_ints(GoldenCase *c, const char *name, Tensor **out);
/* cu_seqlens of the file, on the device, or NULL when it has none; checked to start at 0, rise, and end at n_tokens. */
Status golden_read_seqlens(GoldenCase *c, int64_t n_tokens, Tensor **out);
/* Every parameter of the table from <group>/<name>; the group must hold these and no others. */
Status golden_load_params(GoldenCase *c, ParamTable *params, const char *group);
/* The gradients (or values) of the table against <group>/<name>. */
Status golden_compare_params(GoldenCase *c, ParamTable *params, const char *group, GoldenKind kind);
/* got (any dtype; NULL counts as infinitely wrong) against the dataset `name`, element by element. */
Status golden_compare(GoldenCase *c, GoldenKind kind, const char *name, const Tensor *got);
/* Records one comparison: `error` in the kind's measure. */
void golden_record(GoldenCase *c, GoldenKind kind, double error, const char *where, int64_t step);
/* Error of a scalar, in the kind's measure. */
double golden_scalar_error(GoldenKind kind, double got, double want);
/* Kinds that this dtype does not compare. */
bool golden_skips(const GoldenCase *c, GoldenKind kind);
