/*
 * train_calls.c: what the tests of attn/train_ops.h share.
 */
#include "train_calls.h"

uint64_t train_seed = 20240611;

void *bytes(size_t count)
{
    void *p = malloc(count > 0 ? count : 1);
    assert_non_null(p);
    return p;
}

double *doubles(int64_t n, double offset)
{
    double *x = bytes((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = normal() + offset;
    }
    return x;
}

float *floats(int64_t n, double offset)
{
    float *x = bytes((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        x[i] = (float)(normal() + offset);
    }
    return x;
}

attn_view f32(const float *x, int64_t rows, int64_t n)
{
    return attn_view_matrix(x, ATTN_F32, rows, n, n);
}

attn_view f64(const double *x, int64_t rows, int64_t n)
{
    return attn_view_matrix(x, ATTN_F64, rows, n, n);
}

void close_to(double got, double wanted, double tolerance, const char *what)
{
    if (!(fabs(got - wanted) <= tolerance)) {
        print_error(
            "%s: %.17g, wanted %.17g within %g; repeat with seed %llu as the test's argument\n",
            what, got, wanted, tolerance, (unsigned long long)train_seed);
        fail();
    }
}

attn_status call(attn_context *context, int number, const attn_view *a, const attn_view *b,
                 const attn_view *out)
{
    if (number < BACKWARD) {
        return attn_activate(context, (attn_activation)number, a, out);
    }
    if (number < SOFTMAX) {
        return attn_activate_backward(context, (attn_activation)(number - BACKWARD), a, b, false,
                                      out);
    }
    if (number < SOFTMAX_BACKWARD) {
        return attn_softmax(context, number > SOFTMAX, a, out);
    }
    if (number < CROSS_ENTROPY) {
        return attn_softmax_backward(context, number > SOFTMAX_BACKWARD, a, b, false, out);
    }
    if (number == CROSS_ENTROPY) {
        int64_t *targets = bytes((size_t)a->shape[0] * sizeof *targets);
        for (int64_t r = 0; r < a->shape[0]; r++) {
            targets[r] = r % 5 == 4 ? -1 : r * 7 % a->shape[1];
        }
        attn_status status = attn_cross_entropy(context, a, targets, 0.3, NULL, out);
        free(targets);
        return status;
    }
    if (number == AXPBY) {
        return attn_axpby(context, 0.7, a, 0.0, out);
    }
    return attn_dropout(context, 0.4, 99, a, out);
}

int train_start(void **unused)
{
    (void)unused;
    draw_state = train_seed;
    return 0;
}

void train_arguments(int argc, char **argv)
{
    if (argc > 1) {
        train_seed = strtoull(argv[1], NULL, 10);
    }
}
