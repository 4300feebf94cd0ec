/* onednn: see onednn.h. F32 goes through dnnl_sgemm. BF16 goes through matmul primitives, which are generated code for
 * one shape: they are kept in a table, and so are the scratchpads their runs need. Both live until the process ends.
 *
 * The C interface changed between oneDNN 2 and 3 where primitives and memory descriptors are made; the differences are
 * in the functions at the top. */
#include "tensor/onednn.h"

#include <dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static void check_dnnl(dnnl_status_t status, const char *call) {
  CHECK(status == dnnl_success, "%s returned status %d", call, (int)status);
}
#define DNNL(call) check_dnnl(call, #call)

/* ---- oneDNN 2 and 3 -------------------------------------------------------------------------------------------- */

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t MemoryDesc;
#define DESC_ADDRESS(desc) (desc)
static void desc_make(MemoryDesc *desc, int64_t rows, int64_t cols, int64_t row_step, int64_t col_step, Dtype dtype) {
  DNNL(dnnl_memory_desc_create_with_strides(desc, 2, (dnnl_dims_t){rows, cols}, dtype == BF16 ? dnnl_bf16 : dnnl_f32,
                                            (dnnl_dims_t){row_step, col_step}));
}
static void desc_free(MemoryDesc *desc) { DNNL(dnnl_memory_desc_destroy(*desc)); }
static dnnl_status_t matmul_make(dnnl_primitive_desc_t *out, const MemoryDesc desc[3], dnnl_engine_t engine,
                                 const_dnnl_primitive_attr_t attr) {
  return dnnl_matmul_primitive_desc_create(out, engine, desc[0], desc[1], NULL, desc[2], attr);
}
static dnnl_status_t append_sum(dnnl_post_ops_t ops) {
  return dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef);
}
static void scratchpad_desc(dnnl_primitive_desc_t matmul, MemoryDesc *out) {
  const_dnnl_memory_desc_t of_matmul = dnnl_primitive_desc_query_md(matmul, dnnl_query_scratchpad_md, 0);
  DNNL(dnnl_memory_desc_clone(out, of_matmul));
}
static size_t desc_bytes(const MemoryDesc *desc) { return dnnl_memory_desc_get_size(*desc); }
#else
typedef dnnl_memory_desc_t MemoryDesc;
#define DESC_ADDRESS(desc) (&(desc))
static void desc_make(MemoryDesc *desc, int64_t rows, int64_t cols, int64_t row_step, int64_t col_step, Dtype dtype) {
  DNNL(dnnl_memory_desc_init_by_strides(desc, 2, (dnnl_dims_t){rows, cols}, dtype == BF16 ? dnnl_bf16 : dnnl_f32,
                                        (dnnl_dims_t){row_step, col_step}));
}
static void desc_free(MemoryDesc *desc) { (void)desc; /* a value */ }
static dnnl_status_t matmul_make(dnnl_primitive_desc_t *out, const MemoryDesc desc[3], dnnl_engine_t engine,
                                 const_dnnl_primitive_attr_t attr) {
  dnnl_matmul_desc_t op;
  dnnl_status_t status = dnnl_matmul_desc_init(&op, &desc[0], &desc[1], NULL, &desc[2]);
  return status == dnnl_success ? dnnl_primitive_desc_create(out, &op, attr, engine, NULL) : status;
}
static dnnl_status_t append_sum(dnnl_post_ops_t ops) { return dnnl_post_ops_append_sum(ops, 1); }
static void scratchpad_desc(dnnl_primitive_desc_t matmul, MemoryDesc *out) {
  *out = *dnnl_primitive_desc_query_md(matmul, dnnl_query_scratchpad_md, 0);
}
static size_t desc_bytes(const MemoryDesc *desc) { return dnnl_memory_desc_get_size(desc); }
#endif

/* ---- one matmul primitive per shape ------------------------------------------------------------------------------ */

typedef struct Shape {
  int64_t m, n, k, ld[3];
  bool a_transposed, b_transposed, add, c_f32;
} Shape;

typedef struct Matmul Matmul;
struct Matmul {
  Matmul *next;
  Shape shape;
  MemoryDesc desc[4]; /* A, B, C, scratchpad */
  dnnl_primitive_t primitive;
  bool fast; /* not oneDNN's reference loop */
};

/* A run's private memory: taken for the call, then given back. */
typedef struct Scratchpad Scratchpad;
struct Scratchpad {
  Scratchpad *next;
  size_t bytes;
  void *memory;
};

static struct {
  pthread_mutex_t lock;
  dnnl_engine_t engine;
  Matmul *bucket[256];
  Scratchpad *idle;
} lib = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* NULL when oneDNN has no such primitive at all. */
static Matmul *matmul_new(const Shape *s) {
  Matmul *matmul = base_zalloc(sizeof *matmul);
  matmul->shape = *s;
  desc_make(&matmul->desc[0], s->m, s->k, s->a_transposed ? 1 : s->ld[0], s->a_transposed ? s->ld[0] : 1, BF16);
  desc_make(&matmul->desc[1], s->k, s->n, s->b_transposed ? 1 : s->ld[1], s->b_transposed ? s->ld[1] : 1, BF16);
  desc_make(&matmul->desc[2], s->m, s->n, s->ld[2], 1, s->c_f32 ? F32 : BF16);

  dnnl_post_ops_t post_ops;
  dnnl_primitive_attr_t attr;
  DNNL(dnnl_post_ops_create(&post_ops));
  DNNL(dnnl_primitive_attr_create(&attr));
  if (s->add) DNNL(append_sum(post_ops));
  DNNL(dnnl_primitive_attr_set_post_ops(attr, post_ops));
  /* The library's own scratchpad belongs to the thread that made the primitive. */
  DNNL(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user));
  dnnl_primitive_desc_t description = NULL;
  dnnl_status_t status = matmul_make(&description, matmul->desc, lib.engine, attr);
  DNNL(dnnl_primitive_attr_destroy(attr));
  DNNL(dnnl_post_ops_destroy(post_ops));
  if (status != dnnl_success) {
    for (int i = 0; i < 3; i++) desc_free(&matmul->desc[i]);
    free(matmul);
    return NULL;
  }
  const char *implementation = "";
  DNNL(dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &implementation));
  matmul->fast = strncmp(implementation, "ref", 3) != 0;
  scratchpad_desc(description, &matmul->desc[3]);
  DNNL(dnnl_primitive_create(&matmul->primitive, description));
  DNNL(dnnl_primitive_desc_destroy(description));
  return matmul;
}

static uint64_t shape_hash(const Shape *s) {
  const int64_t word[] = {s->m,
                          s->n,
                          s->k,
                          s->ld[0],
                          s->ld[1],
                          s->ld[2],
                          s->a_transposed + 2 * s->b_transposed + 4 * s->add + 8 * s->c_f32};
  uint64_t hash = 0;
  for (size_t i = 0; i < sizeof word / sizeof *word; i++)
    hash = (hash ^ (uint64_t)word[i]) * 0x9E3779B97F4A7C15u, hash ^= hash >> 29;
  return hash;
}

static bool shape_equal(const Shape *a, const Shape *b) {
  return a->m == b->m && a->n == b->n && a->k == b->k && memcmp(a->ld, b->ld, sizeof a->ld) == 0 &&
         a->a_transposed == b->a_transposed && a->b_transposed == b->b_transposed && a->add == b->add &&
         a->c_f32 == b->c_f32;
}

/* With lib.lock held. */
static Matmul *matmul_find(const Shape *shape) {
  if (!lib.engine) DNNL(dnnl_engine_create(&lib.engine, dnnl_cpu, 0));
  Matmul **bucket = &lib.bucket[shape_hash(shape) % (sizeof lib.bucket / sizeof *lib.bucket)];
  for (Matmul *matmul = *bucket; matmul; matmul = matmul->next)
    if (shape_equal(&matmul->shape, shape)) return matmul;
  Matmul *matmul = matmul_new(shape);
  if (matmul) matmul->next = *bucket, *bucket = matmul;
  return matmul;
}

/* With lib.lock held. */
static Scratchpad *scratchpad_take(size_t bytes) {
  Scratchpad *pad = lib.idle;
  if (pad) lib.idle = pad->next;
  else pad = base_zalloc(sizeof *pad);
  if (pad->bytes < bytes) {
    free(pad->memory);
    pad->bytes = (size_t)round_up((int64_t)bytes, 4096);
    pad->memory = aligned_alloc(4096, pad->bytes);
    CHECK(pad->memory, "no memory for a oneDNN scratchpad of %zu bytes", pad->bytes);
  }
  return pad;
}

static void matmul_run(const Shape *shape, void *const data[3]) {
  pthread_mutex_lock(&lib.lock);
  Matmul *matmul = matmul_find(shape);
  CHECK(matmul, "oneDNN has no BF16 product of m %lld, n %lld, k %lld", (long long)shape->m, (long long)shape->n,
        (long long)shape->k);
  Scratchpad *pad = scratchpad_take(desc_bytes(&matmul->desc[3]));
  pthread_mutex_unlock(&lib.lock);

  static const int ROLE[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
  void *const handle[] = {data[0], data[1], data[2], pad->memory};
  dnnl_stream_t stream;
  dnnl_exec_arg_t args[4];
  DNNL(dnnl_stream_create(&stream, lib.engine, dnnl_stream_default_flags));
  for (int i = 0; i < 4; i++) {
    args[i].arg = ROLE[i];
    DNNL(dnnl_memory_create(&args[i].memory, DESC_ADDRESS(matmul->desc[i]), lib.engine, handle[i]));
  }
  DNNL(dnnl_primitive_execute(matmul->primitive, stream, 4, args));
  DNNL(dnnl_stream_wait(stream));
  for (int i = 0; i < 4; i++) DNNL(dnnl_memory_destroy(args[i].memory));
  DNNL(dnnl_stream_destroy(stream));

  pthread_mutex_lock(&lib.lock);
  pad->next = lib.idle, lib.idle = pad;
  pthread_mutex_unlock(&lib.lock);
}

/* ---- the door ---------------------------------------------------------------------------------------------------- */

void onednn_gemm(int64_t m, int64_t n, int64_t k, GemmMatrix a, GemmMatrix b, bool add, GemmMatrix c) {
  CHECK(a.dtype == b.dtype && (a.dtype == F32 ? c.dtype == F32 : a.dtype == BF16) && !c.transposed, "%s x %s -> %s",
        dtype_name(a.dtype), dtype_name(b.dtype), dtype_name(c.dtype));
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1); /* of the calling task only */
  if (a.dtype == F32) {
    DNNL(dnnl_sgemm(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1, a.data, a.ld, b.data, b.ld,
                    add ? 1 : 0, c.data, c.ld));
  } else {
    const Shape shape = {m, n, k, {a.ld, b.ld, c.ld}, a.transposed, b.transposed, add, c.dtype == F32};
    matmul_run(&shape, (void *const[]){a.data, b.data, c.data});
  }
  omp_set_num_threads(threads);
}

bool onednn_has_bf16(void) {
  static enum { UNKNOWN, NO, YES } has; /* under lib.lock */
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1); /* the probe may be asked for again, as a product */
  pthread_mutex_lock(&lib.lock);
  if (has == UNKNOWN) {
    const Shape probe = {64, 64, 64, {64, 64, 64}, .b_transposed = true, .c_f32 = true};
    const Matmul *matmul = matmul_find(&probe);
    has = matmul && matmul->fast ? YES : NO;
  }
  const bool yes = has == YES;
  pthread_mutex_unlock(&lib.lock);
  omp_set_num_threads(threads);
  return yes;
}

void onednn_version(int version[3]) {
  const dnnl_version_t *found = dnnl_version();
  version[0] = found->major, version[1] = found->minor, version[2] = found->patch;
}
