/*
 * test_matmul.c: attn_matmul and attn_sum_rows against plain loops in double, at every level this machine has.
 *
 * repro: test_matmul <seed>
 */
#include "draws.h"
#include "expect.h"

#include <attn/attn.h>

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 20261122;

/* ---------- arrays ---------- */

/* A view and its memory; every element of it starts as a normal number, or NaN for outputs. */
typedef struct array {
    attn_view view;
    void *memory;
    int64_t count;
} array;

static void put(void *data, attn_dtype type, int64_t at, double value)
{
    if (type == ATTN_F32) {
        ((float *)data)[at] = (float)value;
    } else {
        ((double *)data)[at] = value;
    }
}

static double get(const void *data, attn_dtype type, int64_t at)
{
    return type == ATTN_F32 ? (double)((const float *)data)[at] : ((const double *)data)[at];
}

/*
 * Dimensions laid out in the order `order` says (its last is the innermost), with gaps of `gap` elements between runs;
 * dimensions in the bit set `flat` have stride 0.
 */
static array array_make(attn_dtype type, int ndim, const int64_t *shape, const int *order,
                        int64_t gap, unsigned flat)
{
    array a = {.view = {.dtype = type, .ndim = ndim}, .count = 1};
    for (int i = ndim - 1; i >= 0; i--) {
        int d = order[i];
        a.view.shape[d] = shape[d];
        a.view.stride[d] = flat & 1u << d ? 0 : a.count;
        a.count = flat & 1u << d ? a.count : a.count * (shape[d] > 0 ? shape[d] : 1) + gap;
    }
    a.memory = malloc((size_t)a.count * attn_dtype_size(type));
    assert_non_null(a.memory);
    for (int64_t i = 0; i < a.count; i++) {
        put(a.memory, type, i, normal());
    }
    a.view.data = a.memory;
    return a;
}

static int64_t place(const attn_view *v, int64_t x, int64_t y, int64_t i, int64_t j)
{
    int64_t at = i * v->stride[v->ndim - 2] + j * v->stride[v->ndim - 1];
    if (v->ndim >= 3 && v->shape[v->ndim - 3] > 1) {
        at += y * v->stride[v->ndim - 3];
    }
    if (v->ndim == 4 && v->shape[0] > 1) {
        at += x * v->stride[0];
    }
    return at;
}

/* ---------- one product ---------- */

typedef struct product {
    attn_dtype type;
    int64_t lead[2], m, k, n;
    bool has_bias, accumulate;
    array a, b, bias, c;
} product;

static array random_operand(const product *p, int64_t rows, int64_t columns, bool output)
{
    static const int orders[][4] = {{0, 1, 2, 3}, {0, 1, 3, 2}, {1, 0, 2, 3},
                                    {0, 2, 1, 3}, {3, 0, 2, 1}, {0, 2, 1, 3}};
    int64_t shape[4] = {p->lead[0], p->lead[1], rows, columns};
    unsigned flat = 0;
    if (!output) {
        shape[0] = next() % 4 ? shape[0] : 1;
        shape[1] = next() % 4 ? shape[1] : 1;
        flat = next() % 16 ? 0 : 1u << next() % 4;
    }
    int drop = 0;
    while (drop < 2 && shape[drop] == 1 && !(output && p->lead[drop] > 1) && next() % 2) {
        drop++;
    }
    const int *order = orders[output ? next() % 2 * 3 : next() % 6];
    int kept[4], count = 0;
    for (int i = 0; i < 4; i++) {
        if (order[i] >= drop) {
            kept[count++] = order[i] - drop;
        }
    }
    return array_make(p->type, 4 - drop, shape + drop, kept, next() % 3 ? 0 : between(1, 5), flat);
}

/* Sizes around every block: tiles, panels, the run of k taken at once. */
static int64_t random_size(void)
{
    switch (next() % 8) {
    case 0: return between(1, 4);
    case 1: return between(60, 150);
    default: return between(1, 40);
    }
}

static product random_product(attn_dtype type)
{
    product p = {.type = type};
    p.lead[0] = next() % 3 ? 1 : between(1, 4);
    p.lead[1] = next() % 2 ? 1 : between(1, 9);
    p.m = random_size();
    p.k = next() % 20 ? next() % 8 ? random_size() : between(500, 1100) : 0;
    p.n = random_size();
    if (next() % 12 == 0) {
        /* Rows enough for b to be packed before; rows that begin 4 KiB apart, which are not read in place. */
        int64_t *one[] = {&p.m, &p.m, &p.k, &p.n};
        *one[next() % 4] = next() % 2 ? 1024 : between(500, 1300);
        p.lead[0] = p.lead[1] = 1;
    }
    p.has_bias = next() % 3 == 0;
    p.accumulate = next() % 3 == 0;
    p.a = random_operand(&p, p.m, p.k, false);
    p.b = random_operand(&p, p.k, p.n, false);
    p.c = random_operand(&p, p.m, p.n, true);
    p.bias = array_make(type, 1, &p.n, (int[]){0}, 0, 0);
    return p;
}

static void product_free(product *p)
{
    free(p->a.memory);
    free(p->b.memory);
    free(p->c.memory);
    free(p->bias.memory);
}

static attn_status product_run(attn_context *context, const product *p)
{
    return attn_matmul(context, &p->a.view, &p->b.view, p->has_bias ? &p->bias.view : NULL,
                       p->accumulate, &p->c.view);
}

/* The product in double with the sum of absolute values beside it, from which the bound follows. */
static double element(const product *p, const void *before, int64_t x, int64_t y, int64_t i,
                      int64_t j, double *size)
{
    double sum = p->accumulate ? get(before, p->type, place(&p->c.view, x, y, i, j)) : 0.0;
    *size = fabs(sum);
    if (p->has_bias) {
        double bias = get(p->bias.memory, p->type, j);
        sum += bias;
        *size += fabs(bias);
    }
    for (int64_t q = 0; q < p->k; q++) {
        double term = get(p->a.memory, p->type, place(&p->a.view, x, y, i, q)) *
                      get(p->b.memory, p->type, place(&p->b.view, x, y, q, j));
        sum += term;
        *size += fabs(term);
    }
    return sum;
}

static void product_check(attn_context *context, product *p)
{
    size_t bytes = (size_t)p->c.count * attn_dtype_size(p->type);
    void *before = malloc(bytes);
    bool *written = calloc((size_t)p->c.count, sizeof *written);
    assert_non_null(before);
    assert_non_null(written);
    if (!p->accumulate) {
        memset(p->c.memory, 0xff, bytes); /* NaN: what is not overwritten shows */
    }
    memcpy(before, p->c.memory, bytes);
    assert_int_equal(product_run(context, p), ATTN_OK);
    double epsilon = p->type == ATTN_F32 ? 0x1p-24 : 0x1p-53;
    for (int64_t e = 0; e < p->lead[0] * p->lead[1] * p->m * p->n; e++) {
        int64_t j = e % p->n, i = e / p->n % p->m, y = e / p->n / p->m % p->lead[1];
        int64_t x = e / p->n / p->m / p->lead[1], at = place(&p->c.view, x, y, i, j);
        double size, want = element(p, before, x, y, i, j, &size);
        double got = get(p->c.memory, p->type, at);
        written[at] = true;
        if (!(fabs(got - want) <= (double)(2 * p->k + 2) * epsilon * size + FLT_MIN)) {
            print_error("[%d %d %d %d] of %d x %d: %d x %d x %d: %.9g, not %.9g (%s, seed %llu)\n",
                        (int)x, (int)y, (int)i, (int)j, (int)p->lead[0], (int)p->lead[1], (int)p->m,
                        (int)p->k, (int)p->n, got, want, attn_isa_name(attn_context_isa(context)),
                        (unsigned long long)seed);
            fail();
        }
    }
    size_t one = attn_dtype_size(p->type);
    for (int64_t i = 0; i < p->c.count; i++) {
        if (!written[i]) {
            assert_memory_equal((char *)before + (size_t)i * one,
                                (char *)p->c.memory + (size_t)i * one, one);
        }
    }
    free(before);
    free(written);
}

static void test_products(void **unused)
{
    (void)unused;
    FOR_EACH_LEVEL(context, 2)
    {
        draw_state = seed;
        for (int64_t round = fraction(400); round > 0; round--) {
            product p = random_product(next() % 5 ? ATTN_F32 : ATTN_F64);
            product_check(context, &p);
            product_free(&p);
        }
    }
}

/* ---------- threads, neighbours, special values ---------- */

/* Large enough to be cut over rows, panels and k; dense and transposed. */
static void test_threads(void **unused)
{
    (void)unused;
    static const int threads[] = {1, 2, 3, 7};
    static const int64_t sizes[][3] = {
        {300, 700, 200}, {40, 3000, 70}, {2100, 30, 33}, {3, 900, 1500}, {1024, 1100, 90}};
    for (int s = 0; s < 5; s++) {
        for (int swap = 0; swap < 4; swap++) {
            void *first = NULL;
            for (int t = 0; t < 4; t++) {
                attn_context *context = context_of(ATTN_ISA_AUTO, threads[t]);
                draw_state = seed;
                product p = {
                    .type = ATTN_F32, .m = sizes[s][0], .k = sizes[s][1], .n = sizes[s][2]};
                const int plain[] = {0, 1}, swapped[] = {1, 0};
                p.a = array_make(ATTN_F32, 2, (int64_t[]){p.m, p.k}, swap & 1 ? swapped : plain, 0,
                                 0);
                p.b = array_make(ATTN_F32, 2, (int64_t[]){p.k, p.n}, swap & 2 ? swapped : plain, 0,
                                 0);
                p.c = array_make(ATTN_F32, 2, (int64_t[]){p.m, p.n}, plain, 0, 0);
                p.bias = array_make(ATTN_F32, 1, &p.n, plain, 0, 0);
                assert_int_equal(product_run(context, &p), ATTN_OK);
                if (first) {
                    assert_memory_equal(first, p.c.memory, (size_t)p.c.count * sizeof(float));
                } else {
                    first = p.c.memory;
                    p.c.memory = NULL;
                }
                product_free(&p);
                attn_context_destroy(context);
            }
            free(first);
        }
    }
}

/* One element has the same bits alone, with strides, and among others. */
static void test_same_bits(void **unused)
{
    (void)unused;
    enum { M = 37, K = 600, N = 45 };
    FOR_EACH_LEVEL(context, 2)
    {
        draw_state = seed;
        array a = array_make(ATTN_F32, 2, (int64_t[]){M, K}, (int[]){0, 1}, 0, 0);
        array b = array_make(ATTN_F32, 2, (int64_t[]){K, N}, (int[]){0, 1}, 0, 0);
        array bt = array_make(ATTN_F32, 2, (int64_t[]){K, N}, (int[]){1, 0}, 3, 0);
        float c[M * N], ct[M * N], one;
        for (int64_t i = 0; i < K * N; i++) {
            put(bt.memory, ATTN_F32, place(&bt.view, 0, 0, i / N, i % N),
                get(b.memory, ATTN_F32, i));
        }
        attn_view vc = attn_view_matrix(c, ATTN_F32, M, N, N), vct = vc;
        vct.data = ct;
        assert_int_equal(attn_matmul(context, &a.view, &b.view, NULL, false, &vc), ATTN_OK);
        assert_int_equal(attn_matmul(context, &a.view, &bt.view, NULL, false, &vct), ATTN_OK);
        assert_memory_equal(c, ct, sizeof c);
        for (int round = 0; round < 20; round++) {
            int64_t i = between(0, M - 1), j = between(0, N - 1);
            attn_view row = attn_view_matrix((float *)a.memory + i * K, ATTN_F32, 1, K, K);
            attn_view column = attn_view_matrix((float *)b.memory + j, ATTN_F32, K, 1, N);
            attn_view out = attn_view_matrix(&one, ATTN_F32, 1, 1, 1);
            assert_int_equal(attn_matmul(context, &row, &column, NULL, false, &out), ATTN_OK);
            assert_memory_equal(&one, &c[i * N + j], sizeof one);
        }
        free(a.memory);
        free(b.memory);
        free(bt.memory);
    }
}

/* A NaN or infinity of a goes to its row, one of b to its column, and nowhere else. */
static void test_special_values(void **unused)
{
    (void)unused;
    enum { M = 20, K = 33, N = 35 };
    FOR_EACH_LEVEL(context, 2)
    {
        for (int kind = 0; kind < 4; kind++) {
            draw_state = seed;
            array a = array_make(ATTN_F32, 2, (int64_t[]){M, K}, (int[]){0, 1}, 0, 0);
            array b = array_make(ATTN_F32, 2, (int64_t[]){K, N}, (int[]){0, 1}, 0, 0);
            float c[M * N];
            attn_view vc = attn_view_matrix(c, ATTN_F32, M, N, N);
            bool in_a = kind < 2;
            put(in_a ? a.memory : b.memory, ATTN_F32, in_a ? 7 * K + K - 1 : (K - 1) * N + N - 1,
                kind % 2 ? INFINITY : NAN);
            assert_int_equal(attn_matmul(context, &a.view, &b.view, NULL, false, &vc), ATTN_OK);
            for (int i = 0; i < M * N; i++) {
                bool hit = in_a ? i / N == 7 : i % N == N - 1;
                assert_true(hit == !isfinite(c[i]));
                assert_true(!hit || kind % 2 == 0 || isinf(c[i]));
            }
            free(a.memory);
            free(b.memory);
        }
    }
}

/* ---------- errors ---------- */

static void test_errors(void **unused)
{
    (void)unused;
    attn_context *context = context_of(ATTN_ISA_AUTO, 1);
    static float x[64], y[64];
    static double z[64];
    const attn_view a = attn_view_matrix(x, ATTN_F32, 3, 4, 4);
    const attn_view b = attn_view_matrix(x, ATTN_F32, 4, 5, 5);
    const attn_view c = attn_view_matrix(y, ATTN_F32, 3, 5, 5);
    const attn_view bias = attn_view_dense(x, ATTN_F32, 1, (int64_t[]){5});
    attn_view v = attn_view_matrix(x, ATTN_F32, 5, 4, 4);
    expect_error(attn_matmul(NULL, &a, &b, NULL, false, &c), ATTN_ERR_ARGUMENT, "context");
    expect_error(attn_matmul(context, NULL, &b, NULL, false, &c), ATTN_ERR_ARGUMENT, "a:");
    expect_error(attn_matmul(context, &a, &b, NULL, false, NULL), ATTN_ERR_ARGUMENT, "c:");
    expect_error(attn_matmul(context, &a, &v, NULL, false, &c), ATTN_ERR_SHAPE, "transpose");
    expect_error(attn_matmul(context, &a, &bias, NULL, false, &c), ATTN_ERR_SHAPE, "b:");
    expect_error(attn_matmul(context, &a, &b, NULL, false, &v), ATTN_ERR_SHAPE, "[.., 3, 5]");
    expect_error(attn_matmul(context, &a, &b, &c, false, &c), ATTN_ERR_SHAPE, "bias");
    v = a;
    v.dtype = ATTN_BF16;
    expect_error(attn_matmul(context, &v, &b, NULL, false, &c), ATTN_ERR_DTYPE, "attn_convert");
    v = attn_view_matrix(z, ATTN_F64, 3, 4, 4);
    expect_error(attn_matmul(context, &v, &b, NULL, false, &c), ATTN_ERR_DTYPE, "one type");
    v = c;
    v.stride[1] = 2;
    expect_error(attn_matmul(context, &a, &b, NULL, false, &v), ATTN_ERR_SHAPE, "must be 1");
    v = c;
    v.stride[0] = 4;
    expect_error(attn_matmul(context, &a, &b, NULL, false, &v), ATTN_ERR_SHAPE, "overlap");
    attn_view many = attn_view_dense(y, ATTN_F32, 3, (int64_t[]){2, 3, 5});
    v = attn_view_dense(x, ATTN_F32, 3, (int64_t[]){3, 3, 4});
    expect_error(attn_matmul(context, &v, &b, NULL, false, &many), ATTN_ERR_SHAPE, "broadcast");
    expect_error(attn_matmul(context, &a, &b, NULL, false, &many), ATTN_OK, "");
    assert_memory_equal(y, y + 15, 15 * sizeof *y);
    v = c;
    v.shape[0] = 0;
    attn_view none = a;
    none.shape[0] = 0;
    expect_error(attn_matmul(context, &none, &b, NULL, false, &v), ATTN_OK, "");

    const attn_view dst = attn_view_dense(y, ATTN_F32, 1, (int64_t[]){4});
    expect_error(attn_sum_rows(NULL, &a, false, &dst), ATTN_ERR_ARGUMENT, "context");
    expect_error(attn_sum_rows(context, &a, false, &bias), ATTN_ERR_SHAPE, "4 columns");
    expect_error(attn_sum_rows(context, &bias, false, &dst), ATTN_ERR_SHAPE, "[rows, n]");
    v = attn_view_dense(z, ATTN_F64, 1, (int64_t[]){4});
    expect_error(attn_sum_rows(context, &a, false, &v), ATTN_ERR_DTYPE, "one type");
    attn_context_destroy(context);
}

/* ---------- sums ---------- */

static void check_sums(int64_t rows, int64_t n, attn_dtype type, bool accumulate)
{
    static const int threads[] = {1, 2, 5};
    uint64_t start = draw_state;
    void *first = NULL;
    for (int t = 0; t < 3; t++) {
        attn_context *context = context_of(ATTN_ISA_AUTO, threads[t]);
        draw_state = start;
        array x = array_make(type, 2, (int64_t[]){rows, n}, (int[]){0, 1}, between(0, 3), 0);
        array dst = array_make(type, 1, &n, (int[]){0}, 0, 0), before = dst;
        before.memory = malloc((size_t)(dst.count + 1) * attn_dtype_size(type));
        assert_non_null(before.memory);
        memcpy(before.memory, dst.memory, (size_t)dst.count * attn_dtype_size(type));
        assert_int_equal(attn_sum_rows(context, &x.view, accumulate, &dst.view), ATTN_OK);
        for (int64_t i = 0; i < n; i++) {
            double sum = accumulate ? get(before.memory, type, i) : 0.0, size = fabs(sum);
            for (int64_t r = 0; r < rows; r++) {
                double term = get(x.memory, type, place(&x.view, 0, 0, r, i));
                sum += term;
                size += fabs(term);
            }
            double epsilon = type == ATTN_F32 ? 0x1p-24 : 0x1p-53;
            double most = type == ATTN_F32 ? 66.0 : (double)rows + 2.0;
            assert_true(fabs(get(dst.memory, type, i) - sum) <= most * epsilon * size);
        }
        if (first) {
            assert_memory_equal(first, dst.memory, (size_t)n * attn_dtype_size(type));
            free(dst.memory);
        } else {
            first = dst.memory;
        }
        free(x.memory);
        free(before.memory);
        attn_context_destroy(context);
    }
    free(first);
}

static void test_sum_rows(void **unused)
{
    (void)unused;
    draw_state = seed;
    check_sums(4100, 130, ATTN_F32, false);
    check_sums(200, 2500, ATTN_F64, true);
    for (int64_t round = fraction(60); round > 0; round--) {
        check_sums(between(0, 140), between(1, 80), next() % 2 ? ATTN_F32 : ATTN_F64, next() % 2);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products),  cmocka_unit_test(test_threads),
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_special_values),
        cmocka_unit_test(test_errors),    cmocka_unit_test(test_sum_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
