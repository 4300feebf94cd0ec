/* backend: the CPU backend's struct of functions, made from the table; one per build of this folder (cpu.h). */
#include "tensor/cpu/cpu.h"
#include "tensor/cpu/tile_bf16.h"

#include "tensor/device.h"

#define STRING2(x) #x
#define STRING(x) STRING2(x)

#define FIELD_GRAD(op) .op##_bwd = CPU_SYMBOL(op##_bwd_cpu),
#define FIELD_PLAIN(op)
#define FIELD_SCRATCH(op) .op##_scratch = CPU_SYMBOL(op##_scratch_cpu),
#define FIELD_NONE(op)
#define KERNEL(op, Params, grad, scratch_kind)                                                                         \
  .op##_fwd = CPU_SYMBOL(op##_fwd_cpu), FIELD_##grad(op) FIELD_##scratch_kind(op)

extern const Backend CPU_SYMBOL(backend_cpu);
const Backend CPU_SYMBOL(backend_cpu) = {
    .name = "cpu" STRING(ASPIS_CPU_VARIANT),
    .real = REAL_DTYPE,
    .multiplies_bf16 = TILE_BF16_NATIVE,
#include "tensor/kernels.def"
};
