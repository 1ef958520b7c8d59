/**
 * 02_four_lines.c: attention is four lines: scores, softmax, weights times values. Here they are three times on the same numbers: as plain
 * loops, as tensors that know their gradients, and fused, beside how far apart they are, how long each takes and how much memory.
 *
 *   cc -O2 02_four_lines.c $(pkg-config --cflags --libs attn_lm) -lm -o 02_four_lines
 *   02_four_lines [len]      default 1024
 */
#define _POSIX_C_SOURCE 200809L
#include <attn/lm.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { HEADS = 4, DIM = 64 };

/* softmax(Q·Kᵀ/√d)·V for one head; `weights` holds len × len floats, which is the trouble with it. */
static void as_loops(const float *q, const float *k, const float *v, long len, float *weights,
                     float *out)
{
    /* 1. scores = Q·Kᵀ / √d */
    for (long i = 0; i < len; i++) {
        for (long j = 0; j < len; j++) {
            float dot = 0;
            for (long d = 0; d < DIM; d++) {
                dot += q[i * DIM + d] * k[j * DIM + d];
            }
            weights[i * len + j] = dot / sqrtf(DIM);
        }
    }
    /* 2. weights = exp(scores − row maximum)   3. weights /= row sum */
    for (long i = 0; i < len; i++) {
        float *row = weights + i * len, largest = row[0], sum = 0;
        for (long j = 1; j < len; j++) {
            largest = fmaxf(largest, row[j]);
        }
        for (long j = 0; j < len; j++) {
            row[j] = expf(row[j] - largest);
            sum += row[j];
        }
        for (long j = 0; j < len; j++) {
            row[j] /= sum;
        }
    }
    /* 4. out = weights·V */
    for (long i = 0; i < len; i++) {
        for (long d = 0; d < DIM; d++) {
            out[i * DIM + d] = 0;
        }
        for (long j = 0; j < len; j++) {
            for (long d = 0; d < DIM; d++) {
                out[i * DIM + d] += weights[i * len + j] * v[j * DIM + d];
            }
        }
    }
}

/* The same for all heads at once. The tape remembers every line, and walks them back for the gradients. */
static attn_tensor *as_tensors(attn_tape *tape, attn_tensor *q, attn_tensor *k, attn_tensor *v)
{
    attn_tensor *products = attn_tensor_matmul(tape, q, attn_tensor_transpose(tape, k, -1, -2));
    attn_tensor *scores = attn_tensor_scale(tape, products, 1 / sqrt(DIM));
    attn_tensor *weights = attn_tensor_softmax(tape, scores, -1);
    return attn_tensor_matmul(tape, weights, v);
}

/* The same in tiles, forward and back, without ever holding len × len numbers. */
static attn_tensor *fused(attn_tape *tape, attn_tensor *q, attn_tensor *k, attn_tensor *v)
{
    return attn_tensor_sdpa(tape, NULL, q, k, v, NULL);
}

typedef attn_tensor *attention(attn_tape *tape, attn_tensor *q, attn_tensor *k, attn_tensor *v);

/* ---- the comparison ---- */

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* Sums of uniform numbers: near enough to normal, and the same everywhere. */
static attn_tensor *numbers(long len, unsigned seed)
{
    const int64_t shape[4] = {1, HEADS, len, DIM};
    attn_tensor *t = NULL;
    if (attn_tensor_create(ATTN_F32, 4, shape, &t) != ATTN_OK) {
        return NULL;
    }
    float *values = attn_tensor_write(t).data;
    for (int64_t i = 0; i < attn_tensor_count(t); i++) {
        float sum = -6;
        for (int n = 0; n < 12; n++) {
            seed = seed * 1664525u + 1013904223u;
            sum += (float)(seed >> 8) * 0x1p-24f;
        }
        values[i] = sum;
    }
    attn_tensor_require_grad(t, true);
    return t;
}

/* What one way of computing gave: out, and the gradients of mean(out²) with respect to q, k and v. */
typedef struct outcome {
    attn_tensor *out, *gradient[3];
    double forward, backward;
    size_t bytes;
} outcome;

static void outcome_free(outcome *o)
{
    attn_tensor_release(o->out);
    for (int i = 0; i < 3; i++) {
        attn_tensor_release(o->gradient[i]);
    }
}

static attn_status run(attn_context *context, attention *attend, attn_tensor *const *in, outcome *o)
{
    attn_tape *tape = NULL;
    attn_status status = attn_tape_create(context, &tape);
    for (int round = 0; status == ATTN_OK && round < 2; round++) { /* the first one warms up */
        for (int i = 0; i < 3; i++) {
            attn_tensor_clear_grad(in[i]);
        }
        attn_tape_clear(tape);
        outcome_free(o);

        double start = seconds();
        attn_tensor *out = attend(tape, in[0], in[1], in[2]);
        double middle = seconds();
        attn_tensor *loss = attn_tensor_mean_all(tape, attn_tensor_mul(tape, out, out));
        status = attn_tape_backward(tape, loss, NULL);

        *o = (outcome){.out = attn_tensor_retain(out), .bytes = attn_tape_bytes(tape)};
        o->forward = middle - start;
        o->backward = seconds() - middle;
        for (int i = 0; i < 3; i++) {
            o->gradient[i] = attn_tensor_retain(attn_tensor_grad(in[i]));
        }
    }
    attn_tape_destroy(tape);
    return status;
}

/* Largest difference, relative to the largest number. */
static double apart(const attn_tensor *a, const attn_tensor *b)
{
    const float *x = attn_tensor_view(a).data, *y = attn_tensor_view(b).data;
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < attn_tensor_count(a); i++) {
        worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
        largest = fmax(largest, fabs((double)y[i]));
    }
    return worst / largest;
}

static attn_status compare(attn_context *context, long len, attn_tensor *const *in, double *worst)
{
    attn_tensor *loops = numbers(len, 4); /* room for the result */
    float *weights = malloc(sizeof(float) * (size_t)(len * len));
    outcome lines = {.out = NULL}, tiles = {.out = NULL};
    attn_status status = loops && weights ? run(context, as_tensors, in, &lines)
                                          : attn_fail(ATTN_ERR_NO_MEMORY, "no memory for this len");
    if (status == ATTN_OK) {
        status = run(context, fused, in, &tiles);
    }
    if (status == ATTN_OK) {
        double start = seconds();
        for (long h = 0; h < HEADS; h++) {
            const float *x[3];
            for (int i = 0; i < 3; i++) {
                x[i] = (const float *)attn_tensor_view(in[i]).data + h * len * DIM;
            }
            as_loops(x[0], x[1], x[2], len, weights,
                     (float *)attn_tensor_write(loops).data + h * len * DIM);
        }
        double time = seconds() - start, mib = 1024 * 1024;
        printf("%d heads, %ld words, head_dim %d      forward   and back\n", HEADS, len, DIM);
        printf("four lines of loops         %10.2f ms\n", time * 1e3);
        printf("four lines of tensors       %10.2f ms %8.2f ms %8.1f MiB\n", lines.forward * 1e3,
               lines.backward * 1e3, (double)lines.bytes / mib);
        printf("fused                       %10.2f ms %8.2f ms %8.1f MiB\n", tiles.forward * 1e3,
               tiles.backward * 1e3, (double)tiles.bytes / mib);
        *worst = fmax(apart(lines.out, loops), apart(lines.out, tiles.out));
        printf("apart by: out %.1g", *worst);
        for (int i = 0; i < 3; i++) {
            double d = apart(lines.gradient[i], tiles.gradient[i]);
            *worst = fmax(*worst, d);
            printf(", d%c %.1g", "qkv"[i], d);
        }
        printf(" of the largest number\n");
    }
    outcome_free(&lines);
    outcome_free(&tiles);
    attn_tensor_release(loops);
    free(weights);
    return status;
}

int main(int argc, char **argv)
{
    long len = argc > 1 ? strtol(argv[1], NULL, 10) : 1024;
    double worst = 1;
    if (len < 1 || len > 16384) {
        fprintf(stderr, "len: %s is not in 1 … 16384\n", argv[1]);
        return 2;
    }
    attn_context *context;
    if (attn_context_create(NULL, &context) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        return 1;
    }
    attn_tensor *in[3] = {numbers(len, 1), numbers(len, 2), numbers(len, 3)};
    if (!in[0] || !in[1] || !in[2] || compare(context, len, in, &worst) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
    }
    for (int i = 0; i < 3; i++) {
        attn_tensor_release(in[i]);
    }
    attn_context_destroy(context);
    return worst < 2e-5 ? 0 : 1; /* all of them round; more than this would be a mistake */
}
