/* buckets: see buckets.h. */
#include "train/dist/buckets.h"

#include <pthread.h>
#include <stdlib.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "train/dist/tree.h"

typedef struct Bucket {
  int64_t begin, end;         /* flat elements */
  int first_param, end_param; /* of them */
  int64_t *elements, *bytes;  /* the ranks' bounds in it, from the begin of the flat block on */
  double done;                /* when, if by the thread */
} Bucket;

struct Buckets {
  ParamTable *params;
  Device *device;
  Dist *dist;
  int n_levels; /* of the tree of the rank's parts */
  int n;
  Bucket *bucket; /* from the last elements down to element 0 */
  int *expected;  /* by parameter: how often it is asked for in a pass */
  bool learned;   /* a pass was seen */
  bool follows;   /* this pass is the last, and what to expect of it is known */
  int n_whole;    /* buckets that hold the rank's share, and ... */
  int n_given;    /* ... of those the ones handed on */
  int n_begun;    /* n_given when backward ended */
  double backward_end;
  BucketsFigures figures;
  /* the thread's; NULL lock holder: none runs */
  bool has_thread, ends;
  int n_wanted, n_done;
  pthread_t thread;
  pthread_mutex_t lock;
  pthread_cond_t changed;
};

/* ---- a bucket */

static Tensor piece_of(const Tensor *flat, const Bucket *bucket) {
  const int64_t n = bucket->end - bucket->begin;
  return tensor_over((char *)flat->data + (size_t)bucket->begin * dtype_bytes(flat->dtype), flat->dtype, 1, &n);
}

/* Its sum over the ranks; who calls is where the ranks speak: the thread, the main thread while that rests, or a lane. */
static void sum(const Buckets *b, const Bucket *bucket) {
  ParamTable *params = b->params;
  tree_reduce_scatter(b->dist, b->device, &params->grads_flat, &params->spare_grads[0], bucket->elements);
  if (!params_split(params)) tree_all_gather(b->dist, b->device, &params->grads_flat, bucket->bytes);
}

static bool is_whole(const Buckets *b, const Bucket *bucket) {
  for (int i = bucket->first_param; i < bucket->end_param; i++)
    if (b->params->params[i]->grad.n_asked < b->expected[i]) return false;
  return true;
}

/* The next bucket gets what the rank's parts before have left in the tree's levels. */
static void make_whole(Buckets *b) {
  const Bucket *bucket = &b->bucket[b->n_whole++];
  Tensor y = piece_of(&b->params->grads_flat, bucket);
  for (int i = bucket->first_param; i < bucket->end_param; i++) {
    Tensor *grad = &b->params->params[i]->grad;
    if (grad->unset) device_zero(b->device, grad);
    grad->unset = false;
  }
  for (int level = 0; level < b->n_levels; level++) {
    Tensor x = piece_of(&b->params->spare_grads[level], bucket);
    add_fwd(b->device, &(Add){.x = &x, .y = &y});
  }
}

static void sum_on_lane(Buckets *b, int i) {
  const BackendLanes *lanes = b->device->backend->lanes;
  lanes->follow(1, 0);
  lanes->use(1);
  sum(b, &b->bucket[i]);
  lanes->mark(i);
  lanes->use(0);
}

static void hand_on(Buckets *b) {
  const int i = b->n_given++;
  if (b->dist->gpu) {
    sum_on_lane(b, i);
    return;
  }
  pthread_mutex_lock(&b->lock);
  b->n_wanted = b->n_given;
  pthread_cond_broadcast(&b->changed);
  pthread_mutex_unlock(&b->lock);
}

/* ---- the thread */

static void *sum_what_is_wanted(void *user) {
  Buckets *b = user;
#ifdef _OPENMP
  omp_set_num_threads(1); /* the others compute */
#endif
  pthread_mutex_lock(&b->lock);
  while (!b->ends) {
    if (b->n_done == b->n_wanted) {
      pthread_cond_wait(&b->changed, &b->lock);
      continue;
    }
    Bucket *bucket = &b->bucket[b->n_done];
    pthread_mutex_unlock(&b->lock);
    sum(b, bucket);
    bucket->done = base_seconds();
    pthread_mutex_lock(&b->lock);
    b->n_done++;
    pthread_cond_broadcast(&b->changed);
  }
  pthread_mutex_unlock(&b->lock);
  return NULL;
}

static void wait_for_thread(Buckets *b) {
  pthread_mutex_lock(&b->lock);
  while (b->n_done < b->n_wanted) pthread_cond_wait(&b->changed, &b->lock);
  b->n_done = b->n_wanted = 0;
  pthread_mutex_unlock(&b->lock);
}

/* ---- opening */

enum { MOST_BUCKETS = LANES_PACE - 1 }; /* and backward's end is marked, too */

int buckets_most(int64_t gradient_bytes, double bucket_bytes) {
  if (bucket_bytes <= 0) return 1;
  return (int)max_i64(1, min_i64(MOST_BUCKETS, (int64_t)((double)gradient_bytes / bucket_bytes)));
}

/* Cuts the parameters from the last to the first. */
static void cut(Buckets *b, int64_t bucket_bytes) {
  const ParamTable *params = b->params;
  const int64_t n_flat = tensor_count(&params->grads_flat), real = (int64_t)dtype_bytes(params->grads_flat.dtype);
  int64_t end = n_flat;
  int end_param = params->n_params;
  for (int i = params->n_params - 1; i >= 0; i--) {
    const int64_t begin = params->params[i]->flat;
    if (i > 0 && (bucket_bytes == 0 || (end - begin) * real < bucket_bytes)) continue;
    b->bucket = base_realloc(b->bucket, (size_t)(b->n + 1) * sizeof *b->bucket);
    b->bucket[b->n++] = (Bucket){.begin = begin, .end = end, .first_param = i, .end_param = end_param};
    end = begin, end_param = i;
  }
}

/* Of a split table each rank keeps what it updates; else every bucket is shared out by itself, so that all have some of it to add. */
static void share_out(const Buckets *b, Bucket *bucket, const int64_t *ranges) {
  const int size = b->dist->size;
  bucket->elements = base_alloc(((size_t)size + 1) * sizeof *bucket->elements);
  bucket->bytes = base_alloc(((size_t)size + 1) * sizeof *bucket->bytes);
  params_bounds(bucket->end - bucket->begin, size, bucket->elements);
  for (int i = 0; i <= size; i++) {
    int64_t *at = &bucket->elements[i];
    *at = params_split(b->params) ? max_i64(bucket->begin, min_i64(bucket->end, ranges[i])) : bucket->begin + *at;
    bucket->bytes[i] = *at * (int64_t)dtype_bytes(b->params->grads_flat.dtype);
  }
}

Buckets *buckets_open(ParamTable *params, Device *device, Dist *dist, int n_parts, double bucket_bytes) {
  if (dist->size == 1) return NULL;
  CHECK(params->grads_flat.dtype == F32, "ranks that add %s", dtype_name(params->grads_flat.dtype));
  Buckets *b = base_zalloc(sizeof *b);
  b->params = params, b->device = device, b->dist = dist;
  while ((1 << b->n_levels) < n_parts) b->n_levels++;
  b->expected = base_zalloc((size_t)params->n_params * sizeof *b->expected);
  const int64_t n_flat = tensor_count(&params->grads_flat);
  const bool hides = bucket_bytes > 0 && (dist->gpu || !device->backend->memory);
  cut(b, hides ? max_i64((int64_t)bucket_bytes, ceil_div(n_flat * (int64_t)sizeof(float), MOST_BUCKETS)) : 0);
  int64_t *ranges = base_alloc(((size_t)dist->size + 1) * sizeof *ranges);
  params_bounds(n_flat, dist->size, ranges);
  for (int i = 0; i < b->n; i++) share_out(b, &b->bucket[i], ranges);
  free(ranges);
  pthread_mutex_init(&b->lock, NULL);
  pthread_cond_init(&b->changed, NULL);
  if (b->n > 1 && !dist->gpu)
    CHECK(pthread_create(&b->thread, NULL, sum_what_is_wanted, b) == 0, "no thread to sum gradients");
  b->has_thread = b->n > 1 && !dist->gpu;
  b->figures.n = b->n;
  return b;
}

void buckets_close(Buckets *b) {
  if (!b) return;
  if (b->has_thread) {
    pthread_mutex_lock(&b->lock);
    b->ends = true;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL);
  }
  for (int i = 0; i < b->n; i++) free(b->bucket[i].elements), free(b->bucket[i].bytes);
  pthread_mutex_destroy(&b->lock);
  pthread_cond_destroy(&b->changed);
  free(b->bucket), free(b->expected);
  free(b);
}

/* ---- a pass */

/* Hands on what has become whole; never the last bucket, which the first parameter is in. */
static void look(void *user) {
  Buckets *b = user;
  while (b->n_given < b->n - 1 && is_whole(b, &b->bucket[b->n_given])) {
    make_whole(b);
    hand_on(b);
  }
}

TapeWatcher buckets_begin(Buckets *b, bool last) {
  if (!b) return (TapeWatcher){0};
  for (int i = 0; i < b->params->n_params; i++) b->params->params[i]->grad.n_asked = 0;
  b->follows = last && b->learned && b->n > 1;
  return b->follows ? (TapeWatcher){look, b} : (TapeWatcher){0};
}

void buckets_end(Buckets *b, bool last) {
  if (!b) return;
  for (int i = 0; i < b->params->n_params; i++) {
    const Param *param = b->params->params[i];
    CHECK(b->n_given == 0 || i < b->bucket[b->n_given - 1].first_param || param->grad.n_asked == b->expected[i],
          "the gradient of %s was added to %d times, and was summed over the ranks after %d", param->name,
          param->grad.n_asked, b->expected[i]);
    b->expected[i] = param->grad.n_asked;
  }
  b->learned = true;
  if (!last) return;
  b->n_begun = b->n_given;
  b->backward_end = base_seconds();
  if (b->dist->gpu) b->device->backend->lanes->mark(b->n);
}

void buckets_complete(Buckets *b) {
  while (b && b->n_whole < b->n) make_whole(b);
}

/* Whether bucket i was summed when backward ended. */
static bool was_hidden(const Buckets *b, int i) {
  if (b->dist->gpu) return b->device->backend->lanes->seconds(i, b->n) >= 0;
  return b->bucket[i].done <= b->backward_end;
}

static void take_figures(Buckets *b) {
  if (!b->follows) return;
  b->figures.n_steps++;
  for (int i = 0; i < b->n; i++) {
    const double bytes = (double)(b->bucket[i].end - b->bucket[i].begin) * sizeof(float);
    b->figures.bytes += bytes;
    if (i < b->n_begun) b->figures.begun += bytes;
    if (i < b->n_begun && was_hidden(b, i)) b->figures.hidden += bytes;
  }
}

void buckets_finish(Buckets *b) {
  if (!b) return;
  CHECK(b->n_whole == b->n, "%d of %d buckets are whole", b->n_whole, b->n);
  wait_for_thread(b);
  for (int i = b->n_given; i < b->n; i++) {
    if (b->dist->gpu) sum_on_lane(b, i);
    else sum(b, &b->bucket[i]);
  }
  if (b->dist->gpu) b->device->backend->lanes->follow(0, 1);
  else take_figures(b);
  b->n_whole = b->n_given = 0;
}

void buckets_settle(Buckets *b) {
  if (b && b->dist->gpu) take_figures(b);
}

BucketsFigures buckets_figures(const Buckets *b) { return b ? b->figures : (BucketsFigures){0}; }
