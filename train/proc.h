/* proc: single facts from /proc and /sys. */
#pragma once

#include "tensor/base.h"

/* The text after "<key><spaces>:" in the first line of a /proc file that has it, malloc'ed; NULL: none. */
char *proc_value(const char *path, const char *key);
