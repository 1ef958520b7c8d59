/*
 * test_adapters.c: adapters of the tiny model of tests/golden: what they add to its matrices, merged and written; and adapters that are refused.
 *
 * usage: test_adapters tiny.gguf
 */
#define _GNU_SOURCE
#include "expect.h"
#include "folder.h"
#include "tiny.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { RANK = 3 };

static const char *const adapted[2] = {"blk.0.attn_q.weight",
                                       "model.layers.1.mlp.down_proj.weight"};

/* a and b of matrix i: b's rows in the order of `pairing` (q has 4 heads of 16). */
static attn_status save_adapter(const tiny *t, const char *path, attn_rope_pairing pairing,
                                float *a[2], float *b[2])
{
    attn_adapter_part parts[2];
    uint64_t random = 77;
    float *other = NULL;
    for (int i = 0; i < 2; i++) {
        char name[96];
        snprintf(name, sizeof name, "%s", i ? "blk.1.ffn_down.weight" : adapted[0]);
        const attn_gguf_tensor *w = attn_gguf_find(t->file, name);
        int64_t cols = w->dims[0], rows = w->dims[1];
        a[i] = malloc((size_t)(RANK * cols) * sizeof **a);
        b[i] = malloc((size_t)(RANK * rows) * sizeof **b);
        assert_true(a[i] && b[i]);
        for (int64_t k = 0; k < RANK * cols; k++) {
            a[i][k] = (float)tiny_random(&random, 2001) / 1000 - 1;
        }
        for (int64_t k = 0; k < RANK * rows; k++) {
            b[i][k] = (float)tiny_random(&random, 2001) / 1000 - 1;
        }
        parts[i] = (attn_adapter_part){adapted[i], a[i], b[i], pairing};
        if (i == 0 && pairing == ATTN_ROPE_HALVES) {
            other = malloc((size_t)(RANK * rows) * sizeof *other);
            expect_ok(attn_rope_reorder(b[i], 4, 16, 16, RANK, ATTN_ROPE_INTERLEAVED, other));
            parts[i].b = other;
        }
    }
    attn_status status = attn_adapter_save(path, t->file, RANK, 0.5, parts, 2);
    free(other);
    return status;
}

static void expect_merged(const tiny *t, const attn_gguf *merged, float *a[2], float *b[2])
{
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "blk.1.ffn_down.weight" : adapted[0];
        const attn_gguf_tensor *w = attn_gguf_find(t->file, name),
                               *m = attn_gguf_find(merged, name);
        float *old = tiny_floats(t->file, w, false), *new = tiny_floats(t->file, m, false);
        int64_t cols = w->dims[0];
        for (int64_t k = 0; k < cols * w->dims[1]; k++) {
            double sum = (double)old[k];
            for (int64_t r = 0; r < RANK; r++) {
                sum += 0.5 * (double)b[i][k / cols * RANK + r] * (double)a[i][r * cols + k % cols];
            }
            if (fabs((double)new[k] - sum) > 1e-5) {
                fail_msg("%s[%lld] is %g, not %g", name, (long long)k, (double)new[k], sum);
            }
        }
        free(old);
        free(new);
    }
}

static void test_adapters(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_F32);
    for (int halves = 0; halves < 2; halves++) {
        float *a[2], *b[2];
        attn_gguf *merged;
        attn_model_open_options options = attn_model_open_options_init();
        expect_ok(save_adapter(&t, in_folder("adapter"),
                               halves ? ATTN_ROPE_HALVES : ATTN_ROPE_INTERLEAVED, a, b));
        options.adapter = in_folder("adapter");
        expect_ok(attn_model_open(tiny_path, &options, &merged));
        expect_merged(&t, merged, a, b);
        float *logits = tiny_logits(t.context, merged);
        /* Merged and written, it is a GGUF file with these weights. */
        attn_gguf *written;
        expect_ok(attn_gguf_write(in_folder("merged.gguf"), merged, NULL, 0, NULL));
        expect_ok(attn_gguf_open(in_folder("merged.gguf"), &written));
        expect_merged(&t, written, a, b);
        attn_gguf_close(written);
        attn_gguf_close(merged);
        free(logits);
        /* By itself: the base is looked for. */
        assert_int_equal(attn_model_open(in_folder("adapter"), NULL, &merged), ATTN_ERR_IO);
        assert_true(error_has("tiny.gguf"));
        char where[512];
        snprintf(where, sizeof where, "%s", tiny_path);
        char *slash = strrchr(where, '/');
        const char *const folders[] = {"/nowhere", where};
        assert_non_null(slash);
        *slash = '\0';
        options = attn_model_open_options_init();
        options.folders = folders;
        options.folder_count = 2;
        expect_ok(attn_model_open(in_folder("adapter"), &options, &merged));
        expect_merged(&t, merged, a, b);
        attn_gguf_close(merged);
        for (int i = 0; i < 2; i++) {
            free(a[i]);
            free(b[i]);
        }
    }
    tiny_close(&t);
}

static bool yes(void *user)
{
    (void)user;
    return true;
}

/* An adapter of one matrix with this metadata. */
static void save_raw(const char *path, const char *json, const char *a, const char *b, int64_t rank,
                     int64_t cols)
{
    static const float zeros[64 * 64];
    const attn_safetensors_item items[2] = {
        {.name = a, .dtype = ATTN_ST_F32, .ndim = 2, .shape = {rank, cols}, .data = zeros},
        {.name = b, .dtype = ATTN_ST_F32, .ndim = 2, .shape = {64, rank}, .data = zeros}};
    const attn_safetensors_pair pair = {"attn.adapter", json};
    expect_ok(attn_safetensors_save(path, items, b ? 2 : 1, &pair, 1));
}

static void test_refuses_bad_adapters(void **state)
{
    (void)state;
    attn_gguf *file;
    char digest[65], good[256], wrong[256];
    attn_model_open_options options = attn_model_open_options_init();
    options.adapter = in_folder("bad");
    const char *path = strdup(options.adapter);
    options.adapter = path;
    expect_ok(attn_file_sha256(tiny_path, digest, NULL, NULL));
    snprintf(good, sizeof good,
             "{\"base\":\"tiny.gguf\",\"base_sha256\":\"%s\",\"rank\":2,\"scale\":1}", digest);
    snprintf(wrong, sizeof wrong,
             "{\"base\":\"tiny.gguf\",\"base_sha256\":\"%064d\",\"rank\":2,\"scale\":1}", 0);
#define A "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
#define B "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    const struct {
        const char *json, *a, *b;
        int64_t rank, cols;
        attn_status status;
        const char *part;
    } cases[] = {
        {good, A, B, 2, 64, ATTN_OK, ""},
        {wrong, A, B, 2, 64, ATTN_ERR_FORMAT, "fits no other base"},
        {good, A, B, 3, 64, ATTN_ERR_FORMAT, "do not fit"},
        {good, A, B, 2, 63, ATTN_ERR_FORMAT, "do not fit"},
        {good, A, NULL, 2, 64, ATTN_ERR_FORMAT, "no lora_B"},
        {good, B, NULL, 2, 64, ATTN_ERR_FORMAT, "without its lora_A"},
        {good, "x", NULL, 2, 64, ATTN_ERR_UNSUPPORTED, "'x'"},
        {good, "base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight",
         "base_model.model.model.layers.7.self_attn.q_proj.lora_B.weight", 2, 64, ATTN_ERR_FORMAT,
         "layers.7"},
        {good, "base_model.model.model.norm.lora_A.weight",
         "base_model.model.model.norm.lora_B.weight", 2, 64, ATTN_ERR_FORMAT, "do not fit"},
        {"", A, B, 2, 64, ATTN_ERR_FORMAT, "no JSON object"},
        {"{}", A, B, 2, 64, ATTN_ERR_FORMAT, "names no base"},
        {"{\"base\":\"../tiny.gguf\"}", A, B, 2, 64, ATTN_ERR_FORMAT, "must be a file name"},
        {"{\"base\":\"x\",\"base_sha256\":\"12\"}", A, B, 2, 64, ATTN_ERR_FORMAT, "base_sha256"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        save_raw(path, cases[i].json, cases[i].a, cases[i].b, cases[i].rank, cases[i].cols);
        attn_status status = attn_model_open(tiny_path, &options, &file);
        if (status != cases[i].status || (status != ATTN_OK && !error_has(cases[i].part)) ||
            (status == ATTN_OK) != (file != NULL)) {
            fail_msg("adapter %zu: status %d: %s", i, status, attn_last_error());
        }
        attn_gguf_close(file);
    }
    save_raw(path, good, A, B, 2, 64);
    options.cancel = yes;
    assert_int_equal(attn_model_open(tiny_path, &options, &file), ATTN_ERR_CANCELLED);
    options = attn_model_open_options_init();
    options.adapter = tiny_path;
    assert_int_equal(attn_model_open(tiny_path, &options, &file), ATTN_ERR_FORMAT);
    free((void *)(uintptr_t)path);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adapters),
        cmocka_unit_test(test_refuses_bad_adapters),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return 2;
    }
    tiny_path = argv[1];
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
