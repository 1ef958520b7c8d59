/**
 * memorise.c: a byte-level GPT takes in five snippets until it says them without a mistake, from a fixed seed.
 *
 *   memorise [seed]      0 when the loss is below 0.1 in less than 60 s, and every snippet is said from its first byte on
 */
#define _POSIX_C_SOURCE 200809L
#include <attn/lm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SNIPPETS = 5, LEN = 96, STEPS = 200 };

static const char *const snippets[SNIPPETS] = {
    "1) softmax turns scores into weights: each row is positive and sums to one, whatever came in.",
    "2) queries ask, keys answer, values are what is handed over; the dot product says how much.",
    "3) for (int i = 0; i < n; i++) { sum += a[i] * b[i]; } /* and divide by the root of n */",
    "4) the tide went out past the third marker, and the gulls walked about where boats had been",
    "5) 2 3 5 7 11 13 17 19 23 29 31 37 41 43 47 53 59 61 67 71 73 79 83 89 97 101 103 107 109",
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Each snippet ends with a newline and is padded with what nobody learns. */
static void fill(int64_t *ids, int64_t *targets)
{
    for (int s = 0; s < SNIPPETS; s++) {
        int64_t size = (int64_t)strlen(snippets[s]);
        for (int64_t i = 0; i < LEN; i++) {
            ids[s * LEN + i] = i < size ? (unsigned char)snippets[s][i] : '\n';
            targets[s * LEN + i] = i + 1 < size    ? (unsigned char)snippets[s][i + 1]
                                   : i + 1 == size ? '\n'
                                                   : -1;
        }
    }
}

static attn_status learn(attn_tape *tape, attn_module *gpt, attn_optimizer *optimizer, double *loss)
{
    int64_t ids[SNIPPETS * LEN], targets[SNIPPETS * LEN];
    attn_status status = ATTN_OK;
    fill(ids, targets);
    for (int step = 0; step < STEPS && status == ATTN_OK; step++) {
        attn_tensor *out = attn_gpt_loss(tape, gpt, ids, targets, SNIPPETS, LEN);
        *loss = attn_tensor_item(out);
        status = attn_tape_backward(tape, out, NULL);
        if (status == ATTN_OK) {
            attn_step_options options = attn_step_options_init();
            options.lr = attn_lr_cosine(step, 20, STEPS, 3e-3, 1e-4);
            options.clip = 1.0;
            status = attn_optimizer_step(optimizer, &options, NULL);
        }
        attn_optimizer_zero_grad(optimizer);
        attn_tape_clear(tape);
    }
    return status;
}

/* Writes on greedily from the first byte; how many snippets come out whole. */
static attn_status recite(attn_tape *tape, attn_module *gpt, int *whole)
{
    attn_tape_set_recording(tape, false);
    for (int s = 0; s < SNIPPETS; s++) {
        int64_t ids[LEN] = {(unsigned char)snippets[s][0]}, len = 1;
        while (len < LEN && ids[len - 1] != '\n') {
            attn_tensor *logits = attn_gpt_logits(tape, gpt, ids, 1, len);
            if (!logits) {
                return attn_tape_status(tape);
            }
            const float *row = (const float *)attn_tensor_view(logits).data + (len - 1) * 256;
            int64_t best = 0;
            for (int64_t v = 1; v < 256; v++) {
                best = row[v] > row[best] ? v : best;
            }
            ids[len++] = best;
            attn_tape_clear(tape);
        }
        int64_t size = (int64_t)strlen(snippets[s]);
        bool same = len == size + 1;
        for (int64_t i = 0; i < size && same; i++) {
            same = ids[i] == (unsigned char)snippets[s][i];
        }
        *whole += same;
    }
    return ATTN_OK;
}

int main(int argc, char **argv)
{
    attn_context *context = NULL;
    attn_tape *tape = NULL;
    attn_module *gpt = NULL;
    attn_optimizer *optimizer = NULL;
    attn_gpt_options options = attn_gpt_options_init();
    options.vocab = 256;
    options.context = LEN;
    options.seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    double start = now(), loss = 0.0, seconds = 0.0;
    int whole = 0;
    attn_status status = attn_context_create(NULL, &context);
    if (status == ATTN_OK) {
        status = attn_tape_create(context, &tape);
    }
    if (status == ATTN_OK) {
        status = attn_gpt_create(&options, &gpt);
    }
    if (status == ATTN_OK) {
        status = attn_optimizer_create(context, NULL, &optimizer);
    }
    if (status == ATTN_OK) {
        status = attn_optimizer_add_module(optimizer, gpt);
    }
    if (status == ATTN_OK) {
        status = learn(tape, gpt, optimizer, &loss);
        seconds = now() - start;
    }
    if (status == ATTN_OK) {
        status = recite(tape, gpt, &whole);
    }
    if (status != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
    }
    printf("memorise: loss %.4f (wanted: below 0.1) after %d steps in %.2f s (on a quiet machine: "
           "below 60 s), "
           "%d of %d said whole, %lld parameters; %s %llu\n",
           loss, STEPS, seconds, whole, SNIPPETS, (long long)attn_module_element_count(gpt, false),
           argv[0], (unsigned long long)options.seed);
    attn_optimizer_destroy(optimizer);
    attn_module_destroy(gpt);
    attn_tape_destroy(tape);
    attn_context_destroy(context);
    return status == ATTN_OK && loss < 0.1 && whole == SNIPPETS ? 0 : 1;
}
