/**
 * depth.c: backward takes a time that grows with the layers, not with a power of them: measured for 1 … 12 layers and printed.
 *
 *   depth      0 when everything ran and the recorded operations grow by the same number for every layer; times decide nothing
 */
#define _POSIX_C_SOURCE 200809L
#include <attn/lm.h>

#include <stdio.h>
#include <time.h>

enum { BATCH = 4, LEN = 64, ROUNDS = 5, MOST = 12 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The best of some rounds: neighbours only ever slow a machine down. */
static attn_status measure(attn_tape *tape, int64_t layers, double *seconds, int64_t *operations)
{
    attn_gpt_options options = attn_gpt_options_init();
    options.vocab = 256;
    options.layers = layers;
    attn_module *gpt;
    attn_status status = attn_gpt_create(&options, &gpt);
    int64_t ids[BATCH * LEN];
    for (int i = 0; i < BATCH * LEN; i++) {
        ids[i] = i * 31 % 256;
    }
    *seconds = 1e9;
    for (int round = 0; round < ROUNDS && status == ATTN_OK; round++) {
        attn_module_zero_grad(gpt);
        attn_tape_clear(tape);
        attn_tensor *loss = attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN);
        double start = now();
        status = attn_tape_backward(tape, loss, NULL);
        double took = now() - start;
        *seconds = took < *seconds ? took : *seconds;
        *operations = attn_tape_length(tape);
    }
    attn_tape_clear(tape);
    attn_module_destroy(gpt);
    return status;
}

int main(void)
{
    attn_context *context = NULL;
    attn_tape *tape = NULL;
    double seconds[MOST + 1] = {0};
    int64_t operations[MOST + 1] = {0};
    attn_status status = attn_context_create(NULL, &context);
    if (status == ATTN_OK) {
        status = attn_tape_create(context, &tape);
    }
    printf("layers  backward ms  operations\n");
    for (int layers = 1; layers <= MOST && status == ATTN_OK; layers++) {
        status = measure(tape, layers, &seconds[layers], &operations[layers]);
        printf("%6d  %11.2f  %10lld\n", layers, 1e3 * seconds[layers],
               (long long)operations[layers]);
    }
    if (status != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
    } else {
        printf("from 6 to 12 layers: %.2f times what 1 to 6 add (linear: 1.20)\n",
               (seconds[12] - seconds[6]) / (seconds[6] - seconds[1]));
    }
    bool linear = true;
    for (int layers = 3; layers <= MOST; layers++) {
        linear =
            linear && operations[layers] - operations[layers - 1] == operations[2] - operations[1];
    }
    attn_tape_destroy(tape);
    attn_context_destroy(context);
    return status == ATTN_OK && linear ? 0 : 1;
}
