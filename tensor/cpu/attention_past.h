/* attention_past: attention of sequences that go on where others ended (Attention in tensor/kernels.h, key_in given). */
#pragma once

#include "tensor/cpu/lanes.h"

#define attention_past_scratch CPU_SYMBOL(attention_past_scratch)
#define attention_past_forward CPU_SYMBOL(attention_past_forward)
#define attention_past_backward CPU_SYMBOL(attention_past_backward)

size_t attention_past_scratch(const Attention *p, bool backward);
void attention_past_forward(const Attention *p);
void attention_past_backward(const Attention *p);
