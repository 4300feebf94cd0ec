/* stream: what the host's twins of CUDA's libraries need of its streams (simt.cc). */
#pragma once

#include <cuda_runtime.h>

/* Puts work into a stream. It is called when its turn comes, again and again until it returns true: it is done. (The host's
 * threads may enqueue side by side, as they load weights.) */
void simt_enqueue(cudaStream_t stream, std::function<bool()> work);
/* The number of the capture that the stream is part of; 0: of none. */
uint64_t simt_capture(cudaStream_t stream);
/* Ends the program unless these bytes are the device's. */
void simt_must_be_global(const char *who, const void *at, size_t bytes);
