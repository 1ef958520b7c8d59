/*
 * test_tensor_ops.c: every operation's gradient against finite differences in f64, and f32 against f64, with inputs as they are,
 * transposed, sliced, computed and used twice.
 *
 * repro: test_tensor_ops, with ATTN_TEST_SEED
 */
#include "support.h"
#include "tensor_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define CASE(name, expression)                                        \
    static attn_tensor *name(attn_tape *tape, attn_tensor *const *in) \
    {                                                                 \
        return expression;                                            \
    }

/* ---- element by element ---- */

CASE(add, attn_tensor_add(tape, in[0], in[1]))
CASE(sub, attn_tensor_sub(tape, in[0], in[1]))
CASE(mul, attn_tensor_mul(tape, in[0], in[1]))
CASE(divide, attn_tensor_div(tape, in[0], in[1]))
CASE(square, attn_tensor_mul(tape, in[0], in[0]))
CASE(scale, attn_tensor_scale(tape, in[0], -1.5))
CASE(add_scalar, attn_tensor_add_scalar(tape, in[0], 0.75))
CASE(neg, attn_tensor_neg(tape, in[0]))
CASE(power, attn_tensor_pow(tape, in[0], 2.5))
CASE(relu, attn_tensor_relu(tape, in[0]))
CASE(gelu, attn_tensor_gelu(tape, in[0], false))
CASE(gelu_tanh, attn_tensor_gelu(tape, in[0], true))
CASE(silu, attn_tensor_silu(tape, in[0]))
CASE(tanh_case, attn_tensor_tanh(tape, in[0]))
CASE(sigmoid, attn_tensor_sigmoid(tape, in[0]))
CASE(exp_case, attn_tensor_exp(tape, in[0]))
CASE(log_case, attn_tensor_log(tape, in[0]))
CASE(dropout, attn_tensor_dropout(tape, in[0], 0.3, 42))

static const unsigned char mask_bytes[12] = {1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1};
static attn_view mask_of(int ndim, int64_t s0, int64_t s1)
{
    int64_t shape[2] = {ndim > 1 ? s0 : s1, s1};
    return attn_view_dense(mask_bytes, ATTN_BOOL, ndim, shape);
}

static attn_tensor *masked_fill(attn_tape *tape, attn_tensor *const *in)
{
    attn_view mask = mask_of(2, 3, 4);
    return attn_tensor_masked_fill(tape, in[0], &mask, -2.0);
}

static attn_tensor *where(attn_tape *tape, attn_tensor *const *in)
{
    attn_view mask = mask_of(1, 1, 4);
    return attn_tensor_where(tape, &mask, in[0], in[1]);
}

static const tensor_case elements[] = {
    {"add", add, 2, {{2, {3, 4}, 0}, {2, {3, 4}, 0}}, 0},
    {"add, a row", add, 2, {{3, {2, 3, 4}, 0}, {1, {4}, 0}}, 0},
    {"add, a column", add, 2, {{2, {3, 1}, 0}, {2, {3, 4}, 0}}, 0},
    {"add, one number", add, 2, {{1, {1}, 0}, {3, {2, 3, 4}, 0}}, 0},
    {"add, outer", add, 2, {{3, {2, 1, 4}, 0}, {2, {3, 1}, 0}}, 0},
    {"add, a constant", add, 2, {{2, {3, 4}, CONSTANT}, {2, {3, 4}, 0}}, 0},
    {"sub", sub, 2, {{2, {3, 4}, 0}, {2, {3, 4}, 0}}, 0},
    {"sub, a row", sub, 2, {{3, {2, 3, 4}, 0}, {1, {4}, 0}}, 0},
    {"sub, a row first", sub, 2, {{1, {4}, 0}, {3, {2, 3, 4}, 0}}, 0},
    {"mul", mul, 2, {{3, {2, 3, 4}, 0}, {3, {2, 3, 4}, 0}}, 0},
    {"mul, a middle dimension", mul, 2, {{4, {2, 3, 2, 4}, 0}, {3, {3, 1, 4}, 0}}, 0},
    {"mul, outer", mul, 2, {{2, {5, 1}, 0}, {2, {1, 7}, 0}}, 0},
    {"mul with itself", square, 1, {{2, {3, 4}, 0}}, 0},
    {"div", divide, 2, {{2, {3, 4}, 0}, {2, {3, 4}, POSITIVE}}, 0},
    {"div by a row", divide, 2, {{2, {3, 4}, 0}, {1, {4}, POSITIVE}}, 0},
    {"div of a column", divide, 2, {{2, {3, 1}, 0}, {2, {3, 4}, POSITIVE}}, 0},
    {"scale", scale, 1, {{3, {2, 3, 4}, 0}}, 0},
    {"add_scalar", add_scalar, 1, {{3, {2, 3, 4}, 0}}, 0},
    {"neg", neg, 1, {{1, {5}, 0}}, 0},
    {"pow", power, 1, {{2, {3, 4}, POSITIVE}}, 0},
    {"relu", relu, 1, {{3, {2, 3, 4}, APART}}, 0},
    {"gelu", gelu, 1, {{3, {2, 3, 4}, 0}}, 0},
    {"gelu tanh", gelu_tanh, 1, {{3, {2, 3, 4}, 0}}, 0},
    {"silu", silu, 1, {{4, {2, 3, 4, 2}, 0}}, 0},
    {"tanh", tanh_case, 1, {{3, {2, 3, 4}, 0}}, 0},
    {"sigmoid", sigmoid, 1, {{1, {9}, 0}}, 0},
    {"exp", exp_case, 1, {{3, {2, 3, 4}, 0}}, 0},
    {"log", log_case, 1, {{3, {2, 3, 4}, POSITIVE}}, 0},
    {"dropout", dropout, 1, {{3, {2, 5, 7}, 0}}, 0},
    {"masked_fill", masked_fill, 1, {{3, {2, 3, 4}, 0}}, 0},
    {"where", where, 2, {{3, {2, 3, 4}, 0}, {2, {3, 1}, 0}}, 0},
};

/* ---- products ---- */

CASE(matmul, attn_tensor_matmul(tape, in[0], in[1]))
CASE(matmul_transposed, attn_tensor_matmul(tape, in[0], attn_tensor_transpose(tape, in[1], -1, -2)))
CASE(linear, attn_tensor_linear(tape, in[0], in[1], in[2]))
CASE(linear_plain, attn_tensor_linear(tape, in[0], in[1], NULL))
CASE(gram, attn_tensor_matmul(tape, in[0], attn_tensor_transpose(tape, in[0], 0, 1)))

static attn_tensor *linear_joined(attn_tape *tape, attn_tensor *const *in)
{
    attn_tensor *biases[2] = {NULL, in[3]};
    return attn_tensor_linear_joined(tape, in[0], 2, in + 1, biases);
}

static const tensor_case products[] = {
    {"matmul", matmul, 2, {{2, {3, 4}, 0}, {2, {4, 5}, 0}}, 0},
    {"matmul, one matrix for a batch", matmul, 2, {{3, {2, 3, 4}, 0}, {2, {4, 5}, 0}}, 0},
    {"matmul, a batch", matmul, 2, {{4, {2, 3, 2, 4}, 0}, {4, {2, 3, 4, 3}, 0}}, 0},
    {"matmul, broadcast both ways", matmul, 2, {{4, {2, 1, 2, 4}, 0}, {3, {3, 4, 3}, 0}}, 0},
    {"matmul, a matrix first", matmul, 2, {{2, {2, 4}, 0}, {3, {3, 4, 3}, 0}}, 0},
    {"matmul, transposed", matmul_transposed, 2, {{4, {2, 2, 3, 4}, 0}, {4, {2, 2, 5, 4}, 0}}, 0},
    {"matmul with itself", gram, 1, {{2, {3, 4}, 0}}, 0},
    {"linear", linear, 3, {{3, {2, 3, 4}, 0}, {2, {5, 4}, 0}, {1, {5}, 0}}, 0},
    {"linear, frozen", linear, 3, {{2, {3, 4}, 0}, {2, {5, 4}, CONSTANT}, {1, {5}, CONSTANT}}, 0},
    {"linear, two joined",
     linear_joined,
     4,
     {{3, {2, 3, 4}, 0}, {2, {5, 4}, 0}, {2, {2, 4}, 0}, {1, {2}, 0}},
     0},
    {"linear, two joined, one frozen",
     linear_joined,
     4,
     {{3, {2, 3, 4}, 0}, {2, {5, 4}, CONSTANT}, {2, {2, 4}, 0}, {1, {2}, CONSTANT}},
     0},
    {"linear without a bias", linear_plain, 2, {{1, {4}, 0}, {2, {5, 4}, 0}}, 0},
    {"linear, larger", linear, 3, {{3, {2, 9, 33}, 0}, {2, {17, 33}, 0}, {1, {17}, 0}}, 1e-4},
};

/* ---- shapes ---- */

CASE(transpose, attn_tensor_transpose(tape, in[0], 0, -1))

static attn_tensor *reshape(attn_tape *tape, attn_tensor *const *in)
{
    const int64_t shape[2] = {-1, 6};
    return attn_tensor_reshape(tape, in[0], 2, shape);
}

static attn_tensor *heads(attn_tape *tape, attn_tensor *const *in)
{
    const int64_t split[4] = {2, 3, 2, 4}, joined[3] = {2, 3, 8};
    attn_tensor *h = attn_tensor_transpose(tape, attn_tensor_reshape(tape, in[0], 4, split), 1, 2);
    h = attn_tensor_mul(tape, h, h);
    return attn_tensor_reshape(tape, attn_tensor_transpose(tape, h, 1, 2), 3, joined);
}

static attn_tensor *overlapping(attn_tape *tape, attn_tensor *const *in)
{
    attn_tensor *a = attn_tensor_slice(tape, in[0], 1, 0, 3);
    return attn_tensor_mul(tape, a, attn_tensor_slice(tape, in[0], 1, 1, 4));
}

static attn_tensor *concat(attn_tape *tape, attn_tensor *const *in)
{
    attn_tensor *parts[3] = {in[0], in[1], in[0]};
    return attn_tensor_concat(tape, 3, parts, 1);
}

static attn_tensor *detached(attn_tape *tape, attn_tensor *const *in)
{
    /* x·x with one of them a constant has half the gradient, as x·y with a y of the same numbers */
    return attn_tensor_mul(tape, in[0], attn_tensor_detach(tape, in[1]));
}

static const tensor_case shapes[] = {
    {"transpose", transpose, 1, {{3, {2, 3, 4}, 0}}, 0},
    {"reshape", reshape, 1, {{3, {2, 3, 4}, 0}}, 0},
    {"heads", heads, 1, {{3, {2, 3, 8}, 0}}, 0},
    {"slices that overlap", overlapping, 1, {{3, {2, 4, 3}, 0}}, 0},
    {"concat", concat, 2, {{3, {2, 1, 3}, 0}, {3, {2, 4, 3}, 0}}, 0},
    {"detach", detached, 2, {{2, {3, 4}, 0}, {2, {3, 4}, CONSTANT}}, 0},
};

/* ---- along a dimension ---- */

CASE(softmax_last, attn_tensor_softmax(tape, in[0], -1))
CASE(softmax_first, attn_tensor_softmax(tape, in[0], 0))
CASE(log_softmax_last, attn_tensor_log_softmax(tape, in[0], -1))
CASE(log_softmax_middle, attn_tensor_log_softmax(tape, in[0], 1))
CASE(sum_last, attn_tensor_sum(tape, in[0], -1, false))
CASE(sum_first, attn_tensor_sum(tape, in[0], 0, true))
CASE(sum_middle, attn_tensor_sum(tape, in[0], 1, false))
CASE(mean_last, attn_tensor_mean(tape, in[0], -1, true))
CASE(max_last, attn_tensor_max(tape, in[0], -1, false))
CASE(max_first, attn_tensor_max(tape, in[0], 0, true))
CASE(sum_all, attn_tensor_sum_all(tape, in[0]))
CASE(mean_all, attn_tensor_mean_all(tape, in[0]))

static const tensor_case along[] = {
    {"softmax", softmax_last, 1, {{3, {2, 3, 5}, 0}}, 0},
    {"softmax, first", softmax_first, 1, {{3, {4, 3, 2}, 0}}, 0},
    {"log_softmax", log_softmax_last, 1, {{3, {2, 3, 5}, 0}}, 0},
    {"log_softmax, middle", log_softmax_middle, 1, {{3, {2, 3, 5}, 0}}, 0},
    {"sum", sum_last, 1, {{3, {2, 3, 5}, 0}}, 0},
    {"sum, first", sum_first, 1, {{3, {2, 3, 5}, 0}}, 0},
    {"sum, middle", sum_middle, 1, {{4, {2, 3, 2, 5}, 0}}, 0},
    {"mean", mean_last, 1, {{2, {3, 5}, 0}}, 0},
    {"max", max_last, 1, {{3, {2, 3, 5}, APART}}, 0},
    {"max, first", max_first, 1, {{3, {4, 3, 2}, APART}}, 0},
    {"sum_all", sum_all, 1, {{3, {2, 3, 5}, 0}}, 0},
    {"mean_all", mean_all, 1, {{3, {2, 3, 5}, 0}}, 0},
};

/* ---- norms, and what stands beside attention ---- */

CASE(layer_norm, attn_tensor_layer_norm(tape, in[0], in[1], in[2], 1e-5))
CASE(layer_norm_plain, attn_tensor_layer_norm(tape, in[0], NULL, NULL, 1e-5))
CASE(rms_norm, attn_tensor_rms_norm(tape, in[0], in[1], 1e-5))
CASE(rms_norm_plain, attn_tensor_rms_norm(tape, in[0], NULL, 1e-5))
CASE(swiglu, attn_tensor_swiglu(tape, in[0], in[1]))
CASE(swiglu_joined, attn_tensor_swiglu_joined(tape, in[0]))
CASE(rope_halves, attn_tensor_rope(tape, in[0], NULL, 100.0, 0, ATTN_ROPE_HALVES))

static attn_tensor *rope(attn_tape *tape, attn_tensor *const *in)
{
    static const int64_t positions[6] = {3, 4, 5, 0, 7, 100};
    return attn_tensor_rope(tape, in[0], positions, 10000.0, 4, ATTN_ROPE_INTERLEAVED);
}

static attn_tensor *swiglu_split(attn_tape *tape, attn_tensor *const *in)
{
    attn_tensor *gate = attn_tensor_slice(tape, in[0], -1, 0, 4);
    return attn_tensor_swiglu(tape, gate, attn_tensor_slice(tape, in[0], -1, 4, 8));
}

static const tensor_case norms[] = {
    {"layer_norm", layer_norm, 3, {{3, {2, 3, 7}, 0}, {1, {7}, 0}, {1, {7}, 0}}, 0},
    {"layer_norm, frozen",
     layer_norm,
     3,
     {{2, {3, 7}, CONSTANT}, {1, {7}, 0}, {1, {7}, CONSTANT}},
     0},
    {"layer_norm, plain", layer_norm_plain, 1, {{4, {2, 3, 2, 7}, 0}}, 0},
    {"rms_norm", rms_norm, 2, {{3, {2, 3, 7}, 0}, {1, {7}, 0}}, 0},
    {"rms_norm, plain", rms_norm_plain, 1, {{2, {3, 7}, 0}}, 0},
    {"swiglu", swiglu, 2, {{3, {2, 3, 4}, 0}, {3, {2, 3, 4}, 0}}, 0},
    {"swiglu of halves", swiglu_split, 1, {{3, {2, 3, 8}, 0}}, 0},
    {"swiglu, joined", swiglu_joined, 1, {{3, {2, 3, 8}, 0}}, 0},
    {"rope", rope, 1, {{4, {2, 2, 3, 6}, 0}}, 0},
    {"rope, halves", rope_halves, 1, {{4, {2, 2, 3, 6}, 0}}, 0},
};

/* ---- words ---- */

static attn_tensor *embedding(attn_tape *tape, attn_tensor *const *in)
{
    static const int64_t ids[6] = {1, 0, 4, 1, 1, 2}, shape[2] = {2, 3};
    return attn_tensor_embedding(tape, in[0], ids, 2, shape);
}

static attn_tensor *cross_entropy(attn_tape *tape, attn_tensor *const *in)
{
    static const int64_t targets[6] = {1, -1, 4, 1, 0, 2};
    return attn_tensor_cross_entropy(tape, in[0], targets);
}

static attn_tensor *linear_cross_entropy(attn_tape *tape, attn_tensor *const *in)
{
    static const int64_t targets[6] = {1, -1, 4, 1, 0, 2};
    return attn_tensor_linear_cross_entropy(tape, in[0], in[1], targets);
}

static const tensor_case words[] = {
    {"embedding", embedding, 1, {{2, {5, 4}, 0}}, 0},
    {"cross_entropy", cross_entropy, 1, {{3, {2, 3, 5}, 0}}, 0},
    {"linear_cross_entropy", linear_cross_entropy, 2, {{3, {2, 3, 4}, 0}, {2, {5, 4}, 0}}, 0},
    {"linear_cross_entropy, frozen",
     linear_cross_entropy,
     2,
     {{2, {6, 4}, 0}, {2, {5, 4}, CONSTANT}},
     0},
    {"linear_cross_entropy of constants",
     linear_cross_entropy,
     2,
     {{2, {6, 4}, CONSTANT}, {2, {5, 4}, 0}},
     0},
};

/* ---- attention ---- */

CASE(sdpa, attn_tensor_sdpa(tape, NULL, in[0], in[1], in[2], NULL))

static attn_tensor *sdpa_terms(attn_tape *tape, attn_tensor *const *in)
{
    attn_sdpa_options options = attn_sdpa_options_init();
    attn_tensor_sdpa_terms terms = {.bias = in[3], .sinks = in[4], .alibi = in[5]};
    static const int64_t lengths[2] = {4, 5};
    int64_t copied[2] = {lengths[0], lengths[1]}; /* gone before backward: the call copies it */
    options.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    options.lengths_k = copied;
    options.softcap = 3.0;
    attn_tensor *out = attn_tensor_sdpa(tape, &options, in[0], in[1], in[2], &terms);
    copied[0] = copied[1] = 0;
    return out;
}

static attn_tensor *sdpa_heads(attn_tape *tape, attn_tensor *const *in)
{
    const int64_t split[4] = {2, 4, 6, 2}, joined[3] = {2, 4, 4};
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = ATTN_CAUSAL_TOP_LEFT;
    options.dropout = 0.25;
    options.dropout_seed = 5;
    attn_tensor *h = attn_tensor_transpose(tape, attn_tensor_reshape(tape, in[0], 4, split), 1, 2);
    attn_tensor *q = attn_tensor_slice(tape, h, 1, 0, 2), *k = attn_tensor_slice(tape, h, 1, 2, 4);
    attn_tensor *out =
        attn_tensor_sdpa(tape, &options, q, k, attn_tensor_slice(tape, h, 1, 4, 6), NULL);
    return attn_tensor_reshape(tape, attn_tensor_transpose(tape, out, 1, 2), 3, joined);
}

static attn_tensor *sdpa_joined(attn_tape *tape, attn_tensor *const *in)
{
    static const int64_t positions[6] = {3, 4, 5, 0, 7, 100};
    const attn_tensor_rotation r = {positions, 100.0, 2, ATTN_ROPE_INTERLEAVED};
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = ATTN_CAUSAL_TOP_LEFT;
    options.dropout = 0.25;
    options.dropout_seed = 5;
    return attn_tensor_sdpa_joined(tape, &options, &r, in[0], 2, 1);
}

/* What is rotated where it is: a result of a product. */
static attn_tensor *sdpa_projected(attn_tape *tape, attn_tensor *const *in)
{
    const attn_tensor_rotation r = {.theta = 100.0, .pairing = ATTN_ROPE_HALVES};
    return attn_tensor_sdpa_joined(tape, NULL, &r, attn_tensor_linear(tape, in[0], in[1], NULL), 2,
                                   1);
}

CASE(sdpa_plain, attn_tensor_sdpa_joined(tape, NULL, NULL, in[0], 1, 1))
CASE(sdpa_same, attn_tensor_sdpa(tape, NULL, in[0], in[1], in[1], NULL))

static const tensor_case attention[] = {
    {"sdpa", sdpa, 3, {{4, {2, 2, 3, 4}, 0}, {4, {2, 2, 5, 4}, 0}, {4, {2, 2, 5, 3}, 0}}, 0},
    {"sdpa, groups",
     sdpa,
     3,
     {{4, {1, 4, 3, 4}, 0}, {4, {1, 2, 5, 4}, 0}, {4, {1, 2, 5, 3}, 0}},
     0},
    {"sdpa, one tensor as k and v", sdpa_same, 2, {{4, {1, 2, 3, 4}, 0}, {4, {1, 2, 5, 4}, 0}}, 0},
    {"sdpa, terms",
     sdpa_terms,
     6,
     {{4, {2, 2, 3, 4}, 0},
      {4, {2, 2, 5, 4}, 0},
      {4, {2, 2, 5, 3}, 0},
      {3, {2, 3, 5}, 0},
      {1, {2}, 0},
      {1, {2}, POSITIVE}},
     0},
    {"sdpa, joined", sdpa_joined, 1, {{3, {2, 3, 16}, 0}}, 0},
    {"sdpa, joined, projected", sdpa_projected, 2, {{3, {2, 3, 5}, 0}, {2, {16, 5}, 0}}, 1e-4},
    {"sdpa, joined, not rotated", sdpa_plain, 1, {{3, {2, 3, 9}, 0}}, 0},
    {"sdpa of slices, with dropout", sdpa_heads, 1, {{3, {2, 4, 12}, 0}}, 0},
};

/* ---- the tests ---- */

#define RUN(list)                                                     \
    static void test_##list(void **state)                             \
    {                                                                 \
        (void)state;                                                  \
        for (size_t i = 0; i < sizeof list / sizeof *list; i++) {     \
            test_running("test_tensor_ops", test_seed(), (int64_t)i); \
            tensor_case_check(&list[i], test_seed() + i);             \
        }                                                             \
    }
RUN(elements)
RUN(products)
RUN(shapes)
RUN(along)
RUN(norms)
RUN(words)
RUN(attention)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements),  cmocka_unit_test(test_products),
        cmocka_unit_test(test_shapes),    cmocka_unit_test(test_along),
        cmocka_unit_test(test_norms),     cmocka_unit_test(test_words),
        cmocka_unit_test(test_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
