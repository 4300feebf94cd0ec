/* subject: small models of each kind, on a device of their own, for tests of what must hold of any. */
#pragma once

#include <criterion/criterion.h>

#include "models/aspis.h"

/* Room for small models; address sanitizer pays for every byte reserved. */
#define SUBJECT_SIZES ((DeviceSizes){(size_t)64 << 20, (size_t)512 << 20, (size_t)64 << 20})

/* A small model: every layer has more than one group and rank, and an MLP and attention where told; 29 tokens.
 * With MIMO and hybrids, sequences start from learned states. */
ModelConfig subject_config(LayerKind layer, bool is_mimo, bool hybrid);

typedef struct SubjectKind {
  const char *name;
  LayerKind layer;
  bool is_mimo, hybrid;
} SubjectKind;
enum { SUBJECT_N_KINDS = 4 };
extern const SubjectKind SUBJECT_KINDS[SUBJECT_N_KINDS];

typedef struct Subject {
  Device device;
  Model *model;
  Dtype act;
} Subject;
/* With fresh weights of seed 7, laid out for training; learned states are drawn, too. */
Subject subject_open(const ModelConfig *config, Dtype act);
void subject_close(Subject *s);

/* n random tokens below 29. */
Tensor *subject_tokens(Arena *arena, int n, uint64_t seed);
double largest_difference(const Tensor *a, int64_t a_first, const Tensor *b, int64_t b_first, int64_t n);
