/* dispatch: expands kernels.def into <op>_fwd and <op>_bwd, which call the device's backend. */
#include "tensor/device.h"

#define TAKE_SCRATCH(op, backward)                                                                                     \
  size_t mark = arena_mark(&device->scratch);                                                                          \
  p->scratch = arena_alloc(&device->scratch, device->backend->op##_scratch(p, backward));
#define GIVE_SCRATCH                                                                                                   \
  p->scratch = NULL;                                                                                                   \
  arena_rewind(&device->scratch, mark);
#define TAKE_NONE(op, backward)
#define GIVE_NONE

#define KERNEL_GRAD(op, Params, scratch_kind)                                                                          \
  void op##_bwd(Device *device, Params *p) {                                                                           \
    TAKE_##scratch_kind(op, true) if (!device->dry) device->backend->op##_bwd(p);                                      \
    GIVE_##scratch_kind                                                                                                \
  }
#define KERNEL_PLAIN(op, Params, scratch_kind)
#define KERNEL(op, Params, grad, scratch_kind)                                                                         \
  void op##_fwd(Device *device, Params *p) {                                                                           \
    TAKE_##scratch_kind(op, false) if (!device->dry) device->backend->op##_fwd(p);                                     \
    GIVE_##scratch_kind                                                                                                \
  }                                                                                                                    \
  KERNEL_##grad(op, Params, scratch_kind)
#include "tensor/kernels.def"
