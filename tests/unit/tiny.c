#include "tiny.h"
#include "expect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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
