/* params: see params.h. The initial values are those of the specification, section 2.3.
 *
 * Every tensor starts at a multiple of PARAMS_FLAT_STEP elements of its block, so that it is 64-byte aligned in any dtype and
 * has the same offset in the gradients, m, v and lower halves; the elements between are zero and stay zero under every flat
 * loop. Values have their own offsets, because dtypes mix there. */
#include "nn/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/rng.h"

static int64_t flat_count(const Param *param) { return round_up(tensor_count(&param->value), PARAMS_FLAT_STEP); }

Tensor *params_add(ParamTable *table, const char *name, bool keep_real, int n_dim, const int64_t *dim, Init init,
                   bool decay) {
  CHECK(!params_find(table, name), "two parameters named %s", name);
  if (table->n_params == table->capacity) {
    table->capacity = table->capacity ? 2 * table->capacity : 64;
    table->params = base_realloc(table->params, (size_t)table->capacity * sizeof *table->params);
  }
  Param *param = base_zalloc(sizeof *param);
  int length = snprintf(param->name, sizeof param->name, "%s", name);
  CHECK(length < PARAM_NAME_BYTES, "name too long: %s", name);
  param->init = init, param->keep_real = keep_real, param->decay = decay;
  param->value = tensor_over(NULL, F32, n_dim, dim);
  table->params[table->n_params++] = param;
  return &param->value;
}

static Tensor *add_under(ParamTable *table, const char *prefix, const char *name, bool keep_real, int n_dim,
                         const int64_t *dim, Init init, bool decay) {
  char full[2 * PARAM_NAME_BYTES];
  snprintf(full, sizeof full, "%s%s", prefix, name);
  return params_add(table, full, keep_real, n_dim, dim, init, decay);
}

Tensor *params_add_linear(ParamTable *table, const char *prefix, const char *name, int64_t n_out, int64_t n_in,
                          double divisor) {
  Init init = {.kind = INIT_UNIFORM, .a = 1.0 / (sqrt((double)n_in) * divisor)};
  return add_under(table, prefix, name, false, 2, (const int64_t[]){n_out, n_in}, init, true);
}

Tensor *params_add_conv(ParamTable *table, const char *prefix, const char *name, int64_t n_channels, int64_t n_taps) {
  Init init = {.kind = INIT_UNIFORM, .a = 1.0 / sqrt((double)n_taps)};
  return add_under(table, prefix, name, false, 3, (const int64_t[]){n_channels, 1, n_taps}, init, true);
}

Tensor *params_add_vector(ParamTable *table, const char *prefix, const char *name, int64_t n, Init init) {
  return add_under(table, prefix, name, false, 1, &n, init, false);
}

Tensor *params_add_real(ParamTable *table, const char *prefix, const char *name, int n_dim, const int64_t *dim,
                        Init init) {
  return add_under(table, prefix, name, true, n_dim, dim, init, false);
}

/* One block of n elements, zero. */
static Tensor block_new(Device *device, Dtype dtype, int64_t n) {
  Tensor block = tensor_over(NULL, dtype, 1, &n);
  block.data = arena_alloc(&device->weights, tensor_bytes(&block));
  device_zero(device, &block);
  return block;
}

/* The part of a block that starts at element `offset` and is shaped like `value`. */
static Tensor block_part(const Tensor *block, int64_t offset, const Tensor *value) {
  char *data = (char *)block->data + (size_t)offset * dtype_bytes(block->dtype);
  return tensor_over(data, block->dtype, value->n_dim, value->dim);
}

/* n elements of a block (or of a tensor) from `first` on. */
static Tensor vector_of(const Tensor *block, int64_t first, int64_t n) {
  return tensor_over((char *)block->data + (size_t)first * dtype_bytes(block->dtype), block->dtype, 1, &n);
}

/* The own elements of a parameter: [*first, *first + n) of the flat blocks; returns n. */
static int64_t own_elements(const ParamTable *table, const Param *param, int64_t *first) {
  const int64_t end = param->flat + tensor_count(&param->value);
  *first = max_i64(param->flat, table->bounds[table->first_range]);
  return max_i64(0, min_i64(end, table->bounds[table->first_range + table->n_own]) - *first);
}

/* Whether the value is the upper half of a master. */
static bool has_low(const Param *param) { return param->grad.data && param->value.dtype != param->grad.dtype; }

static void take_own_low(const ParamTable *table, Param *param) {
  int64_t first;
  const int64_t n = own_elements(table, param, &first);
  if (!has_low(param)) return;
  param->low = (int16_t *)table->lows_flat.data + (n > 0 ? first - table->bounds[table->first_range] : 0);
  param->first_low = n > 0 ? first - param->flat : 0, param->n_low = n;
}

void params_alloc(ParamTable *table, Device *device, Dtype act, bool training, int n_spare) {
  const Dtype real = device->backend->real;
  free(table->device);
  table->device = base_alloc(sizeof *table->device);
  *table->device = *device;

  int64_t value_bytes = 0;
  int64_t n_flat = 0;
  for (int i = 0; i < table->n_params; i++) {
    Param *param = table->params[i];
    param->value.dtype = param->keep_real ? real : act;
    param->device = table->device;
    value_bytes += flat_count(param) * (int64_t)dtype_bytes(param->value.dtype);
    n_flat += flat_count(param);
  }
  table->values_flat = block_new(device, I32, value_bytes / (int64_t)dtype_bytes(I32));
  char *values = table->values_flat.data;
  int64_t flat = 0;
  for (int i = 0; i < table->n_params; i++) {
    Param *param = table->params[i];
    param->value.data = values, param->flat = flat;
    values += (size_t)flat_count(param) * dtype_bytes(param->value.dtype);
    flat += flat_count(param);
  }
  if (!training) return;

  if (table->n_ranges == 0) params_share(table, 1, 0, 1);
  free(table->bounds);
  table->bounds = base_alloc(((size_t)table->n_ranges + 1) * sizeof *table->bounds);
  params_bounds(n_flat, table->n_ranges, table->bounds);
  const int64_t n_own = table->bounds[table->first_range + table->n_own] - table->bounds[table->first_range];
  table->grads_flat = block_new(device, real, n_flat);
  table->m_flat = block_new(device, real, n_own), table->v_flat = block_new(device, real, n_own);
  table->lows_flat = (Tensor){0};
  if (act != real) {
    CHECK(act == BF16 && real == F32, "%s values with a master in %s", dtype_name(act), dtype_name(real));
    table->lows_flat = block_new(device, BF16, n_own);
  }
  for (int i = 0; i < table->n_params; i++) {
    Param *param = table->params[i];
    param->grad = block_part(&table->grads_flat, param->flat, &param->value);
    if (!params_split(table)) {
      param->m = block_part(&table->m_flat, param->flat, &param->value);
      param->v = block_part(&table->v_flat, param->flat, &param->value);
    }
    take_own_low(table, param);
    param->value.grad = &param->grad;
    param->value.needs_grad = true;
  }
  table->n_spare = n_spare;
  table->losses = block_new(device, F64, max_i64((int64_t)1 << n_spare, table->n_ranges));
  table->found = block_new(device, F64, params_n_owners(table) * ((int64_t)table->n_own + 1));
  table->verdicts = block_new(device, F64, (PARAMS_VERDICTS + 1) * (int64_t)(sizeof(Verdict) / sizeof(double)));
  table->numbers = block_new(device, F64, (int64_t)(sizeof(StepNumbers) / sizeof(double)));
  table->spare_grads = base_zalloc((size_t)n_spare * sizeof *table->spare_grads);
  for (int i = 0; i < n_spare; i++) table->spare_grads[i] = block_new(device, real, n_flat);
}

void params_share(ParamTable *table, int n_ranges, int first_range, int n_own) {
  table->n_ranges = n_ranges, table->first_range = first_range, table->n_own = n_own;
}

void params_bounds(int64_t n, int n_ranges, int64_t *bounds) {
  CHECK(n_ranges > 0 && (n_ranges & (n_ranges - 1)) == 0, "%d ranges", n_ranges);
  bounds[0] = 0, bounds[n_ranges] = n;
  for (int width = n_ranges; width > 1; width /= 2)
    for (int i = 0; i < n_ranges; i += width) {
      const int64_t half = round_up(ceil_div(bounds[i + width] - bounds[i], 2), PARAMS_FLAT_STEP);
      bounds[i + width / 2] = min_i64(bounds[i] + half, bounds[i + width]);
    }
}

bool params_own_part(const ParamTable *table, int i, ParamPart *part) {
  const Param *param = table->params[i];
  int64_t first;
  const int64_t n = own_elements(table, param, &first), own = table->bounds[table->first_range];
  if (n == 0) return false;
  *part = (ParamPart){.value = vector_of(&param->value, first - param->flat, n),
                      .grad = vector_of(&table->grads_flat, first, n),
                      .m = vector_of(&table->m_flat, first - own, n),
                      .v = vector_of(&table->v_flat, first - own, n),
                      .low = has_low(param) ? (int16_t *)table->lows_flat.data + (first - own) : NULL};
  return true;
}

Verdict *params_verdict(const ParamTable *table) { return (Verdict *)table->verdicts.data + PARAMS_VERDICTS; }

void params_tell_numbers(ParamTable *table, const StepNumbers *numbers) {
  if (!table->device->dry) {
    const Tensor host = device_mirror(table->device, &table->numbers);
    memcpy(host.data, numbers, sizeof *numbers);
  }
  device_push(table->device, &table->numbers);
}

const StepNumbers *params_numbers(const ParamTable *table) { return table->numbers.data; }

const Param *params_at(const ParamTable *table, int64_t flat) {
  int i = 0;
  while (i + 1 < table->n_params && table->params[i + 1]->flat <= flat) i++;
  return table->params[i];
}

int64_t params_value_place(const ParamTable *table, int64_t flat) {
  for (int i = 0; i < table->n_params; i++) {
    const Param *param = table->params[i];
    if (flat >= param->flat + flat_count(param)) continue;
    return (char *)param->value.data - (char *)table->values_flat.data +
           (flat - param->flat) * (int64_t)dtype_bytes(param->value.dtype);
  }
  return (int64_t)tensor_bytes(&table->values_flat);
}

/* Copies the own elements from where they are kept to where they lie in a block of all, or with `back` the other way. */
static void copy_own(const ParamTable *table, const Tensor *own, const Tensor *all, bool back) {
  if (tensor_count(own) == 0) return;
  const Tensor there = vector_of(all, table->bounds[table->first_range], tensor_count(own));
  const Tensor from = device_pull(table->device, back ? &there : own);
  const Tensor to = device_mirror(table->device, back ? own : &there);
  memcpy(to.data, from.data, tensor_bytes(&from));
  device_push(table->device, back ? own : &there);
}

void params_show_moment(ParamTable *table, bool second, bool back) {
  CHECK(params_split(table) && table->n_spare > 0, "moments of a table that is not split");
  const Tensor *spare = &table->spare_grads[0], *own = second ? &table->v_flat : &table->m_flat;
  for (int i = 0; i < table->n_params; i++) {
    Param *param = table->params[i];
    Tensor *moment = second ? &param->v : &param->m;
    *moment = block_part(spare, param->flat, &param->value);
  }
  copy_own(table, own, spare, back);
}

Tensor params_show_lows(ParamTable *table, bool all) {
  CHECK(params_split(table) && table->n_spare > 0 && table->lows_flat.data,
        "lower halves of a table that is not split");
  const int64_t n_flat = tensor_count(&table->grads_flat);
  const Tensor spare = tensor_over(table->spare_grads[0].data, BF16, 1, &n_flat);
  for (int i = 0; i < table->n_params; i++) {
    Param *param = table->params[i];
    if (!all) take_own_low(table, param);
    else if (has_low(param)) {
      param->low = (int16_t *)spare.data + param->flat;
      param->first_low = 0, param->n_low = tensor_count(&param->value);
    }
  }
  if (all) copy_own(table, &table->lows_flat, &spare, false);
  return spare;
}

static double init_draw(const Init *init, Rng *rng) {
  switch (init->kind) {
  case INIT_CONSTANT: return init->a;
  case INIT_NORMAL: return init->a * rng_normal(rng);
  case INIT_UNIFORM: return init->a * (2 * rng_uniform(rng) - 1);
  case INIT_DT_BIAS: {
    double dt = exp(log(init->a) + rng_uniform(rng) * (log(init->b) - log(init->a)));
    dt = fmax(dt, init->c);
    return dt + log(-expm1(-dt));
  }
  case INIT_LOG_UNIFORM_A: return log(init->a + rng_uniform(rng) * (init->b - init->a));
  }
  CHECK(false, "init kind %d", (int)init->kind);
}

void params_init(ParamTable *table, uint64_t seed) {
  if (table->device->dry) return;
#pragma omp parallel for schedule(dynamic)
  for (int i = 0; i < table->n_params; i++) {
    Param *param = table->params[i];
    Tensor *exact = param_exact(param);
    Rng rng = rng_make(seed, RNG_INIT, (uint32_t)i, 0);
    const int64_t n = tensor_count(exact);
    if (exact->dtype == F32)
      for (int64_t j = 0; j < n; j++) ((float *)exact->data)[j] = (float)init_draw(&param->init, &rng);
    else
      for (int64_t j = 0; j < n; j++) tensor_set(exact, j, init_draw(&param->init, &rng));
    param_refresh(param);
  }
}

Param *params_find(const ParamTable *table, const char *name) {
  for (int i = 0; i < table->n_params; i++)
    if (strcmp(table->params[i]->name, name) == 0) return table->params[i];
  return NULL;
}

int64_t params_count(const ParamTable *table) {
  int64_t n = 0;
  for (int i = 0; i < table->n_params; i++) n += tensor_count(&table->params[i]->value);
  return n;
}

void params_zero_grads(ParamTable *table) {
  CHECK(table->grads_flat.data, "gradients of a table that was not laid out for training");
  device_zero(table->device, &table->grads_flat);
}

void params_unset_grads(ParamTable *table) {
  for (int i = 0; i < table->n_params; i++) table->params[i]->grad.unset = true;
}

void params_set_grads(ParamTable *table) {
  for (int i = 0; i < table->n_params; i++) {
    Tensor *grad = &table->params[i]->grad;
    if (grad->unset) device_zero(table->device, grad);
    grad->unset = false;
  }
}

void params_swap_grads(ParamTable *table, int i) {
  CHECK(i >= 0 && i < table->n_spare, "spare gradients %d of %d", i, table->n_spare);
  const Tensor flat = table->grads_flat;
  table->grads_flat = table->spare_grads[i];
  table->spare_grads[i] = flat;
  for (int j = 0; j < table->n_params; j++) {
    Tensor *grad = &table->params[j]->grad;
    grad->data = (char *)table->grads_flat.data + ((char *)grad->data - (char *)flat.data);
  }
}

/* They were laid out one behind the other. */
void params_home_grads(ParamTable *table) {
  for (int i = 0; i < table->n_spare; i++)
    if (table->spare_grads[i].data < table->grads_flat.data) params_swap_grads(table, i);
  for (int i = 1; i < table->n_spare; i++)
    for (int j = i; j > 0 && table->spare_grads[j].data < table->spare_grads[j - 1].data; j--) {
      const Tensor later = table->spare_grads[j];
      table->spare_grads[j] = table->spare_grads[j - 1], table->spare_grads[j - 1] = later;
    }
}

/* The lower halves that are here, as a tensor. */
static Tensor low_of(const Param *param) { return tensor_over(param->low, BF16, 1, &param->n_low); }

Tensor *param_exact(Param *param) {
  param->exact = device_pull(param->device, &param->value);
  if (!has_low(param)) return param->device->backend->memory ? &param->exact : &param->value;
  const uint16_t *high = param->exact.data;
  param->exact = device_mirror(param->device, &param->grad);
  float *exact = param->exact.data;
  const int64_t n = tensor_count(&param->value);
  for (int64_t i = 0; i < n; i++) exact[i] = bf16_to_float(high[i]);
  if (param->n_low == 0) return &param->exact;
  const Tensor lower = low_of(param), low = device_pull(param->device, &lower);
  for (int64_t i = 0; i < param->n_low; i++)
    exact[param->first_low + i] = bf16_join(high[param->first_low + i], ((const int16_t *)low.data)[i]);
  return &param->exact;
}

void param_refresh(Param *param) {
  if (has_low(param)) {
    const Tensor lower = low_of(param);
    int16_t *low = param->n_low > 0 ? device_mirror(param->device, &lower).data : NULL;
    uint16_t *high = device_mirror(param->device, &param->value).data;
    const float *exact = param->exact.data;
    const int64_t n = tensor_count(&param->value);
    for (int64_t i = 0; i < n; i++) {
      int16_t other;
      const int64_t at = i - param->first_low;
      high[i] = bf16_split(exact[i], at >= 0 && at < param->n_low ? &low[at] : &other);
    }
    if (param->n_low > 0) device_push(param->device, &lower);
  }
  device_push(param->device, &param->value);
}

void params_free(ParamTable *table) {
  for (int i = 0; i < table->n_params; i++) free(table->params[i]);
  free(table->params);
  free(table->spare_grads);
  free(table->bounds);
  free(table->device);
  *table = (ParamTable){0};
}
