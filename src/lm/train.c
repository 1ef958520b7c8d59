/**
 * lm/train.c: the trainer: its making, a step, an evaluation.
 */
#include "lm/train.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

attn_trainer_options attn_trainer_options_init(void)
{
    attn_trainer_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.batch = 16;
    options.accumulate = 1;
    options.steps = 1000;
    options.lr = 1e-3;
    options.lr_lowest = 0.1;
    options.warmup = 100;
    options.weight_decay = 0.1;
    options.beta1 = 0.9;
    options.beta2 = 0.99;
    options.clip = 1;
    options.validation = -1;
    return options;
}

/* ---- making one ---- */

static attn_status check_count(const char *name, int64_t value, int64_t least)
{
    return value >= least ? ATTN_OK
                          : attn_fail(ATTN_ERR_ARGUMENT, "options.%s: %lld must be at least %lld",
                                      name, (long long)value, (long long)least);
}

static attn_status check_range(const char *name, double value, double least, double most)
{
    return value >= least && value <= most
               ? ATTN_OK
               : attn_fail(ATTN_ERR_ARGUMENT, "options.%s: %g must be in %g … %g", name, value,
                           least, most);
}

static attn_status check_options(const attn_trainer_options *o, const attn_gpt_options *model)
{
    attn_status s = check_count("batch", o->batch, 1);
    s = s ? s : check_count("accumulate", o->accumulate, 1);
    s = s ? s : check_count("steps", o->steps, 0);
    s = s ? s : check_count("warmup", o->warmup, 0);
    s = s ? s : check_count("validation", o->validation, -1);
    s = s ? s : check_range("lr", o->lr, 0, 1e3);
    s = s ? s : check_range("lr_lowest", o->lr_lowest, 0, 1);
    s = s ? s : check_range("weight_decay", o->weight_decay, 0, 1e3);
    s = s ? s : check_range("beta1", o->beta1, 0, 0.9999999);
    s = s ? s : check_range("beta2", o->beta2, 0, 0.9999999);
    s = s ? s : check_range("clip", o->clip, 0, INFINITY);
    if (s == ATTN_OK && (o->context < 1 || o->context > model->context)) {
        s = attn_fail(ATTN_ERR_ARGUMENT, "options.context: %lld must be 1 … the model's %lld",
                      (long long)o->context, (long long)model->context);
    }
    int64_t elements;
    if (s == ATTN_OK && (__builtin_mul_overflow(o->batch, o->context, &elements) ||
                         elements > INT64_MAX / 64 || o->accumulate > INT64_MAX / elements)) {
        s = attn_fail(ATTN_ERR_ARGUMENT,
                      "options.batch: %lld windows of %lld tokens, %lld times, are too many",
                      (long long)o->batch, (long long)o->context, (long long)o->accumulate);
    }
    return s;
}

static attn_status check_text(attn_trainer *t, int64_t count)
{
    if (count < 0 || (count > 0 && t->tokens == NULL)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "tokens: NULL, or a negative count");
    }
    for (int64_t i = 0; i < count; i++) {
        if (t->tokens[i] < 0 || t->tokens[i] >= t->model->vocab) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "tokens: number %lld is %ld, it must be 0 … %lld as the model's "
                             "vocabulary; was the text made into tokens by another tokenizer?",
                             (long long)i, (long)t->tokens[i], (long long)t->model->vocab - 1);
        }
    }
    t->validation = t->options.validation < 0 ? count / 10 : t->options.validation;
    t->training = count - t->validation;
    if (t->training < t->options.context + 1) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "tokens: %lld are left to train on after %lld are held out, a window "
                         "takes %lld; give more text, hold out less or take a shorter context",
                         (long long)(t->training > 0 ? t->training : 0), (long long)t->validation,
                         (long long)t->options.context + 1);
    }
    t->text = train_hash(t->tokens, count);
    return ATTN_OK;
}

static attn_status make_optimizer(attn_trainer *t)
{
    attn_optimizer_options options = attn_optimizer_options_init();
    options.kind = ATTN_OPTIMIZER_ADAMW;
    options.beta1 = t->options.beta1;
    options.beta2 = t->options.beta2;
    options.weight_decay = t->options.weight_decay;
    attn_status s = attn_optimizer_create(t->context, &options, &t->optimizer);
    return s ? s : attn_optimizer_add_module(t->optimizer, t->gpt);
}

attn_status attn_trainer_create(attn_context *context, const attn_trainer_options *options,
                                attn_module *gpt, const int32_t *tokens, int64_t count,
                                attn_trainer **trainer)
{
    if (trainer == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "trainer: is NULL, it must be where to put one");
    }
    *trainer = NULL;
    const attn_gpt_options *model = gpt ? attn_gpt_get_options(gpt) : NULL;
    if (context == NULL || model == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         context ? "gpt: must be a model of attn_gpt_create" : "context: is NULL");
    }
    attn_trainer_options o = attn_trainer_options_init();
    attn_status s = attn_take_struct("options", "attn_trainer_options_init", options, &o, sizeof o);
    if (s != ATTN_OK) {
        return s;
    }
    attn_trainer *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for a trainer");
    }
    t->options = o;
    t->options.context = t->options.context == 0 ? model->context : t->options.context;
    t->context = context;
    t->gpt = gpt;
    t->model = model;
    t->tokens = tokens;
    s = check_options(&t->options, model);
    s = s ? s : check_text(t, count);
    s = s ? s : attn_tape_create(context, &t->tape);
    s = s ? s : make_optimizer(t);
    if (s == ATTN_OK) {
        size_t bytes = (size_t)(t->options.batch * t->options.context) * sizeof(int64_t);
        t->ids = malloc(bytes);
        t->targets = malloc(bytes);
        if (t->ids == NULL || t->targets == NULL) {
            s = attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for a batch: %zu bytes",
                          2 * bytes);
        }
    }
    if (s != ATTN_OK) {
        attn_trainer_destroy(t);
        return s;
    }
    *trainer = t;
    return ATTN_OK;
}

void attn_trainer_destroy(attn_trainer *trainer)
{
    if (trainer) {
        attn_optimizer_destroy(trainer->optimizer);
        attn_tape_destroy(trainer->tape);
        free(trainer->ids);
        free(trainer->targets);
        free(trainer);
    }
}

int64_t attn_trainer_steps(const attn_trainer *trainer)
{
    return trainer->step;
}

void attn_trainer_tokens(const attn_trainer *trainer, int64_t *training, int64_t *validation)
{
    if (training) {
        *training = trainer->training;
    }
    if (validation) {
        *validation = trainer->validation;
    }
}

attn_status attn_trainer_set_schedule(attn_trainer *trainer, int64_t warmup, int64_t steps)
{
    if (warmup < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "warmup: %lld must be at least 0", (long long)warmup);
    }
    if (steps < trainer->step) {
        return attn_fail(ATTN_ERR_ARGUMENT, "steps: %lld are fewer than the %lld already done",
                         (long long)steps, (long long)trainer->step);
    }
    trainer->options.steps = steps;
    trainer->options.warmup = warmup;
    return ATTN_OK;
}

/* ---- a step ---- */

static attn_status cancelled(const attn_trainer *t)
{
    const attn_trainer_options *o = &t->options;
    return o->cancel && o->cancel(o->cancel_user) ? attn_fail(ATTN_ERR_CANCELLED, "cancelled")
                                                  : ATTN_OK;
}

static attn_status not_finite(const attn_trainer *t, const char *what)
{
    return attn_fail(ATTN_ERR_ARGUMENT,
                     "the %s of step %lld is no finite number: a lower learning rate, a longer "
                     "warm-up or clipping usually helps",
                     what, (long long)t->step + 1);
}

/* One forward and backward pass; gradients add up. */
static attn_status run_pass(attn_trainer *t, int64_t pass, double *loss)
{
    const attn_trainer_options *o = &t->options;
    train_draw(t, pass);
    attn_module_set_dropout_seed(t->gpt, train_dropout_seed(t, pass));
    attn_tensor *result = attn_gpt_loss(t->tape, t->gpt, t->ids, t->targets, o->batch, o->context);
    attn_status s = result ? ATTN_OK : attn_tape_status(t->tape);
    if (s == ATTN_OK) {
        *loss = attn_tensor_item(result);
        s = isfinite(*loss) ? attn_tape_backward(t->tape, result, NULL) : not_finite(t, "loss");
    }
    attn_tape_clear(t->tape);
    return s;
}

static attn_status update(attn_trainer *t, attn_train_result *result)
{
    const attn_trainer_options *o = &t->options;
    attn_step_options step = attn_step_options_init();
    step.lr = attn_lr_cosine(t->step, o->warmup, o->steps, o->lr, o->lr * o->lr_lowest);
    step.grad_scale = 1 / (double)o->accumulate;
    step.clip = o->clip;
    result->lr = step.lr;
    result->grad_norm = 0;
    attn_status s = attn_optimizer_step(t->optimizer, &step, &result->grad_norm);
    if (s == ATTN_ERR_ARGUMENT && !isfinite(result->grad_norm)) {
        s = not_finite(t, "gradient");
    }
    return s;
}

attn_status attn_trainer_step(attn_trainer *trainer, attn_train_result *result)
{
    attn_trainer *t = trainer;
    const attn_trainer_options *o = &t->options;
    attn_train_result r = {.step = t->step + 1, .tokens = o->batch * o->accumulate * o->context};
    attn_status s = ATTN_OK;
    double sum = 0;
    attn_module_set_training(t->gpt, true);
    attn_optimizer_zero_grad(t->optimizer);
    for (int64_t pass = 0; pass < o->accumulate && s == ATTN_OK; pass++) {
        double loss = 0;
        s = cancelled(t);
        s = s ? s : run_pass(t, pass, &loss);
        sum += loss;
    }
    attn_module_set_training(t->gpt, false);
    s = s ? s : update(t, &r);
    attn_optimizer_zero_grad(t->optimizer);
    if (s != ATTN_OK) {
        return s;
    }
    t->step++;
    r.loss = sum / (double)o->accumulate;
    if (result) {
        *result = r;
    }
    return ATTN_OK;
}

/* ---- looking at it ---- */

/* Mean loss over the targets of a batch that are not −1, without gradients. */
static attn_status run_quietly(attn_trainer *t, int64_t length, double *loss)
{
    bool recording = attn_tape_set_recording(t->tape, false);
    attn_tensor *result =
        attn_gpt_loss(t->tape, t->gpt, t->ids, t->targets, t->options.batch, length);
    attn_status s = result ? ATTN_OK : attn_tape_status(t->tape);
    *loss = attn_tensor_item(result);
    attn_tape_clear(t->tape);
    attn_tape_set_recording(t->tape, recording);
    return s;
}

/* Which windows are looked at: `count` of `whole` that lie side by side, and the tokens after the last one. */
typedef struct survey {
    int64_t length, whole, count, tail;
} survey;

/*
 * Puts window `number` into a row, or one that counts for nothing beyond the last; returns the tokens that count. The tail is the end of a window
 * of full length, so that every batch has one shape, and so one set of memory.
 */
static int64_t place_window(attn_trainer *t, const survey *v, int64_t row, int64_t number)
{
    int64_t begin = t->training, counts = v->length;
    if (number < v->count) { /* number·whole/count without overflow */
        begin +=
            (v->whole / v->count * number + v->whole % v->count * number / v->count) * v->length;
    } else {
        counts = number == v->count ? v->tail : 0;
        begin += counts > 0 ? v->whole * v->length + v->tail - v->length : 0;
    }
    train_window(t, row, begin, v->length);
    for (int64_t i = 0; i < v->length - counts; i++) {
        t->targets[row * v->length + i] = -1;
    }
    return counts;
}

attn_status attn_trainer_evaluate(attn_trainer *trainer, int64_t windows, double *loss)
{
    attn_trainer *t = trainer;
    int64_t pairs = t->validation - 1; /* tokens with a successor */
    *loss = NAN;
    if (pairs < 1 || windows < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s",
                         pairs < 1 ? "no tokens are held out to evaluate on: options.validation "
                                     "must be at least 2"
                                   : "windows: must be at least 0");
    }
    survey v = {.length = pairs < t->options.context ? pairs : t->options.context};
    v.whole = pairs / v.length;
    v.count = windows > 0 && windows < v.whole ? windows : v.whole;
    v.tail = v.count == v.whole ? pairs % v.length : 0;
    attn_status s = ATTN_OK;
    double sum = 0, mean = 0;
    int64_t all = v.count + (v.tail > 0), counted = 0;
    for (int64_t at = 0; at < all && s == ATTN_OK; at += t->options.batch) {
        int64_t tokens = 0;
        for (int64_t row = 0; row < t->options.batch; row++) {
            tokens += place_window(t, &v, row, at + row);
        }
        s = cancelled(t);
        s = s ? s : run_quietly(t, v.length, &mean);
        sum += mean * (double)tokens;
        counted += tokens;
    }
    if (s == ATTN_OK) {
        *loss = sum / (double)counted;
    }
    return s;
}

attn_status attn_trainer_next(attn_trainer *trainer, const int32_t *tokens, int64_t count,
                              float *logits)
{
    enum { PADDING = 64 }; /* few shapes: the tape keeps memory for each */
    attn_trainer *t = trainer;
    if (count < 1 || tokens == NULL || logits == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "tokens, count, logits: at least one token is needed, "
                                            "and room for a logit of each word");
    }
    int64_t length = count < t->options.context ? count : t->options.context;
    int64_t padded = (length + PADDING - 1) / PADDING * PADDING;
    padded = padded < t->options.context ? padded : t->options.context;
    for (int64_t i = 0; i < padded; i++) { /* what comes after is seen by nobody before it */
        t->ids[i] = i < length ? tokens[count - length + i] : 0;
    }
    bool recording = attn_tape_set_recording(t->tape, false);
    attn_tensor *all = attn_gpt_logits(t->tape, t->gpt, t->ids, 1, padded);
    attn_tensor *last = attn_tensor_slice(t->tape, all, 1, length - 1, length);
    attn_status s = last ? ATTN_OK : attn_tape_status(t->tape);
    if (s == ATTN_OK) {
        attn_view from = attn_tensor_view(last);
        attn_view to = attn_view_dense(logits, ATTN_F32, 3, (int64_t[]){1, 1, t->model->vocab});
        s = attn_convert(t->context, &from, &to);
    }
    attn_tape_clear(t->tape);
    attn_tape_set_recording(t->tape, recording);
    return s;
}

double attn_trainer_step_flops(const attn_trainer *trainer)
{
    const attn_gpt_options *m = trainer->model;
    double frozen = 0, trained = 0, tokens = (double)trainer->options.context;
    int count = attn_module_parameter_count(trainer->gpt);
    for (int i = 0; i < count; i++) {
        const attn_tensor *p = attn_module_parameter(trainer->gpt, i);
        const char *name = attn_module_parameter_name(trainer->gpt, i);
        /* Matrices that tokens are multiplied with: the tied embedding is the output matrix too. */
        bool table = strstr(name, "embed_tokens") || strstr(name, ".wte") || strstr(name, ".wpe");
        if (attn_tensor_ndim(p) != 2 || (table && (m->untied || strstr(name, ".wpe")))) {
            continue;
        }
        *(attn_tensor_requires_grad(p) ? &trained : &frozen) += (double)attn_tensor_count(p);
    }
    /* Forward 2 a weight, gradients 2 each for the input and the weight; causal attention of half the square: 2 products forward, 5 back. */
    double attention = 7 * tokens * (double)(m->layers * m->heads * m->head_dim);
    return (6 * trained + 4 * frozen + attention) * tokens *
           (double)(trainer->options.batch * trainer->options.accumulate);
}

void attn_trainer_bytes(const attn_trainer *trainer, size_t *parameters, size_t *passes)
{
    if (parameters) {
        int64_t all = attn_module_element_count(trainer->gpt, false);
        int64_t trained = attn_module_element_count(trainer->gpt, true);
        *parameters = (size_t)(all + trained) * attn_dtype_size(trainer->model->dtype) +
                      attn_optimizer_state_bytes(trainer->optimizer);
    }
    if (passes) {
        *passes = attn_tape_bytes(trainer->tape) + attn_context_scratch_bytes(trainer->context);
    }
}
