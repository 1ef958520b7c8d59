/**
 * test_nn.c: modules as trees, names, errors.
 */
#include "nn_check.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static bool says(const char *a, const char *b, const char *c)
{
    const char *text = attn_last_error();
    bool all = strstr(text, a) && strstr(text, b) && strstr(text, c);
    if (!all) {
        fprintf(stderr, "the text lacks \"%s\", \"%s\" or \"%s\": %s\n", a, b, c, text);
    }
    return all;
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
    /* What hangs elsewhere, or holds the parent, is nobody's to destroy, whatever else is wrong. */
    nn_ok(attn_module_create(&again), "module");
    nn_ok(attn_module_add_parameter(again, "fc", scale), "parameter");
    assert_int_equal(attn_module_add(again, "fc", leaf), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_module_add(again, "", leaf), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_module_add(again, "fc", again), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_module_add(leaf, NULL, root), ATTN_ERR_ARGUMENT);
    assert_ptr_equal(attn_module_find(root, "body.0.fc"), leaf);
    attn_module_destroy(again);
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
    attn_module *gpt = nn_gpt(options, 1);
    has_names(gpt, 11, llama);
    attn_module_destroy(gpt);
    options.untied = true;
    gpt = nn_gpt(options, 1);
    has_names(gpt, 12, llama);
    attn_module_destroy(gpt);
    gpt = nn_gpt(nn_gpt2_options(), 1);
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
    attn_module *gpt = nn_gpt(attn_gpt_options_init(), 1);
    assert_int_equal(attn_lora_apply(gpt, &lora, NULL), ATTN_ERR_ARGUMENT);
    assert_true(says("q_proj", "gate_proj", "down_proj"));
    attn_module_destroy(gpt);
}

/* Failures while applying: the tape keeps them, and the text is the first one's. */
static void test_call_errors(void **unused)
{
    (void)unused;
    attn_module *gpt = nn_gpt(attn_gpt_options_init(), 1), *linear;
    attn_tape *tape = nn_tape(context);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tree),   cmocka_unit_test(test_set_parameter),
        cmocka_unit_test(test_names),  cmocka_unit_test(test_bert_names),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_call_errors),
    };
    return cmocka_run_group_tests_name("modules", tests, nn_start, nn_stop);
}
