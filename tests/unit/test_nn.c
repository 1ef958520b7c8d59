/**
 * test_nn.c: modules as trees, names, errors, and what models must do whatever their weights are.
 */
#include "nn_check.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static attn_context *context;

static bool says(const char *a, const char *b, const char *c)
{
    const char *text = attn_last_error();
    bool all = strstr(text, a) && strstr(text, b) && strstr(text, c);
    if (!all) {
        fprintf(stderr, "the text lacks \"%s\", \"%s\" or \"%s\": %s\n", a, b, c, text);
    }
    return all;
}

static attn_gpt_options gpt2_options(void)
{
    attn_gpt_options options = attn_gpt_options_init();
    options.norm = ATTN_NORM_LAYER;
    options.mlp = ATTN_MLP_GELU_TANH;
    options.position = ATTN_POSITION_LEARNED;
    options.bias = true;
    return options;
}

static attn_module *gpt_of(attn_gpt_options options, int64_t layers)
{
    options.vocab = 50;
    options.layers = layers;
    options.dim = 32;
    options.context = 16;
    options.seed = 3;
    attn_module *gpt;
    nn_ok(attn_gpt_create(&options, &gpt), "gpt");
    assert_int_equal(attn_gpt_element_count(&options), attn_module_element_count(gpt, false));
    return gpt;
}

static attn_tape *new_tape(attn_context *c)
{
    attn_tape *tape;
    nn_ok(attn_tape_create(c, &tape), "tape");
    return tape;
}

/* ---- trees ------------------------------------------------------------------------------------- */

static void test_tree(void **unused)
{
    (void)unused;
    attn_module *root, *branch, *leaf, *again;
    nn_ok(attn_module_create(&root), "module");
    nn_ok(attn_module_create(&branch), "module");
    nn_ok(attn_nn_linear_create(NULL, 3, 2, true, &leaf), "linear");
    nn_ok(attn_module_add(branch, "fc", leaf), "add");
    nn_ok(attn_module_add(root, "body.0", branch), "add");
    attn_tensor *scale = nn_random(ATTN_F32, 1, 1, (int64_t[]){4});
    nn_ok(attn_module_add_parameter(branch, "scale", scale), "parameter");
    assert_true(attn_tensor_requires_grad(scale));
    attn_tensor_release(scale);
    assert_int_equal(attn_module_parameter_count(root), 3);
    assert_string_equal(attn_module_parameter_name(root, 0), "body.0.fc.weight");
    assert_string_equal(attn_module_parameter_name(root, 1), "body.0.fc.bias");
    assert_string_equal(attn_module_parameter_name(root, 2), "body.0.scale");
    assert_string_equal(attn_module_parameter_name(branch, 2), "scale");
    assert_null(attn_module_parameter_name(root, 3));
    assert_null(attn_module_parameter(root, -1));
    assert_int_equal(attn_module_element_count(root, false), 6 + 2 + 4);
    attn_module_require_grad(leaf, false);
    assert_int_equal(attn_module_element_count(root, true), 4);
    assert_ptr_equal(attn_module_find(root, "body.0.fc"), leaf);
    assert_ptr_equal(attn_module_find(root, ""), root);
    assert_null(attn_module_find(root, "body.0.f"));
    assert_null(attn_module_find(root, "body"));
    assert_ptr_equal(attn_module_find_parameter(root, "body.0.scale"), scale);
    attn_module_set_training(root, true);
    assert_true(attn_module_training(leaf));
    nn_ok(attn_module_create(&again), "module");
    assert_int_equal(attn_module_add(root, "body.0", again), ATTN_ERR_ARGUMENT); /* destroys it */
    assert_int_equal(attn_module_add_parameter(branch, "twice", scale), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_module_add(root, "none", NULL), ATTN_ERR_ARGUMENT);
    attn_module_destroy(root);
    attn_module_destroy(NULL);
    assert_int_equal(attn_module_parameter_count(NULL), 0);
}

static void test_set_parameter(void **unused)
{
    (void)unused;
    attn_module *linear;
    nn_ok(attn_nn_linear_create(NULL, 3, 2, true, &linear), "linear");
    double six[6] = {1, 2, 3, 4, 5, 6};
    attn_view right = attn_view_dense(six, ATTN_F64, 2, (int64_t[]){2, 3});
    attn_view turned = attn_view_dense(six, ATTN_F64, 2, (int64_t[]){3, 2});
    nn_ok(attn_module_set_parameter(context, linear, "weight", &right), "set");
    const float *w = attn_tensor_view(attn_module_find_parameter(linear, "weight")).data;
    for (int i = 0; i < 6; i++) {
        assert_true(w[i] == (float)six[i]);
    }
    assert_int_equal(attn_module_set_parameter(context, linear, "weight", &turned), ATTN_ERR_SHAPE);
    assert_true(says("weight is [2, 3]", "[3, 2]", "transposed"));
    assert_int_equal(attn_module_set_parameter(context, linear, "wieght", &right),
                     ATTN_ERR_ARGUMENT);
    assert_true(says("wieght", "did you mean \"weight\"", "2"));
    attn_module_destroy(linear);
}

/* ---- names ------------------------------------------------------------------------------------- */

static void has_names(const attn_module *module, int count, const char *const *names)
{
    for (int i = 0; i < count; i++) {
        if (!attn_module_find_parameter(module, names[i])) {
            fail_msg("there is no parameter %s", names[i]);
        }
    }
    assert_int_equal(attn_module_parameter_count(module), count);
}

static void test_names(void **unused)
{
    (void)unused;
    static const char *const llama[] = {"model.embed_tokens.weight",
                                        "model.layers.0.input_layernorm.weight",
                                        "model.layers.0.self_attn.q_proj.weight",
                                        "model.layers.0.self_attn.k_proj.weight",
                                        "model.layers.0.self_attn.v_proj.weight",
                                        "model.layers.0.self_attn.o_proj.weight",
                                        "model.layers.0.post_attention_layernorm.weight",
                                        "model.layers.0.mlp.gate_proj.weight",
                                        "model.layers.0.mlp.up_proj.weight",
                                        "model.layers.0.mlp.down_proj.weight",
                                        "model.norm.weight",
                                        "lm_head.weight"};
    static const char *const gpt2[] = {"transformer.wte.weight",
                                       "transformer.wpe.weight",
                                       "transformer.h.0.ln_1.weight",
                                       "transformer.h.0.ln_1.bias",
                                       "transformer.h.0.attn.c_attn.weight",
                                       "transformer.h.0.attn.c_attn.bias",
                                       "transformer.h.0.attn.c_proj.weight",
                                       "transformer.h.0.attn.c_proj.bias",
                                       "transformer.h.0.ln_2.weight",
                                       "transformer.h.0.ln_2.bias",
                                       "transformer.h.0.mlp.c_fc.weight",
                                       "transformer.h.0.mlp.c_fc.bias",
                                       "transformer.h.0.mlp.c_proj.weight",
                                       "transformer.h.0.mlp.c_proj.bias",
                                       "transformer.ln_f.weight",
                                       "transformer.ln_f.bias"};
    attn_gpt_options options = attn_gpt_options_init();
    attn_module *gpt = gpt_of(options, 1);
    has_names(gpt, 11, llama);
    attn_module_destroy(gpt);
    options.untied = true;
    gpt = gpt_of(options, 1);
    has_names(gpt, 12, llama);
    attn_module_destroy(gpt);
    gpt = gpt_of(gpt2_options(), 1);
    has_names(gpt, 16, gpt2);
    attn_tensor *c_attn = attn_module_find_parameter(gpt, gpt2[4]);
    assert_int_equal(attn_tensor_size(c_attn, 0), 32); /* [in, out], as in GPT-2's files */
    assert_int_equal(attn_tensor_size(c_attn, 1), 96);
    attn_module_destroy(gpt);
}

static void test_bert_names(void **unused)
{
    (void)unused;
    static const char *const bert[] = {"embeddings.word_embeddings.weight",
                                       "embeddings.position_embeddings.weight",
                                       "embeddings.token_type_embeddings.weight",
                                       "embeddings.LayerNorm.weight",
                                       "embeddings.LayerNorm.bias",
                                       "encoder.layer.0.attention.self.query.weight",
                                       "encoder.layer.0.attention.self.query.bias",
                                       "encoder.layer.0.attention.self.key.weight",
                                       "encoder.layer.0.attention.self.key.bias",
                                       "encoder.layer.0.attention.self.value.weight",
                                       "encoder.layer.0.attention.self.value.bias",
                                       "encoder.layer.0.attention.output.dense.weight",
                                       "encoder.layer.0.attention.output.dense.bias",
                                       "encoder.layer.0.attention.output.LayerNorm.weight",
                                       "encoder.layer.0.attention.output.LayerNorm.bias",
                                       "encoder.layer.0.intermediate.dense.weight",
                                       "encoder.layer.0.intermediate.dense.bias",
                                       "encoder.layer.0.output.dense.weight",
                                       "encoder.layer.0.output.dense.bias",
                                       "encoder.layer.0.output.LayerNorm.weight",
                                       "encoder.layer.0.output.LayerNorm.bias"};
    attn_bert_options options = attn_bert_options_init();
    options.vocab = 20;
    options.layers = 1;
    attn_module *module;
    nn_ok(attn_bert_create(&options, &module), "bert");
    has_names(module, 21, bert);
    assert_non_null(attn_module_find(module, "encoder.layer.0.output.dense"));
    attn_module_destroy(module);
}

/* ---- errors ------------------------------------------------------------------------------------ */

static void test_errors(void **unused)
{
    (void)unused;
    attn_module *module = (attn_module *)&context;
    attn_nn_attention_options heads = attn_nn_attention_options_init();
    heads.dim = 65;
    heads.heads = 8;
    assert_int_equal(attn_nn_attention_create(NULL, &heads, &module), ATTN_ERR_SHAPE);
    assert_null(module);
    assert_true(says("65 is not a multiple of heads 8", "make it one", "example dim 72"));
    heads.dim = 64;
    heads.heads_kv = 3;
    assert_int_equal(attn_nn_attention_create(NULL, &heads, &module), ATTN_ERR_SHAPE);
    assert_true(says("heads_kv: 3 does not divide heads 8", "serves", "example"));
    attn_gpt_options options = attn_gpt_options_init();
    assert_int_equal(attn_gpt_create(&options, &module), ATTN_ERR_SHAPE);
    assert_true(says("vocab: is 0", "at least 1", "256"));
    options.vocab = 10;
    options.dropout = 1.0;
    assert_int_equal(attn_gpt_create(&options, &module), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_gpt_element_count(&options), -1);
    options.dropout = 0.0;
    options.dim = 65;
    options.heads = 8;
    assert_int_equal(attn_gpt_create(&options, &module), ATTN_ERR_SHAPE);
    assert_int_equal(attn_gpt_create(NULL, &module), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_nn_linear_create(NULL, 0, 2, true, &module), ATTN_ERR_SHAPE);
    attn_nn_options half = attn_nn_options_init();
    half.dtype = ATTN_F16;
    assert_int_equal(attn_nn_linear_create(&half, 2, 2, true, &module), ATTN_ERR_DTYPE);
    assert_int_equal(attn_nn_position_create(NULL, ATTN_POSITION_ROPE, 2, 2, &module),
                     ATTN_ERR_ARGUMENT);
    attn_lora_options lora = attn_lora_options_init();
    static const char *const targets[] = {"q_prj"};
    lora.targets = targets;
    lora.target_count = 1;
    attn_module *gpt = gpt_of(attn_gpt_options_init(), 1);
    assert_int_equal(attn_lora_apply(gpt, &lora, NULL), ATTN_ERR_ARGUMENT);
    assert_true(says("q_proj", "gate_proj", "down_proj"));
    attn_module_destroy(gpt);
}

/* Failures while applying: the tape keeps them, and the text is the first one's. */
static void test_call_errors(void **unused)
{
    (void)unused;
    attn_module *gpt = gpt_of(attn_gpt_options_init(), 1), *linear;
    attn_tape *tape = new_tape(context);
    int64_t ids[40] = {0};
    assert_null(attn_gpt_loss(tape, gpt, ids, ids, 1, 17));
    assert_int_equal(attn_tape_status(tape), ATTN_ERR_SHAPE);
    assert_true(says("17", "context 16", "larger context"));
    attn_tape_clear(tape);
    ids[1] = 50;
    assert_null(attn_gpt_logits(tape, gpt, ids, 1, 2));
    assert_int_equal(attn_tape_status(tape), ATTN_ERR_ARGUMENT);
    attn_tape_clear(tape);
    attn_tensor *x = nn_random(ATTN_F32, 1, 2, (int64_t[]){4, 6});
    nn_ok(attn_nn_linear_create(NULL, 5, 2, true, &linear), "linear");
    assert_null(attn_nn_norm(tape, linear, attn_nn_linear(tape, linear, x)));
    assert_int_equal(attn_tape_status(tape), ATTN_ERR_SHAPE);
    assert_true(says("last size of x is 6", "in_features is 5", "[.., 5]"));
    attn_tape_clear(tape);
    assert_null(attn_nn_norm(tape, linear, x));
    assert_int_equal(attn_tape_status(tape), ATTN_ERR_ARGUMENT);
    assert_true(says("a linear layer", "takes a norm", ""));
    attn_tape_clear(tape);
    assert_null(attn_nn_linear(tape, NULL, x));
    assert_int_equal(attn_tape_status(tape), ATTN_ERR_ARGUMENT);
    attn_tensor_release(x);
    attn_tape_destroy(tape);
    attn_module_destroy(linear);
    attn_module_destroy(gpt);
}

/* ---- what models must do ----------------------------------------------------------------------- */

enum { BATCH = 2, LEN = 12, VOCAB = 50 };

static void some_ids(int64_t *ids)
{
    for (int i = 0; i < BATCH * LEN; i++) {
        ids[i] = (i * 37 + 11) % VOCAB;
    }
}

/* A token's change leaves every bit of the logits before it, and moves those from it on. */
static void check_causal(attn_gpt_options options)
{
    attn_module *gpt = gpt_of(options, 2);
    attn_tape *tape = new_tape(context);
    int64_t ids[BATCH * LEN];
    some_ids(ids);
    attn_tensor *before = attn_tensor_retain(attn_gpt_logits(tape, gpt, ids, BATCH, LEN));
    nn_ok(attn_tape_status(tape), "logits");
    for (int t = 0; t < LEN; t += 3) {
        attn_tape_clear(tape);
        some_ids(ids);
        ids[t] = (ids[t] + 1) % VOCAB;
        attn_tensor *after = attn_gpt_logits(tape, gpt, ids, BATCH, LEN);
        const float *a = attn_tensor_view(before).data, *b = attn_tensor_view(after).data;
        assert_memory_equal(a, b, (size_t)t * VOCAB * sizeof *a);
        for (int i = t; i < LEN; i++) {
            assert_memory_not_equal(a + i * VOCAB, b + i * VOCAB, VOCAB * sizeof *a);
        }
        assert_memory_equal(a + LEN * VOCAB, b + LEN * VOCAB, LEN * VOCAB * sizeof *a);
    }
    attn_tensor_release(before);
    attn_tape_destroy(tape);
    attn_module_destroy(gpt);
}

static void test_causal(void **unused)
{
    (void)unused;
    attn_gpt_options options = attn_gpt_options_init();
    options.heads_kv = 2;
    check_causal(options);
    check_causal(gpt2_options());
    options.position = ATTN_POSITION_ALIBI;
    check_causal(options);
}

static void test_all_learn(void **unused)
{
    (void)unused;
    attn_gpt_options kinds[2] = {attn_gpt_options_init(), gpt2_options()};
    for (int k = 0; k < 2; k++) {
        attn_module *gpt = gpt_of(kinds[k], 4);
        nn_shake(gpt, 1); /* at the start, biases of keys get exact zeros */
        attn_tape *tape = new_tape(context);
        int64_t ids[BATCH * LEN], targets[BATCH * LEN];
        some_ids(ids);
        for (int i = 0; i < BATCH * LEN; i++) {
            targets[i] = (ids[i] * 3 + 1) % VOCAB;
        }
        attn_tensor *loss = attn_gpt_loss(tape, gpt, ids, targets, BATCH, LEN);
        nn_ok(attn_tape_backward(tape, loss, NULL), "backward");
        for (int i = 0; i < attn_module_parameter_count(gpt); i++) {
            attn_tensor *grad = attn_tensor_grad(attn_module_parameter(gpt, i));
            assert_non_null(grad);
            const float *g = attn_tensor_view(grad).data;
            int64_t count = attn_tensor_count(grad), zeros = 0;
            for (int64_t j = 0; j < count; j++) {
                zeros += g[j] == 0.0f;
            }
            if (zeros == count) {
                fail_msg("%s has gradient 0", attn_module_parameter_name(gpt, i));
            }
        }
        attn_tape_destroy(tape);
        attn_module_destroy(gpt);
    }
}

/* One step's loss and gradients: the same bits on 1 and 4 threads, and from two models of one seed; others from another seed. */
static float run_step(int threads, uint64_t seed, bool checkpoint, float *grads)
{
    attn_context *own = nn_context(threads);
    attn_gpt_options options = attn_gpt_options_init();
    options.vocab = VOCAB;
    options.layers = 2;
    options.dim = 64;
    options.context = LEN;
    options.dropout = 0.1;
    options.seed = seed;
    options.checkpoint = checkpoint;
    attn_module *gpt;
    nn_ok(attn_gpt_create(&options, &gpt), "gpt");
    attn_module_set_training(gpt, true);
    attn_module_set_dropout_seed(gpt, 4);
    attn_tape *tape = new_tape(own);
    int64_t ids[BATCH * LEN];
    some_ids(ids);
    attn_tensor *loss = attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN);
    nn_ok(attn_tape_backward(tape, loss, NULL), "backward");
    float value = (float)attn_tensor_item(loss);
    attn_view q = attn_tensor_view(attn_tensor_grad(
        attn_module_find_parameter(gpt, "model.layers.0.self_attn.q_proj.weight")));
    memcpy(grads, q.data, 64 * 64 * sizeof *grads);
    attn_tape_destroy(tape);
    attn_module_destroy(gpt);
    attn_context_destroy(own);
    return value;
}

static void test_same_bits(void **unused)
{
    (void)unused;
    static float first[64 * 64], other[64 * 64];
    float loss = run_step(1, 5, false, first);
    assert_true(run_step(4, 5, false, other) == loss);
    assert_memory_equal(first, other, sizeof first);
    assert_true(run_step(3, 5, true, other) == loss);
    assert_memory_equal(first, other, sizeof first);
    assert_true(run_step(1, 6, false, other) != loss);
}

static void test_dropout_modes(void **unused)
{
    (void)unused;
    attn_gpt_options options = attn_gpt_options_init();
    options.dropout = 0.5;
    attn_module *gpt = gpt_of(options, 2);
    attn_tape *tape = new_tape(context);
    int64_t ids[BATCH * LEN];
    some_ids(ids);
    double loss[6];
    for (int i = 0; i < 6; i++) {
        attn_module_set_training(gpt, i >= 2);
        if (i == 2 || i == 4) {
            attn_module_set_dropout_seed(gpt, 9);
        }
        loss[i] = attn_tensor_item(attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN));
    }
    assert_true(loss[0] == loss[1]); /* evaluation: no dropout */
    assert_true(loss[2] != loss[0]);
    assert_true(loss[3] != loss[2]);                       /* the next call has masks of its own */
    assert_true(loss[4] == loss[2] && loss[5] == loss[3]); /* and the seed repeats them */
    attn_tape_destroy(tape);
    attn_module_destroy(gpt);
}

/* Padding is seen by nobody: rows before a length do not depend on what stands after it. */
static void test_bert_padding(void **unused)
{
    (void)unused;
    attn_bert_options options = attn_bert_options_init();
    options.vocab = VOCAB;
    options.layers = 2;
    options.context = LEN;
    attn_module *bert;
    nn_ok(attn_bert_create(&options, &bert), "bert");
    attn_tape *tape = new_tape(context);
    int64_t ids[BATCH * LEN], lengths[BATCH] = {12, 7};
    some_ids(ids);
    attn_tensor *a = attn_bert_forward(tape, bert, ids, NULL, lengths, BATCH, LEN);
    for (int i = LEN + 7; i < 2 * LEN; i++) {
        ids[i] = 0;
    }
    attn_tensor *b = attn_bert_forward(tape, bert, ids, NULL, lengths, BATCH, LEN);
    nn_ok(attn_tape_status(tape), "bert");
    assert_memory_equal(attn_tensor_view(a).data, attn_tensor_view(b).data,
                        (size_t)(LEN + 7) * 128 * sizeof(float));
    attn_tape_destroy(tape);
    attn_module_destroy(bert);
}

/* The adapter changes nothing at first; merged, the base says what base and adapter said. */
static void check_lora(attn_gpt_options options)
{
    attn_module *gpt = gpt_of(options, 2);
    attn_tape *tape = new_tape(context);
    int64_t ids[BATCH * LEN];
    some_ids(ids);
    double plain = attn_tensor_item(attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN));
    attn_lora_options lora = attn_lora_options_init();
    int count = 0, parameters = attn_module_parameter_count(gpt);
    nn_ok(attn_lora_apply(gpt, &lora, &count), "lora");
    assert_int_equal(attn_module_parameter_count(gpt), parameters + 2 * count);
    assert_true(attn_tensor_item(attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN)) == plain);
    assert_int_equal(attn_lora_apply(gpt, &lora, NULL), ATTN_ERR_ARGUMENT);
    for (int i = parameters; i < parameters + 2 * count; i++) {
        assert_non_null(strstr(attn_module_parameter_name(gpt, i), ".lora_"));
        assert_true(attn_tensor_requires_grad(attn_module_parameter(gpt, i)));
        attn_view view = attn_tensor_write(attn_module_parameter(gpt, i));
        nn_ok(attn_fill_normal(8, (uint64_t)i, 0.0, 0.2, &view), "fill");
    }
    assert_false(attn_tensor_requires_grad(attn_module_parameter(gpt, 0)));
    attn_tensor *beside = attn_gpt_logits(tape, gpt, ids, BATCH, LEN);
    double adapted = attn_tensor_item(attn_gpt_loss(tape, gpt, ids, ids, BATCH, LEN));
    assert_true(adapted != plain);
    nn_ok(attn_lora_merge(context, gpt), "merge");
    assert_int_equal(attn_module_parameter_count(gpt), parameters);
    attn_tensor *merged = attn_gpt_logits(tape, gpt, ids, BATCH, LEN);
    nn_ok(attn_tape_status(tape), "logits");
    const float *a = attn_tensor_view(beside).data, *b = attn_tensor_view(merged).data;
    for (int i = 0; i < BATCH * LEN * VOCAB; i++) {
        assert_true(a[i] - b[i] < 1e-5f && b[i] - a[i] < 1e-5f);
    }
    attn_tape_destroy(tape);
    attn_module_destroy(gpt);
}

static void test_lora(void **unused)
{
    (void)unused;
    check_lora(attn_gpt_options_init());
    check_lora(gpt2_options());
}

static int setup(void **unused)
{
    (void)unused;
    context = nn_context(2);
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    attn_context_destroy(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),         cmocka_unit_test(test_set_parameter),
        cmocka_unit_test(test_names),        cmocka_unit_test(test_bert_names),
        cmocka_unit_test(test_errors),       cmocka_unit_test(test_call_errors),
        cmocka_unit_test(test_causal),       cmocka_unit_test(test_all_learn),
        cmocka_unit_test(test_same_bits),    cmocka_unit_test(test_dropout_modes),
        cmocka_unit_test(test_bert_padding), cmocka_unit_test(test_lora),
    };
    return cmocka_run_group_tests_name("modules", tests, setup, teardown);
}
