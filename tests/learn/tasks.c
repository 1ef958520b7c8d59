/**
 * tasks.c: a small GPT learns to reverse, copy, sort and reckon, from a fixed seed, and is asked new questions: of 26⁶ words or 50⁶ lists, hardly one comes
 * twice.
 *
 *   tasks reverse|copy|sort|modulus [seed]      0 when enough answers are right in all places, in time
 *
 * A sample is a prompt, a separator and the answer; only the answer's tokens are learned and asked for. An answer is right when every token
 * is the model's first choice, given the right ones before it: what greedy generation gives.
 */
#define _POSIX_C_SOURCE 200809L
#include <attn/lm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { BATCH = 64, MOST = 32, ASKED = 2000 };

/* splitmix64 (Steele et al. 2014) */
static uint64_t draw(uint64_t *state, uint64_t n)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (z ^ (z >> 31)) % n;
}

/* ---- the tasks --------------------------------------------------------------------------------- */

typedef struct task {
    const char *name;
    int64_t vocab, prompt, answer; /* the separator is token vocab − 1 */
    void (*sample)(uint64_t *state, int64_t *prompt, int64_t *answer);
    int steps;
    double share, seconds; /* wanted; at most (0: any) */
} task;

static void letters(uint64_t *state, int64_t count, int64_t kinds, int64_t *out)
{
    for (int64_t i = 0; i < count; i++) {
        out[i] = (int64_t)draw(state, (uint64_t)kinds);
    }
}

static void sample_reverse(uint64_t *state, int64_t *prompt, int64_t *answer)
{
    letters(state, 6, 26, prompt);
    for (int i = 0; i < 6; i++) {
        answer[i] = prompt[5 - i];
    }
}

static void sample_copy(uint64_t *state, int64_t *prompt, int64_t *answer)
{
    letters(state, 10, 26, prompt);
    memcpy(answer, prompt, 10 * sizeof *answer);
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static void sample_sort(uint64_t *state, int64_t *prompt, int64_t *answer)
{
    letters(state, 8, 26, prompt);
    memcpy(answer, prompt, 8 * sizeof *answer);
    qsort(answer, 8, sizeof *answer, by_value);
}

/* A modulus m = 2 … 9 and six numbers below 50; the answer is each of them mod m. */
static void sample_modulus(uint64_t *state, int64_t *prompt, int64_t *answer)
{
    prompt[0] = 2 + (int64_t)draw(state, 8);
    letters(state, 6, 50, prompt + 1);
    for (int i = 0; i < 6; i++) {
        answer[i] = prompt[i + 1] % prompt[0];
    }
}

static const task tasks[] = {
    {"reverse", 27, 6, 6, sample_reverse, 400, 0.99, 10.0},
    {"copy", 27, 10, 10, sample_copy, 300, 0.95, 0.0},
    {"sort", 27, 8, 8, sample_sort, 800, 0.95, 0.0},
    {"modulus", 51, 7, 6, sample_modulus, 600, 0.95, 0.0},
};

/* ---- learning ---------------------------------------------------------------------------------- */

typedef struct pupil {
    const task *task;
    attn_context *context;
    attn_tape *tape;
    attn_module *gpt;
    attn_optimizer *optimizer;
    uint64_t random;
} pupil;

static int64_t length(const task *t)
{
    return t->prompt + t->answer; /* the last token of the answer is never an input */
}

/* One row of ids and of what should follow each; −1 over the prompt. */
static void fill_row(pupil *p, int64_t *ids, int64_t *targets)
{
    const task *t = p->task;
    int64_t prompt[MOST], answer[MOST];
    t->sample(&p->random, prompt, answer);
    for (int64_t i = 0; i < length(t); i++) {
        ids[i] = i < t->prompt    ? prompt[i]
                 : i == t->prompt ? t->vocab - 1
                                  : answer[i - t->prompt - 1];
        targets[i] = i < t->prompt ? -1 : answer[i - t->prompt];
    }
}

static attn_status create(pupil *p, uint64_t seed)
{
    attn_gpt_options options = attn_gpt_options_init();
    options.vocab = p->task->vocab;
    options.layers = 2;
    options.dim = 64;
    options.heads = 4;
    options.context = MOST;
    options.seed = seed;
    options.init = ATTN_INIT_XAVIER;
    attn_optimizer_options adamw = attn_optimizer_options_init();
    adamw.weight_decay = 0.01;
    attn_status status = attn_context_create(NULL, &p->context);
    if (status == ATTN_OK) {
        status = attn_tape_create(p->context, &p->tape);
    }
    if (status == ATTN_OK) {
        status = attn_gpt_create(&options, &p->gpt);
    }
    if (status == ATTN_OK) {
        status = attn_optimizer_create(p->context, &adamw, &p->optimizer);
    }
    return status == ATTN_OK ? attn_optimizer_add_module(p->optimizer, p->gpt) : status;
}

static attn_status learn(pupil *p, double *loss)
{
    int64_t ids[BATCH * MOST], targets[BATCH * MOST], len = length(p->task);
    attn_status status = ATTN_OK;
    for (int step = 0; step < p->task->steps && status == ATTN_OK; step++) {
        for (int64_t b = 0; b < BATCH; b++) {
            fill_row(p, ids + b * len, targets + b * len);
        }
        attn_tensor *out = attn_gpt_loss(p->tape, p->gpt, ids, targets, BATCH, len);
        status = attn_tape_backward(p->tape, out, NULL);
        if (status == ATTN_OK) {
            attn_step_options options = attn_step_options_init();
            options.lr = attn_lr_cosine(step, 30, p->task->steps, 5e-3, 1e-4);
            options.clip = 1.0;
            status = attn_optimizer_step(p->optimizer, &options, NULL);
        }
        *loss = attn_tensor_item(out);
        if (getenv("LEARN_VERBOSE") && step % 50 == 0) {
            printf("step %4d loss %.4f\n", step, *loss);
        }
        attn_optimizer_zero_grad(p->optimizer);
        attn_tape_clear(p->tape);
    }
    return status;
}

static bool all_right(const float *logits, const int64_t *targets, int64_t len, int64_t vocab)
{
    for (int64_t i = 0; i < len; i++) {
        const float *row = logits + i * vocab;
        for (int64_t v = 0; v < vocab && targets[i] >= 0; v++) {
            if (row[v] >= row[targets[i]] && v != targets[i]) {
                return false;
            }
        }
    }
    return true;
}

static attn_status ask(pupil *p, double *share)
{
    int64_t ids[BATCH * MOST], targets[BATCH * MOST], len = length(p->task), right = 0, asked = 0;
    attn_tape_set_recording(p->tape, false);
    for (; asked < ASKED; asked += BATCH) {
        for (int64_t b = 0; b < BATCH; b++) {
            fill_row(p, ids + b * len, targets + b * len);
        }
        attn_tensor *logits = attn_gpt_logits(p->tape, p->gpt, ids, BATCH, len);
        if (!logits) {
            return attn_tape_status(p->tape);
        }
        const float *rows = attn_tensor_view(logits).data;
        for (int64_t b = 0; b < BATCH; b++) {
            right +=
                all_right(rows + b * len * p->task->vocab, targets + b * len, len, p->task->vocab);
        }
        attn_tape_clear(p->tape);
    }
    *share = (double)right / (double)asked;
    return ATTN_OK;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    pupil p = {0};
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        p.task = argc > 1 && strcmp(tasks[i].name, argv[1]) == 0 ? &tasks[i] : p.task;
    }
    if (!p.task) {
        fprintf(stderr, "usage: %s reverse|copy|sort|modulus [seed]\n", argv[0]);
        return 2;
    }
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    double start = now(), loss = 0.0, share = 0.0;
    p.random = seed;
    attn_status status = create(&p, seed);
    if (status == ATTN_OK) {
        status = learn(&p, &loss);
    }
    double seconds = now() - start;
    if (status == ATTN_OK) {
        status = ask(&p, &share);
    }
    if (status != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
    }
    printf("%s: %.2f %% of %d new questions exactly right (wanted: %.0f %%), %d steps in %.2f s, "
           "last loss %.4f, %lld parameters; %s %s %llu\n",
           p.task->name, 100.0 * share, ASKED, 100.0 * p.task->share, p.task->steps, seconds, loss,
           (long long)attn_module_element_count(p.gpt, false), argv[0], p.task->name,
           (unsigned long long)seed);
    if (p.task->seconds > 0.0 && seconds > p.task->seconds) {
        printf("slower than the %.0f s it takes on a quiet machine\n", p.task->seconds);
    }
    attn_optimizer_destroy(p.optimizer);
    attn_module_destroy(p.gpt);
    attn_tape_destroy(p.tape);
    attn_context_destroy(p.context);
    return status == ATTN_OK && share >= p.task->share ? 0 : 1;
}
