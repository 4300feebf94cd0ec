/* A conversation in pieces: each piece of text is read where the last one ended, and the state survives the program.
 *
 *   streaming_state MODEL STATE.h5 "some text"
 *
 * reads the state from STATE.h5 if it is there, reads the text, continues it greedily by 40 tokens and saves the state. Time and
 * memory do not depend on how much was read before. (Models without attention; with it, room is what is to be held.)
 * Build: cc streaming_state.c -laspis */
#include <aspis.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROOM = 100000, N_NEW = 40 };

static int failed(void) {
  fprintf(stderr, "%s\n", aspis_error());
  return 1;
}

static int32_t likeliest(const float *logits, int n) {
  int best = 0;
  for (int i = 1; i < n; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: streaming_state MODEL STATE.h5 TEXT\n");
    return 2;
  }
  AspisModel *model;
  AspisState *state;
  if (aspis_open(argv[1], NULL, &model)) return failed();
  if (aspis_state_new(model, 1, ROOM, &state)) return failed();
  if (access(argv[2], F_OK) == 0 && aspis_state_load(state, argv[2])) return failed();

  int32_t *tokens;
  int64_t n;
  float *logits = malloc((size_t)aspis_n_logits(model) * sizeof *logits);
  if (aspis_encode(model, argv[3], strlen(argv[3]), &tokens, &n)) return failed();
  if (aspis_read(state, 0, tokens, n, logits)) return failed();
  for (int i = 0; i < N_NEW; i++) {
    const int32_t token = likeliest(logits, aspis_vocab_size(model));
    char *text;
    size_t bytes;
    if (aspis_decode(model, &token, 1, &text, &bytes)) return failed();
    fwrite(text, 1, bytes, stdout);
    aspis_free(text);
    if (aspis_step(state, &token, logits)) return failed();
  }
  printf("\n");
  if (aspis_state_save(state, argv[2])) return failed();
  aspis_free(tokens);
  free(logits);
  aspis_state_free(state);
  aspis_close(model);
  return 0;
}
