/**
 * test_nn_gradients.c: gradients of every layer and model in f64, against finite differences.
 */
#include "nn_check.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { BATCH = 2, LEN = 5, DIM = 12, LEN_K = 7, KV_DIM = 9 };

static attn_nn_options f64_options(void)
{
    attn_nn_options options = attn_nn_options_init();
    options.dtype = ATTN_F64;
    options.init = ATTN_INIT_XAVIER;
    options.seed = 11;
    return options;
}

/* What a forward function needs: a module, inputs, and how to attend. */
typedef struct call {
    attn_module *module;
    attn_tensor *x, *memory;
    const attn_nn_attend *attend, *memory_attend;
    const int64_t *ids, *targets, *segments, *lengths;
    int64_t batch, len;
} call;

static void check(const char *what, nn_forward *forward, call *c)
{
    attn_tensor *inputs[2] = {c->x, c->memory};
    nn_shake(c->module, 5);
    nn_check_gradients(context, what, forward, c, c->module, c->memory ? 2 : c->x ? 1 : 0, inputs);
    attn_module_destroy(c->module);
}

static attn_tensor *input(uint64_t seed, int64_t batch, int64_t len, int64_t dim)
{
    return nn_random(ATTN_F64, seed, 3, (int64_t[]){batch, len, dim});
}

/* ---- plain layers ------------------------------------------------------------------------------ */

static attn_tensor *run_linear(attn_tape *tape, void *user)
{
    call *c = user;
    return attn_nn_linear(tape, c->module, c->x);
}

static attn_tensor *run_norm(attn_tape *tape, void *user)
{
    call *c = user;
    return attn_nn_norm(tape, c->module, c->x);
}

static attn_tensor *run_position(attn_tape *tape, void *user)
{
    call *c = user;
    return attn_nn_position(tape, c->module, c->x);
}

static attn_tensor *run_embedding(attn_tape *tape, void *user)
{
    call *c = user;
    return attn_nn_embedding(tape, c->module, c->ids, 2, (int64_t[]){c->batch, c->len});
}

static attn_tensor *run_mlp(attn_tape *tape, void *user)
{
    call *c = user;
    return attn_nn_mlp(tape, c->module, c->x);
}

static void test_plain(void **unused)
{
    (void)unused;
    attn_nn_options nn = f64_options();
    attn_tensor *x = input(1, BATCH, LEN, DIM);
    call c = {.x = x};
    for (int bias = 0; bias < 2; bias++) {
        nn_ok(attn_nn_linear_create(&nn, DIM, 5, bias, &c.module), "linear");
        check("linear", run_linear, &c);
    }
    nn_ok(attn_nn_norm_create(&nn, ATTN_NORM_RMS, DIM, 1e-5, &c.module), "norm");
    check("rms norm", run_norm, &c);
    nn_ok(attn_nn_norm_create(&nn, ATTN_NORM_LAYER, DIM, 1e-5, &c.module), "norm");
    check("layer norm", run_norm, &c);
    nn_ok(attn_nn_position_create(&nn, ATTN_POSITION_LEARNED, LEN, DIM, &c.module), "position");
    check("learned positions", run_position, &c);
    nn_ok(attn_nn_position_create(&nn, ATTN_POSITION_SINUSOIDAL, 9, DIM, &c.module), "position");
    check("sinusoidal positions", run_position, &c);
    static const int64_t ids[] = {3, 0, 3, 1, 2, 2, 3, 0, 1, 3};
    call e = {.ids = ids, .batch = BATCH, .len = LEN};
    nn_ok(attn_nn_embedding_create(&nn, 4, 3, &e.module), "embedding");
    check("embedding", run_embedding, &e);
    attn_tensor_release(x);
}

static void test_mlp(void **unused)
{
    (void)unused;
    attn_nn_options nn = f64_options();
    call c = {.x = input(2, BATCH, LEN, DIM)};
    for (int kind = 0; kind <= ATTN_MLP_RELU; kind++) {
        for (int naming = 0; naming <= ATTN_NAMES_BERT; naming++) {
            char what[32];
            snprintf(what, sizeof what, "mlp %d, naming %d", kind, naming);
            nn_ok(attn_nn_mlp_create(&nn, (attn_mlp_kind)kind, DIM, 10, kind != ATTN_MLP_SWIGLU,
                                     1.0, (attn_naming)naming, &c.module),
                  what);
            check(what, run_mlp, &c);
        }
    }
    attn_tensor_release(c.x);
}

/* ---- attention --------------------------------------------------------------------------------- */

static attn_tensor *run_attention(attn_tape *tape, void *user)
{
    call *c = user;
    return attn_nn_attention(tape, c->module, c->attend, c->x, c->memory);
}

static attn_nn_attention_options heads(int64_t q, int64_t kv)
{
    attn_nn_attention_options options = attn_nn_attention_options_init();
    options.dim = DIM;
    options.heads = q;
    options.heads_kv = kv;
    options.bias = options.out_bias = true;
    return options;
}

static void check_attention(const char *what, const attn_nn_attention_options *options,
                            const attn_nn_attend *attend, attn_tensor *memory, bool training)
{
    attn_nn_options nn = f64_options();
    call c = {.x = input(3, BATCH, LEN, DIM), .memory = memory, .attend = attend};
    nn_ok(attn_nn_attention_create(&nn, options, &c.module), what);
    attn_module_set_training(c.module, training);
    check(what, run_attention, &c);
    attn_tensor_release(c.x);
}

static void test_attention(void **unused)
{
    (void)unused;
    attn_nn_attention_options plain = heads(4, 4), grouped = heads(4, 2), wide = heads(3, 1);
    attn_nn_attend causal = attn_nn_attend_init();
    causal.causal = ATTN_CAUSAL_TOP_LEFT;
    wide.head_dim = 6;
    wide.bias = false;
    check_attention("plain attention", &plain, NULL, NULL, false);
    check_attention("grouped, causal", &grouped, &causal, NULL, false);
    check_attention("wide heads", &wide, &causal, NULL, false);
    grouped.naming = ATTN_NAMES_GPT2;
    check_attention("one matrix for q, k, v", &grouped, &causal, NULL, false);
    plain.position = ATTN_POSITION_ALIBI;
    check_attention("ALiBi", &plain, &causal, NULL, false);
    plain.position = ATTN_POSITION_ROPE;
    plain.heads = plain.heads_kv = 3;
    check_attention("RoPE", &plain, &causal, NULL, false);
    static const int64_t positions[BATCH * LEN] = {0, 1, 2, 3, 4, 3, 4, 5, 6, 7};
    causal.positions = positions;
    check_attention("RoPE with positions", &plain, &causal, NULL, false);
}

static void test_attend(void **unused)
{
    (void)unused;
    attn_nn_attention_options options = heads(4, 2);
    attn_nn_attend attend = attn_nn_attend_init();
    attend.has_window = true;
    attend.window_left = 1;
    attend.window_right = 0;
    check_attention("window", &options, &attend, NULL, false);
    static const int64_t lengths_q[BATCH] = {5, 3}, lengths_k[BATCH] = {4, 5};
    attend = attn_nn_attend_init();
    attend.lengths_q = lengths_q;
    attend.lengths_k = lengths_k;
    check_attention("lengths", &options, &attend, NULL, false);
    static const unsigned char bits[LEN * LEN] = {1, 1, 0, 1, 0, 0, 1, 1, 0, 1, 1, 0, 1,
                                                  1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1};
    attn_view mask = attn_view_dense(bits, ATTN_BOOL, 2, (int64_t[]){LEN, LEN});
    attend = attn_nn_attend_init();
    attend.mask = &mask;
    check_attention("mask, with an empty row", &options, &attend, NULL, false);
    options.dropout = 0.3;
    attend = attn_nn_attend_init();
    attend.dropout_seed = 77;
    check_attention("dropout", &options, &attend, NULL, true);
    options = heads(2, 1);
    options.kv_dim = KV_DIM;
    attn_tensor *memory = input(4, BATCH, LEN_K, KV_DIM);
    check_attention("cross-attention", &options, NULL, memory, false);
    attn_tensor_release(memory);
}

/* ---- blocks and models ------------------------------------------------------------------------- */

static attn_tensor *run_block(attn_tape *tape, void *user)
{
    call *c = user;
    return attn_nn_block(tape, c->module, c->attend, c->x, c->memory_attend, c->memory);
}

static void test_block(void **unused)
{
    (void)unused;
    attn_nn_options nn = f64_options();
    static const int64_t lengths[BATCH] = {7, 4};
    attn_nn_attend attend = attn_nn_attend_init(), other = attn_nn_attend_init();
    attend.causal = ATTN_CAUSAL_TOP_LEFT;
    attend.dropout_seed = 8;
    other.lengths_k = lengths;
    call c = {.x = input(5, BATCH, LEN, DIM), .attend = &attend};
    attn_tensor *memory = input(6, BATCH, LEN_K, KV_DIM);
    for (int variant = 0; variant < 8; variant++) {
        char what[64];
        bool post = variant & 1, cross = variant & 2, training = variant & 4;
        snprintf(what, sizeof what, "block: post %d, cross %d, training %d", post, cross, training);
        attn_nn_block_options options = attn_nn_block_options_init();
        options.attention = heads(4, 2);
        options.attention.naming = post ? ATTN_NAMES_BERT : ATTN_NAMES_LLAMA;
        options.attention.dropout = 0.2;
        options.norm = post ? ATTN_NORM_LAYER : ATTN_NORM_RMS;
        options.mlp = post ? ATTN_MLP_GELU : ATTN_MLP_SWIGLU;
        options.mlp_bias = post;
        options.post_norm = post;
        options.cross = cross;
        options.memory_dim = cross ? KV_DIM : 0;
        options.dropout = 0.2;
        c.memory = cross ? memory : NULL;
        c.memory_attend = cross ? &other : NULL;
        nn_ok(attn_nn_block_create(&nn, &options, &c.module), what);
        attn_module_set_training(c.module, training);
        check(what, run_block, &c);
    }
    attn_tensor_release(memory);
    attn_tensor_release(c.x);
}

static const int64_t ids[2 * 6] = {1, 4, 2, 2, 9, 0, 3, 3, 8, 5, 1, 7};
static const int64_t targets[2 * 6] = {4, 2, -1, 9, 0, 6, 3, 8, 5, 1, 7, -1};
static const int64_t segments[2 * 6] = {0, 0, 1, 1, 1, 1, 0, 1, 1, 0, 0, 0};

static attn_tensor *run_gpt(attn_tape *tape, void *user)
{
    call *c = user;
    attn_module_set_dropout_seed(c->module, 21);
    return attn_gpt_loss(tape, c->module, ids, targets, 2, 6);
}

static attn_gpt_options small_gpt(void)
{
    attn_gpt_options options = attn_gpt_options_init();
    options.dtype = ATTN_F64;
    options.vocab = 10;
    options.layers = 2;
    options.dim = DIM;
    options.heads = 2;
    options.ffn = 8;
    options.context = 6;
    return options;
}

static void check_gpt(const char *what, const attn_gpt_options *options)
{
    call c = {0};
    nn_ok(attn_gpt_create(options, &c.module), what);
    attn_module_set_training(c.module, options->dropout > 0);
    check(what, run_gpt, &c);
}

static void test_gpt(void **unused)
{
    (void)unused;
    attn_gpt_options options = small_gpt();
    options.heads_kv = 1;
    check_gpt("llama", &options);
    options.checkpoint = true;
    options.untied = true;
    options.window = 3;
    options.dropout = 0.2;
    check_gpt("llama, checkpoints, dropout, window, untied", &options);
    options = small_gpt();
    options.norm = ATTN_NORM_LAYER;
    options.mlp = ATTN_MLP_GELU_TANH;
    options.position = ATTN_POSITION_LEARNED;
    options.bias = true;
    check_gpt("gpt2", &options);
    options.position = ATTN_POSITION_SINUSOIDAL;
    options.dropout = 0.1;
    check_gpt("gpt2, sinusoids, dropout", &options);
    options = small_gpt();
    options.position = ATTN_POSITION_ALIBI;
    options.mlp = ATTN_MLP_RELU;
    check_gpt("ALiBi, ReLU", &options);
}

static attn_tensor *run_bert(attn_tape *tape, void *user)
{
    call *c = user;
    attn_module_set_dropout_seed(c->module, 22);
    return attn_bert_forward(tape, c->module, ids, c->segments, c->lengths, 2, 6);
}

static void test_bert(void **unused)
{
    (void)unused;
    static const int64_t lengths[2] = {6, 4};
    attn_bert_options options = attn_bert_options_init();
    options.dtype = ATTN_F64;
    options.vocab = 10;
    options.layers = 2;
    options.dim = DIM;
    options.heads = 3;
    options.ffn = 8;
    options.context = 6;
    options.dropout = 0.1;
    for (int variant = 0; variant < 3; variant++) {
        call c = {.segments = segments, .lengths = variant ? lengths : NULL};
        nn_ok(attn_bert_create(&options, &c.module), "bert");
        attn_module_set_training(c.module, variant == 2);
        check("bert", run_bert, &c);
    }
}

static void test_lora(void **unused)
{
    (void)unused;
    attn_gpt_options options = small_gpt();
    for (int gpt2 = 0; gpt2 < 2; gpt2++) {
        call c = {0};
        int count = 0;
        options.norm = gpt2 ? ATTN_NORM_LAYER : ATTN_NORM_RMS;
        nn_ok(attn_gpt_create(&options, &c.module), "gpt");
        attn_lora_options lora = attn_lora_options_init();
        lora.rank = 2;
        nn_ok(attn_lora_apply(c.module, &lora, &count), "lora");
        assert_int_equal(count, gpt2 ? 2 * 5 : 2 * 7);
        check("lora", run_gpt, &c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),     cmocka_unit_test(test_mlp),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_attend),
        cmocka_unit_test(test_block),     cmocka_unit_test(test_gpt),
        cmocka_unit_test(test_bert),      cmocka_unit_test(test_lora),
    };
    return cmocka_run_group_tests_name("gradients of layers", tests, nn_start, nn_stop);
}
