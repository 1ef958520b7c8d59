/* The n-th allocation fails: tensors, a training step, checkpoints, and the same step again on the same tape. */
#include "failing_alloc.h"
#include "support.h"
#include "tensor_network.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PROGRAM "test_failing_tensor"

static attn_status steps(attn_tape *tape, network *n, attn_tensor *x)
{
    attn_status status = ATTN_OK;
    for (int step = 0; step < 2 && status == ATTN_OK; step++) {
        n->checkpointed = step == 1;
        attn_tensor *loss = network_loss(tape, n, x, 1, true);
        status = attn_tape_backward(tape, loss, NULL);
        if ((loss == NULL) != (attn_tape_status(tape) != ATTN_OK)) {
            return attn_fail(ATTN_ERR_ARGUMENT, "the result and the tape's status disagree");
        }
        for (int i = 0; i < PARAMETERS; i++) {
            attn_tensor_clear_grad(n->p[i]);
        }
        attn_tape_clear(tape);
    }
    return status;
}

static attn_status training(void)
{
    attn_context_options options = attn_context_options_init();
    attn_context *context = NULL;
    attn_tape *tape = NULL;
    attn_tensor *x = NULL;
    network n = {.seed = 1};
    const int64_t shape[3] = {1, 3, 16};
    options.threads = 2;
    attn_status status = attn_context_create(&options, &context);
    if (status == ATTN_OK) {
        status = attn_tape_create(context, &tape);
    }
    if (status == ATTN_OK) {
        status = attn_tensor_create(ATTN_F32, 3, shape, &x);
    }
    if (status == ATTN_OK) {
        attn_tensor_require_grad(x, true);
        status = network_make(&n, 16);
    }
    if (status == ATTN_OK) {
        status = steps(tape, &n, x);
    }
    attn_tape_destroy(tape);
    attn_tensor_release(x);
    network_free(&n);
    attn_context_destroy(context);
    return status;
}

/* Those that need memory of their own on the way. */
static attn_status operations(void)
{
    attn_context *context = NULL;
    attn_tape *tape = NULL;
    attn_tensor *x = NULL;
    const int64_t shape[3] = {4, 3, 8}, ids[3] = {1, 3, 0}, three[1] = {3}, targets[3] = {1, -1, 2};
    attn_status status = attn_context_create(NULL, &context);
    if (status == ATTN_OK) {
        status = attn_tape_create(context, &tape);
    }
    if (status == ATTN_OK) {
        status = attn_tensor_create(ATTN_F32, 3, shape, &x);
    }
    if (status == ATTN_OK) {
        attn_tensor_require_grad(x, true);
        const int64_t flat[2] = {4, 24};
        attn_tensor *table = attn_tensor_reshape(tape, x, 2, flat);
        attn_tensor *y = attn_tensor_embedding(tape, table, ids, 1, three);
        attn_tensor *many[8] = {y, y, y, y, y, y, y, y};
        y = attn_tensor_concat(tape, 8, many, 1);
        y = attn_tensor_gelu(tape, attn_tensor_slice(tape, y, 1, 5, 20), false);
        y = attn_tensor_softmax(tape, attn_tensor_transpose(tape, y, 0, 1), 0);
        y = attn_tensor_mul(tape, y, attn_tensor_max(tape, y, 1, true));
        y = attn_tensor_transpose(tape, attn_tensor_sub(tape, y, y), 0, 1);
        y = attn_tensor_cross_entropy(tape, attn_tensor_add_scalar(tape, y, 0.5), targets);
        status = attn_tape_backward(tape, y, NULL);
    }
    attn_tape_destroy(tape);
    attn_tensor_release(x);
    attn_context_destroy(context);
    return status;
}

/* A long sum of what each operation gives, each with its gradient. */
static attn_tensor *all_of(attn_tape *on, attn_tensor *x, attn_tensor *const *w)
{
    static const unsigned char keep[8] = {1, 0, 1, 1, 0, 1, 0, 0};
    const int64_t heads[4] = {2, 3, 2, 4}, eight[1] = {8}, six[2] = {6, 8};
    const attn_tensor_rotation rotation = {.theta = 100, .pairing = ATTN_ROPE_HALVES};
    const attn_view mask = attn_view_dense(keep, ATTN_BOOL, 1, eight);
    attn_tensor *y = attn_tensor_swiglu(on, x, attn_tensor_dropout(on, x, 0.5, 3));
    y = attn_tensor_layer_norm(on, attn_tensor_masked_fill(on, y, &mask, 0), w[2], w[2], 1e-5);
    y = attn_tensor_where(on, &mask, y, attn_tensor_rms_norm(on, x, w[2], 1e-5));
    attn_tensor *rows = attn_tensor_reshape(on, attn_tensor_transpose(on, y, 0, 1), 2, six);
    y = attn_tensor_linear_joined(on, y, 2, w, NULL);
    y = attn_tensor_sdpa_joined(on, NULL, &rotation, attn_tensor_scale(on, y, 0.5), 1, 1);
    attn_tensor *four = attn_tensor_transpose(on, attn_tensor_reshape(on, x, 4, heads), 1, 2);
    four = attn_tensor_rope(on, four, NULL, 100, 0, ATTN_ROPE_INTERLEAVED);
    const attn_tensor_sdpa_terms terms = {
        .bias = attn_tensor_slice(on, attn_tensor_slice(on, w[0], 0, 0, 3), -1, 0, 3)};
    four = attn_tensor_sdpa(on, NULL, four, four, four, &terms);
    attn_tensor *parts[] = {
        attn_tensor_sum_all(on, y),
        attn_tensor_sum_all(on, attn_tensor_mul(on, four, four)),
        attn_tensor_mean_all(on, attn_tensor_log_softmax(on, rows, 0)),
        attn_tensor_mean_all(on, attn_tensor_swiglu_joined(on, rows)),
        attn_tensor_sum(on, attn_tensor_sum_all(on, attn_tensor_div(on, rows, w[2])), 0, false),
        attn_tensor_mean_all(on,
                             attn_tensor_matmul(on, rows, attn_tensor_transpose(on, rows, 0, 1)))};
    return attn_tensor_mean_all(on, attn_tensor_concat(on, 6, parts, 0));
}

static attn_status more_operations(void)
{
    attn_context *context = NULL;
    attn_tape *tape = NULL;
    attn_tensor *x = NULL, *w[3] = {NULL};
    const int64_t shape[3] = {2, 3, 8}, eight[1] = {8}, rows[2] = {4, 8};
    attn_status status = attn_context_create(NULL, &context);
    if (status == ATTN_OK) {
        status = attn_tape_create(context, &tape);
    }
    if (status == ATTN_OK) {
        status = attn_tensor_create(ATTN_F32, 3, shape, &x);
    }
    if (status == ATTN_OK) {
        status = attn_tensor_create_joined(ATTN_F32, 2, rows, 8, w);
    }
    if (status == ATTN_OK) {
        status = attn_tensor_create(ATTN_F32, 1, eight, &w[2]);
    }
    if (status == ATTN_OK) {
        attn_view ones = attn_tensor_write(w[2]);
        for (int i = 0; i < 8; i++) {
            ((float *)ones.data)[i] = 1;
        }
        attn_tensor_require_grad(x, true);
        for (int i = 0; i < 3; i++) {
            attn_tensor_require_grad(w[i], true);
        }
        status = attn_tape_backward(tape, all_of(tape, x, w), NULL);
    }
    attn_tape_destroy(tape);
    attn_tensor_release(x);
    for (int i = 0; i < 3; i++) {
        attn_tensor_release(w[i]);
    }
    attn_context_destroy(context);
    return status;
}

static void test_more_operations(void **state)
{
    (void)state;
    fail_every_allocation(PROGRAM, "more operations", more_operations);
}

static void test_training(void **state)
{
    (void)state;
    fail_every_allocation(PROGRAM, "training", training);
}

static void test_operations(void **state)
{
    (void)state;
    fail_every_allocation(PROGRAM, "operations", operations);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_operations),
        cmocka_unit_test(test_more_operations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
