/* fault: see fault.h. */
#include "train/fault.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct {
  const char *name;
  bool waits;
} PHASES[N_PHASES] = {
    [PHASE_START] = {"start", false},       [PHASE_DATA] = {"data", false},     [PHASE_GRADIENT] = {"gradient", false},
    [PHASE_REDUCE] = {"reduce", true},      [PHASE_UPDATE] = {"update", false}, [PHASE_COMPARE] = {"compare", true},
    [PHASE_EVALUATE] = {"evaluate", false}, [PHASE_SAVE] = {"save", false},     [PHASE_WRITE] = {"write", false},
    [PHASE_WAIT] = {"wait", true},          [PHASE_FINISH] = {"finish", false},
};

const char *phase_name(Phase phase) { return PHASES[phase].name; }
bool phase_waits(Phase phase) { return PHASES[phase].waits; }

static const struct {
  const char *name;
  FaultKind kind;
} KINDS[] = {{"nan_loss", FAULT_NAN_LOSS}, {"nan_grad", FAULT_NAN_GRAD}, {"kill", FAULT_KILL},
             {"stop", FAULT_STOP},         {"slow", FAULT_SLOW},         {"diverge", FAULT_DIVERGE}};

const char fault_form[] =
    "KIND@STEP[,rank=R][,phase=P][,seconds=S], KIND one of nan_loss, nan_grad, kill, stop, slow, "
    "diverge, P one of start, data, gradient, reduce, update, compare, evaluate, save, write, wait, finish";

/* "name=value" of `length` bytes, put where it belongs. */
static bool put(Fault *fault, const char *text, size_t length) {
  char word[64];
  if (length >= sizeof word) return false;
  memcpy(word, text, length);
  word[length] = '\0';
  char *value = strchr(word, '='), *end;
  if (!value || !value[1]) return false;
  *value++ = '\0';
  if (strcmp(word, "phase") == 0) {
    for (int p = 0; p < N_PHASES; p++)
      if (strcmp(value, PHASES[p].name) == 0) {
        fault->phase = (Phase)p;
        return true;
      }
    return false;
  }
  const double number = strtod(value, &end);
  if (*end || !(number >= 0 && number < 1e6)) return false;
  if (strcmp(word, "seconds") == 0) fault->seconds = number;
  else if (strcmp(word, "rank") == 0 && number == floor(number)) fault->rank = (int)number;
  else return false;
  return true;
}

bool fault_parse(const char *text, Fault *fault) {
  *fault = (Fault){.phase = PHASE_GRADIENT, .seconds = 1};
  if (!*text) return true;
  const char *at = strchr(text, '@');
  for (size_t i = 0; at && i < sizeof KINDS / sizeof *KINDS; i++)
    if (strlen(KINDS[i].name) == (size_t)(at - text) && strncmp(KINDS[i].name, text, (size_t)(at - text)) == 0)
      fault->kind = KINDS[i].kind;
  if (fault->kind == FAULT_NONE) return false;
  char *end;
  fault->step = strtoll(at + 1, &end, 10);
  if (end == at + 1 || fault->step < 1) return false;
  while (*end == ',') {
    const char *word = end + 1;
    end = strchrnul(word, ',');
    if (!put(fault, word, (size_t)(end - word))) return false;
  }
  return *end == '\0';
}

bool fault_is(const Fault *fault, FaultKind kind, int rank, int64_t step) {
  return fault->kind == kind && fault->rank == rank && fault->step == step;
}

void fault_strike(const Fault *fault, int rank, int64_t step, Phase phase) {
  if (fault->phase != phase || fault->rank != rank) return;
  if (fault_is(fault, FAULT_KILL, rank, step)) raise(SIGKILL);
  if (fault_is(fault, FAULT_STOP, rank, step)) raise(SIGSTOP);
  if (fault->kind == FAULT_SLOW && step >= fault->step) {
    const double whole = floor(fault->seconds);
    nanosleep(&(struct timespec){(time_t)whole, (long)(1e9 * (fault->seconds - whole))}, NULL);
  }
}
