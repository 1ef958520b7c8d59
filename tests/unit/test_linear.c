/*
 * test_linear.c: linear layers against plain loops in double, at every level this machine has.
 *
 * repro: test_linear <seed> (printed on failure)
 */
#include "draws.h"
#include "expect.h"
#include "linear_weights.h"
#include "support.h"

#include <attn/attn.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t seed = 20240607;

static const attn_isa isas[] = {ATTN_ISA_C, ATTN_ISA_AVX2, ATTN_ISA_AVX512, ATTN_ISA_AVX512VNNI};

/* The 8-bit model of an activation: what the kernels must multiply exactly. */
static void quantised(const float *x, int64_t count, double *out)
{
    for (int64_t b = 0; b < count; b += 32) {
        float max = 0.0f;
        for (int64_t i = b; i < b + 32; i++) {
            max = fabsf(x[i]) > max ? fabsf(x[i]) : max;
        }
        for (int64_t i = b; i < b + 32; i++) {
            out[i] = max > 0.0f ? (double)(max / 127.0f) * rint(x[i] * (127.0f / max)) : 0.0;
        }
    }
}

/* ---------- one random case ---------- */

typedef struct layer_case {
    attn_weight_type type;
    attn_activations activations;
    int64_t rows, in, out, ldx, ldy;
    int parts;
    attn_linear_part part[3];
    uint8_t *weights;
    float *bias, *x, *y;
} layer_case;

static layer_case random_case(attn_weight_type type, attn_activations activations)
{
    layer_case c = {.type = type, .activations = activations};
    bool blocks = type >= ATTN_WEIGHT_Q8_0;
    c.rows = between(1, 40);
    c.in = blocks ? 32 * between(1, 20) : between(1, 640);
    c.out = between(1, 100);
    c.ldx = c.in + between(0, 3);
    c.ldy = c.out + between(0, 3);
    c.weights = random_weights(type, c.out, c.in);
    c.parts = (int)between(1, c.out < 3 ? 1 : 3);
    int64_t first = 0;
    for (int p = 0; p < c.parts; p++) {
        int64_t left = c.out - first - (c.parts - 1 - p);
        int64_t take = p == c.parts - 1 ? left : between(1, left);
        c.part[p] =
            (attn_linear_part){type, c.weights + attn_weight_bytes(type, first, c.in), take};
        first += take;
    }
    c.x = malloc((size_t)(c.rows * c.ldx) * sizeof *c.x);
    c.y = malloc((size_t)(c.rows * c.ldy) * sizeof *c.y);
    c.bias = next() % 2 ? malloc((size_t)c.out * sizeof *c.bias) : NULL;
    for (int64_t i = 0; c.bias && i < c.out; i++) {
        c.bias[i] = (float)normal();
    }
    bool zeros = next() % 4 == 0;
    for (int64_t i = 0; i < c.rows * c.ldx; i++) {
        c.x[i] = zeros && i / 32 % 2 ? 0.0f : (float)normal();
    }
    return c;
}

static void free_case(layer_case *c)
{
    free(c->weights);
    free(c->bias);
    free(c->x);
    free(c->y);
}

static void run_case(attn_context *context, layer_case *c)
{
    attn_linear_options options = attn_linear_options_init();
    options.activations = c->activations;
    attn_linear *linear;
    assert_int_equal(
        attn_linear_create(context, &options, c->in, c->parts, c->part, c->bias, &linear), ATTN_OK);
    assert_int_equal(attn_linear_in_features(linear), c->in);
    assert_int_equal(attn_linear_out_features(linear), c->out);
    assert_true(attn_linear_bytes(linear) > 0);
    for (int64_t i = 0; i < c->rows * c->ldy; i++) {
        c->y[i] = -12345.0f;
    }
    attn_view x = attn_view_matrix(c->x, ATTN_F32, c->rows, c->in, c->ldx);
    attn_view y = attn_view_matrix(c->y, ATTN_F32, c->rows, c->out, c->ldy);
    assert_int_equal(attn_linear_forward(context, linear, &x, &y), ATTN_OK);
    attn_linear_destroy(linear);
}

/* Largest |y − exact| / Σ|terms| over a case; fails on a float touched between rows. */
static double worst_error(const layer_case *c, bool int8)
{
    double *model = malloc((size_t)c->in * sizeof *model);
    double worst = 0.0;
    for (int64_t r = 0; r < c->rows; r++) {
        const float *x = c->x + r * c->ldx;
        for (int64_t k = 0; k < c->in; k++) {
            model[k] = x[k];
        }
        if (int8) {
            quantised(x, c->in, model);
        }
        for (int64_t n = 0; n < c->out; n++) {
            const uint8_t *row = c->weights + attn_weight_bytes(c->type, n, c->in);
            double sum = c->bias ? (double)c->bias[n] : 0.0, size = fabs(sum);
            for (int64_t k = 0; k < c->in; k++) {
                double term = weight_at(c->type, row, k) * model[k];
                sum += term;
                size += fabs(term);
            }
            double error = fabs((double)c->y[r * c->ldy + n] - sum);
            error = size > 0.0 ? error / size : error;
            worst = error > worst || isnan(error) ? error : worst;
        }
        for (int64_t n = c->out; n < c->ldy && r + 1 < c->rows; n++) {
            assert_true(c->y[r * c->ldy + n] == -12345.0f);
        }
    }
    free(model);
    return worst;
}

static void test_random(void **unused)
{
    (void)unused;
    draw_state = seed;
    FOR_LEVELS(isas, context, 2)
    {
        for (int round = 0; round < test_count(25); round++) {
            for (size_t t = 0; t < LINEAR_TYPES; t++) {
                for (int exact = 0; exact < 2; exact++) {
                    bool int8 = linear_types[t] >= ATTN_WEIGHT_Q8_0 && !exact;
                    layer_case c = random_case(linear_types[t],
                                               int8 ? ATTN_ACTIVATIONS_INT8 : ATTN_ACTIVATIONS_F32);
                    run_case(context, &c);
                    double error = worst_error(&c, int8);
                    if (!(error <= (int8 ? 1e-5 : 2e-6))) {
                        print_error("type %d int8 %d rows %lld in %lld out %lld level %s: error "
                                    "%g; repro: test_linear %llu\n",
                                    (int)linear_types[t], int8, (long long)c.rows, (long long)c.in,
                                    (long long)c.out, attn_isa_name(attn_context_isa(context)),
                                    error, (unsigned long long)seed);
                        fail();
                    }
                    free_case(&c);
                }
            }
        }
    }
}

/*
 * AUTO spends a second 8 bits on few rows. An element's error is at most half a step of the second scale, 1/(2·127·254) of its block's
 * largest: relative to Σ|terms| well below 2^-12 for these inputs, where plain int8 is about 2^-7.
 */
static void test_refined(void **unused)
{
    (void)unused;
    draw_state = seed;
    FOR_LEVELS(isas, context, 2)
    {
        for (int round = 0; round < test_count(25); round++) {
            for (size_t t = 0; t < LINEAR_TYPES; t++) {
                if (linear_types[t] < ATTN_WEIGHT_Q8_0) {
                    continue;
                }
                layer_case c = random_case(linear_types[t], ATTN_ACTIVATIONS_AUTO);
                run_case(context, &c);
                double error = worst_error(&c, false);
                if (!(error <= 0x1p-12)) {
                    print_error("type %d rows %lld in %lld out %lld level %s: error %g; repro: "
                                "test_linear %llu\n",
                                (int)linear_types[t], (long long)c.rows, (long long)c.in,
                                (long long)c.out, attn_isa_name(attn_context_isa(context)), error,
                                (unsigned long long)seed);
                    fail();
                }
                free_case(&c);
            }
        }
    }
}

/* Several row blocks, column blocks, pieces and a ragged last panel at once. */
static void test_large(void **unused)
{
    (void)unused;
    static const int64_t sizes[][3] = {{300, 1056, 200}, {9, 2112, 333}, {1, 4128, 401}};
    draw_state = seed;
    FOR_LEVELS(isas, context, 3)
    {
        for (int64_t i = 0; i < test_count(3); i++) {
            for (size_t t = 0; t < 2; t++) {
                layer_case c = {.type = t ? ATTN_WEIGHT_Q4_1 : ATTN_WEIGHT_F32};
                c.rows = sizes[i][0];
                c.in = c.ldx = sizes[i][1];
                c.out = c.ldy = sizes[i][2];
                c.weights = random_weights(c.type, c.out, c.in);
                c.activations = t ? ATTN_ACTIVATIONS_INT8 : ATTN_ACTIVATIONS_AUTO;
                c.parts = 1;
                c.part[0] = (attn_linear_part){c.type, c.weights, c.out};
                c.x = malloc((size_t)(c.rows * c.in) * sizeof *c.x);
                c.y = malloc((size_t)(c.rows * c.out) * sizeof *c.y);
                for (int64_t k = 0; k < c.rows * c.in; k++) {
                    c.x[k] = (float)normal();
                }
                run_case(context, &c);
                double error = worst_error(&c, t == 1);
                if (!(error <= (t ? 1e-5 : 4e-6))) {
                    print_error("size %d type %zu level %s: error %g\n", (int)i, t,
                                attn_isa_name(attn_context_isa(context)), error);
                    fail();
                }
                free_case(&c);
            }
        }
    }
}

/* Same bits for 1, 2, 3 and 7 threads. */
static void test_threads(void **unused)
{
    (void)unused;
    static const int threads[] = {1, 2, 3, 7};
    for (size_t l = 0; l < sizeof isas / sizeof *isas; l++) {
        for (int round = 0; round < test_count(6); round++) {
            for (size_t t = 0; t < LINEAR_TYPES; t++) {
                float *first = NULL;
                for (int i = 0; i < 4; i++) {
                    attn_context *context = context_of(isas[l], threads[i]);
                    if (!context) {
                        break;
                    }
                    draw_state = seed + (uint64_t)round * 100 + t;
                    layer_case c = random_case(linear_types[t], ATTN_ACTIVATIONS_AUTO);
                    size_t bytes = (size_t)(c.rows * c.ldy) * sizeof(float);
                    run_case(context, &c);
                    if (!first) {
                        first = malloc(bytes);
                        memcpy(first, c.y, bytes);
                    }
                    assert_memory_equal(first, c.y, bytes);
                    free_case(&c);
                    attn_context_destroy(context);
                }
                free(first);
            }
        }
    }
}

/* A row with a NaN or an infinity gives outputs that are no numbers; other rows do not notice. */
static void test_non_finite(void **unused)
{
    (void)unused;
    static const float values[] = {NAN, INFINITY, -INFINITY};
    FOR_LEVELS(isas, context, 2)
    {
        for (size_t t = 0; t < LINEAR_TYPES; t++) {
            for (int v = 0; v < 3; v++) {
                draw_state = seed + (uint64_t)t;
                layer_case c = random_case(linear_types[t], ATTN_ACTIVATIONS_AUTO);
                run_case(context, &c);
                float *clean = malloc((size_t)(c.rows * c.ldy) * sizeof(float));
                memcpy(clean, c.y, (size_t)(c.rows * c.ldy) * sizeof(float));
                int64_t bad = between(0, c.rows - 1);
                c.x[bad * c.ldx + between(0, c.in - 1)] = values[v];
                run_case(context, &c);
                for (int64_t r = 0; r < c.rows; r++) {
                    for (int64_t n = 0; n < c.out; n++) {
                        float y = c.y[r * c.ldy + n];
                        if (r == bad) {
                            assert_true(isfinite(y) == 0);
                        } else {
                            assert_memory_equal(&y, &clean[r * c.ldy + n], 4);
                        }
                    }
                }
                free(clean);
                free_case(&c);
            }
        }
    }
}

/* Activations from the smallest to the largest float: no overflow, no division by zero. */
static void test_activation_range(void **unused)
{
    (void)unused;
    static const float scales[] = {0x1p-149f, 0x1p-126f, 0x1p-112f, 0x1p-100f, 1.0f, 0x1p+120f};
    FOR_LEVELS(isas, context, 1)
    {
        for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
            draw_state = seed + s;
            layer_case c = random_case(ATTN_WEIGHT_Q8_0, ATTN_ACTIVATIONS_INT8);
            for (size_t i = 0; i < (size_t)(c.out * (c.in / 32)); i++) {
                c.weights[34 * i] = 0; /* d = 2^-10: products of the largest stay finite */
                c.weights[34 * i + 1] = 5 << 2;
            }
            for (int64_t i = 0; i < c.rows * c.ldx; i++) {
                c.x[i] *= scales[s];
            }
            free(c.bias);
            c.bias = NULL;
            run_case(context, &c);
            if (scales[s] >= 0x1p-100f) {
                assert_true(worst_error(&c, true) <= 1e-5);
            }
            for (int64_t i = 0; i < c.out; i++) {
                assert_true(isfinite(c.y[i]) != 0);
                assert_true(scales[s] >= 0x1p-112f || fabsf(c.y[i]) < 1e-25f);
            }
            free_case(&c);
        }
    }
}

/* Q4_0 scales whose −8·d is no f16: exact all the same. */
static void test_q4_0_large_scale(void **unused)
{
    (void)unused;
    FOR_LEVELS(isas, context, 1)
    {
        draw_state = seed;
        layer_case c = random_case(ATTN_WEIGHT_Q4_0, ATTN_ACTIVATIONS_INT8);
        c.weights[0] = 0xff; /* d = 65504 */
        c.weights[1] = 0x7b;
        run_case(context, &c);
        assert_true(worst_error(&c, true) <= 1e-5);
        free_case(&c);
    }
}

/* The same weights as one matrix and as parts give the same bits. */
static void test_parts(void **unused)
{
    (void)unused;
    FOR_LEVELS(isas, context, 2)
    {
        for (int round = 0; round < test_count(10); round++) {
            draw_state = seed + (uint64_t)round;
            layer_case c = random_case(ATTN_WEIGHT_Q4_1, ATTN_ACTIVATIONS_AUTO);
            run_case(context, &c);
            size_t bytes = (size_t)(c.rows * c.ldy) * sizeof(float);
            float *apart = malloc(bytes);
            memcpy(apart, c.y, bytes);
            c.parts = 1;
            c.part[0].out_features = c.out;
            run_case(context, &c);
            assert_memory_equal(apart, c.y, bytes);
            free(apart);
            free_case(&c);
        }
    }
}

/* Input rows may repeat (stride 0) or run backwards. */
static void test_strides(void **unused)
{
    (void)unused;
    FOR_LEVELS(isas, context, 1)
    {
        draw_state = seed;
        uint8_t *w = random_weights(ATTN_WEIGHT_Q4_1, 20, 64);
        float x[9 * 64], forward[9 * 20], y[9 * 20];
        for (int i = 0; i < 9 * 64; i++) {
            x[i] = (float)normal();
        }
        attn_linear_part part = {ATTN_WEIGHT_Q4_1, w, 20};
        attn_linear *l;
        assert_int_equal(attn_linear_create(context, NULL, 64, 1, &part, NULL, &l), ATTN_OK);
        attn_view vx = attn_view_matrix(x, ATTN_F32, 9, 64, 64);
        attn_view vy = attn_view_matrix(forward, ATTN_F32, 9, 20, 20);
        assert_int_equal(attn_linear_forward(context, l, &vx, &vy), ATTN_OK);
        vx = attn_view_matrix(x + 8 * 64, ATTN_F32, 9, 64, -64);
        vy = attn_view_matrix(y, ATTN_F32, 9, 20, 20);
        assert_int_equal(attn_linear_forward(context, l, &vx, &vy), ATTN_OK);
        for (int r = 0; r < 9; r++) {
            assert_memory_equal(y + r * 20, forward + (8 - r) * 20, 80);
        }
        vx.stride[0] = 0;
        assert_int_equal(attn_linear_forward(context, l, &vx, &vy), ATTN_OK);
        for (int r = 0; r < 9; r++) {
            assert_memory_equal(y + r * 20, y, 80);
        }
        attn_linear_destroy(l);
        free(w);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 10);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_refined),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_non_finite),
        cmocka_unit_test(test_activation_range),
        cmocka_unit_test(test_q4_0_large_scale),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_strides),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
