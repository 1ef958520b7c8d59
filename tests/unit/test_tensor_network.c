/*
 * test_tensor_network.c: a small network, step after step: checkpoints give the same bits, memory is used again, threads change nothing.
 */
#include "support.h"
#include "tensor_network.h"
#include "tensor_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Loss and gradients, copied out. */
typedef struct outcome {
    double loss;
    uint64_t hash;
} outcome;

static outcome network_run(attn_tape *t, network *n, attn_tensor *x, int blocks, bool nested)
{
    outcome o = {0};
    attn_tensor *loss = network_loss(t, n, x, blocks, nested);
    attn_status status = attn_tape_backward(t, loss, NULL);
    if (status != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    o.loss = attn_tensor_item(loss);
    o.hash = 14695981039346656037u;
    for (int i = -1; i < PARAMETERS; i++) {
        attn_tensor *p = i < 0 ? x : n->p[i];
        const unsigned char *bytes = attn_tensor_view(attn_tensor_grad(p)).data;
        for (int64_t k = 0; k < attn_tensor_count(p) * (int64_t)sizeof(float); k++) {
            o.hash = (o.hash ^ bytes[k]) * 1099511628211u;
        }
        attn_tensor_clear_grad(p);
    }
    attn_tape_clear(t);
    return o;
}

static void test_checkpoints(void **state)
{
    (void)state;
    network n;
    assert_int_equal(network_make(&n, 16), ATTN_OK);
    attn_tensor *x = leaf(3, 2, 9, 16, 5);
    outcome plain = network_run(tape, &n, x, 4, false);
    n.checkpointed = true;
    outcome saved = network_run(tape, &n, x, 4, false);
    outcome nested = network_run(tape, &n, x, 2, true);
    assert_true(plain.loss > 0);
    assert_float_equal(plain.loss, saved.loss, 0);
    assert_true(plain.hash == saved.hash);
    assert_true(plain.hash == nested.hash);

    attn_tensor_require_grad(x, false); /* only parameters behind `user` want gradients */
    attn_tensor *loss = network_loss(tape, &n, x, 2, false);
    assert_int_equal(attn_tape_backward(tape, loss, NULL), ATTN_OK);
    assert_non_null(attn_tensor_grad(n.p[2]));
    attn_tape_clear(tape);

    loss = network_loss(tape, &n, x, 1, false);
    attn_tensor_write(x);
    EXPECT_STATUS(attn_tape_backward(tape, loss, NULL), ATTN_ERR_ARGUMENT, "checkpoint", "input 0");
    network_free(&n);
    attn_tape_clear(tape);
    attn_tensor_release(x);
}

static attn_tensor *fails(void *user, attn_tape *t, attn_tensor *const *in, int count)
{
    int *calls = user;
    (void)count;
    if ((*calls)++ == 0) {
        return attn_tensor_exp(t, in[0]);
    }
    return attn_tensor_matmul(t, in[0], in[0]);
}

static void test_checkpoint_failures(void **state)
{
    (void)state;
    attn_tensor *x = leaf(2, 2, 3, 0, 5);
    int calls = 1;
    EXPECT_FAILED(attn_tensor_checkpoint(tape, fails, &calls, &x, 1), ATTN_ERR_SHAPE, "matmul");
    calls = 0;
    attn_tensor *y = attn_tensor_sum_all(tape, attn_tensor_checkpoint(tape, fails, &calls, &x, 1));
    EXPECT_STATUS(attn_tape_backward(tape, y, NULL), ATTN_ERR_SHAPE, "matmul");
    attn_tape_clear(tape);
    EXPECT_FAILED(attn_tensor_checkpoint(tape, NULL, &calls, &x, 1), ATTN_ERR_ARGUMENT, "function");
    EXPECT_FAILED(attn_tensor_checkpoint(tape, fails, &calls, &x, 0), ATTN_ERR_ARGUMENT, "input");
    attn_tensor_release(x);
}

static size_t bytes_of(network *n, attn_tensor *x, bool checkpointed)
{
    attn_tape *own = NULL;
    assert_int_equal(attn_tape_create(context, &own), ATTN_OK);
    n->checkpointed = checkpointed;
    network_run(own, n, x, 8, false);
    size_t first = attn_tape_bytes(own);
    for (int i = 0; i < 5; i++) {
        network_run(own, n, x, 8, false);
        assert_int_equal(attn_tape_bytes(own),
                         first); /* every step lives off the first one's memory */
    }
    network_run(own, n, x, 1, false);
    for (int i = 0; i < 20; i++) {
        attn_tape_clear(own);
    }
    assert_int_equal(attn_tape_bytes(own), 0); /* what is not used any more goes */
    attn_tape_destroy(own);
    return first;
}

static void test_memory(void **state)
{
    (void)state;
    network n;
    assert_int_equal(network_make(&n, 32), ATTN_OK);
    attn_tensor *x = leaf(3, 2, 24, 32, 5);
    size_t all = bytes_of(&n, x, false), few = bytes_of(&n, x, true);
    if (few * 3 > all) {
        fail_msg("8 blocks: %zu bytes, with checkpoints %zu", all, few);
    }
    network_free(&n);
    attn_tensor_release(x);
}

static void test_threads(void **state)
{
    (void)state;
    network n;
    assert_int_equal(network_make(&n, 64), ATTN_OK);
    attn_tensor *x = leaf(3, 4, 72, 64, 5);
    outcome first = {0};
    for (int threads = 1; threads <= 5; threads += 2) {
        attn_context *own = test_context(threads);
        attn_tape *t = NULL;
        assert_int_equal(attn_tape_create(own, &t), ATTN_OK);
        for (int again = 0; again < (threads == 3 ? 2 : 1); again++) {
            outcome o = network_run(t, &n, x, 2, false);
            first = first.hash ? first : o;
            assert_float_equal(o.loss, first.loss, 0);
            assert_true(o.hash == first.hash);
        }
        attn_tape_destroy(t);
        attn_context_destroy(own);
    }
    network_free(&n);
    attn_tensor_release(x);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, tape_setup, tape_teardown)
    const struct CMUnitTest tests[] = {
        TEST(checkpoints),
        TEST(checkpoint_failures),
        TEST(memory),
        TEST(threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
