/* update: one optimiser step over the parameter table (optim.h; spec 2.4). A tensor without decay gets weight_decay 0. */
#include "optim/optim.h"

static void update_adamw(ParamPart *p, bool decay, Device *device, const OptimConfig *c, double lr, double scale,
                         int64_t step, const Verdict *verdict) {
  adamw_fwd(device, &(Adamw){.lr = lr,
                             .beta1 = c->beta1,
                             .beta2 = c->beta2,
                             .eps = c->eps,
                             .weight_decay = decay ? c->weight_decay : 0,
                             .grad_scale = scale,
                             .step = step,
                             .value = &p->value,
                             .low = p->low,
                             .grad = &p->grad,
                             .m = &p->m,
                             .v = &p->v,
                             .verdict = verdict});
}

static void update_sgd(ParamPart *p, bool decay, Device *device, const OptimConfig *c, double lr, double scale,
                       int64_t step, const Verdict *verdict) {
  (void)step;
  sgd_fwd(device, &(Sgd){.lr = lr,
                         .weight_decay = decay ? c->weight_decay : 0,
                         .grad_scale = scale,
                         .value = &p->value,
                         .low = p->low,
                         .grad = &p->grad,
                         .verdict = verdict});
}

static void (*const UPDATES[])(ParamPart *, bool, Device *, const OptimConfig *, double, double, int64_t,
                               const Verdict *) = {
    [OPTIM_ADAMW] = update_adamw,
    [OPTIM_SGD] = update_sgd,
};

static void update_all(ParamTable *params, Device *device, const OptimConfig *config, double lr, double grad_scale,
                       int64_t step, const Verdict *verdict) {
  ParamPart part;
  for (int i = 0; i < params->n_params; i++)
    if (params_own_part(params, i, &part))
      UPDATES[config->kind](&part, params->params[i]->decay, device, config, lr, grad_scale, step, verdict);
}

void optim_update(ParamTable *params, Device *device, const OptimConfig *config, double lr, double grad_scale,
                  int64_t step) {
  update_all(params, device, config, lr, grad_scale, step, NULL);
}

void optim_update_judged(ParamTable *params, Device *device, const OptimConfig *config, double lr, int64_t step) {
  update_all(params, device, config, lr, 1, step, params_verdict(params, step));
}
