/**
 * test_failing_nn.c: models, training and adapters survive any allocation that fails.
 */
#include "failing_alloc.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <attn/lm.h>

#define PROGRAM "test_failing_nn"

enum { VOCAB = 11, LEN = 6 };

static const int64_t ids[LEN] = {1, 4, 10, 2, 0, 7};

static attn_gpt_options small(bool gpt2)
{
    attn_gpt_options options = attn_gpt_options_init();
    options.vocab = VOCAB;
    options.layers = 2;
    options.dim = 16;
    options.heads = 2;
    options.context = LEN;
    options.norm = gpt2 ? ATTN_NORM_LAYER : ATTN_NORM_RMS;
    options.mlp = gpt2 ? ATTN_MLP_GELU_TANH : ATTN_MLP_SWIGLU;
    options.position = gpt2 ? ATTN_POSITION_ALIBI : ATTN_POSITION_ROPE;
    options.bias = gpt2;
    return options;
}

/* One step of a model, with what it can be asked for on the way. */
static attn_status step(attn_module *gpt, attn_context *context, attn_optimizer *optimizer)
{
    attn_tape *tape = NULL;
    attn_status status = attn_tape_create(context, &tape);
    if (status == ATTN_OK) {
        attn_tensor *loss = attn_gpt_loss(tape, gpt, ids, ids, 1, LEN);
        status = attn_tape_backward(tape, loss, NULL);
    }
    if (status == ATTN_OK) {
        status = attn_optimizer_step(optimizer, NULL, NULL);
    }
    attn_tape_destroy(tape);
    return status;
}

static attn_status train(bool gpt2, bool lora)
{
    attn_context_options one = attn_context_options_init();
    one.threads = 1;
    attn_context *context = NULL;
    attn_module *gpt = NULL;
    attn_optimizer *optimizer = NULL;
    attn_gpt_options options = small(gpt2);
    options.dropout = 0.1;
    options.checkpoint = lora;
    attn_status status = attn_context_create(&one, &context);
    if (status == ATTN_OK) {
        status = attn_gpt_create(&options, &gpt);
        assert_true((status == ATTN_OK) == (gpt != NULL));
    }
    attn_module_set_training(gpt, true);
    if (status == ATTN_OK && lora) {
        status = attn_lora_apply(gpt, NULL, NULL);
        if (status != ATTN_OK) { /* all or nothing */
            assert_int_equal(attn_module_element_count(gpt, false),
                             attn_gpt_element_count(&options));
        }
    }
    if (status == ATTN_OK) {
        status = attn_optimizer_create(context, NULL, &optimizer);
    }
    if (status == ATTN_OK) {
        status = attn_optimizer_add_module(optimizer, gpt);
    }
    if (status == ATTN_OK) {
        status = step(gpt, context, optimizer);
    }
    if (status == ATTN_OK && lora) {
        status = attn_lora_merge(context, gpt);
    }
    attn_optimizer_destroy(optimizer);
    attn_module_destroy(gpt);
    attn_context_destroy(context);
    return status;
}

static attn_status llama(void)
{
    return train(false, false);
}

static attn_status gpt2(void)
{
    return train(true, false);
}

static attn_status adapters(void)
{
    return train(false, true);
}

static attn_status bert(void)
{
    attn_bert_options options = attn_bert_options_init();
    options.vocab = VOCAB;
    options.layers = 1;
    options.dim = 16;
    options.heads = 2;
    attn_context *context = NULL;
    attn_tape *tape = NULL;
    attn_module *module = NULL;
    attn_status status = attn_context_create(NULL, &context);
    if (status == ATTN_OK) {
        status = attn_tape_create(context, &tape);
    }
    if (status == ATTN_OK) {
        status = attn_bert_create(&options, &module);
    }
    if (status == ATTN_OK) {
        attn_bert_forward(tape, module, ids, NULL, NULL, 1, LEN);
        status = attn_tape_status(tape);
    }
    attn_module_destroy(module);
    attn_tape_destroy(tape);
    attn_context_destroy(context);
    return status;
}

#define TEST(name)                                   \
    static void name##_survives(void **state)        \
    {                                                \
        (void)state;                                 \
        fail_every_allocation(PROGRAM, #name, name); \
    }
TEST(llama)
TEST(gpt2)
TEST(adapters)
TEST(bert)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_survives),
        cmocka_unit_test(gpt2_survives),
        cmocka_unit_test(adapters_survives),
        cmocka_unit_test(bert_survives),
    };
    return cmocka_run_group_tests_name("failing models", tests, NULL, NULL);
}
