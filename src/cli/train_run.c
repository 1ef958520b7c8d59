/**
 * cli/train_run.c: the loop of a run: steps, and between them validation, samples, checkpoints.
 */
#define _GNU_SOURCE
#include "train.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the loop keeps from one step to the next. */
typedef struct loop {
    train_run *run;
    double step_seconds; /* smoothed; 0: not known yet */
    double began;        /* setting up is no part of what steps take */
    double recent_loss;  /* of about the last 20 steps, for the bar; 0: not known yet */
    double loss_sum;     /* since the last line */
    int64_t loss_count;
    double last_save;
    int64_t unsaved;      /* steps */
    double fitted;        /* seconds gone when the steps were last fitted into the time */
    int64_t longest_rise; /* steps of warm-up where there is time for them */
    train_progress progress;
} loop;

static void measure_ceiling(train_run *run)
{
    double now = attn_measure_fma(run->context);
    run->ceiling = now > run->ceiling ? now : run->ceiling;
}

/* ---- validation and samples ---- */

int train_evaluate_all(train_run *run, double *loss)
{
    *loss = (double)NAN;
    attn_status s = ATTN_OK;
    if (run->text.held_out >= 2) {
        s = attn_trainer_evaluate(run->trainer, 0, loss);
    }
    return s == ATTN_OK || s == ATTN_ERR_CANCELLED ? CLI_OK : cli_fail_attn("validation");
}

static int evaluate(loop *l)
{
    train_run *run = l->run;
    attn_status s = attn_trainer_evaluate(run->trainer, run->control->eval_windows, &run->last_val);
    l->progress.val = s == ATTN_OK ? run->last_val : (double)NAN;
    return s == ATTN_OK || s == ATTN_ERR_CANCELLED ? CLI_OK : cli_fail_attn("validation");
}

/* Appends the bytes of a token. */
static bool append_piece(const attn_tokenizer *tokenizer, int32_t id, char **text, size_t *size)
{
    size_t n = 0;
    const char *piece = attn_tokenizer_piece(tokenizer, id, false, &n);
    char *grown = realloc(*text, *size + n + 1);
    if (grown == NULL) {
        return false;
    }
    *text = grown;
    memcpy(grown + *size, piece ? piece : "", piece ? n : 0);
    *size += piece ? n : 0;
    return true;
}

/* tokens[count …] drawn after the first `count`; stops early when interrupted or at an end token. */
static attn_status continue_text(train_run *run, int32_t *tokens, int64_t *count, int64_t most,
                                 float *logits, int64_t vocab)
{
    attn_sampler_options options = attn_sampler_options_init();
    options.temperature = 0.8;
    options.seed = run->settings->seed + (uint64_t)attn_trainer_steps(run->trainer);
    attn_sampler *sampler = NULL;
    attn_status s = attn_sampler_create(&options, vocab, &sampler);
    while (s == ATTN_OK && *count < most && !cli_interrupted()) {
        s = attn_trainer_next(run->trainer, tokens, *count, logits);
        s = s ? s : attn_sampler_sample(sampler, logits, &tokens[*count]);
        if (s == ATTN_OK && attn_tokenizer_is_end(run->tokenizer, tokens[*count])) {
            break;
        }
        *count += s == ATTN_OK;
    }
    attn_sampler_destroy(sampler);
    return s;
}

/* What samples begin with: --prompt, else a new line, or the text's first token where it has no lines. malloc'd with room for `more` tokens; NULL: said why. */
static int32_t *prompt_tokens(const train_run *run, int64_t more, int64_t *count)
{
    const char *given = run->control->prompt, *prompt = given ? given : "\n";
    size_t used = 0, room = strlen(prompt) + 2;
    int32_t *tokens = malloc((room + (size_t)more) * sizeof *tokens);
    attn_status s = ATTN_OK;
    if (tokens == NULL) {
        cli_fail("not enough memory for a sample");
        return NULL;
    }
    s = attn_tokenizer_encode(run->tokenizer, prompt, strlen(prompt), true, tokens, room, &used);
    if (s == ATTN_OK && used == 0 && given == NULL) {
        tokens[used++] = run->text.tokens[0];
    }
    if (s != ATTN_OK || used == 0) {
        if (s != ATTN_OK) {
            cli_fail_attn("--prompt");
        } else {
            cli_fail("--prompt: '%s' has no character that the text has; give some of its own",
                     prompt);
        }
        free(tokens);
        return NULL;
    }
    *count = (int64_t)used;
    return tokens;
}

int train_check_prompt(const train_run *run)
{
    int64_t count;
    int32_t *tokens = run->control->sample_every > 0 ? prompt_tokens(run, 0, &count) : NULL;
    bool ok = tokens || run->control->sample_every == 0;
    free(tokens);
    return ok ? CLI_OK : CLI_FAILED;
}

static int sample(train_run *run)
{
    int64_t vocab = attn_gpt_get_options(run->gpt)->vocab, count = 0;
    int32_t *tokens = prompt_tokens(run, run->control->sample_tokens, &count);
    float *logits = malloc((size_t)vocab * sizeof *logits);
    char *text = NULL;
    size_t size = 0;
    int code = tokens ? CLI_OK : CLI_FAILED;
    if (tokens && logits == NULL) {
        code = cli_fail("not enough memory for a sample");
    }
    if (code == CLI_OK) {
        int64_t most = count + run->control->sample_tokens;
        if (continue_text(run, tokens, &count, most, logits, vocab) != ATTN_OK) {
            code = cli_fail_attn("a sample");
        }
        bool ok = true;
        for (int64_t i = 0; i < count && ok; i++) {
            ok = append_piece(run->tokenizer, tokens[i], &text, &size);
        }
        if (code == CLI_OK && text && !cli_interrupted()) {
            train_log_sample(&run->log, attn_trainer_steps(run->trainer), text, size);
        }
    }
    free(text);
    free(tokens);
    free(logits);
    return code;
}

/* ---- checkpoints ---- */

static int save(loop *l)
{
    double start = cli_now();
    int code = train_save(l->run);
    l->last_save = cli_now();
    l->unsaved = 0;
    if (code == CLI_OK && l->run->log.json) {
        int64_t step = attn_trainer_steps(l->run->trainer);
        train_log_event(&l->run->log,
                        json_pack("{s:s, s:I, s:s, s:f}", "event", "save", "step", (json_int_t)step,
                                  "file", l->run->checkpoint, "seconds", l->last_save - start),
                        "saved");
    }
    return code;
}

/* A checkpoint that fails is said and tried again later: the run goes on. */
static void save_if_due(loop *l)
{
    const train_control *c = l->run->control;
    bool due = c->save_steps > 0 ? l->unsaved >= c->save_steps
                                 : cli_now() - l->last_save >= c->save_seconds;
    if (due && l->unsaved > 0 && save(l) != CLI_OK) {
        cli_note("training goes on; the next checkpoint is tried later");
    }
}

/* ---- time ---- */

static double seconds_so_far(const train_run *run)
{
    return cli_now() - run->began;
}

/* The last validation goes over everything held out, forward only: about a third of a step's work a token. */
static double last_validation_seconds(const loop *l)
{
    double tokens = (double)l->run->text.held_out;
    return l->progress.tokens_per_s > 0 ? tokens / (2.5 * l->progress.tokens_per_s) : 0;
}

static bool out_of_time(const loop *l)
{
    double limit = 60 * l->run->control->max_minutes;
    return limit > 0 &&
           seconds_so_far(l->run) + 1.5 * l->step_seconds + last_validation_seconds(l) > limit;
}

/* Where nobody chose the warm-up, it is at most a tenth of the steps. Steps that are done stay below the peak. */
static int64_t fitted_warmup(const loop *l, int64_t steps)
{
    const train_run *run = l->run;
    int64_t done = attn_trainer_steps(run->trainer), warmup = run->settings->warmup;
    if (!run->control->fit_warmup || done >= warmup) {
        return warmup;
    }
    int64_t tenth = steps / 10 > done ? steps / 10 : done;
    return tenth < l->longest_rise ? tenth : l->longest_rise;
}

/*
 * --max-minutes without --steps: as many steps as fit, so that the rate has fallen when time is up. The checkpoint has them, and --resume
 * goes on with those. Small changes are noise.
 */
static int fit_steps(loop *l)
{
    train_run *run = l->run;
    double share = (cli_now() - l->began) / run->train_seconds; /* with what is between steps */
    double left = 60 * run->control->max_minutes - seconds_so_far(run) - last_validation_seconds(l);
    double more = 0.93 * left / (l->step_seconds * (share < 1.15 ? share : 1.15));
    int64_t steps = attn_trainer_steps(run->trainer) + (more > 1 ? (int64_t)more : 1);
    l->fitted = seconds_so_far(run);
    if (fabs((double)(steps - run->settings->steps)) < 0.05 * (double)run->settings->steps) {
        return CLI_OK;
    }
    int64_t warmup = fitted_warmup(l, steps);
    run->settings->steps = steps;
    run->settings->warmup = warmup;
    l->progress.steps = steps;
    if (attn_trainer_set_schedule(run->trainer, warmup, steps) != ATTN_OK) {
        return cli_fail_attn(NULL);
    }
    train_log_event(&run->log,
                    json_pack("{s:s, s:I, s:I}", "event", "steps", "steps", (json_int_t)steps,
                              "warmup", (json_int_t)warmup),
                    "%lld steps fit %g minutes", (long long)steps, run->control->max_minutes);
    return CLI_OK;
}

static void note_time(loop *l, double seconds, const attn_train_result *r)
{
    train_run *run = l->run;
    train_progress *p = &l->progress;
    run->train_seconds += seconds;
    run->trained_tokens += r->tokens;
    bool fresh = run->trained_tokens <= 2 * r->tokens; /* the first step maps its memory */
    l->step_seconds = fresh ? seconds : 0.9 * l->step_seconds + 0.1 * seconds;
    p->tokens_per_s = (double)r->tokens / l->step_seconds;
    p->ceiling_share =
        attn_trainer_step_flops(run->trainer) / l->step_seconds / (1e9 * run->ceiling);
    double share = (cli_now() - l->began) / run->train_seconds;
    p->eta_s = (double)(p->steps - r->step) * l->step_seconds * share;
}

/* ---- the loop ---- */

/* Whether something that happens every n steps happens at this one. */
static bool due(int64_t every, int64_t step, int64_t last)
{
    return every > 0 && (step % every == 0 || step == last);
}

/* What follows a step: a line, with validation where it is time; a sample; a checkpoint. */
static int after_step(loop *l, const attn_train_result *r)
{
    train_run *run = l->run;
    const train_control *c = run->control;
    train_progress *p = &l->progress;
    int code = CLI_OK;
    bool validate = run->text.held_out >= 2 && due(c->eval_every, r->step, p->steps);
    p->step = r->step;
    p->lr = r->lr;
    p->grad_norm = r->grad_norm;
    p->val = (double)NAN;
    l->recent_loss = l->recent_loss > 0 ? 0.95 * l->recent_loss + 0.05 * r->loss : r->loss;
    l->loss_sum += r->loss;
    l->loss_count++;
    p->loss = l->loss_sum / (double)l->loss_count;
    if (validate) {
        measure_ceiling(run);
        code = evaluate(l);
    }
    if (code == CLI_OK && (validate || due(c->log_every, r->step, p->steps))) {
        train_log_step(&run->log, p);
        l->loss_sum = 0;
        l->loss_count = 0;
    } else {
        train_progress recent = *p; /* a mean of the few steps since the last line would jump */
        recent.loss = l->recent_loss;
        train_log_bar(&run->log, &recent);
    }
    if (code == CLI_OK && due(c->sample_every, r->step, p->steps)) {
        code = sample(run);
    }
    l->unsaved++;
    if (code == CLI_OK && r->step < p->steps) { /* the end saves by itself */
        save_if_due(l);
    }
    return code;
}

/* Early, once it runs evenly, and after every twentieth of the time. */
static bool time_to_fit(const loop *l, int64_t done)
{
    const train_control *c = l->run->control;
    return c->fit_steps && (done == 3 || done == 20 ||
                            seconds_so_far(l->run) - l->fitted > 60 * c->max_minutes / 20);
}

static int step(loop *l)
{
    train_run *run = l->run;
    attn_train_result r;
    double start = cli_now();
    attn_status s = attn_trainer_step(run->trainer, &r);
    if (s == ATTN_ERR_CANCELLED) {
        return CLI_OK;
    }
    if (s != ATTN_OK) {
        return cli_fail_attn(NULL);
    }
    note_time(l, cli_now() - start, &r);
    if (time_to_fit(l, r.step)) {
        int code = fit_steps(l);
        if (code != CLI_OK) {
            return code;
        }
    }
    return after_step(l, &r);
}

int train_loop(train_run *run)
{
    loop l = {.run = run, .last_save = cli_now(), .began = cli_now()};
    l.progress.steps = run->settings->steps;
    l.longest_rise = run->settings->warmup;
    measure_ceiling(run);
    int code = CLI_OK;
    while (code == CLI_OK && attn_trainer_steps(run->trainer) < run->settings->steps) {
        run->stopped = cli_interrupted() || out_of_time(&l);
        if (run->stopped) {
            break;
        }
        code = step(&l);
    }
    run->stopped = run->stopped || cli_interrupted();
    if (code == CLI_OK && l.unsaved > 0) {
        code = save(&l);
    }
    return code;
}
