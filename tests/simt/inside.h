/* inside: what the files of the twin share: how a mistake ends the program, orders that are drawn, what the runtime (runtime.cc) needs
 * of those who run kernels and watch memory (simt.cc), and what the twins of CUDA's libraries (blas.cc, nccl.cc) need of both. */
#pragma once

#include <cuda_runtime.h>

extern "C" void check_failed(const char *file, int line, const char *condition, const char *format, ...);
#define FAULT(...) check_failed(__FILE__, __LINE__, "simt", __VA_ARGS__)

enum { SIMT_MOST_THREADS = 1024, SIMT_SHARED_BYTES = 227 << 10 }; /* of a block */

/* xorshift64*: all that is wanted is another order for another seed */
struct SimtDraw {
  uint64_t state = 88172645463325252u;
  unsigned below(unsigned n) {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
    return (unsigned)((state * 2685821657736338717u >> 32) % n);
  }
};

/* ---- simt.cc */

/* All blocks of a kernel, here and now. */
void simt_run(const char *kernel, dim3 grid, dim3 block_dim, size_t shared_bytes, const std::function<void()> &body);
/* The device has this memory from now on. False: the host has none to keep watch over it. */
bool simt_add_memory(char *begin, size_t bytes);
/* Not any more; its bytes, or 0: none begins there. */
size_t simt_drop_memory(void *begin);
/* ASPIS_SIMT_GUARD=1: the device's memory is out of the host's reach but while it is open, as it is while a kernel or a copy
 * runs; so host code that touches it ends in a segmentation fault, as it would with a GPU. */
void simt_open_memory(bool open);
/* Ends the program unless these bytes are the device's. */
void simt_must_be_global(const char *who, const void *at, size_t bytes);

/* ---- runtime.cc */

/* Puts work into a stream. It is called when its turn comes, again and again until it returns true: it is done. (The host's
 * threads may enqueue side by side, as they load weights, or fetch what was set aside.) */
void simt_enqueue(cudaStream_t stream, std::function<bool()> work);
/* The number of the capture that the stream is part of; 0: of none. */
uint64_t simt_capture(cudaStream_t stream);
