/*
 * Structs that can grow: every function that takes one reads as much as its struct_size says. An older
 * caller's is smaller, a newer one's larger; one that was never initialised is refused by name.
 */
#include <attn/attn.h>
#include <attn/lm.h>

#include "expect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static attn_context *context;

static int open_context(void **state)
{
    (void)state;
    return attn_context_create(NULL, &context) == ATTN_OK ? 0 : 1;
}

static int close_context(void **state)
{
    (void)state;
    attn_context_destroy(context);
    return 0;
}

typedef struct grown {
    size_t struct_size;
    int64_t first, second;
} grown;

static void what_an_older_caller_lacks_keeps_its_default(void **state)
{
    (void)state;
    grown known = {sizeof known, 1, 2};
    grown given;
    memset(&given, 0xa5, sizeof given);
    given.struct_size = offsetof(grown, second);
    given.first = 10;
    assert_int_equal(attn_take_struct("options", "f", &given, &known, sizeof known), ATTN_OK);
    assert_int_equal(known.struct_size, sizeof known);
    assert_int_equal(known.first, 10);
    assert_int_equal(known.second, 2);
    assert_int_equal(attn_take_struct("options", "f", NULL, &known, sizeof known), ATTN_OK);
    assert_int_equal(known.first, 10);
}

static void what_is_unknown_must_be_zero(void **state)
{
    (void)state;
    struct {
        grown known;
        unsigned char more[16];
    } newer = {.known = {sizeof newer, 3, 4}};
    grown known = {sizeof known, 1, 2};
    assert_int_equal(attn_take_struct("options", "f", &newer, &known, sizeof known), ATTN_OK);
    assert_int_equal(known.second, 4);
    newer.more[5] = 1;
    expect_error(attn_take_struct("options", "f", &newer, &known, sizeof known),
                 ATTN_ERR_UNSUPPORTED, "byte 29 is set");
    const size_t wrong[] = {0, 1, sizeof(size_t) - 1, 65537, (size_t)-1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        newer.known.struct_size = wrong[i];
        expect_error(attn_take_struct("options", "f", &newer, &known, sizeof known),
                     ATTN_ERR_ARGUMENT, "start from f()");
    }
}

/* A struct that nobody initialised is refused, and the text says who does. */
#define REFUSES(type, call)                                           \
    do {                                                              \
        type o;                                                       \
        memset(&o, 0, sizeof o);                                      \
        expect_error((call), ATTN_ERR_ARGUMENT, "start from " #type); \
    } while (0)

static void every_function_asks_for_struct_size(void **state)
{
    (void)state;
    attn_module *m;
    attn_tokenizer *tokenizer;
    attn_sampler *sampler;
    attn_optimizer *optimizer;
    attn_gguf *file;
    attn_kv_cache *cache;
    attn_context *made;
    REFUSES(attn_context_options, attn_context_create(&o, &made));
    REFUSES(attn_kv_cache_options, attn_kv_cache_create(context, &o, &cache));
    REFUSES(attn_nn_options, attn_nn_linear_create(&o, 2, 2, true, &m));
    REFUSES(attn_nn_attention_options, attn_nn_attention_create(NULL, &o, &m));
    REFUSES(attn_nn_block_options, attn_nn_block_create(NULL, &o, &m));
    REFUSES(attn_gpt_options, attn_gpt_create(&o, &m));
    REFUSES(attn_bert_options, attn_bert_create(&o, &m));
    REFUSES(attn_optimizer_options, attn_optimizer_create(context, &o, &optimizer));
    REFUSES(attn_sampler_options, attn_sampler_create(&o, 4, &sampler));
    REFUSES(attn_tokenizer_train_options, attn_tokenizer_train_bpe("ab", 2, &o, &tokenizer));
    REFUSES(attn_tokenizer_train_options, attn_tokenizer_train_chars("ab", 2, &o, &tokenizer));
    REFUSES(attn_model_open_options, attn_model_open("nowhere.gguf", &o, &file));
}

static void modules_and_steps_ask_too(void **state)
{
    (void)state;
    attn_module *m;
    attn_optimizer *optimizer;
    assert_int_equal(attn_nn_linear_create(NULL, 2, 2, true, &m), ATTN_OK);
    REFUSES(attn_lora_options, attn_lora_apply(m, &o, NULL));
    assert_int_equal(attn_optimizer_create(context, NULL, &optimizer), ATTN_OK);
    REFUSES(attn_step_options, attn_optimizer_step(optimizer, &o, NULL));
    attn_optimizer_destroy(optimizer);
    attn_module_destroy(m);
}

/* Behind `heads` an older program knew nothing; what lies there must not be read. */
static void an_older_gpt_has_the_defaults_of_the_rest(void **state)
{
    (void)state;
    attn_gpt_options now = attn_gpt_options_init(), old;
    now.vocab = 11;
    size_t known = offsetof(attn_gpt_options, heads) + sizeof now.heads;
    memset(&old, 0xa5, sizeof old);
    memcpy(&old, &now, known);
    old.struct_size = known;
    attn_module *a, *b;
    assert_int_equal(attn_gpt_create(&now, &a), ATTN_OK);
    assert_int_equal(attn_gpt_create(&old, &b), ATTN_OK);
    assert_int_equal(attn_gpt_get_options(b)->context, attn_gpt_get_options(a)->context);
    assert_int_equal(attn_module_element_count(b, false), attn_module_element_count(a, false));
    attn_module_destroy(a);
    attn_module_destroy(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_an_older_caller_lacks_keeps_its_default),
        cmocka_unit_test(what_is_unknown_must_be_zero),
        cmocka_unit_test(every_function_asks_for_struct_size),
        cmocka_unit_test(modules_and_steps_ask_too),
        cmocka_unit_test(an_older_gpt_has_the_defaults_of_the_rest),
    };
    return cmocka_run_group_tests_name("struct_size", tests, open_context, close_context);
}
