/* settle: see settle.h. */
#include "train/settle.h"

#include <math.h>
#include <stdlib.h>

#include "train/dist/tree.h"

static Status refuse(Run *run, int64_t step, const Verdict *verdict) {
  const Param *bad = verdict->bad >= 0 ? params_at(&run->model->params, verdict->bad) : NULL;
  char *what = bad ? base_format("the gradient of %s is not finite (loss %g)", bad->name, verdict->loss)
               : isfinite(verdict->loss) ? base_format("the norm of the gradients is %g", verdict->norm)
                                         : base_format("the loss is %g", verdict->loss);
  Status status = STATUS_OK;
  if (run->config->train.nonfinite == NONFINITE_SKIP) {
    runlog_note(run->log, "step %lld skipped: %s", (long long)step, what);
  } else {
    run->cursor -= (run->step - step + 1) * run->batch.n_seq;
    run->tokens = run->tokens_before[step % PARAMS_VERDICTS];
    run->step = run->settled = step - 1;
    Status saved = run->step > 0 ? run_save(run, false, true) : STATUS_OK;
    status = status_fail(CODE_NONFINITE,
                         "step %lld: %s; stopped before the update, the weights are those of step %lld%s: lower "
                         "optim.lr, or set train.nonfinite: skip",
                         (long long)step, what, (long long)run->step,
                         saved.code == CODE_OK ? "" : " (and saving them failed)");
    status_clear(&saved);
  }
  free(what);
  return status;
}

/* Where ranks speak through the host's memory, it waited already. */
static bool waits_anyway(const Run *run) {
  return !run->device.backend->memory || (run->dist->size > 1 && !run->dist->gpu);
}

bool settle_must(const Run *run) {
  return waits_anyway(run) || (run->carry && run->carry->lost) || run->step - run->settled == PARAMS_VERDICTS - 1;
}

Status settle(Run *run, Verdict *verdict) {
  if (run->settled == run->step) return STATUS_OK;
  tree_wait(run->dist, &run->device);
  buckets_settle(run->buckets);
  const Tensor host = device_pull(&run->device, &run->model->params.verdicts);
  const Verdict *verdicts = host.data;
  while (run->settled < run->step) {
    const int64_t step = run->settled + 1;
    *verdict = verdicts[step % PARAMS_VERDICTS];
    if (verdict->held) TRY(refuse(run, step, verdict));
    run->settled = step;
  }
  return STATUS_OK;
}
