/**
 * cli/train_plan.c: how long a run will take and how much memory, measured on small models of the same width: blocks are all alike, so time
 * and memory of one and of a few of them tell those of any number.
 */
#define _GNU_SOURCE
#include "train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What one step of a model of so many layers takes. */
typedef struct trial {
    double pass_seconds, parameters, passes;
    double forward_seconds; /* a batch of validation; 0 where nothing is held out */
} trial;

/* The run's own trainer on a shallower model: one step to find its memory, then one that is timed. */
static attn_status run_trial(const train_run *run, attn_module *gpt, trial *t)
{
    const train_settings *s = run->settings;
    attn_trainer_options o = attn_trainer_options_init();
    o.context = s->context;
    o.batch = s->batch;
    o.weight_decay = s->weight_decay;
    o.clip = s->clip;
    o.validation = run->text.held_out;
    o.cancel = cli_cancel;
    attn_trainer *trainer = NULL;
    attn_status status =
        attn_trainer_create(run->context, &o, gpt, run->text.tokens, run->text.count, &trainer);
    status = status ? status : attn_trainer_step(trainer, NULL);
    t->pass_seconds = INFINITY;
    for (int i = 0; i < 3 && status == ATTN_OK; i++) { /* the best: neighbours only slow down */
        double start = cli_now();
        status = attn_trainer_step(trainer, NULL);
        t->pass_seconds = fmin(t->pass_seconds, cli_now() - start);
    }
    double loss, start = cli_now();
    if (status == ATTN_OK && run->text.held_out >= 2) {
        status = attn_trainer_evaluate(trainer, 1, &loss);
        t->forward_seconds = cli_now() - start;
    }
    if (status == ATTN_OK) {
        size_t parameters, passes;
        attn_trainer_bytes(trainer, &parameters, &passes);
        t->parameters = (double)parameters;
        t->passes = (double)passes;
    }
    attn_trainer_destroy(trainer);
    return status;
}

static attn_status try_layers(const train_run *run, const attn_gpt_options *model, int64_t layers,
                              trial *t)
{
    attn_gpt_options o = *model;
    o.layers = layers;
    o.init = ATTN_INIT_NORMAL;
    o.init_context = run->context;
    attn_module *gpt = NULL;
    attn_status s = attn_gpt_create(&o, &gpt);
    if (s == ATTN_OK && run->settings->base[0] && !run->settings->full) {
        s = train_add_adapters(run->settings, gpt);
    }
    s = s ? s : run_trial(run, gpt, t);
    attn_module_destroy(gpt);
    return s;
}

static double extrapolate(double one, double few, int64_t depth, int64_t layers)
{
    double more = few > one ? few - one : 0; /* noise must not make depth free */
    return depth > 1 ? one + more * (double)(layers - 1) / (double)(depth - 1) : one;
}

attn_status train_plan_make(const train_run *run, const attn_gpt_options *model, double base_bytes,
                            train_plan *plan)
{
    /* What the program takes besides; blocks of the deeper trial: beside a large vocabulary the time of one drowns in noise. */
    enum { PROGRAM = 16 << 20, DEPTH = 6 };
    const train_settings *s = run->settings;
    const train_control *c = run->control;
    trial one = {0}, few = {0};
    int64_t depth = model->layers < DEPTH ? model->layers : DEPTH;
    attn_status status = try_layers(run, model, 1, &one);
    status = status ? status : try_layers(run, model, depth, &few);
    if (status != ATTN_OK) {
        return status;
    }
    double pass = extrapolate(one.pass_seconds, few.pass_seconds, depth, model->layers);
    plan->step_seconds = pass * (double)s->accumulate;
    plan->bytes = extrapolate(one.parameters, few.parameters, depth, model->layers) +
                  extrapolate(one.passes, few.passes, depth, model->layers) + base_bytes + PROGRAM +
                  (double)run->text.size + (double)run->text.count * sizeof(int32_t);
    /* Validation: some windows now and then and at the last step; all of them at the end and, of a base, before. */
    double forward = extrapolate(one.forward_seconds, few.forward_seconds, depth, model->layers);
    double all = ceil((double)run->text.held_out / (double)s->context);
    double part = fmin((double)c->eval_windows, all);
    double times = c->eval_every > 0 ? ceil((double)s->steps / (double)c->eval_every) : 0;
    double batches =
        ceil(part / (double)s->batch) * times + ceil(all / (double)s->batch) * (s->base[0] ? 2 : 1);
    plan->seconds = (double)s->steps * plan->step_seconds + forward * batches;
    return ATTN_OK;
}

void train_plan_say(train_log *log, const train_plan *plan, const train_plan *real)
{
    const train_plan *p = real ? real : plan;
    char memory[32], planned[32];
    json_t *o = json_pack("{s:s, s:f, s:f, s:f}", "event", real ? "plan_checked" : "plan", "bytes",
                          p->bytes, "step_seconds", p->step_seconds, "seconds", p->seconds);
    if (real) {
        json_object_set_new(o, "planned_bytes", json_real(plan->bytes));
        json_object_set_new(o, "planned_step_seconds", json_real(plan->step_seconds));
        json_object_set_new(o, "planned_seconds", json_real(plan->seconds));
        train_log_event(
            log, o, "planned %s, %.3f s a step, %.0f s; it was %s, %.3f s a step, %.0f s",
            cli_bytes(plan->bytes, planned, sizeof planned), plan->step_seconds, plan->seconds,
            cli_bytes(real->bytes, memory, sizeof memory), real->step_seconds, real->seconds);
    } else {
        train_log_event(log, o, "plan: %s of memory, %.3f s a step, %.0f s in all",
                        cli_bytes(plan->bytes, memory, sizeof memory), plan->step_seconds,
                        plan->seconds);
    }
}
