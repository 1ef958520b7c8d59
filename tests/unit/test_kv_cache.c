/*
 * Key/value caches: what they hold and where, what they refuse and that nothing has changed then; and what they are
 * for: attention through a cache, in chunks of any size, gives what attention over everything gives.
 */
#include "fixture.h"

#include <attn/kv_cache.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static attn_kv_cache *make(attn_context *context, int64_t batch, int64_t heads, int64_t dim_qk,
                           int64_t dim_v, int64_t capacity, int64_t window, int64_t max_append,
                           attn_dtype dtype)
{
    attn_kv_cache_options o = attn_kv_cache_options_init();
    attn_kv_cache *cache = NULL;
    o.batch = batch;
    o.heads_kv = heads;
    o.dim_qk = dim_qk;
    o.dim_v = dim_v;
    o.capacity = capacity;
    o.window = window;
    o.max_append = max_append;
    o.dtype = dtype;
    if (attn_kv_cache_create(context, &o, &cache) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    return cache;
}

/* Rows from … from+n−1 of a [batch, heads, len, dim] view. */
static attn_view rows(const attn_view *view, int64_t from, int64_t n)
{
    attn_view part = *view;
    part.data = (char *)part.data + (size_t)(from * part.stride[2]) * attn_dtype_size(part.dtype);
    part.shape[2] = n;
    return part;
}

static void append(attn_kv_cache *cache, const attn_view *k, const attn_view *v, int64_t from,
                   int64_t n)
{
    attn_view k_part = rows(k, from, n);
    attn_view v_part = rows(v, from, n);
    if (attn_kv_cache_append(cache, &k_part, &v_part, NULL) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
}

/* Element of a held key: by absolute position. */
static double held(const attn_kv_view *kv, const attn_view *part, int64_t b, int64_t h,
                   int64_t position, int64_t d)
{
    int64_t first = kv->first ? kv->first[b] : 0;
    assert_true(position >= first && position < first + kv->length[b]);
    return view_get(part, b, h, kv->ring > 0 ? position % kv->ring : position - first, d);
}

static void holds_what_was_appended_in_every_type(void **state)
{
    (void)state;
    const attn_dtype types[] = {ATTN_F32, ATTN_BF16, ATTN_F16, ATTN_F64};
    attn_context *context = test_context(2);
    rng random = rng_seed(test_seed(), 1);
    for (int to = 0; to < 4; to++) {
        for (int from = 0; from < 4; from++) {
            if ((types[to] == ATTN_F64) != (types[from] == ATTN_F64)) {
                continue;
            }
            const int64_t k_shape[4] = {2, 3, 40, 37};
            const int64_t v_shape[4] = {2, 3, 40, 70};
            array k = array_random(&random, types[from], 4, k_shape, true);
            array v = array_random(&random, types[from], 4, v_shape, true);
            array_normal(&k, &random, 1);
            array_normal(&v, &random, 1);
            attn_kv_cache *cache = make(context, 2, 3, 37, 70, 40, 0, 0, types[to]);
            append(cache, &k.view, &v.view, 0, 7);
            append(cache, &k.view, &v.view, 7, 1);
            append(cache, &k.view, &v.view, 8, 32);
            attn_kv_view kv = attn_kv_cache_view(cache);
            assert_int_equal(kv.k.dtype, types[to]);
            for (int64_t n = 0; n < 2 * 3 * 40 * 37; n++) {
                int64_t d = n % 37, j = n / 37 % 40, h = n / 37 / 40 % 3, b = n / 37 / 40 / 3;
                uint64_t cell = 0; /* rounds as the cache must */
                attn_view one = attn_view_dense(&cell, types[to], 1, (const int64_t[]){1});
                oracle_store(&one, 0, view_get(&k.view, b, h, j, d));
                assert_true(oracle_load(&one, 0) == held(&kv, &kv.k, b, h, j, d));
            }
            assert_true(held(&kv, &kv.v, 1, 2, 39, 69) != 0);
            size_t size = attn_dtype_size(types[to]);
            assert_int_equal(attn_kv_cache_bytes(cache), 2 * 3 * 40 * (37 + 70) * size);
            assert_int_equal(attn_kv_cache_bytes_used(cache), 2 * 3 * 40 * (37 + 70) * size);
            attn_kv_cache_destroy(cache);
            array_free(&k);
            array_free(&v);
        }
    }
    attn_context_destroy(context);
}

typedef struct pair {
    array k, v;
} pair;

static pair take(rng *random, attn_dtype type, int64_t batch, int64_t heads, int64_t len,
                 int64_t dim)
{
    const int64_t shape[4] = {batch, heads, len, dim};
    pair p = {array_dense(type, 4, shape), array_dense(type, 4, shape)};
    array_normal(&p.k, random, 1);
    array_normal(&p.v, random, 1);
    return p;
}

static void drop(pair *p)
{
    array_free(&p->k);
    array_free(&p->v);
}

static void a_full_cache_refuses_all_or_nothing(void **state)
{
    (void)state;
    attn_context *context = test_context(1);
    rng random = rng_seed(test_seed(), 2);
    pair p = take(&random, ATTN_F32, 2, 1, 8, 4);
    attn_kv_cache *cache = make(context, 2, 1, 4, 0, 10, 0, 0, ATTN_F32);
    attn_view k = rows(&p.k.view, 0, 8);
    attn_view v = rows(&p.v.view, 0, 8);
    const int64_t counts[2] = {8, 3};
    assert_int_equal(attn_kv_cache_append(cache, &k, &v, counts), ATTN_OK);
    assert_int_equal(attn_kv_cache_length(cache, 0), 8);
    assert_int_equal(attn_kv_cache_length(cache, 1), 3);
    attn_view k3 = rows(&p.k.view, 4, 3);
    attn_view v3 = rows(&p.v.view, 4, 3);
    assert_int_equal(attn_kv_cache_append(cache, &k3, &v3, NULL), ATTN_ERR_CAPACITY);
    assert_true(error_has("sequence 0") && error_has("8 of 10") && error_has("3 more") &&
                error_has("2 fit"));
    assert_int_equal(attn_kv_cache_length(cache, 0), 8);
    assert_int_equal(attn_kv_cache_length(cache, 1), 3);
    const int64_t fits[2] = {2, 3};
    assert_int_equal(attn_kv_cache_append(cache, &k3, &v3, fits), ATTN_OK);
    assert_int_equal(attn_kv_cache_position(cache, 0), 10);
    assert_int_equal(attn_kv_cache_bytes_used(cache), 16 * 8 * sizeof(float));
    const int64_t bad[2] = {0, 4};
    assert_int_equal(attn_kv_cache_append(cache, &k3, &v3, bad), ATTN_ERR_ARGUMENT);
    assert_true(error_has("counts[1]"));
    attn_kv_cache_destroy(cache);
    drop(&p);
    attn_context_destroy(context);
}

static void one_sequence_grows_alone(void **state)
{
    (void)state;
    attn_context *context = test_context(1);
    rng random = rng_seed(test_seed(), 3);
    pair p = take(&random, ATTN_F32, 1, 2, 5, 4);
    attn_kv_cache *cache = make(context, 3, 2, 4, 0, 6, 0, 0, ATTN_F32);
    assert_int_equal(attn_kv_cache_append_one(cache, 1, &p.k.view, &p.v.view), ATTN_OK);
    for (int64_t b = 0; b < 3; b++) {
        assert_int_equal(attn_kv_cache_length(cache, b), b == 1 ? 5 : 0);
    }
    attn_kv_view kv = attn_kv_cache_view(cache);
    assert_true(held(&kv, &kv.k, 1, 1, 4, 3) == view_get(&p.k.view, 0, 1, 4, 3));
    assert_int_equal(attn_kv_cache_append_one(cache, 3, &p.k.view, &p.v.view), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_kv_cache_append_one(cache, 1, &p.k.view, &p.v.view), ATTN_ERR_CAPACITY);
    assert_true(error_has("sequence 1"));
    attn_kv_cache_reset(cache);
    assert_int_equal(attn_kv_cache_length(cache, 1), 0);
    assert_int_equal(attn_kv_cache_bytes_used(cache), 0);
    attn_kv_cache_destroy(cache);
    drop(&p);
    attn_context_destroy(context);
}

static void a_ring_keeps_what_its_window_needs(void **state)
{
    (void)state;
    attn_context *context = test_context(1);
    rng random = rng_seed(test_seed(), 4);
    pair p = take(&random, ATTN_F32, 1, 1, 200, 2);
    for (int64_t window = 1; window <= 6; window++) {
        for (int64_t most = 1; most <= 4; most++) {
            attn_kv_cache *cache = make(context, 1, 1, 2, 0, 0, window, most, ATTN_F32);
            assert_int_equal(attn_kv_cache_capacity(cache), window + most - 1);
            int64_t position = 0;
            while (position < 190) {
                int64_t n = rng_range(&random, 0, most);
                append(cache, &p.k.view, &p.v.view, position, n);
                int64_t needed = position - window + 1 > 0 ? position - window + 1 : 0;
                position += n;
                attn_kv_view kv = attn_kv_cache_view(cache);
                assert_int_equal(attn_kv_cache_position(cache, 0), position);
                assert_int_equal(kv.first[0] + kv.length[0], position);
                assert_true(kv.first[0] <= needed || n == 0);
                for (int64_t j = kv.first[0]; j < position; j++) {
                    assert_true(held(&kv, &kv.k, 0, 0, j, 1) == view_get(&p.k.view, 0, 0, j, 1));
                    assert_true(held(&kv, &kv.v, 0, 0, j, 0) == view_get(&p.v.view, 0, 0, j, 0));
                }
            }
            attn_view k = rows(&p.k.view, 0, most + 1);
            attn_view v = rows(&p.v.view, 0, most + 1);
            char number[32];
            snprintf(number, sizeof number, "at most %d", (int)most);
            assert_int_equal(attn_kv_cache_append(cache, &k, &v, NULL), ATTN_ERR_CAPACITY);
            assert_true(error_has(number));
            attn_kv_cache_destroy(cache);
        }
    }
    drop(&p);
    attn_context_destroy(context);
}

static void truncation_forgets_and_a_ring_knows_its_limit(void **state)
{
    (void)state;
    attn_context *context = test_context(1);
    rng random = rng_seed(test_seed(), 5);
    pair p = take(&random, ATTN_F32, 1, 1, 20, 2);
    attn_kv_cache *plain = make(context, 1, 1, 2, 0, 12, 0, 0, ATTN_F32);
    append(plain, &p.k.view, &p.v.view, 0, 12);
    assert_int_equal(attn_kv_cache_truncate(plain, 0, 13), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_kv_cache_truncate(plain, 0, -1), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_kv_cache_truncate(plain, 1, 0), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_kv_cache_truncate(plain, 0, 4), ATTN_OK);
    assert_int_equal(attn_kv_cache_position(plain, 0), 4);
    append(plain, &p.k.view, &p.v.view, 12, 8);
    attn_kv_view kv = attn_kv_cache_view(plain);
    assert_true(held(&kv, &kv.k, 0, 0, 3, 0) == view_get(&p.k.view, 0, 0, 3, 0));
    assert_true(held(&kv, &kv.k, 0, 0, 4, 0) == view_get(&p.k.view, 0, 0, 12, 0));
    attn_kv_cache_destroy(plain);

    /* window 4, max_append 3: 6 keys. After 10 tokens 4 … 9 are held, and a query at 7 needs 4 … 7. */
    attn_kv_cache *ring = make(context, 1, 1, 2, 0, 0, 4, 3, ATTN_F32);
    for (int64_t n = 0; n < 10; n++) {
        append(ring, &p.k.view, &p.v.view, n, 1);
    }
    assert_int_equal(attn_kv_cache_truncate(ring, 0, 6), ATTN_ERR_CAPACITY);
    assert_true(error_has("to 6") && error_has("from position 3") && error_has("from 4"));
    assert_int_equal(attn_kv_cache_position(ring, 0), 10);
    assert_int_equal(attn_kv_cache_truncate(ring, 0, 10), ATTN_OK);
    assert_int_equal(attn_kv_cache_truncate(ring, 0, 7), ATTN_OK);
    kv = attn_kv_cache_view(ring);
    assert_int_equal(kv.first[0], 4);
    assert_int_equal(kv.length[0], 3);
    append(ring, &p.k.view, &p.v.view, 17, 3);
    assert_int_equal(attn_kv_cache_position(ring, 0), 10);
    assert_true(held(&kv, &kv.k, 0, 0, 6, 0) == view_get(&p.k.view, 0, 0, 6, 0));
    assert_true(held(&kv, &kv.k, 0, 0, 7, 0) == view_get(&p.k.view, 0, 0, 17, 0));
    assert_int_equal(attn_kv_cache_truncate(ring, 0, 0), ATTN_OK); /* nothing is needed then */
    assert_int_equal(attn_kv_cache_length(ring, 0), 0);
    append(ring, &p.k.view, &p.v.view, 0, 3);
    assert_true(held(&kv, &kv.k, 0, 0, 0, 0) == view_get(&p.k.view, 0, 0, 0, 0));
    attn_kv_cache_destroy(ring);
    drop(&p);
    attn_context_destroy(context);
}

/* ---- attention through the cache ---------------------------------------------------------------- */

typedef struct stream {
    rng random;
    attn_context *context;
    int64_t batch, heads_q, heads_kv, len, dim, window;
    pair kv;
    array q, whole, chunk;
} stream;

static stream stream_make(uint64_t seed, int64_t n)
{
    stream s = {.random = rng_seed(seed, (uint64_t)n), .context = test_context((int)(1 + n % 3))};
    s.batch = rng_range(&s.random, 1, 2);
    s.heads_kv = rng_range(&s.random, 1, 2);
    s.heads_q = s.heads_kv * rng_range(&s.random, 1, 4);
    s.len = rng_range(&s.random, 1, 150);
    s.dim = rng_range(&s.random, 1, 70);
    s.window = rng_range(&s.random, 1, 40);
    s.kv = take(&s.random, ATTN_F32, s.batch, s.heads_kv, s.len, s.dim);
    const int64_t shape[4] = {s.batch, s.heads_q, s.len, s.dim};
    s.q = array_dense(ATTN_F32, 4, shape);
    s.whole = array_dense(ATTN_F32, 4, shape);
    s.chunk = array_dense(ATTN_F32, 4, shape);
    array_normal(&s.q, &s.random, 1);
    return s;
}

static void stream_free(stream *s)
{
    drop(&s->kv);
    array_free(&s->q);
    array_free(&s->whole);
    array_free(&s->chunk);
    attn_context_destroy(s->context);
}

/* Everything at once, then in random chunks through a cache (a ring where windowed); returns the largest difference. */
static double chunks_against_whole(stream *s, bool windowed, bool ring)
{
    attn_sdpa_options o = attn_sdpa_options_init();
    o.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    o.has_window = windowed;
    o.window_left = s->window - 1;
    o.window_right = -1;
    if (attn_sdpa(s->context, &o, &s->q.view, &s->kv.k.view, &s->kv.v.view, &s->whole.view) !=
        ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
    int64_t most = rng_range(&s->random, 1, 30);
    attn_kv_cache *cache = make(s->context, s->batch, s->heads_kv, s->dim, 0, ring ? 0 : s->len,
                                ring ? s->window : 0, ring ? most : 0, ATTN_F32);
    attn_kv_view kv = attn_kv_cache_view(cache);
    for (int64_t at = 0, n; at < s->len; at += n) {
        int64_t left = s->len - at;
        n = rng_chance(&s->random, 60) ? 1 : rng_range(&s->random, 1, most < left ? most : left);
        append(cache, &s->kv.k.view, &s->kv.v.view, at, n);
        attn_view q = rows(&s->q.view, at, n);
        attn_view out = rows(&s->chunk.view, at, n);
        if (attn_sdpa_kv(s->context, &o, &q, &kv, &out) != ATTN_OK) {
            fail_msg("%s", attn_last_error());
        }
    }
    attn_kv_cache_destroy(cache);
    double largest = 0;
    for (int64_t n = 0; n < s->whole.elements; n++) {
        double difference = fabs(oracle_load(&s->whole.view, n) - oracle_load(&s->chunk.view, n));
        largest = difference <= largest ? largest : difference; /* NaN is kept */
    }
    return largest;
}

static void decode_through_the_cache_equals_prefill(void **state)
{
    (void)state;
    uint64_t seed = test_seed();
    int64_t only = test_env("ATTN_TEST_CASE", -1);
    for (int64_t n = 0; n < test_count(200); n++) {
        if (only >= 0 && n != only) {
            continue;
        }
        test_running("build/tests/test_kv_cache", seed, n);
        stream s = stream_make(seed, n);
        bool windowed = n % 3 != 0;
        double largest = chunks_against_whole(&s, windowed, n % 3 == 2);
        if (!(largest <= 4e-6)) {
            fail_msg("chunks differ from the whole by %g\n  repeat with: %s", largest,
                     test_repro());
        }
        stream_free(&s);
    }
}

static void threads_do_not_change_bits(void **state)
{
    (void)state;
    rng random = rng_seed(test_seed(), 6);
    pair p = take(&random, ATTN_F16, 2, 3, 3000, 64);
    const int64_t shape[4] = {2, 9, 1, 64};
    array q = array_dense(ATTN_F32, 4, shape);
    array_normal(&q, &random, 1);
    uint64_t first = 0;
    const int threads[] = {1, 2, 3, 7};
    for (int n = 0; n < 4; n++) {
        attn_context *context = test_context(threads[n]);
        attn_kv_cache *cache = make(context, 2, 3, 64, 0, 3000, 0, 0, ATTN_F16);
        append(cache, &p.k.view, &p.v.view, 0, 3000);
        attn_kv_view kv = attn_kv_cache_view(cache);
        array out = array_dense(ATTN_F32, 4, shape);
        assert_int_equal(attn_sdpa_kv(context, NULL, &q.view, &kv, &out.view), ATTN_OK);
        first = n == 0 ? array_hash(&out) : first;
        assert_true(array_hash(&out) == first);
        array_free(&out);
        attn_kv_cache_destroy(cache);
        attn_context_destroy(context);
    }
    array_free(&q);
    drop(&p);
}

static void fails(attn_context *context, attn_kv_cache_options o, attn_status status,
                  const char *word)
{
    attn_kv_cache *cache = (void *)&o;
    assert_int_equal(attn_kv_cache_create(context, &o, &cache), status);
    assert_null(cache);
    assert_true(error_has(word));
}

static void *small_alloc(void *user, size_t size, size_t alignment)
{
    (void)user;
    return size > 1 << 16 ? NULL
                          : aligned_alloc(alignment, (size + alignment - 1) & ~(alignment - 1));
}

static void small_free(void *user, void *pointer, size_t size)
{
    (void)user, (void)size;
    free(pointer);
}

static void no_memory_is_an_error_like_others(void **state)
{
    (void)state;
    attn_allocator allocator = {.alloc = small_alloc, .free = small_free};
    attn_context_options c = attn_context_options_init();
    attn_context *context;
    c.allocator = &allocator;
    c.threads = 1;
    assert_int_equal(attn_context_create(&c, &context), ATTN_OK);
    attn_kv_cache_options o = attn_kv_cache_options_init();
    o.batch = o.heads_kv = 1;
    o.dim_qk = 1 << 4;
    o.capacity = 1 << 12;
    fails(context, o, ATTN_ERR_NO_MEMORY, "kv cache keys");
    o.dim_qk = 1;
    o.dim_v = 1 << 4;
    fails(context, o, ATTN_ERR_NO_MEMORY, "kv cache values");
    attn_context_destroy(context);
}

static void bad_options_and_views_are_refused(void **state)
{
    (void)state;
    attn_context *context = test_context(1);
    attn_kv_cache_options good = attn_kv_cache_options_init();
    good.batch = good.heads_kv = 1;
    good.dim_qk = 4;
    good.capacity = 3;
    attn_kv_cache_options o = good;
    o.batch = 0;
    fails(context, o, ATTN_ERR_ARGUMENT, "batch");
    o = good;
    o.capacity = 0;
    fails(context, o, ATTN_ERR_ARGUMENT, "capacity");
    o = good;
    o.dtype = ATTN_BOOL;
    fails(context, o, ATTN_ERR_DTYPE, "bool");
    o = good;
    o.window = 4; /* a ring takes its capacity from window and max_append */
    fails(context, o, ATTN_ERR_ARGUMENT, "max_append");
    o.max_append = 3;
    fails(context, o, ATTN_ERR_ARGUMENT, "holds 6");
    o = good;
    o.max_append = 3;
    fails(context, o, ATTN_ERR_ARGUMENT, "window");
    o = good;
    o.capacity = INT64_MAX / 2;
    fails(context, o, ATTN_ERR_ARGUMENT, "larger");
    o = good;
    o.struct_size = 4;
    fails(context, o, ATTN_ERR_ARGUMENT, "struct_size");
    rng random = rng_seed(test_seed(), 7);
    pair p = take(&random, ATTN_F32, 1, 1, 2, 4);
    attn_kv_cache *cache = make(context, 1, 1, 4, 0, 3, 0, 0, ATTN_F32);
    attn_view k = p.k.view;
    assert_int_equal(attn_kv_cache_append(cache, NULL, &p.v.view, NULL), ATTN_ERR_ARGUMENT);
    k.shape[3] = 3;
    assert_int_equal(attn_kv_cache_append(cache, &k, &p.v.view, NULL), ATTN_ERR_SHAPE);
    k = p.k.view;
    k.dtype = ATTN_F64;
    assert_int_equal(attn_kv_cache_append(cache, &k, &p.v.view, NULL), ATTN_ERR_DTYPE);
    k = p.k.view;
    k.shape[2] = 1; /* v has two rows */
    assert_int_equal(attn_kv_cache_append(cache, &k, &p.v.view, NULL), ATTN_ERR_SHAPE);
    assert_int_equal(attn_kv_cache_length(cache, 0), 0);
    attn_kv_cache_destroy(cache);
    attn_kv_cache_destroy(NULL);
    drop(&p);
    attn_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(holds_what_was_appended_in_every_type),
        cmocka_unit_test(a_full_cache_refuses_all_or_nothing),
        cmocka_unit_test(one_sequence_grows_alone),
        cmocka_unit_test(a_ring_keeps_what_its_window_needs),
        cmocka_unit_test(truncation_forgets_and_a_ring_knows_its_limit),
        cmocka_unit_test(decode_through_the_cache_equals_prefill),
        cmocka_unit_test(threads_do_not_change_bits),
        cmocka_unit_test(no_memory_is_an_error_like_others),
        cmocka_unit_test(bad_options_and_views_are_refused),
    };
    return cmocka_run_group_tests_name("kv cache", tests, NULL, NULL);
}
