/* libaspis: a trained language model for other programs, in C or through a foreign function interface.
 *
 *   AspisModel *model;
 *   AspisState *state;
 *   if (aspis_open("runs/shakespeare", NULL, &model)) return fail(aspis_error());
 *   if (aspis_state_new(model, 1, 1000, &state)) ...
 *   aspis_read(state, 0, prompt, n_prompt, logits);            the prompt, scanned
 *   for (...) token = ..., aspis_step(state, &token, logits);  one token after the other
 *
 * Every call that can fail returns 0, or one of the program's exit codes (2 wrong argument, 3 data, 4 model, 7 memory), and leaves
 * one line in aspis_error; NULL for what is not said to take it is a wrong argument. Nothing exits or prints. Calls on different states may run at the same time, also where the states are
 * of one model; one state is one thread's at a time. A model outlives its states.
 * Work is shared out to OpenMP's threads; a program that wants single steps to be fast sets OMP_WAIT_POLICY=passive and
 * GOMP_SPINCOUNT=8000 before it starts, as aspis does for itself. Signal handlers of a program must run on a stack of their own
 * (sigaltstack, SA_ONSTACK): oneDNN's products keep data where they would write otherwise. */
#ifndef ASPIS_LIBRARY_H
#define ASPIS_LIBRARY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct AspisModel AspisModel;
typedef struct AspisState AspisState;

/* The line of the last call that failed on this thread, "" if none has; valid until the next one. */
const char *aspis_error(void);
const char *aspis_version(void);

/* path: a run directory, a checkpoint .h5 or a weights directory. dtype: "f32", "bf16", or NULL: as it was trained. */
int aspis_open(const char *path, const char *dtype, AspisModel **model);
void aspis_close(AspisModel *model); /* NULL: nothing */
int aspis_d_model(const AspisModel *model);
int aspis_n_layer(const AspisModel *model);
int aspis_vocab_size(const AspisModel *model);
/* Floats of a row of logits: the vocabulary, padded. Rows from aspis_vocab_size on mean nothing. */
int aspis_n_logits(const AspisModel *model);

/* n_seq sequences that have read nothing. room: most tokens that each will read, which only models with attention need. */
int aspis_state_new(AspisModel *model, int n_seq, int64_t room, AspisState **state);
void aspis_state_free(AspisState *state); /* NULL: nothing */
/* Sequence s reads n tokens. logits: aspis_n_logits floats for the token after the last, or NULL. */
int aspis_read(AspisState *state, int s, const int32_t *tokens, int64_t n, float *logits);
/* The same of n vectors (n, d_model) in place of the tokens' embeddings. */
int aspis_read_embedded(AspisState *state, int s, const float *vectors, int64_t n, float *logits);
/* Every sequence reads one token: tokens (n_seq) -> logits (n_seq, aspis_n_logits), or NULL. */
int aspis_step(AspisState *state, const int32_t *tokens, float *logits);
/* Sequence s of `to` becomes sequence `of` of `from`, a state of the same model; from NULL: it has read nothing. */
int aspis_state_copy(AspisState *to, int s, const AspisState *from, int of);
/* HDF5 files as `aspis score --state-out` writes them; loading asks for as many sequences. */
int aspis_state_save(const AspisState *state, const char *path);
int aspis_state_load(AspisState *state, const char *path);

/* The residual stream after each layer: tokens (n) -> hidden (n_layer, n, d_model). */
int aspis_hidden(AspisModel *model, const int32_t *tokens, int64_t n, float *hidden);

/* Text to tokens and back, of models with a tokenizer; freed by aspis_free. The text ends with a zero that `bytes` does not
 * count. */
int aspis_encode(const AspisModel *model, const char *text, size_t bytes, int32_t **tokens, int64_t *n);
/* The same of a text that a state begins with: behind what its tokenizer puts before a text (such as <s>), where the model's texts
 * had that: a run's by data.special_tokens, a weights directory's as transformers does. */
int aspis_encode_prompt(const AspisModel *model, const char *text, size_t bytes, int32_t **tokens, int64_t *n);
int aspis_decode(const AspisModel *model, const int32_t *tokens, int64_t n, char **text, size_t *bytes);
void aspis_free(void *memory);

#ifdef __cplusplus
}
#endif
#endif
