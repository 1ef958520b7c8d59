/*
 * test_model_file.c: models trained here, adapters and fine-tuned GGUF files, made from the tiny model of tests/golden, whose logits they must
 * then have.
 *
 * usage: test_model_file tiny.gguf
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

#define TOKENS 24
#define RANK   3

/* Hugging Face's name of a GGUF tensor: what attn_model_gguf_name takes to it. */
static void hf_name(const char *gguf, char *name, size_t size)
{
    static const char *const parts[][2] = {
        {"attn_q", "self_attn.q_proj"},          {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},          {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"},           {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"},           {"attn_norm", "input_layernorm"},
        {"ffn_norm", "post_attention_layernorm"}};
    snprintf(name, size, "%s",
             gguf[0] == 't'                       ? "model.embed_tokens.weight"
             : strcmp(gguf, "output.weight") == 0 ? "lm_head.weight"
                                                  : "model.norm.weight");
    for (size_t i = 0; gguf[0] == 'b' && i < sizeof parts / sizeof *parts; i++) {
        char stem[32];
        snprintf(stem, sizeof stem, "%s.weight", parts[i][0]);
        if (strcmp(gguf + 6, stem) == 0) {
            snprintf(name, size, "model.layers.%c.%s.weight", gguf[4], parts[i][1]);
        }
    }
    char back[128];
    assert_true(attn_model_gguf_name(name, back, sizeof back));
    assert_string_equal(back, gguf);
}

/* A tensor's floats, q and k in the order for halves where wanted; malloc'd. */
static float *floats_of(const attn_gguf *file, const attn_gguf_tensor *t, bool halves)
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

/* ---- trained models ---- */

/* The tiny model as if it had been trained here. NULLs: what belongs there. */
static attn_status save_trained(const tiny *t, const char *path, attn_safetensors_dtype dtype,
                                const char *config, const char *tokenizer)
{
    static char names[64][96];
    attn_safetensors_item items[64];
    size_t count = (size_t)attn_gguf_tensor_count(t->file);
    attn_model_config c = *attn_model_get_config(t->model);
    char *made_config = NULL, *made_tokenizer = NULL;
    assert_true(count < 64);
    assert_int_equal(c.rope_pairing, ATTN_ROPE_INTERLEAVED);
    c.rope_pairing = ATTN_ROPE_HALVES;
    expect_ok(attn_model_config_json(&c, -1, attn_tokenizer_eos(t->tokenizer), &made_config));
    expect_ok(attn_tokenizer_to_json(t->tokenizer, &made_tokenizer));
    for (size_t i = 0; i < count; i++) {
        const attn_gguf_tensor *from = attn_gguf_tensor_at(t->file, (int64_t)i);
        hf_name(from->name, names[i], sizeof names[i]);
        items[i] = (attn_safetensors_item){.name = names[i],
                                           .dtype = dtype,
                                           .ndim = from->ndim,
                                           .data = floats_of(t->file, from, true),
                                           .source = ATTN_F32};
        for (int d = 0; d < from->ndim; d++) {
            items[i].shape[d] = from->dims[from->ndim - 1 - d];
        }
    }
    static const float moment = 0.25f; /* what training may keep beside the model */
    items[count++] = (attn_safetensors_item){
        .name = "attn.step", .dtype = ATTN_ST_F32, .ndim = 1, .shape = {1}, .data = &moment};
    const attn_safetensors_pair metadata[] = {
        {"format", "pt"},
        {"attn.config", config ? config : made_config},
        {"attn.tokenizer", tokenizer ? tokenizer : made_tokenizer}};
    attn_status status = attn_safetensors_save(path, items, count, metadata, 3);
    for (size_t i = 0; i + 1 < count; i++) {
        free((void *)(uintptr_t)items[i].data);
    }
    free(made_config);
    free(made_tokenizer);
    return status;
}

/* logits[TOKENS · vocab] of a fixed text. */
static float *logits_of(attn_context *context, const attn_gguf *file)
{
    attn_model_options options = attn_model_options_init();
    attn_session_options s = attn_session_options_init();
    attn_model *model;
    attn_session *session;
    int32_t ids[TOKENS];
    options.activations = ATTN_ACTIVATIONS_F32;
    expect_ok(attn_model_load(context, file, &options, &model));
    s.context = TOKENS;
    expect_ok(attn_session_create(context, model, &s, &session));
    int64_t vocab = attn_model_get_config(model)->vocab;
    float *logits = malloc((size_t)(TOKENS * vocab) * sizeof *logits);
    assert_non_null(logits);
    tiny_ids(5, ids, TOKENS);
    expect_ok(attn_session_eval(session, ids, TOKENS, true, logits));
    attn_session_destroy(session);
    attn_model_destroy(model);
    return logits;
}

static double largest_difference(const float *a, const float *b, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    }
    return most;
}

static void test_trained_model_has_the_same_logits(void **state)
{
    (void)state;
    tiny t = tiny_open(2, ATTN_ACTIVATIONS_F32);
    int64_t n = TOKENS * attn_model_get_config(t.model)->vocab;
    float *wanted = logits_of(t.context, t.file);
    static const attn_safetensors_dtype dtypes[] = {ATTN_ST_F32, ATTN_ST_BF16, ATTN_ST_F16};
    static const double bounds[] = {1e-4, 0.5,
                                    0.1}; /* logits are about 10; rounding to 8 and 11 bits */
    for (int i = 0; i < 3; i++) {
        attn_gguf *file;
        attn_tokenizer *tokenizer;
        expect_ok(save_trained(&t, in_folder("trained"), dtypes[i], NULL, NULL));
        expect_ok(attn_model_open(in_folder("trained"), NULL, &file));
        attn_model_config c;
        expect_ok(attn_model_config_read(file, &c));
        assert_int_equal(c.rope_pairing, ATTN_ROPE_HALVES);
        assert_int_equal(c.context, attn_model_get_config(t.model)->context);
        assert_true(c.norm_eps == 1e-5 || fabs(c.norm_eps - 1e-5) < 1e-11);
        float *got = logits_of(t.context, file);
        double difference = largest_difference(got, wanted, n);
        print_message("as %s: logits differ by up to %.2g\n",
                      attn_safetensors_dtype_name(dtypes[i]), difference);
        assert_true(difference <= bounds[i]);
        expect_ok(attn_tokenizer_create(file, &tokenizer));
        assert_int_equal(attn_tokenizer_vocab_size(tokenizer),
                         attn_tokenizer_vocab_size(t.tokenizer));
        assert_int_equal(attn_tokenizer_eos(tokenizer), attn_tokenizer_eos(t.tokenizer));
        assert_false(attn_tokenizer_has_chat_template(tokenizer));
        assert_true(attn_tokenizer_has_chat_template(t.tokenizer));
        attn_tokenizer_destroy(tokenizer);
        attn_gguf_close(file);
        free(got);
    }
    free(wanted);
    tiny_close(&t);
}

#define CONFIG(more)                                                               \
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":128,"      \
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2," \
    "\"max_position_embeddings\":512,\"rms_norm_eps\":1e-5" more "}"

static const struct {
    const char *config;
    attn_status status;
    const char *part;
} broken[] = {
    {"", ATTN_ERR_FORMAT, "no JSON object"},
    {"[1]", ATTN_ERR_FORMAT, "no JSON object"},
    {"{}", ATTN_ERR_UNSUPPORTED, "model_type"},
    {"{\"model_type\":\"gpt2\"}", ATTN_ERR_UNSUPPORTED, "'gpt2'"},
    {"{\"model_type\":\"llama\"}", ATTN_ERR_FORMAT, "rms_norm_eps"},
    {"{\"model_type\":\"llama\",\"rms_norm_eps\":1e-5}", ATTN_ERR_FORMAT, "num_hidden_layers"},
    {CONFIG(",\"rms_norm_eps\":1"), ATTN_ERR_FORMAT, "no JSON object"},
    {CONFIG(",\"hidden_act\":\"gelu\""), ATTN_ERR_UNSUPPORTED, "hidden_act"},
    {CONFIG(",\"attention_bias\":true"), ATTN_ERR_UNSUPPORTED, "biases"},
    {CONFIG(",\"rope_scaling\":{\"factor\":2}"), ATTN_ERR_UNSUPPORTED, "rope_scaling"},
    {CONFIG(",\"head_dim\":-1"), ATTN_ERR_FORMAT, "head_dim"},
    {CONFIG(",\"head_dim\":2147483647"), ATTN_ERR_FORMAT, "head_dim|key_length"},
    {CONFIG(",\"head_dim\":32"), ATTN_ERR_FORMAT, "attn_q"},
    {CONFIG(",\"vocab_size\":301"), ATTN_ERR_FORMAT, "301"},
    {CONFIG(",\"eos_token_id\":-3"), ATTN_ERR_FORMAT, "eos_token_id"},
    {CONFIG(",\"eos_token_id\":300"), ATTN_ERR_FORMAT, "300"},
    {CONFIG(",\"rope_theta\":-1"), ATTN_ERR_FORMAT, "freq_base"},
    {CONFIG(",\"tie_word_embeddings\":true"), ATTN_OK, ""},
    {CONFIG(""), ATTN_OK, ""},
};

static void test_refuses_bad_configurations(void **state)
{
    (void)state;
    tiny t = tiny_open(1, ATTN_ACTIVATIONS_F32);
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        attn_gguf *file = NULL;
        attn_model *model = NULL;
        attn_tokenizer *tokenizer = NULL;
        expect_ok(save_trained(&t, in_folder("broken"), ATTN_ST_F32, broken[i].config, NULL));
        attn_status status = attn_model_open(in_folder("broken"), NULL, &file);
        assert_true((status == ATTN_OK) == (file != NULL));
        if (status == ATTN_OK) {
            status = attn_tokenizer_create(file, &tokenizer);
        }
        if (status == ATTN_OK) {
            status = attn_model_load(t.context, file, NULL, &model);
        }
        const char * or = strchr(broken[i].part, '|');
        bool said = status == ATTN_OK ||
                    (or ? strstr(attn_last_error(), or +1) != NULL : error_has(broken[i].part));
        if (status != broken[i].status || !said) {
            fail_msg("%s: status %d: %s", broken[i].config, status, attn_last_error());
        }
        attn_tokenizer_destroy(tokenizer);
        attn_model_destroy(model);
        attn_gguf_close(file);
    }
    attn_gguf *file;
    expect_ok(save_trained(&t, in_folder("broken"), ATTN_ST_F32, NULL, "{}"));
    assert_int_equal(attn_model_open(in_folder("broken"), NULL, &file), ATTN_ERR_UNSUPPORTED);
    assert_true(error_has("tokenizer"));
    tiny_close(&t);
}

static void test_other_files(void **state)
{
    (void)state;
    attn_gguf *file;
    const float one = 1;
    const attn_safetensors_item item = {
        .name = "x", .dtype = ATTN_ST_F32, .ndim = 1, .shape = {1}, .data = &one};
    expect_ok(attn_safetensors_save(in_folder("plain"), &item, 1, NULL, 0));
    assert_int_equal(attn_model_open(in_folder("plain"), NULL, &file), ATTN_ERR_UNSUPPORTED);
    assert_true(error_has("attn.config"));
    const attn_safetensors_pair pair = {"attn.config", CONFIG("")};
    expect_ok(attn_safetensors_save(in_folder("plain"), &item, 1, &pair, 1));
    assert_int_equal(attn_model_open(in_folder("plain"), NULL, &file), ATTN_ERR_UNSUPPORTED);
    assert_true(error_has("'x'"));
    assert_int_equal(attn_model_open("/dev/null", NULL, &file), ATTN_ERR_IO);
    assert_int_equal(attn_model_open("/nowhere", NULL, &file), ATTN_ERR_IO);
    assert_int_equal(attn_model_open(NULL, NULL, &file), ATTN_ERR_ARGUMENT);
    expect_ok(attn_model_open(tiny_path, NULL, &file));
    attn_gguf_close(file);
}

static void test_reorder(void **state)
{
    (void)state;
    float rows[2 * 6 * 2], there[24], back[24];
    for (int i = 0; i < 24; i++) {
        rows[i] = (float)i;
    }
    /* Two heads of 6, of which 4 are rotated, 2 columns: interleaved (0 1)(2 3) 4 5 become halves 0 2 | 1 3, 4 5. */
    expect_ok(attn_rope_reorder(rows, 2, 6, 4, 2, ATTN_ROPE_INTERLEAVED, there));
    static const int order[6] = {0, 2, 1, 3, 4, 5};
    for (int i = 0; i < 24; i++) {
        int head = i / 12, row = i / 2 % 6;
        assert_true(there[i] == (float)(head * 12 + order[row] * 2 + i % 2));
    }
    expect_ok(attn_rope_reorder(there, 2, 6, 4, 2, ATTN_ROPE_HALVES, back));
    assert_memory_equal(back, rows, sizeof rows);
    assert_int_equal(attn_rope_reorder(rows, 2, 6, 5, 2, ATTN_ROPE_HALVES, back), ATTN_ERR_SHAPE);
    assert_int_equal(attn_rope_reorder(rows, 2, 6, 8, 2, ATTN_ROPE_HALVES, back), ATTN_ERR_SHAPE);
    assert_int_equal(attn_rope_reorder(NULL, 2, 6, 4, 2, ATTN_ROPE_HALVES, back),
                     ATTN_ERR_ARGUMENT);
}

/* ---- fine-tuned GGUF files ---- */

static void test_gguf_write(void **state)
{
    (void)state;
    tiny t = tiny_open(2, ATTN_ACTIVATIONS_F32);
    static char names[64][96];
    attn_gguf_replacement all[64];
    size_t count = (size_t)attn_gguf_tensor_count(t.file);
    for (size_t i = 0; i < count; i++) {
        const attn_gguf_tensor *from = attn_gguf_tensor_at(t.file, (int64_t)i);
        hf_name(from->name, names[i], sizeof names[i]);
        all[i] =
            (attn_gguf_replacement){.name = i % 2 ? names[i] : from->name,
                                    .data = floats_of(t.file, from, i % 3 != 0),
                                    .pairing = i % 3 ? ATTN_ROPE_HALVES : ATTN_ROPE_INTERLEAVED,
                                    .dtype = ATTN_F32};
    }
    attn_gguf *file;
    expect_ok(attn_gguf_write(in_folder("tuned.gguf"), t.file, all, count, "tuned"));
    expect_ok(attn_model_open(in_folder("tuned.gguf"), NULL, &file));
    float *wanted = logits_of(t.context, t.file), *got = logits_of(t.context, file);
    int64_t vocab = attn_model_get_config(t.model)->vocab;
    assert_memory_equal(got, wanted, (size_t)(TOKENS * vocab) * sizeof *got);
    free(got);
    attn_gguf_string name;
    assert_true(attn_gguf_get_string(file, "general.name", &name));
    assert_true(name.size == 5 && memcmp(name.data, "tuned", 5) == 0);
    attn_gguf_close(file);
    /* A few only: the others keep their bytes, the replaced ones are rounded, norms stay f32. */
    for (size_t i = 0; i < count; i++) {
        all[i].dtype = ATTN_BF16;
    }
    expect_ok(attn_gguf_write(in_folder("tuned.gguf"), t.file, all, count / 2, NULL));
    expect_ok(attn_gguf_open(in_folder("tuned.gguf"), &file));
    for (size_t i = 0; i < count; i++) {
        const attn_gguf_tensor *from = attn_gguf_tensor_at(t.file, (int64_t)i);
        const attn_gguf_tensor *now = attn_gguf_tensor_at(file, (int64_t)i);
        assert_string_equal(from->name, now->name);
        uint32_t type = i >= count / 2 ? from->type : from->ndim == 1 ? 0 : 30;
        assert_int_equal(now->type, type);
        if (i >= count / 2) {
            assert_int_equal(now->bytes, from->bytes);
            assert_memory_equal(now->data, from->data, from->bytes);
            continue;
        }
        float *old = floats_of(t.file, from, false), *new = floats_of(t.file, now, false);
        for (int64_t k = 0; k < from->dims[0] * from->dims[1]; k++) {
            assert_true(fabsf(old[k] - new[k]) <= 0x1p-8f * fabsf(old[k]));
        }
        free(old);
        free(new);
    }
    assert_int_equal(attn_gguf_key_count(file) - attn_gguf_key_count(t.file) <= 1, 1);
    int64_t file_type;
    assert_true(attn_gguf_get_int(file, "general.file_type", &file_type) && file_type == 32);
    attn_gguf_close(file);
    attn_gguf_replacement twice[2] = {all[0], all[0]}, other = all[0];
    const char *path = in_folder("none.gguf");
    assert_int_equal(attn_gguf_write(path, t.file, twice, 2, NULL), ATTN_ERR_ARGUMENT);
    assert_true(error_has("twice"));
    other.name = "blk.9.attn_q.weight";
    assert_int_equal(attn_gguf_write(path, t.file, &other, 1, NULL), ATTN_ERR_ARGUMENT);
    assert_true(error_has("blk.9"));
    other = all[0];
    other.dtype = ATTN_F64;
    assert_int_equal(attn_gguf_write(path, t.file, &other, 1, NULL), ATTN_ERR_DTYPE);
    assert_int_equal(attn_gguf_write("/dev/full", t.file, NULL, 0, NULL), ATTN_ERR_IO);
    assert_int_equal(access(path, F_OK), -1);
    /* Nothing replaced: byte for byte the base, and zeros to the alignment, as others write it. */
    expect_ok(attn_gguf_write(path, t.file, NULL, 0, NULL));
    static char bytes[2][1 << 18];
    size_t sizes[2];
    for (int i = 0; i < 2; i++) {
        FILE *read = fopen(i ? path : tiny_path, "rb");
        assert_non_null(read);
        sizes[i] = fread(bytes[i], 1, sizeof bytes[i], read);
        fclose(read);
    }
    assert_int_equal(sizes[1], (sizes[0] + 31) / 32 * 32);
    assert_memory_equal(bytes[0], bytes[1], sizes[1]);
    for (size_t i = 0; i < count; i++) {
        free((void *)(uintptr_t)all[i].data);
    }
    free(wanted);
    tiny_close(&t);
}

/* ---- adapters ---- */

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
        float *old = floats_of(t->file, w, false), *new = floats_of(t->file, m, false);
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
        float *logits = logits_of(t.context, merged);
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
        cmocka_unit_test(test_trained_model_has_the_same_logits),
        cmocka_unit_test(test_refuses_bad_configurations),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_reorder),
        cmocka_unit_test(test_gguf_write),
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
