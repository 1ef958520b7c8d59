/**
 * 06_backward.c: attention that learns. Gradients of a small causal attention with a bias and dropout, beside what
 * changing a number by a little does to the loss; then a few steps downhill.
 *
 *   cc 06_backward.c $(pkg-config --cflags --libs attn) -lm -o 06_backward
 */
#include <attn/attn.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 2, LEN = 6, DIM = 4, SIZE = HEADS * LEN * DIM };

/* The names of what is learned, and its numbers. Doubles: differences need the digits. */
static const char *const names[4] = {"q", "k", "v", "bias"};
static const int counts[4] = {SIZE, SIZE, SIZE, LEN *LEN};
static double values[4][SIZE], gradients[4][SIZE];
static double target[SIZE], out[SIZE], lse[HEADS * LEN], dout[SIZE];

static attn_view tensor(double *data)
{
    return attn_view_bhld(data, ATTN_F64, 1, HEADS, LEN, DIM);
}

static attn_view square(double *data)
{
    return attn_view_dense(data, ATTN_F64, 2, (int64_t[]){LEN, LEN});
}

/* The options that forward and backward share. The seed says which weights are dropped: the same in both. */
static attn_sdpa_options options_with(const attn_view *bias)
{
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = ATTN_CAUSAL_TOP_LEFT;
    options.bias = bias;
    options.dropout = 0.1;
    options.dropout_seed = 42;
    return options;
}

/* loss = ½·Σ (out − target)²; leaves out and lse for backward. NaN when a call fails. */
static double forward(attn_context *context)
{
    attn_view q = tensor(values[0]), k = tensor(values[1]), v = tensor(values[2]);
    attn_view bias = square(values[3]), to = tensor(out);
    attn_view rows = attn_view_dense(lse, ATTN_F64, 3, (int64_t[]){1, HEADS, LEN});
    attn_sdpa_options options = options_with(&bias);
    options.lse = &rows; /* what backward needs besides out: one number a row, not LEN of them */
    if (attn_sdpa(context, &options, &q, &k, &v, &to) != ATTN_OK) {
        return (double)NAN;
    }
    double loss = 0.0;
    for (int n = 0; n < SIZE; n++) {
        loss += 0.5 * (out[n] - target[n]) * (out[n] - target[n]);
    }
    return loss;
}

static attn_status backward(attn_context *context)
{
    attn_view q = tensor(values[0]), k = tensor(values[1]), v = tensor(values[2]);
    attn_view bias = square(values[3]), from = tensor(out), flow = tensor(dout);
    attn_view rows = attn_view_dense(lse, ATTN_F64, 3, (int64_t[]){1, HEADS, LEN});
    attn_sdpa_options options = options_with(&bias);
    attn_sdpa_gradients wanted = attn_sdpa_gradients_init();
    wanted.dq = tensor(gradients[0]);
    wanted.dk = tensor(gradients[1]);
    wanted.dv = tensor(gradients[2]);
    wanted.dbias = square(gradients[3]); /* summed over the heads, which share the bias */
    for (int n = 0; n < SIZE; n++) {
        dout[n] = out[n] - target[n]; /* what the loss says about out */
    }
    return attn_sdpa_backward(context, &options, &q, &k, &v, &from, &rows, &flow, &wanted);
}

/* Three entries of each gradient beside (loss(x + h) − loss(x − h))/2h. True when they agree. */
static bool compare(attn_context *context)
{
    const double h = 1e-5;
    bool agree = true;
    printf("%-10s %14s %14s\n", "", "backward", "difference");
    for (int which = 0; which < 4; which++) {
        for (int n = 6; n < counts[which]; n += counts[which] / 3) {
            double *x = &values[which][n], was = *x;
            *x = was + h;
            double up = forward(context);
            *x = was - h;
            double difference = (up - forward(context)) / (2 * h);
            *x = was;
            printf("d%-4s[%2d]  %14.10f %14.10f\n", names[which], n, gradients[which][n],
                   difference);
            agree = agree && fabs(gradients[which][n] - difference) < 1e-7;
        }
    }
    return agree;
}

static double descend(attn_context *context, int steps)
{
    for (int step = 0; step < steps; step++) {
        forward(context);
        if (backward(context) != ATTN_OK) {
            return (double)NAN;
        }
        for (int which = 0; which < 4; which++) {
            for (int n = 0; n < counts[which]; n++) {
                values[which][n] -= 0.2 * gradients[which][n];
            }
        }
    }
    return forward(context);
}

int main(void)
{
    attn_context *context = NULL;
    if (attn_context_create(NULL, &context) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        return EXIT_FAILURE;
    }
    srand(1);
    for (int n = 0; n < SIZE; n++) {
        for (int which = 0; which < 4; which++) {
            values[which][n] = 2.0 * rand() / RAND_MAX - 1.0;
        }
        target[n] = 2.0 * rand() / RAND_MAX - 1.0;
    }
    double loss = forward(context);
    bool ok = backward(context) == ATTN_OK && compare(context);
    double learned = descend(context, 100);
    printf("\nloss %.4f, after 100 steps downhill %.4f\n", loss, learned);
    ok = ok && learned < 0.5 * loss;
    if (!ok) {
        fprintf(stderr, "%s\n", attn_last_error());
    }
    attn_context_destroy(context);
    return ok ? EXIT_SUCCESS : EXIT_FAILURE;
}
