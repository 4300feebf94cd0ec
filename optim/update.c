/* update: one optimiser step over the parameter table (optim.h; spec 2.4). A tensor without decay gets weight_decay 0. */
#include "optim/optim.h"

/* How an update comes by its numbers: from here, or from the device's memory. */
typedef struct Update {
  const OptimConfig *config;
  double lr, scale;
  int64_t step;
  const StepNumbers *numbers; /* with verdict; NULL: the three above */
  const Verdict *verdict;
} Update;

static void update_adamw(ParamPart *p, bool decay, Device *device, const Update *u) {
  const OptimConfig *c = u->config;
  adamw_fwd(device, &(Adamw){.lr = u->lr,
                             .beta1 = c->beta1,
                             .beta2 = c->beta2,
                             .eps = c->eps,
                             .weight_decay = decay ? c->weight_decay : 0,
                             .grad_scale = u->scale,
                             .step = u->step,
                             .numbers = u->numbers,
                             .value = &p->value,
                             .low = p->low,
                             .grad = &p->grad,
                             .m = &p->m,
                             .v = &p->v,
                             .verdict = u->verdict});
}

static void update_sgd(ParamPart *p, bool decay, Device *device, const Update *u) {
  sgd_fwd(device, &(Sgd){.lr = u->lr,
                         .weight_decay = decay ? u->config->weight_decay : 0,
                         .grad_scale = u->scale,
                         .numbers = u->numbers,
                         .value = &p->value,
                         .low = p->low,
                         .grad = &p->grad,
                         .verdict = u->verdict});
}

static void (*const UPDATES[])(ParamPart *, bool, Device *, const Update *) = {
    [OPTIM_ADAMW] = update_adamw,
    [OPTIM_SGD] = update_sgd,
};

static void update_all(ParamTable *params, Device *device, const Update *update) {
  ParamPart part;
  for (int i = 0; i < params->n_params; i++)
    if (params_own_part(params, i, &part))
      UPDATES[update->config->kind](&part, params->params[i]->decay, device, update);
}

void optim_update(ParamTable *params, Device *device, const OptimConfig *config, double lr, double grad_scale,
                  int64_t step) {
  update_all(params, device, &(Update){.config = config, .lr = lr, .scale = grad_scale, .step = step});
}

StepNumbers optim_numbers(const OptimConfig *config, double lr, int64_t step) {
  return adamw_numbers(lr, config->beta1, config->beta2, config->weight_decay, step);
}

void optim_update_judged(ParamTable *params, Device *device, const OptimConfig *config) {
  update_all(params, device,
             &(Update){.config = config,
                       .scale = 1,
                       .step = 1,
                       .numbers = params_numbers(params),
                       .verdict = params_verdict(params)});
}
