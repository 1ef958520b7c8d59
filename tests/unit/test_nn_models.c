/**
 * test_nn_models.c: what models must do whatever their weights are.
 */
#include "nn_check.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { BATCH = 2, LEN = 12, VOCAB = 50 };

static void some_ids(int64_t *ids)
{
    for (int i = 0; i < BATCH * LEN; i++) {
        ids[i] = (i * 37 + 11) % VOCAB;
    }
}

/* A token's change leaves every bit of the logits before it, and moves those from it on. */
static void check_causal(attn_gpt_options options)
{
    attn_module *gpt = nn_gpt(options, 2);
    attn_tape *tape = nn_tape(context);
    int64_t ids[BATCH * LEN];
    some_ids(ids);
    attn_tensor *before = attn_tensor_retain(attn_gpt_logits(tape, gpt, ids, BATCH, LEN));
    nn_ok(attn_tape_status(tape), "logits");
    for (int t = 0; t < LEN; t += 3) {
        attn_tape_clear(tape);
        some_ids(ids);
        ids[t] = (ids[t] + 1) % VOCAB;
        attn_tensor *after = attn_gpt_logits(tape, gpt, ids, BATCH, LEN);
        const float *a = attn_tensor_view(before).data, *b = attn_tensor_view(after).data;
        assert_memory_equal(a, b, (size_t)t * VOCAB * sizeof *a);
        for (int i = t; i < LEN; i++) {
            assert_memory_not_equal(a + i * VOCAB, b + i * VOCAB, VOCAB * sizeof *a);
        }
        assert_memory_equal(a + LEN * VOCAB, b + LEN * VOCAB, LEN * VOCAB * sizeof *a);
    }
    attn_tensor_release(before);
    attn_tape_destroy(tape);
    attn_module_destroy(gpt);
}

static void test_causal(void **unused)
{
    (void)unused;
    attn_gpt_options options = attn_gpt_options_init();
    options.heads_kv = 2;
    check_causal(options);
    check_causal(nn_gpt2_options());
    options.position = ATTN_POSITION_ALIBI;
    check_causal(options);
}

static void test_all_learn(void **unused)
{
    (void)unused;
    attn_gpt_options kinds[2] = {attn_gpt_options_init(), nn_gpt2_options()};
    for (int k = 0; k < 2; k++) {
        attn_module *gpt = nn_gpt(kinds[k], 4);
        nn_shake(gpt, 1); /* at the start, biases of keys get exact zeros */
        attn_tape *tape = nn_tape(context);
        int64_t ids[BATCH * LEN], targets[BATCH * LEN];
        some_ids(ids);
        for (int i = 0; i < BATCH * LEN; i++) {
            targets[i] = (ids[i] * 3 + 1) % VOCAB;
        }
        attn_tensor *loss = attn_gpt_loss(tape, gpt, ids, targets, BATCH, LEN);
        nn_ok(attn_tape_backward(tape, loss, NULL), "backward");
        for (int i = 0; i < attn_module_parameter_count(gpt); i++) {
            attn_tensor *grad = attn_tensor_grad(attn_module_parameter(gpt, i));
            assert_non_null(grad);
            const float *g = attn_tensor_view(grad).data;
            int64_t count = attn_tensor_count(grad), zeros = 0;
            for (int64_t j = 0; j < count; j++) {
                zeros += g[j] == 0.0f;
            }
            if (zeros == count) {
                fail_msg("%s has gradient 0", attn_module_parameter_name(gpt, i));
            }
        }
        attn_tape_destroy(tape);
        attn_module_destroy(gpt);
    }
}

/* One step's loss and gradients: the same bits on 1 and 4 threads, and from two models of one seed; others from another seed. */
static float run_step(int threads, uint64_t seed, bool checkpoint, float *grads)
{
    attn_context *own = nn_context(threads);
    attn_gpt_options options = attn_gpt_options_init();
    options.vocab = VOCAB;
    options.layers = 2;
    options.dim = 64;
    options.context = LEN;
    options.dropout = 0.1;
    options.seed = seed;
    options.checkpoint = checkpoint;
    attn_module *gpt;
    nn_ok(attn_gpt_create(&options, &gpt), "gpt");
    attn_module_set_training(gpt, true);
    attn_module_set_dropout_seed(gpt, 4);
    attn_tape *tape = nn_tape(own);
    int64_t ids[BATCH * LEN];
    some_ids(ids);
    attn_tensor *loss = attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN);
    nn_ok(attn_tape_backward(tape, loss, NULL), "backward");
    float value = (float)attn_tensor_item(loss);
    attn_view q = attn_tensor_view(attn_tensor_grad(
        attn_module_find_parameter(gpt, "model.layers.0.self_attn.q_proj.weight")));
    memcpy(grads, q.data, 64 * 64 * sizeof *grads);
    attn_tape_destroy(tape);
    attn_module_destroy(gpt);
    attn_context_destroy(own);
    return value;
}

static void test_same_bits(void **unused)
{
    (void)unused;
    static float first[64 * 64], other[64 * 64];
    float loss = run_step(1, 5, false, first);
    assert_true(run_step(4, 5, false, other) == loss);
    assert_memory_equal(first, other, sizeof first);
    assert_true(run_step(3, 5, true, other) == loss);
    assert_memory_equal(first, other, sizeof first);
    assert_true(run_step(1, 6, false, other) != loss);
}

static void test_dropout_modes(void **unused)
{
    (void)unused;
    attn_gpt_options options = attn_gpt_options_init();
    options.dropout = 0.5;
    attn_module *gpt = nn_gpt(options, 2);
    attn_tape *tape = nn_tape(context);
    int64_t ids[BATCH * LEN];
    some_ids(ids);
    double loss[6];
    for (int i = 0; i < 6; i++) {
        attn_module_set_training(gpt, i >= 2);
        if (i == 2 || i == 4) {
            attn_module_set_dropout_seed(gpt, 9);
        }
        loss[i] = attn_tensor_item(attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN));
    }
    assert_true(loss[0] == loss[1]); /* evaluation: no dropout */
    assert_true(loss[2] != loss[0]);
    assert_true(loss[3] != loss[2]);                       /* the next call has masks of its own */
    assert_true(loss[4] == loss[2] && loss[5] == loss[3]); /* and the seed repeats them */
    attn_tape_destroy(tape);
    attn_module_destroy(gpt);
}

/* Padding is seen by nobody: rows before a length do not depend on what stands after it. */
static void test_bert_padding(void **unused)
{
    (void)unused;
    attn_bert_options options = attn_bert_options_init();
    options.vocab = VOCAB;
    options.layers = 2;
    options.context = LEN;
    attn_module *bert;
    nn_ok(attn_bert_create(&options, &bert), "bert");
    attn_tape *tape = nn_tape(context);
    int64_t ids[BATCH * LEN], lengths[BATCH] = {12, 7};
    some_ids(ids);
    attn_tensor *a = attn_bert_forward(tape, bert, ids, NULL, lengths, BATCH, LEN);
    for (int i = LEN + 7; i < 2 * LEN; i++) {
        ids[i] = 0;
    }
    attn_tensor *b = attn_bert_forward(tape, bert, ids, NULL, lengths, BATCH, LEN);
    nn_ok(attn_tape_status(tape), "bert");
    assert_memory_equal(attn_tensor_view(a).data, attn_tensor_view(b).data,
                        (size_t)(LEN + 7) * 128 * sizeof(float));
    attn_tape_destroy(tape);
    attn_module_destroy(bert);
}

/* The adapter changes nothing at first; merged, the base says what base and adapter said. */
static void check_lora(attn_gpt_options options)
{
    attn_module *gpt = nn_gpt(options, 2);
    attn_tape *tape = nn_tape(context);
    int64_t ids[BATCH * LEN];
    some_ids(ids);
    double plain = attn_tensor_item(attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN));
    attn_lora_options lora = attn_lora_options_init();
    int count = 0, parameters = attn_module_parameter_count(gpt);
    nn_ok(attn_lora_apply(gpt, &lora, &count), "lora");
    assert_int_equal(attn_module_parameter_count(gpt), parameters + 2 * count);
    assert_true(attn_tensor_item(attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN)) == plain);
    assert_int_equal(attn_lora_apply(gpt, &lora, NULL), ATTN_ERR_ARGUMENT);
    for (int i = parameters; i < parameters + 2 * count; i++) {
        assert_non_null(strstr(attn_module_parameter_name(gpt, i), ".lora_"));
        assert_true(attn_tensor_requires_grad(attn_module_parameter(gpt, i)));
        attn_view view = attn_tensor_write(attn_module_parameter(gpt, i));
        nn_ok(attn_fill_normal(NULL, 8, (uint64_t)i, 0.0, 0.2, &view), "fill");
    }
    assert_false(attn_tensor_requires_grad(attn_module_parameter(gpt, 0)));
    attn_tensor *beside = attn_gpt_logits(tape, gpt, ids, BATCH, LEN);
    double adapted = attn_tensor_item(attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN));
    assert_true(adapted != plain);
    nn_ok(attn_lora_merge(context, gpt), "merge");
    assert_int_equal(attn_module_parameter_count(gpt), parameters);
    attn_tensor *merged = attn_gpt_logits(tape, gpt, ids, BATCH, LEN);
    nn_ok(attn_tape_status(tape), "logits");
    const float *a = attn_tensor_view(beside).data, *b = attn_tensor_view(merged).data;
    for (int i = 0; i < BATCH * LEN * VOCAB; i++) {
        assert_true(a[i] - b[i] < 1e-5f && b[i] - a[i] < 1e-5f);
    }
    attn_tape_destroy(tape);
    attn_module_destroy(gpt);
}

static void test_lora(void **unused)
{
    (void)unused;
    check_lora(attn_gpt_options_init());
    check_lora(nn_gpt2_options());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_causal),       cmocka_unit_test(test_all_learn),
        cmocka_unit_test(test_same_bits),    cmocka_unit_test(test_dropout_modes),
        cmocka_unit_test(test_bert_padding), cmocka_unit_test(test_lora),
    };
    return cmocka_run_group_tests_name("models", tests, nn_start, nn_stop);
}
