/**
 * test_nn_tiny.c: the GPT of tensors and the model that reads GGUF files are one and the same function: same weights, same logits.
 */
#include "nn_check.h"
#include "tiny.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rows of q and k as Hugging Face has them, from GGUF's, where pairs (i, i + dim/2) of a head stand side by side. */
static void to_halves(float *rows, int64_t heads, int64_t head_dim, int64_t columns)
{
    size_t row = (size_t)columns * sizeof *rows, head = (size_t)head_dim * row;
    float *copy = malloc(head);
    assert_non_null(copy);
    for (int64_t h = 0; h < heads; h++) {
        float *of = rows + h * head_dim * columns;
        memcpy(copy, of, head);
        for (int64_t i = 0; i < head_dim; i++) {
            int64_t from = i < head_dim / 2 ? 2 * i : 2 * (i - head_dim / 2) + 1;
            memcpy(of + i * columns, copy + from * columns, row);
        }
    }
    free(copy);
}

static void set(const tiny *t, attn_module *gpt, const char *gguf, const char *name, int64_t heads)
{
    const attn_gguf_tensor *tensor = attn_gguf_find(t->file, gguf);
    assert_non_null(tensor);
    int64_t rows = tensor->ndim > 1 ? tensor->dims[1] : 1, columns = tensor->dims[0];
    float *values = malloc((size_t)(rows * columns) * sizeof *values);
    assert_non_null(values);
    nn_ok(attn_gguf_dequantize(tensor, values, rows * columns), gguf);
    if (heads) {
        to_halves(values, heads, rows / heads, columns);
    }
    attn_view view = tensor->ndim > 1
                         ? attn_view_dense(values, ATTN_F32, 2, (int64_t[]){rows, columns})
                         : attn_view_dense(values, ATTN_F32, 1, &columns);
    nn_ok(attn_module_set_parameter(t->context, gpt, name, &view), name);
    free(values);
}

static attn_module *gpt_of(const tiny *t, attn_dtype dtype)
{
    const attn_model_config *c = attn_model_get_config(t->model);
    attn_gpt_options options = attn_gpt_options_init();
    options.dtype = dtype;
    options.vocab = c->vocab;
    options.layers = c->layers;
    options.dim = c->dim;
    options.heads = c->heads_q;
    options.heads_kv = c->heads_kv;
    options.head_dim = c->head_dim;
    options.ffn = c->ffn_dim;
    options.context = c->context;
    options.norm_eps = c->norm_eps;
    options.rope_theta = c->rope_theta;
    options.untied = !c->tied_output;
    options.init = ATTN_INIT_ZERO;
    attn_module *gpt;
    nn_ok(attn_gpt_create(&options, &gpt), "gpt");
    set(t, gpt, "token_embd.weight", "model.embed_tokens.weight", 0);
    set(t, gpt, "output_norm.weight", "model.norm.weight", 0);
    set(t, gpt, "output.weight", "lm_head.weight", 0);
    static const char *const names[][2] = {
        {"attn_q", "self_attn.q_proj"},          {"attn_k", "self_attn.k_proj"},
        {"attn_v", "self_attn.v_proj"},          {"attn_output", "self_attn.o_proj"},
        {"ffn_gate", "mlp.gate_proj"},           {"ffn_up", "mlp.up_proj"},
        {"ffn_down", "mlp.down_proj"},           {"attn_norm", "input_layernorm"},
        {"ffn_norm", "post_attention_layernorm"}};
    for (int64_t layer = 0; layer < c->layers; layer++) {
        for (int n = 0; n < 9; n++) {
            char from[64], to[96];
            snprintf(from, sizeof from, "blk.%d.%s.weight", (int)layer, names[n][0]);
            snprintf(to, sizeof to, "model.layers.%d.%s.weight", (int)layer, names[n][1]);
            set(t, gpt, from, to, n == 0 ? c->heads_q : n == 1 ? c->heads_kv : 0);
        }
    }
    return gpt;
}

enum { LEN = 70 };

/* Both run in f32 and differ in the order of sums only; f64 tells how far each is from the truth. */
static void test_same_logits(void **unused)
{
    (void)unused;
    tiny t = tiny_open(2, ATTN_ACTIVATIONS_F32);
    int64_t vocab = attn_model_get_config(t.model)->vocab, ids[LEN];
    int32_t short_ids[LEN];
    tiny_ids(4, short_ids, LEN);
    for (int i = 0; i < LEN; i++) {
        ids[i] = short_ids[i];
    }
    attn_session *session = tiny_session(&t, 0, 0, 0, ATTN_F32);
    float *wanted = malloc((size_t)(LEN * vocab) * sizeof *wanted);
    assert_non_null(wanted);
    nn_ok(attn_session_eval(session, short_ids, LEN, true, wanted), "eval");
    attn_tape *tape;
    nn_ok(attn_tape_create(t.context, &tape), "tape");
    for (int wide = 0; wide < 2; wide++) {
        attn_module *gpt = gpt_of(&t, wide ? ATTN_F64 : ATTN_F32);
        attn_tensor *logits = attn_gpt_logits(tape, gpt, ids, 1, LEN);
        nn_ok(attn_tape_status(tape), "logits");
        attn_view view = attn_tensor_view(logits);
        double worst = 0.0, largest = 0.0;
        for (int64_t i = 0; i < LEN * vocab; i++) {
            double x =
                wide ? ((const double *)view.data)[i] : (double)((const float *)view.data)[i];
            worst = fmax(worst, fabs(x - (double)wanted[i]));
            largest = fmax(largest, fabs(x));
        }
        print_message("%s: logits up to %.2f, at most %.2g apart\n", wide ? "f64" : "f32", largest,
                      worst);
        assert_true(largest > 1.0 && worst < 1e-4);
        attn_tape_clear(tape);
        attn_module_destroy(gpt);
    }
    attn_tape_destroy(tape);
    free(wanted);
    attn_session_destroy(session);
    tiny_close(&t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_logits)};
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return 2;
    }
    tiny_path = argv[1];
    return cmocka_run_group_tests_name("GPT and model", tests, NULL, NULL);
}
