/*
 * test_model_file.c: models trained here and fine-tuned GGUF files, made from the tiny model of tests/golden, whose logits they must
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
                                           .data = tiny_floats(t->file, from, true),
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
    int64_t n = TINY_TOKENS * attn_model_get_config(t.model)->vocab;
    float *wanted = tiny_logits(t.context, t.file);
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
        float *got = tiny_logits(t.context, file);
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
                                    .data = tiny_floats(t.file, from, i % 3 != 0),
                                    .pairing = i % 3 ? ATTN_ROPE_HALVES : ATTN_ROPE_INTERLEAVED,
                                    .dtype = ATTN_F32};
    }
    attn_gguf *file;
    expect_ok(attn_gguf_write(in_folder("tuned.gguf"), t.file, all, count, "tuned"));
    expect_ok(attn_model_open(in_folder("tuned.gguf"), NULL, &file));
    float *wanted = tiny_logits(t.context, t.file), *got = tiny_logits(t.context, file);
    int64_t vocab = attn_model_get_config(t.model)->vocab;
    assert_memory_equal(got, wanted, (size_t)(TINY_TOKENS * vocab) * sizeof *got);
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
        float *old = tiny_floats(t.file, from, false), *new = tiny_floats(t.file, now, false);
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

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trained_model_has_the_same_logits),
        cmocka_unit_test(test_refuses_bad_configurations),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_reorder),
        cmocka_unit_test(test_gguf_write),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return 2;
    }
    tiny_path = argv[1];
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
