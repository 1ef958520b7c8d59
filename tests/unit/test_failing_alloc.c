/* The n-th allocation fails: attn_sdpa, caches, multi-head attention, linear layers, contexts. */
#define _POSIX_C_SOURCE 200809L /* posix_memalign */
#include "failing_alloc.h"
#include "support.h"

#include <attn/attn.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PROGRAM "test_failing_alloc"

static float memory[8][140000];

/* Contexts with two threads: the pool allocates too. */
static attn_status context_of(attn_context **context)
{
    attn_context_options options = attn_context_options_init();
    options.threads = 2;
    attn_status status = attn_context_create(&options, context);
    assert_true((status == ATTN_OK) == (*context != NULL));
    return status;
}

static attn_status attend(attn_dtype type, int64_t len_q, int64_t len_k, bool weights)
{
    attn_context *context = NULL;
    attn_sdpa_options o = attn_sdpa_options_init();
    attn_view q = attn_view_bhld(memory[0], type, 1, 4, len_q, 16);
    attn_view k = attn_view_bhld(memory[1], type, 1, 2, len_k, 16);
    attn_view v = attn_view_bhld(memory[2], type, 1, 2, len_k, 16);
    attn_view out = attn_view_bhld(memory[3], type, 1, 4, len_q, 16);
    attn_dtype exact = type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    attn_view lse = attn_view_dense(memory[4], exact, 3, (const int64_t[]){1, 4, len_q});
    attn_view w = attn_view_bhld(memory[5], exact, 1, 4, len_q, len_k);
    o.lse = &lse;
    o.weights = weights ? &w : NULL;
    o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    attn_status status = context_of(&context);
    if (status == ATTN_OK) {
        status = attn_sdpa(context, &o, &q, &k, &v, &out);
    }
    if (status == ATTN_OK) { /* a larger call grows the scratch */
        q.shape[2] = out.shape[2] = lse.shape[2] = w.shape[2] = 1;
        status = attn_sdpa(context, &o, &q, &k, &v, &out);
    }
    attn_context_destroy(context);
    return status;
}

static attn_status flash(void)
{
    return attend(ATTN_F32, 100, 130, true);
}

static attn_status decode(void)
{
    return attend(ATTN_BF16, 2, 2000, false);
}

static attn_status exact(void)
{
    return attend(ATTN_F64, 20, 30, true);
}

/* Forward, then gradients of everything there is, with dropout. */
static attn_status backward(attn_dtype type, int64_t len)
{
    attn_context *context = NULL;
    attn_sdpa_options o = attn_sdpa_options_init();
    attn_sdpa_gradients g = attn_sdpa_gradients_init();
    attn_view q = attn_view_bhld(memory[0], type, 1, 4, len, 16);
    attn_view k = attn_view_bhld(memory[1], type, 1, 2, len, 16);
    attn_view out = attn_view_bhld(memory[2], type, 1, 4, len, 16);
    attn_view lse = attn_view_dense(memory[3], type, 3, (const int64_t[]){1, 4, len});
    attn_view bias = attn_view_dense(memory[4], type, 3, (const int64_t[]){4, 1, len});
    g.dq = attn_view_bhld(memory[5], type, 1, 4, len, 16);
    g.dk = attn_view_bhld(memory[6], type, 1, 2, len, 16);
    g.dv = attn_view_bhld(memory[7], type, 1, 2, len, 16);
    g.dbias = attn_view_dense(memory[7] + 70000, type, 3, (const int64_t[]){4, 1, len});
    o.bias = &bias;
    o.dropout = 0.1;
    o.lse = &lse;
    attn_status status = context_of(&context);
    if (status == ATTN_OK) {
        status = attn_sdpa(context, &o, &q, &k, &k, &out);
    }
    o.lse = NULL;
    if (status == ATTN_OK) {
        status = attn_sdpa_backward(context, &o, &q, &k, &k, &out, &lse, &out, &g);
    }
    attn_context_destroy(context);
    return status;
}

static attn_status backward_f32(void)
{
    return backward(ATTN_F32, 300);
}

static attn_status backward_exact(void)
{
    return backward(ATTN_F64, 20);
}

static attn_status merge(void)
{
    attn_context *context = NULL;
    attn_view outs[2];
    attn_view lses[2];
    for (int n = 0; n < 2; n++) {
        outs[n] = attn_view_bhld(memory[n], ATTN_F32, 1, 2, 50, 16);
        lses[n] = attn_view_dense(memory[2 + n], ATTN_F32, 3, (const int64_t[]){1, 2, 50});
    }
    attn_view out = attn_view_bhld(memory[4], ATTN_F32, 1, 2, 50, 16);
    attn_status status = context_of(&context);
    if (status == ATTN_OK) {
        status = attn_merge(context, 2, outs, lses, NULL, &out, NULL);
    }
    attn_context_destroy(context);
    return status;
}

static attn_status cache_of(int64_t window, attn_dtype type)
{
    attn_context *context = NULL;
    attn_kv_cache *cache = NULL;
    attn_kv_cache_options options = attn_kv_cache_options_init();
    options.batch = 2;
    options.heads_kv = 2;
    options.dim_qk = 16;
    options.capacity = window ? 0 : 64;
    options.window = window;
    options.max_append = window ? 8 : 0;
    options.dtype = type;
    attn_view rows = attn_view_bhld(memory[0], ATTN_F32, 2, 2, 8, 16);
    attn_view q = attn_view_bhld(memory[1], ATTN_F32, 2, 4, 3, 16);
    attn_view out = attn_view_bhld(memory[2], ATTN_F32, 2, 4, 3, 16);
    attn_status status = context_of(&context);
    if (status == ATTN_OK) {
        status = attn_kv_cache_create(context, &options, &cache);
        assert_true((status == ATTN_OK) == (cache != NULL));
    }
    for (int n = 0; n < 4 && status == ATTN_OK; n++) {
        status = attn_kv_cache_append(cache, &rows, &rows, NULL);
    }
    if (status == ATTN_OK) {
        attn_kv_view kv = attn_kv_cache_view(cache);
        status = attn_sdpa_kv(context, NULL, &q, &kv, &out);
    }
    if (status == ATTN_OK) {
        status = attn_kv_cache_truncate(cache, 0, 30);
    }
    attn_kv_cache_destroy(cache);
    attn_context_destroy(context);
    return status;
}

static attn_status contiguous_cache(void)
{
    return cache_of(0, ATTN_F16);
}

static attn_status ring_cache(void)
{
    return cache_of(10, ATTN_F32);
}

static attn_status multihead_with(attn_context *context, attn_multihead *layer,
                                  attn_kv_cache *cache)
{
    attn_multihead_forward_options f = attn_multihead_forward_options_init();
    const int64_t shape[3] = {2, 5, 32};
    attn_view x = attn_view_dense(memory[0], ATTN_F32, 3, shape);
    attn_view y = attn_view_dense(memory[1], ATTN_F32, 3, shape);
    attn_view w = attn_view_dense(memory[2], ATTN_F32, 3, (const int64_t[]){2, 5, 5});
    f.need_weights = ATTN_WEIGHTS_AVERAGED;
    f.weights = &w;
    attn_status status = attn_multihead_forward(context, layer, &f, &x, NULL, NULL, &y);
    if (status == ATTN_OK) {
        f.need_weights = ATTN_WEIGHTS_NONE;
        f.weights = NULL;
        f.cache = cache;
        status = attn_multihead_forward(context, layer, &f, &x, NULL, NULL, &y);
    }
    if (status == ATTN_OK) {
        attn_view bias = attn_view_dense(memory[3], ATTN_F32, 1, &shape[2]);
        status = attn_multihead_set_parameter(layer, "out_proj.bias", &bias);
    }
    return status;
}

/* Forward with results kept, and its gradients: some allocations are of the first call alone. */
static attn_status multihead_learns(attn_context *context, attn_multihead *layer)
{
    attn_multihead_saved *saved = NULL;
    attn_multihead_forward_options f = attn_multihead_forward_options_init();
    attn_multihead_gradients g = attn_multihead_gradients_init();
    const int64_t shape[3] = {2, 5, 32}, lengths[2] = {3, 5};
    attn_view x = attn_view_dense(memory[0], ATTN_F32, 3, shape);
    attn_view y = attn_view_dense(memory[1], ATTN_F32, 3, shape);
    g.dquery = attn_view_dense(memory[2], ATTN_F32, 3, shape);
    f.lengths_k = lengths;
    attn_status status = attn_multihead_saved_create(context, &saved);
    assert_true((status == ATTN_OK) == (saved != NULL));
    f.saved = saved;
    if (status == ATTN_OK) {
        status = attn_multihead_forward(context, layer, &f, &x, NULL, NULL, &y);
    }
    if (status == ATTN_OK) {
        status = attn_multihead_backward(context, layer, saved, &f, &x, NULL, NULL, &y, &g);
    }
    attn_multihead_saved_destroy(saved);
    return status;
}

static attn_status multihead(void)
{
    attn_context *context = NULL;
    attn_multihead *layer = NULL;
    attn_kv_cache *cache = NULL;
    attn_multihead_options options = attn_multihead_options_init();
    attn_kv_cache_options c = attn_kv_cache_options_init();
    options.embed_dim = 32;
    options.num_heads = 4;
    options.num_kv_heads = 2;
    c.batch = 2;
    c.heads_kv = 2;
    c.dim_qk = 8;
    c.capacity = 16;
    c.dtype = ATTN_F32;
    attn_status status = context_of(&context);
    if (status == ATTN_OK) {
        status = attn_multihead_create(context, &options, &layer);
        assert_true((status == ATTN_OK) == (layer != NULL));
    }
    if (status == ATTN_OK) {
        status = attn_kv_cache_create(context, &c, &cache);
    }
    if (status == ATTN_OK) {
        status = multihead_with(context, layer, cache);
    }
    if (status == ATTN_OK) {
        status = multihead_learns(context, layer);
    }
    attn_kv_cache_destroy(cache);
    attn_multihead_destroy(layer);
    attn_context_destroy(context);
    return status;
}

static attn_status linear(void)
{
    attn_context *context = NULL;
    attn_linear *layer = NULL;
    attn_linear_part parts[2] = {{ATTN_WEIGHT_Q8_0, memory[0], 20},
                                 {ATTN_WEIGHT_Q8_0, memory[1], 7}};
    attn_view x = attn_view_matrix(memory[2], ATTN_F32, 30, 64, 64);
    attn_view y = attn_view_matrix(memory[3], ATTN_F32, 30, 27, 27);
    attn_status status = context_of(&context);
    if (status == ATTN_OK) {
        status = attn_linear_create(context, NULL, 64, 2, parts, memory[4], &layer);
        assert_true((status == ATTN_OK) == (layer != NULL));
    }
    if (status == ATTN_OK) {
        status = attn_linear_forward(context, layer, &x, &y);
    }
    attn_linear_destroy(layer);
    attn_context_destroy(context);
    return status;
}

#define TEST(name)                                   \
    static void name##_survives(void **state)        \
    {                                                \
        (void)state;                                 \
        fail_every_allocation(PROGRAM, #name, name); \
    }
TEST(flash)
TEST(decode)
TEST(exact)
TEST(backward_f32)
TEST(backward_exact)
TEST(merge)
TEST(contiguous_cache)
TEST(ring_cache)
TEST(multihead)
TEST(linear)

/* ---- the allocator hook ------------------------------------------------------------------------ */

typedef struct hook {
    int64_t calls, fail_at, live;
} hook;

static void *hook_alloc(void *user, size_t size, size_t alignment)
{
    hook *h = user;
    void *pointer = NULL;
    if (++h->calls == h->fail_at || posix_memalign(&pointer, alignment, size) != 0) {
        return NULL;
    }
    h->live++;
    return pointer;
}

static void hook_free(void *user, void *pointer, size_t size)
{
    hook *h = user;
    (void)size;
    h->live--;
    free(pointer);
}

static attn_status through_the_hook(hook *h)
{
    attn_context *context = NULL;
    attn_kv_cache *cache = NULL;
    attn_allocator allocator = {hook_alloc, hook_free, h};
    attn_context_options options = attn_context_options_init();
    attn_kv_cache_options c = attn_kv_cache_options_init();
    options.threads = 2;
    options.allocator = &allocator;
    c.batch = 1;
    c.heads_kv = 2;
    c.dim_qk = 16;
    c.capacity = 64;
    c.dtype = ATTN_F32;
    attn_view rows = attn_view_bhld(memory[0], ATTN_F32, 1, 2, 60, 16);
    attn_view q = attn_view_bhld(memory[1], ATTN_F32, 1, 4, 40, 16);
    attn_view out = attn_view_bhld(memory[2], ATTN_F32, 1, 4, 40, 16);
    attn_status status = attn_context_create(&options, &context);
    if (status == ATTN_OK) {
        status = attn_kv_cache_create(context, &c, &cache);
    }
    if (status == ATTN_OK) {
        status = attn_kv_cache_append(cache, &rows, &rows, NULL);
    }
    if (status == ATTN_OK) {
        attn_kv_view kv = attn_kv_cache_view(cache);
        status = attn_sdpa_kv(context, NULL, &q, &kv, &out);
    }
    attn_kv_cache_destroy(cache);
    attn_context_destroy(context);
    return status;
}

static void the_allocator_hook_may_fail_any_time(void **state)
{
    (void)state;
    hook h = {0};
    assert_int_equal(through_the_hook(&h), ATTN_OK);
    int64_t all = h.calls;
    assert_true(all >= 2 && h.live == 0); /* the cache and the scratch at least */
    for (int64_t n = 1; n <= all; n++) {
        h = (hook){.fail_at = n};
        assert_int_equal(through_the_hook(&h), ATTN_ERR_NO_MEMORY);
        assert_true(strlen(attn_last_error()) > 10);
        assert_int_equal(h.live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(flash_survives),
        cmocka_unit_test(decode_survives),
        cmocka_unit_test(exact_survives),
        cmocka_unit_test(backward_f32_survives),
        cmocka_unit_test(backward_exact_survives),
        cmocka_unit_test(merge_survives),
        cmocka_unit_test(contiguous_cache_survives),
        cmocka_unit_test(ring_cache_survives),
        cmocka_unit_test(multihead_survives),
        cmocka_unit_test(linear_survives),
        cmocka_unit_test(the_allocator_hook_may_fail_any_time),
    };
    return cmocka_run_group_tests_name("failing allocations", tests, NULL, NULL);
}
