/*
 * test_tensor_joined.c: what lies side by side is computed as one, and gives the numbers of its parts.
 */
#include "tensor_support.h"

#include <attn/tensor.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { PARTS = 3, ROWS = 70, IN = 33, ALL = 5 + 16 + 3 };

static const int64_t outs[PARTS] = {5, 16, 3};

/* Copies numbers of a new random leaf into t, which wants a gradient. */
static void fill(attn_tensor *t, uint64_t seed)
{
    attn_tensor *from = leaf(attn_tensor_ndim(t), attn_tensor_size(t, 0),
                             attn_tensor_ndim(t) > 1 ? attn_tensor_size(t, 1) : 1, 1, seed);
    memcpy(attn_tensor_write(t).data, attn_tensor_view(from).data,
           (size_t)attn_tensor_count(t) * sizeof(float));
    attn_tensor_require_grad(t, true);
    attn_tensor_release(from);
}

/* Weights, then biases: in one memory each, or apart. */
static void parameters(attn_tensor *p[2 * PARTS], bool joined)
{
    if (joined) {
        assert_int_equal(attn_tensor_create_joined(ATTN_F32, PARTS, outs, IN, p), ATTN_OK);
        assert_int_equal(attn_tensor_create_joined(ATTN_F32, PARTS, outs, 0, p + PARTS), ATTN_OK);
    }
    for (int i = 0; i < 2 * PARTS; i++) {
        const int64_t shape[2] = {outs[i % PARTS], IN};
        if (!joined) {
            assert_int_equal(attn_tensor_create(ATTN_F32, i < PARTS ? 2 : 1, shape, &p[i]),
                             ATTN_OK);
        }
        fill(p[i], 10 + (uint64_t)i);
    }
}

static void release(attn_tensor *p[2 * PARTS])
{
    for (int i = 0; i < 2 * PARTS; i++) {
        attn_tensor_release(p[i]);
    }
}

/* The same numbers: gradients of all parameters and of x, the sum of squares of the layers' results being the loss. */
static void run(attn_tensor *x, attn_tensor *p[2 * PARTS], bool apart, float *result)
{
    attn_tensor *y = NULL;
    if (apart) {
        attn_tensor *part[PARTS];
        for (int i = 0; i < PARTS; i++) {
            part[i] = attn_tensor_linear(tape, x, p[i], p[PARTS + i]);
        }
        y = attn_tensor_concat(tape, PARTS, part, -1);
    } else {
        y = attn_tensor_linear_joined(tape, x, PARTS, p, p + PARTS);
    }
    assert_non_null(y);
    assert_int_equal(attn_tensor_size(y, -1), ALL);
    if (result) {
        memcpy(result, attn_tensor_view(y).data, sizeof(float) * ROWS * ALL);
    }
    attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_mul(tape, y, y));
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    attn_tape_clear(tape);
}

static void same_gradient(const attn_tensor *a, const attn_tensor *b)
{
    const attn_tensor *g = attn_tensor_grad(a), *h = attn_tensor_grad(b);
    assert_non_null(g);
    assert_non_null(h);
    for (int64_t i = 0; i < attn_tensor_count(g); i++) {
        assert_float_equal(at(g, i), at(h, i), 2e-3F); /* of sums of 70 products of some units */
    }
}

static void test_layers(void **state)
{
    (void)state;
    static float y[ROWS * ALL], z[ROWS * ALL];
    attn_tensor *apart[2 * PARTS], *joined[2 * PARTS];
    attn_tensor *x = leaf(2, ROWS, IN, 1, 1), *u = leaf(2, ROWS, IN, 1, 1);
    parameters(apart, false);
    parameters(joined, true);
    for (int pass = 0; pass < 4; pass++) { /* the second adds up, the third begins anew */
        for (int i = 0; pass == 2 && i < 2 * PARTS; i++) {
            attn_tensor_clear_grad(apart[i]);
            attn_tensor_clear_grad(joined[i]);
        }
        if (pass == 3) { /* one that is not wanted, one that alone begins anew */
            attn_tensor_require_grad(joined[0], false);
            attn_tensor_require_grad(apart[0], false);
            attn_tensor_clear_grad(joined[2]);
            attn_tensor_clear_grad(apart[2]);
        }
        run(x, apart, true, y);
        run(u, joined, false, z);
        assert_memory_equal(y, z, sizeof y);
        same_gradient(x, u);
        for (int i = 0; i < 2 * PARTS; i++) {
            same_gradient(apart[i], joined[i]);
        }
    }
    attn_tensor_release(x);
    attn_tensor_release(u);
    release(apart);
    release(joined);
}

/* A gradient that somebody holds stays as it is when the next one is written. */
static void test_held_gradient(void **state)
{
    (void)state;
    attn_tensor *p[2 * PARTS], *x = leaf(2, ROWS, IN, 1, 1);
    parameters(p, true);
    run(x, p, false, NULL);
    attn_tensor *held = attn_tensor_retain(attn_tensor_grad(p[1]));
    float before = at(held, 7);
    for (int i = 0; i < 2 * PARTS; i++) {
        attn_tensor_clear_grad(p[i]);
    }
    fill(x, 99);
    run(x, p, false, NULL);
    assert_float_equal(at(held, 7), before, 0);
    assert_true(at(attn_tensor_grad(p[1]), 7) != before);
    assert_ptr_equal((const float *)attn_tensor_view(attn_tensor_grad(p[0])).data + outs[0] * IN,
                     attn_tensor_view(attn_tensor_grad(p[1])).data);
    attn_tensor_release(held);
    attn_tensor_release(x);
    release(p);
}

static void test_taken(void **state)
{
    (void)state;
    const attn_tensor_rotation r = {.theta = 100, .pairing = ATTN_ROPE_HALVES};
    attn_tensor *w = leaf(2, 24, 8, 1, 1), *x = leaf(3, 2, 3, 8, 2), *l = leaf(3, 2, 3, 24, 3);
    float before = at(l, 24); /* position 1: rotated */
    assert_non_null(attn_tensor_sdpa_joined(tape, NULL, &r, l, 2, 2));
    assert_float_equal(at(l, 24), before, 0);

    attn_tensor *kept = attn_tensor_retain(attn_tensor_linear(tape, x, w, NULL));
    before = at(kept, 24);
    assert_non_null(attn_tensor_sdpa_joined(tape, NULL, &r, kept, 2, 2));
    assert_float_equal(at(kept, 24), before, 0);
    attn_tensor_release(kept);

    attn_tensor *y = attn_tensor_softmax(tape, attn_tensor_linear(tape, x, w, NULL), -1);
    before = at(y, 24); /* softmax reads it on its way back */
    attn_tensor *out = attn_tensor_sdpa_joined(tape, NULL, &r, y, 2, 2);
    assert_float_equal(at(y, 24), before, 0);
    assert_int_equal(attn_tape_backward(tape, attn_tensor_sum_all(tape, out), NULL), ATTN_OK);

    y = attn_tensor_linear(tape, x, w, NULL);
    assert_non_null(attn_tensor_sdpa_joined(tape, NULL, NULL, y, 2, 2)); /* reads it, twice */
    assert_non_null(attn_tensor_sdpa_joined(tape, NULL, &r, y, 2, 2));
    assert_non_null(attn_tensor_scale(tape, y, 2));
    y = attn_tensor_linear(tape, x, w, NULL);
    assert_non_null(attn_tensor_sdpa_joined(tape, NULL, &r, y, 2, 2));
    EXPECT_FAILED(attn_tensor_scale(tape, y, 2), ATTN_ERR_ARGUMENT, "scale", "attn_tensor_retain");
    attn_tensor_release(w);
    attn_tensor_release(x);
    attn_tensor_release(l);
}

/* More rows than a piece has: the numbers of one product, in the memory of a piece. */
static void test_pieces(void **state)
{
    (void)state;
    enum { TOKENS = 600, VOCAB = 17000, WIDE = 4, PIECE = 256 };
    static int64_t targets[TOKENS];
    attn_tensor *x = leaf(2, TOKENS, WIDE, 1, 1), *w = leaf(2, VOCAB, WIDE, 1, 2);
    attn_tensor *u = leaf(2, TOKENS, WIDE, 1, 1), *v = leaf(2, VOCAB, WIDE, 1, 2);
    for (int64_t i = 0; i < TOKENS; i++) {
        targets[i] = i % 7 == 0 ? -1 : i * 28 % VOCAB;
    }
    for (int pass = 0; pass < 2; pass++) { /* the second with another factor, added to the first */
        attn_tensor *loss = attn_tensor_linear_cross_entropy(tape, x, w, targets);
        float one = (float)attn_tensor_item(loss);
        loss = pass ? attn_tensor_scale(tape, loss, 3.0) : loss;
        assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
        if (pass == 0) {
            assert_true(attn_tape_bytes(tape) < (size_t)PIECE * VOCAB * sizeof(float) * 5 / 4);
        }
        loss = attn_tensor_cross_entropy(tape, attn_tensor_linear(tape, u, v, NULL), targets);
        assert_float_equal(attn_tensor_item(loss), one, 1e-5F * one);
        loss = pass ? attn_tensor_scale(tape, loss, 3.0) : loss;
        assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
        attn_tape_clear(tape);
        attn_tensor *pairs[2][2] = {{x, u}, {w, v}};
        for (int i = 0; i < 2; i++) {
            const attn_tensor *g = attn_tensor_grad(pairs[i][0]),
                              *h = attn_tensor_grad(pairs[i][1]);
            for (int64_t j = 0; j < attn_tensor_count(g); j++) {
                assert_float_equal(at(g, j), at(h, j), 1e-6F);
            }
        }
    }
    attn_tensor_release(x);
    attn_tensor_release(w);
    attn_tensor_release(u);
    attn_tensor_release(v);
}

static void test_errors(void **state)
{
    (void)state;
    attn_tensor *x = leaf(3, 2, 3, 9, 1), *w = leaf(2, 4, 8, 1, 2), *none[2] = {NULL, NULL};
    const int64_t bad[2] = {3, -1};
    EXPECT_STATUS(attn_tensor_create_joined(ATTN_F32, 2, bad, 4, none), ATTN_ERR_SHAPE, "-1");
    EXPECT_STATUS(attn_tensor_create_joined(ATTN_F32, 0, bad, 4, none), ATTN_ERR_ARGUMENT, "count");
    EXPECT_FAILED(attn_tensor_linear_joined(tape, x, 1, &w, NULL), ATTN_ERR_SHAPE, "[4, 8]");
    EXPECT_FAILED(attn_tensor_linear_joined(tape, x, 9, &w, NULL), ATTN_ERR_ARGUMENT, "9");
    EXPECT_FAILED(attn_tensor_linear_joined(tape, x, 2, none, NULL), ATTN_ERR_ARGUMENT, "NULL");
    EXPECT_FAILED(attn_tensor_linear_cross_entropy(tape, x, w, outs), ATTN_ERR_SHAPE, "[4, 8]");
    EXPECT_FAILED(attn_tensor_linear_cross_entropy(tape, w, w, NULL), ATTN_ERR_ARGUMENT, "targets");
    EXPECT_FAILED(attn_tensor_swiglu_joined(tape, x), ATTN_ERR_SHAPE, "[2, 3, 9]", "even");
    EXPECT_FAILED(attn_tensor_sdpa_joined(tape, NULL, NULL, x, 2, 2), ATTN_ERR_SHAPE, "[2, 3, 9]");
    const attn_tensor_rotation odd = {.theta = 100}; /* heads of 3 */
    EXPECT_FAILED(attn_tensor_sdpa_joined(tape, NULL, &odd, x, 1, 1), ATTN_ERR_ARGUMENT, "dims");
    attn_tensor_release(x);
    attn_tensor_release(w);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, tape_setup, tape_teardown)
    const struct CMUnitTest tests[] = {TEST(layers), TEST(held_gradient), TEST(taken), TEST(pieces),
                                       TEST(errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
