/* pack: documents laid end to end and cut into rows of equal length. A part of a text is a row of documents; an epoch is an order
 * of them. What is cut by a row's end goes on in the next row as a document of its own. */
#pragma once

#include "tensor/base.h"

typedef struct Pack Pack;

/* The documents of a part: start (n_docs + 1) are the positions of their first tokens in the part and, last, its end; each has a
 * token at least. Copied. */
Pack *pack_new(const int64_t *start, int64_t n_docs);
void pack_free(Pack *pack); /* NULL: nothing */
/* Most documents, and parts of some, that a row of `length` tokens can hold in any order. */
int64_t pack_most_pieces(const Pack *pack, int64_t length);
/* Tokens of the longest document. */
int64_t pack_longest(const Pack *pack);

/* A run of tokens of one document. */
typedef struct PackPiece {
  int64_t at, n; /* its first token in the part */
  bool follows;  /* the token before it is of the same document */
  bool goes_on;  /* the token behind it is of the same document */
} PackPiece;
/* The piece at position `at` of an epoch's stream, of at most `length` tokens; epoch -1: documents in their own order. */
PackPiece pack_piece(Pack *pack, uint64_t seed, int64_t epoch, int64_t at, int64_t length);
