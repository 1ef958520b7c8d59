/*
 * test_session_cancel.c: evaluation that is cancelled or runs out of memory leaves no trace; memory is told before loading.
 *
 * repro: test_session_cancel tests/golden/tiny.gguf
 */
#include "expect.h"
#include "tiny.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { VOCAB = 300, CONTEXT = 512 };

static bool cancel_after(void *user)
{
    int *left = user;
    return (*left)-- <= 0;
}

/* However far a cancelled call came, the session goes on as if it had not been made. */
static void cancelled_calls_leave_no_trace(void **state)
{
    (void)state;
    int32_t ids[90];
    float wanted[VOCAB], got[VOCAB];
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_F32);
    tiny_ids(13, ids, 90);
    attn_session *session = tiny_session(&t, 200, 0, 16, ATTN_F32);
    expect_ok(attn_session_eval(session, ids, 20, false, NULL));
    expect_ok(attn_session_eval(session, ids + 20, 70, false, wanted));
    for (int calls = 0; calls < 10; calls++) { /* 5 blocks of 2 layers */
        int left = calls;
        expect_ok(attn_session_truncate(session, 20));
        attn_session_set_cancel(session, cancel_after, &left);
        assert_int_equal(attn_session_eval(session, ids + 20, 70, false, got), ATTN_ERR_CANCELLED);
        assert_int_equal(attn_session_position(session), 20);
        attn_session_set_cancel(session, NULL, NULL);
        expect_ok(attn_session_eval(session, ids + 20, 70, false, got));
        assert_memory_equal(got, wanted, sizeof got);
    }
    attn_session_destroy(session);
    tiny_close(&t);
}

/* A ring goes back too, where it still holds the window; else it is empty, never inconsistent. */
static void cancelled_rings_stay_consistent(void **state)
{
    (void)state;
    int32_t ids[90];
    float wanted[VOCAB], got[VOCAB];
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_F32);
    tiny_ids(14, ids, 90);
    attn_session *session = tiny_session(&t, 0, 12, 16, ATTN_F32);
    expect_ok(attn_session_eval(session, ids, 20, false, NULL));
    expect_ok(attn_session_eval(session, ids + 20, 16, false, wanted));
    for (int calls = 0; calls < 12; calls++) {
        int left = calls;
        int64_t count = calls < 2 ? 16 : 70;
        expect_ok(attn_session_truncate(session, 0));
        expect_ok(attn_session_eval(session, ids, 20, false, NULL));
        attn_session_set_cancel(session, cancel_after, &left);
        attn_status s = attn_session_eval(session, ids + 20, count, false, got);
        attn_session_set_cancel(session, NULL, NULL);
        if (s == ATTN_OK) {
            assert_true(calls >= 10);
            continue;
        }
        assert_int_equal(s, ATTN_ERR_CANCELLED);
        int64_t position = attn_session_position(session);
        assert_true(position == 20 || (position == 0 && count > 16));
        if (position == 0) {
            expect_ok(attn_session_eval(session, ids, 20, false, NULL));
        }
        expect_ok(attn_session_eval(session, ids + 20, 16, false, got));
        assert_memory_equal(got, wanted, sizeof got);
    }
    attn_session_destroy(session);
    tiny_close(&t);
}

static void loading_can_be_cancelled(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    attn_model_options options = attn_model_options_init();
    for (int calls = 0; calls < 2; calls++) {
        int left = calls;
        attn_model *model = t.model;
        options.cancel = cancel_after;
        options.cancel_user = &left;
        assert_int_equal(attn_model_load(t.context, t.file, &options, &model), ATTN_ERR_CANCELLED);
        assert_null(model);
    }
    tiny_close(&t);
}

/* ---- memory ---- */

typedef struct failing {
    int left; /* allocations until one fails; negative: none does */
    int64_t bytes;
} failing;

static void *failing_alloc(void *user, size_t size, size_t alignment)
{
    failing *f = user;
    if (f->left == 0) {
        return NULL;
    }
    f->left--;
    f->bytes += (int64_t)size;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void failing_free(void *user, void *pointer, size_t size)
{
    ((failing *)user)->bytes -= (int64_t)size;
    free(pointer);
}

/* The n-th allocation of a context fails: an error, and nothing stays behind. */
static void failing_memory_leaves_nothing(void **state)
{
    (void)state;
    attn_gguf *file;
    int32_t ids[20];
    float logits[VOCAB];
    tiny_ids(15, ids, 20);
    expect_ok(attn_gguf_open(tiny_path, &file));
    bool done = false;
    for (int n = 0; n < 1000 && !done; n++) {
        failing memory = {n, 0};
        attn_allocator allocator = {failing_alloc, failing_free, &memory};
        attn_context_options options = attn_context_options_init();
        options.allocator = &allocator;
        options.threads = 1;
        attn_context *context = NULL;
        attn_model *model = NULL;
        attn_session *session = NULL;
        attn_status s = attn_context_create(&options, &context);
        if (s == ATTN_OK) {
            s = attn_model_load(context, file, NULL, &model);
        }
        if (s == ATTN_OK) {
            s = attn_session_create(context, model, NULL, &session);
        }
        if (s == ATTN_OK) {
            s = attn_session_eval(session, ids, 20, false, logits);
        }
        if (s == ATTN_OK) {
            s = attn_session_eval(session, ids, 1, false, logits);
        }
        done = s == ATTN_OK;
        if (!done) {
            assert_int_equal(s, ATTN_ERR_NO_MEMORY);
            assert_true(session == NULL || attn_session_position(session) % 20 == 0);
        }
        attn_session_destroy(session);
        attn_model_destroy(model);
        attn_context_destroy(context);
        assert_int_equal(memory.bytes, 0);
    }
    assert_true(done);
    attn_gguf_close(file);
}

static void memory_is_told_before_loading(void **state)
{
    (void)state;
    size_t weights, cache, activations;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_AUTO);
    expect_ok(attn_model_memory(t.file, NULL, ATTN_F16, 100, 0, &weights, &cache, &activations));
    attn_session *session = tiny_session(&t, 100, 0, 0, ATTN_F16);
    assert_int_equal(cache, attn_session_kv_bytes(session));
    assert_int_equal(cache,
                     100 * attn_model_kv_bytes_per_token(attn_model_get_config(t.model), ATTN_F16));
    double ratio = (double)weights / (double)attn_model_bytes(t.model);
    if (!(ratio > 0.9 && ratio < 1.1)) {
        fprintf(stderr, "weights: told %zu, are %zu\n", weights, attn_model_bytes(t.model));
    }
    assert_true(ratio > 0.9 && ratio < 1.1);
    attn_session_destroy(session);
    tiny_close(&t);

    t = tiny_open(1, ATTN_ACTIVATIONS_F32);
    attn_model_options options = attn_model_options_init();
    options.activations = ATTN_ACTIVATIONS_F32;
    expect_ok(attn_model_memory(t.file, &options, ATTN_DTYPE_NONE, 0, 0, &weights, &cache, NULL));
    ratio = (double)weights / (double)attn_model_bytes(t.model);
    if (!(ratio > 0.9 && ratio < 1.1)) {
        fprintf(stderr, "f32 weights: told %zu, are %zu\n", weights, attn_model_bytes(t.model));
    }
    assert_true(ratio > 0.9 && ratio < 1.1);
    assert_int_equal(cache, CONTEXT * 2 * 2 * 32 * sizeof(float));
    tiny_close(&t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancelled_calls_leave_no_trace),
        cmocka_unit_test(cancelled_rings_stay_consistent),
        cmocka_unit_test(loading_can_be_cancelled),
        cmocka_unit_test(failing_memory_leaves_nothing),
        cmocka_unit_test(memory_is_told_before_loading),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: %s tests/golden/tiny.gguf\n", argv[0]);
        return 2;
    }
    tiny_path = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
