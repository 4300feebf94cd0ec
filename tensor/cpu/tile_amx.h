/* tile_amx: the AMX way of tile_bf16.h, which includes it: eight tile registers of 16 rows of 64 bytes, and their plain C
 * twin. Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18. */
#pragma once

#include <stdatomic.h>

#include "tensor/cpu/cpu.h"

enum { AMX_ROWS = 16, AMX_COLS = 16 };

/* Tiles are named by literals in the intrinsics, so these are macros: 0 to 3 sums, 4 and 5 of A, 6 and 7 of B. The fence
 * keeps the compiler from moving plain stores past a tile load, which it does not know to read memory. */
#ifdef ASPIS_AMX_TWIN
typedef union AmxTile {
  float sum[AMX_ROWS][AMX_COLS];
  uint16_t pair[AMX_ROWS][2 * AMX_COLS];
} AmxTile;
#define AMX_BEGIN() AmxTile amx[8]
#define AMX_END() ((void)amx)
#define AMX_ZERO(t) memset(&amx[t], 0, sizeof amx[t])
#define AMX_LOAD(t, from, stride_bytes) amx_load(&amx[t], from, stride_bytes)
#define AMX_STORE(t, to, stride_bytes) amx_store(&amx[t], to, stride_bytes)
#define AMX_DOT(c, a, b) amx_dot(&amx[c], &amx[a], &amx[b])
static inline void amx_load(AmxTile *tile, const void *from, int64_t stride_bytes) {
  for (int r = 0; r < AMX_ROWS; r++) memcpy(tile->sum[r], (const char *)from + r * stride_bytes, sizeof tile->sum[r]);
}
static inline void amx_store(const AmxTile *tile, void *to, int64_t stride_bytes) {
  for (int r = 0; r < AMX_ROWS; r++) memcpy((char *)to + r * stride_bytes, tile->sum[r], sizeof tile->sum[r]);
}
static inline void amx_dot(AmxTile *c, const AmxTile *a, const AmxTile *b) {
  for (int r = 0; r < AMX_ROWS; r++)
    for (int q = 0; q < AMX_ROWS; q++)
      for (int j = 0; j < AMX_COLS; j++)
        c->sum[r][j] += bf16_to_float(a->pair[r][2 * q]) * bf16_to_float(b->pair[q][2 * j]) +
                        bf16_to_float(a->pair[r][2 * q + 1]) * bf16_to_float(b->pair[q][2 * j + 1]);
}
#else
#define AMX_BEGIN() amx_configure()
#define AMX_END() _tile_release()
#define AMX_ZERO(t) _tile_zero(t)
#define AMX_LOAD(t, from, stride_bytes)                                                                                \
  do {                                                                                                                 \
    atomic_signal_fence(memory_order_seq_cst);                                                                         \
    _tile_loadd(t, from, stride_bytes);                                                                                \
  } while (0)
#define AMX_STORE(t, to, stride_bytes)                                                                                 \
  do {                                                                                                                 \
    _tile_stored(t, to, stride_bytes);                                                                                 \
    atomic_signal_fence(memory_order_seq_cst);                                                                         \
  } while (0)
#define AMX_DOT(c, a, b) _tile_dpbf16ps(c, a, b)
static inline void amx_configure(void) {
  struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  } config = {.palette = 1};
  for (int t = 0; t < 8; t++) config.row_bytes[t] = 64, config.rows[t] = AMX_ROWS;
  atomic_signal_fence(memory_order_seq_cst);
  _tile_loadconfig(&config);
}
#endif

/* Where a tile of up to 16 rows and 32 elements deep can be loaded from: a itself, or its copy among zeros. */
static inline const uint16_t *amx_rows(int64_t n_rows, int64_t depth, const uint16_t *a, int64_t lda,
                                       uint16_t edge[AMX_ROWS][TILE_BF16_DEPTH], int64_t *ld) {
  *ld = lda;
  if (n_rows >= AMX_ROWS && depth >= TILE_BF16_DEPTH) return a;
  *ld = TILE_BF16_DEPTH;
  memset(edge, 0, sizeof(uint16_t[AMX_ROWS][TILE_BF16_DEPTH]));
  for (int64_t r = 0; r < min_i64(n_rows, AMX_ROWS); r++)
    memcpy(edge[r], a + r * lda, (size_t)min_i64(depth, TILE_BF16_DEPTH) * sizeof *a);
  return edge[0];
}

/* One tile's sums into C, of which only (n_rows, n_cols) may be touched. */
static inline void amx_edge_out(float sums[AMX_ROWS][AMX_COLS], int64_t n_rows, int64_t n_cols, bool add, float *c,
                                int64_t ldc) {
  for (int64_t r = 0; r < min_i64(n_rows, AMX_ROWS); r++)
    for (int64_t j = 0; j < min_i64(n_cols, AMX_COLS); j++)
      c[r * ldc + j] = add ? c[r * ldc + j] + sums[r][j] : sums[r][j];
}
#define AMX_OUT(t, row, col)                                                                                           \
  do {                                                                                                                 \
    float sums[AMX_ROWS][AMX_COLS], *to = c + (row)*ldc + (col);                                                       \
    if ((row) >= n_rows || (col) >= n_cols) break;                                                                     \
    if (!add && n_rows - (row) >= AMX_ROWS && n_cols - (col) >= AMX_COLS) {                                            \
      AMX_STORE(t, to, ldc *(int64_t)sizeof *c);                                                                       \
    } else {                                                                                                           \
      AMX_STORE(t, sums, (int64_t)sizeof sums[0]);                                                                     \
      amx_edge_out(sums, n_rows - (row), n_cols - (col), add, to, ldc);                                                \
    }                                                                                                                  \
  } while (0)

/* Two by two tiles at a time: four products for four tiles loaded. */
static inline void tile_bf16_product(int64_t m, int64_t n, int64_t k, const uint16_t *a, int64_t lda,
                                     const uint16_t *packed, bool add, float *c_all, int64_t ldc) {
  const int64_t depth = round_up(k, TILE_BF16_DEPTH), n_padded = round_up(n, 16);
  AMX_BEGIN();
  for (int64_t i = 0; i < m; i += 2 * AMX_ROWS)
    for (int64_t j = 0; j < n; j += TILE_BF16_COLS) {
      const int64_t n_rows = m - i, n_cols = n - j, width = min_i64(TILE_BF16_COLS, n_padded - j);
      float *c = c_all + i * ldc + j;
      AMX_ZERO(0);
      AMX_ZERO(1);
      AMX_ZERO(2);
      AMX_ZERO(3);
      for (int64_t q = 0; q < k; q += TILE_BF16_DEPTH) {
        uint16_t edge[AMX_ROWS][TILE_BF16_DEPTH];
        int64_t ld;
        const uint16_t *rows = amx_rows(n_rows, k - q, a + i * lda + q, lda, edge, &ld);
        const uint16_t *b = packed + j * depth + q * width;
        AMX_LOAD(4, rows, ld * (int64_t)sizeof *a);
        AMX_LOAD(6, b, width * 4);
        AMX_DOT(0, 4, 6);
        if (width > AMX_COLS) {
          AMX_LOAD(7, b + 2 * AMX_COLS, width * 4);
          AMX_DOT(1, 4, 7);
        }
        if (n_rows <= AMX_ROWS) continue;
        rows = amx_rows(n_rows - AMX_ROWS, k - q, a + (i + AMX_ROWS) * lda + q, lda, edge, &ld);
        AMX_LOAD(5, rows, ld * (int64_t)sizeof *a);
        AMX_DOT(2, 5, 6);
        if (width > AMX_COLS) AMX_DOT(3, 5, 7);
      }
      AMX_OUT(0, 0, 0);
      AMX_OUT(1, 0, AMX_COLS);
      AMX_OUT(2, AMX_ROWS, 0);
      AMX_OUT(3, AMX_ROWS, AMX_COLS);
    }
  AMX_END();
}
