/* The n-th allocation fails: opening a model file, loading it, a session, tokens, sampling. */
#include "failing_alloc.h"

#include <attn/lm.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PROGRAM "test_failing_load"

static const char *path;

static attn_status converse(attn_context *context, attn_model *model)
{
    const attn_model_config *config = attn_model_get_config(model);
    attn_session_options options = attn_session_options_init();
    attn_session *session = NULL;
    const int32_t tokens[3] = {1, 2, 3};
    static float logits[1 << 16];
    assert_in_range(config->vocab, 4, 1 << 16);
    options.context = 32;
    options.prefill = 2;
    attn_status status = attn_session_create(context, model, &options, &session);
    assert_true((status == ATTN_OK) == (session != NULL));
    if (status == ATTN_OK) {
        status = attn_session_eval(session, tokens, 3, false, logits);
    }
    if (status == ATTN_OK) {
        status = attn_session_eval(session, tokens, 1, false, logits);
    }
    attn_session_destroy(session);
    return status;
}

static attn_status load_with(attn_activations activations)
{
    attn_context *context = NULL;
    attn_gguf *file = NULL;
    attn_model *model = NULL;
    attn_context_options c = attn_context_options_init();
    attn_model_options options = attn_model_options_init();
    options.activations = activations;
    c.threads = 2;
    attn_status status = attn_context_create(&c, &context);
    if (status == ATTN_OK) {
        status = attn_gguf_open(path, &file);
        assert_true((status == ATTN_OK) == (file != NULL));
    }
    if (status == ATTN_OK) {
        status = attn_model_load(context, file, &options, &model);
        assert_true((status == ATTN_OK) == (model != NULL));
    }
    attn_gguf_close(file);
    if (status == ATTN_OK) {
        status = converse(context, model);
    }
    attn_model_destroy(model);
    attn_context_destroy(context);
    return status;
}

static attn_status load(void)
{
    return load_with(ATTN_ACTIVATIONS_AUTO);
}

static attn_status load_f32(void)
{
    return load_with(ATTN_ACTIVATIONS_F32);
}

static attn_status sample(void)
{
    attn_sampler *sampler = NULL;
    attn_sampler_options options = attn_sampler_options_init();
    const float logits[5] = {1, 2, 3, 4, 5};
    attn_token_logprob best[3];
    int32_t id;
    options.temperature = 0.8;
    options.top_k = 3;
    options.top_p = 0.9;
    options.repeat_penalty = 1.1;
    attn_status status = attn_sampler_create(&options, 5, &sampler);
    assert_true((status == ATTN_OK) == (sampler != NULL));
    for (int n = 0; n < 3 && status == ATTN_OK; n++) {
        status = attn_sampler_sample(sampler, logits, &id);
    }
    if (status == ATTN_OK) {
        status = attn_logprobs_top(logits, 5, 3, best);
    }
    attn_sampler_destroy(sampler);
    return status;
}

static attn_status tokenize(void)
{
    attn_gguf *file = NULL;
    attn_tokenizer *tokenizer = NULL;
    int32_t ids[64];
    size_t count;
    attn_status status = attn_gguf_open(path, &file);
    if (status == ATTN_OK) {
        status = attn_tokenizer_create(file, &tokenizer);
        assert_true((status == ATTN_OK) == (tokenizer != NULL));
    }
    attn_gguf_close(file);
    if (status == ATTN_OK) {
        status = attn_tokenizer_encode(tokenizer, "Hello, wide world!", 18, true, ids, 64, &count);
    }
    attn_tokenizer_destroy(tokenizer);
    return status;
}

/* Written, read, converted. */
static attn_status tensors(void)
{
    static const float values[4] = {1, 2, 3, 4};
    char name[64];
    float back[4];
    attn_safetensors *file = NULL;
    const attn_safetensors_item items[2] = {
        {.name = "a", .dtype = ATTN_ST_F32, .ndim = 1, .shape = {4}, .data = values},
        {.name = "b",
         .dtype = ATTN_ST_BF16,
         .ndim = 1,
         .shape = {4},
         .data = values,
         .source = ATTN_F32}};
    const attn_safetensors_pair pair = {"key", "value"};
    snprintf(name, sizeof name, "/tmp/attn-failing-%ld", (long)getpid());
    attn_status status = attn_safetensors_save(name, items, 2, &pair, 1);
    if (status == ATTN_OK) {
        status = attn_safetensors_open(name, &file);
        assert_true((status == ATTN_OK) == (file != NULL));
    }
    if (status == ATTN_OK) {
        status = attn_safetensors_read(attn_safetensors_find(file, "b"), ATTN_F32, back, 4);
    }
    attn_safetensors_close(file);
    unlink(name);
    return status;
}

/* Learned from a text, as JSON and back. (jansson's own allocations are not ours to fail.) */
static attn_status learn(void)
{
    static const char text[] = "the cat and the hat and that cat";
    char *json = NULL;
    attn_tokenizer *tokenizer = NULL, *read = NULL, *characters = NULL;
    attn_status status = attn_tokenizer_train_bpe(text, sizeof text - 1, NULL, &tokenizer);
    if (status == ATTN_OK) {
        status = attn_tokenizer_to_json(tokenizer, &json);
    }
    if (status == ATTN_OK) {
        status = attn_tokenizer_from_json(json, strlen(json), &read);
        assert_true((status == ATTN_OK) == (read != NULL));
    }
    if (status == ATTN_OK) {
        status = attn_tokenizer_train_chars(text, sizeof text - 1, NULL, &characters);
    }
    attn_tokenizer_destroy(tokenizer);
    attn_tokenizer_destroy(read);
    attn_tokenizer_destroy(characters);
    free(json);
    return status;
}

/* A fine-tuned file, an adapter, and the adapter on its base. */
static attn_status tune(void)
{
    static float a[64], b[64];
    char names[2][64];
    attn_gguf *file = NULL, *merged = NULL;
    const attn_adapter_part part = {
        .name = "blk.0.attn_q.weight", .a = a, .b = b, .pairing = ATTN_ROPE_INTERLEAVED};
    attn_model_open_options options = attn_model_open_options_init();
    for (int i = 0; i < 2; i++) {
        snprintf(names[i], sizeof names[i], "/tmp/attn-failing-%ld-%d", (long)getpid(), i);
    }
    options.adapter = names[1];
    attn_status status = attn_gguf_open(path, &file);
    if (status == ATTN_OK) {
        status = attn_adapter_save(names[1], file, 1, 1, &part, 1);
    }
    if (status == ATTN_OK) {
        status = attn_model_open(path, &options, &merged);
        assert_true((status == ATTN_OK) == (merged != NULL));
    }
    if (status == ATTN_OK) {
        status = attn_gguf_write(names[0], merged, NULL, 0, "tuned");
    }
    attn_gguf_close(file);
    attn_gguf_close(merged);
    unlink(names[0]);
    unlink(names[1]);
    return status;
}

#define TEST(name)                                   \
    static void name##_survives(void **state)        \
    {                                                \
        (void)state;                                 \
        fail_every_allocation(PROGRAM, #name, name); \
    }
TEST(load)
TEST(load_f32)
TEST(sample)
TEST(tokenize)
TEST(tensors)
TEST(learn)
TEST(tune)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load_survives),    cmocka_unit_test(load_f32_survives),
        cmocka_unit_test(sample_survives),  cmocka_unit_test(tokenize_survives),
        cmocka_unit_test(tensors_survives), cmocka_unit_test(learn_survives),
        cmocka_unit_test(tune_survives),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return 2;
    }
    path = argv[1];
    return cmocka_run_group_tests_name("failing model load", tests, NULL, NULL);
}
