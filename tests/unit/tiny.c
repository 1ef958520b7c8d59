#include "tiny.h"
#include "expect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const char *tiny_path;

tiny tiny_open(int threads, attn_activations activations)
{
    tiny t = {0};
    attn_context_options options = attn_context_options_init();
    options.threads = threads;
    expect_ok(attn_context_create(&options, &t.context));
    expect_ok(attn_gguf_open(tiny_path, &t.file));
    expect_ok(attn_tokenizer_create(t.file, &t.tokenizer));
    attn_model_options model = attn_model_options_init();
    model.activations = activations;
    expect_ok(attn_model_load(t.context, t.file, &model, &t.model));
    return t;
}

void tiny_close(tiny *t)
{
    attn_model_destroy(t->model);
    attn_tokenizer_destroy(t->tokenizer);
    attn_gguf_close(t->file);
    attn_context_destroy(t->context);
    memset(t, 0, sizeof *t);
}

attn_session *tiny_session(const tiny *t, int64_t context, int64_t window, int64_t prefill,
                           attn_dtype kv)
{
    attn_session_options options = attn_session_options_init();
    options.context = context;
    options.window = window;
    options.prefill = prefill;
    options.kv = kv;
    attn_session *session = NULL;
    expect_ok(attn_session_create(t->context, t->model, &options, &session));
    return session;
}

uint64_t tiny_random(uint64_t *state, uint64_t n)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * 2685821657736338717u >> 33) % n;
}

void tiny_ids(uint64_t seed, int32_t *ids, int64_t count)
{
    uint64_t state = seed * 2 + 1;
    for (int64_t i = 0; i < count; i++) {
        ids[i] = (int32_t)(3 + tiny_random(&state, 297));
    }
}

float *tiny_floats(const attn_gguf *file, const attn_gguf_tensor *t, bool halves)
{
    attn_model_config c;
    expect_ok(attn_model_config_read(file, &c));
    int64_t n = t->dims[0] * t->dims[1];
    float *values = malloc((size_t)n * sizeof *values);
    assert_non_null(values);
    expect_ok(attn_gguf_dequantize(t, values, n));
    bool q = strstr(t->name, "attn_q") != NULL, k = strstr(t->name, "attn_k") != NULL;
    if (halves && (q || k)) {
        float *other = malloc((size_t)n * sizeof *other);
        assert_non_null(other);
        expect_ok(attn_rope_reorder(values, q ? c.heads_q : c.heads_kv, c.head_dim, c.rope_dims,
                                    t->dims[0], ATTN_ROPE_INTERLEAVED, other));
        free(values);
        values = other;
    }
    return values;
}

float *tiny_logits(attn_context *context, const attn_gguf *file)
{
    attn_model_options options = attn_model_options_init();
    attn_session_options s = attn_session_options_init();
    attn_model *model;
    attn_session *session;
    int32_t ids[TINY_TOKENS];
    options.activations = ATTN_ACTIVATIONS_F32;
    expect_ok(attn_model_load(context, file, &options, &model));
    s.context = TINY_TOKENS;
    expect_ok(attn_session_create(context, model, &s, &session));
    int64_t vocab = attn_model_get_config(model)->vocab;
    float *logits = malloc((size_t)(TINY_TOKENS * vocab) * sizeof *logits);
    assert_non_null(logits);
    tiny_ids(5, ids, TINY_TOKENS);
    expect_ok(attn_session_eval(session, ids, TINY_TOKENS, true, logits));
    attn_session_destroy(session);
    attn_model_destroy(model);
    return logits;
}
