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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
