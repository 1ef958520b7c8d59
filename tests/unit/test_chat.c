/*
 * test_chat.c: chats rendered letter by letter, files' templates recognised, and what is refused.
 */
#include "gguf_bytes.h"
#include "vocabulary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const attn_chat_message chat[] = {
    {"system", "Be terse."}, {"user", " Hi \n"}, {"assistant", " Ho "}, {"user", "Bye"}};

/* A tokenizer with bos <s>, eos </s> and a chat template. */
static attn_tokenizer *tokenizer_with(const char *chat_template)
{
    vocabulary *v = bytes_vocabulary("gpt-2");
    add_token(v, "<s>", 3);
    add_token(v, "</s>", 3);
    v->bos = 256;
    v->eos = 257;
    v->chat_template = chat_template;
    return tokenizer_of(v);
}

static void expect_chat(const attn_tokenizer *t, const char *name,
                        const attn_chat_message *messages, size_t count, bool open,
                        const char *wanted)
{
    char *text;
    attn_status status = attn_chat_render(t, name, messages, count, open, &text);
    if (status != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
    }
    assert_int_equal(status, ATTN_OK);
    assert_string_equal(text, wanted);
    free(text);
}

static void expect_refused(const attn_tokenizer *t, const char *name,
                           const attn_chat_message *messages, size_t count, attn_status wanted,
                           const char *part)
{
    char *text = (char *)8;
    assert_int_equal(attn_chat_render(t, name, messages, count, true, &text), wanted);
    assert_null(text);
    assert_true(error_has(part));
}

static void test_formats(void **state)
{
    (void)state;
    attn_tokenizer *t = tokenizer_with(NULL);
    expect_chat(t, "chatml", chat, 4, true,
                "<|im_start|>system\nBe terse.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n"
                "<|im_start|>assistant\n Ho <|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
                "<|im_start|>assistant\n");
    expect_chat(t, "chatml", chat + 1, 1, false, "<|im_start|>user\n Hi \n<|im_end|>\n");
    expect_chat(t, "llama2", chat, 4, true,
                "<s>[INST] <<SYS>>\nBe terse.\n<</SYS>>\n\n Hi [/INST] Ho </s><s>[INST] Bye "
                "[/INST]");
    expect_chat(t, "llama2", chat + 1, 1, true, "<s>[INST] Hi [/INST]");
    expect_chat(t, "llama3", chat, 3, true,
                "<s><|start_header_id|>system<|end_header_id|>\n\nBe terse.<|eot_id|>"
                "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\nHo<|eot_id|>"
                "<|start_header_id|>assistant<|end_header_id|>\n\n");
    expect_chat(t, "zephyr", chat, 3, true,
                "<|system|>\nBe terse.</s>\n<|user|>\n Hi \n</s>\n<|assistant|>\n Ho </s>\n"
                "<|assistant|>\n");
    expect_chat(t, "gemma", chat, 4, true,
                "<s><start_of_turn>user\nBe terse.\n\nHi<end_of_turn>\n<start_of_turn>model\nHo"
                "<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n");
    attn_tokenizer_destroy(t);
}

#define CHATML_TURNS \
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"

static void test_default_system_message(void **state)
{
    (void)state;
    /* With a default: added unless the chat brings its own. */
    attn_tokenizer *t = tokenizer_with(
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\\nIt\\'s me<|im_end|>\\n' }}{% endif %}" CHATML_TURNS
        "{% endfor %}");
    expect_chat(t, NULL, chat + 3, 1, true,
                "<|im_start|>system\nIt's me<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
                "<|im_start|>assistant\n");
    expect_chat(t, NULL, chat, 1, false, "<|im_start|>system\nBe terse.<|im_end|>\n");
    expect_chat(t, NULL, chat, 0, true, "<|im_start|>assistant\n");
    /* By name it is the plain format. */
    expect_chat(t, "chatml", chat + 3, 1, false, "<|im_start|>user\nBye<|im_end|>\n");
    attn_tokenizer_destroy(t);
    /* A system turn that no look at the first message leads to is not a default. */
    t = tokenizer_with("{% if tools %}{{ '<|im_start|>system\\nTools.<|im_end|>\\n' }}{% endif %}"
                       "{% for message in messages %}" CHATML_TURNS "{% endfor %}");
    expect_chat(t, NULL, chat + 3, 1, false, "<|im_start|>user\nBye<|im_end|>\n");
    attn_tokenizer_destroy(t);
    /* Without one, or with a system turn put together from the message: nothing is added. */
    t = tokenizer_with("{% for message in messages %}" CHATML_TURNS "{% endfor %}");
    expect_chat(t, NULL, chat + 3, 1, false, "<|im_start|>user\nBye<|im_end|>\n");
    attn_tokenizer_destroy(t);
    t = tokenizer_with("{% if messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + "
                       "messages[0].content + '<|im_end|>\\n' }}{% endif %}"
                       "{% for message in messages[1:] %}" CHATML_TURNS "{% endfor %}");
    expect_chat(t, NULL, chat + 3, 1, false, "<|im_start|>user\nBye<|im_end|>\n");
    attn_tokenizer_destroy(t);
}

static void test_recognises_templates(void **state)
{
    (void)state;
    static const char *const templates[][2] = {
        {"{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + "
         "message['content'] | trim + '<|eot_id|>' %}",
         "<s><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"},
        {"{% set content = '<<SYS>>\\n' + s + '\\n<</SYS>>' %}{{ bos_token + '[INST] ' + "
         "content.strip() + ' [/INST]' }}",
         "<s>[INST] Bye [/INST]"},
        {"{{ '<|user|>\\n' + message['content'] + eos_token }}{{ '<|assistant|>' }}",
         "<|user|>\nBye</s>\n"},
        {"{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
         "{{'<start_of_turn>model\\n'}}",
         "<s><start_of_turn>user\nBye<end_of_turn>\n"},
    };
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        attn_tokenizer *t = tokenizer_with(templates[i][0]);
        expect_chat(t, NULL, chat + 3, 1, false, templates[i][1]);
        attn_tokenizer_destroy(t);
    }
}

static void test_refusals(void **state)
{
    (void)state;
    attn_tokenizer *t = tokenizer_with(NULL);
    expect_refused(t, NULL, chat, 1, ATTN_ERR_UNSUPPORTED, "has no chat template");
    assert_true(error_has(attn_chat_template_names()));
    expect_refused(t, "klingon", chat, 1, ATTN_ERR_UNSUPPORTED, "'klingon' is not built in");
    assert_true(error_has("chatml, llama2, llama3, zephyr, gemma"));
    const attn_chat_message wrong[] = {{"user", "a"}, {"user", "b"}, {"tool", "c"}, {NULL, "d"}};
    expect_refused(t, "llama2", wrong, 2, ATTN_ERR_ARGUMENT, "messages[1]: role 'user'");
    expect_refused(t, "chatml", wrong, 3, ATTN_ERR_ARGUMENT, "messages[2].role: 'tool'");
    expect_refused(t, "chatml", wrong + 3, 1, ATTN_ERR_ARGUMENT, "messages[0].role: NULL");
    expect_refused(t, "chatml", NULL, 1, ATTN_ERR_ARGUMENT, "messages: NULL");
    expect_refused(NULL, "chatml", chat, 1, ATTN_ERR_ARGUMENT, "tokenizer: NULL");
    assert_int_equal(attn_chat_render(t, "chatml", chat, 1, true, NULL), ATTN_ERR_ARGUMENT);
    attn_tokenizer_destroy(t);
    t = tokenizer_with("{{ '### Human: ' + message['content'] }}");
    expect_refused(t, NULL, chat, 1, ATTN_ERR_UNSUPPORTED, "none of those built in");
    attn_tokenizer_destroy(t);
}

static void test_default_model(void **state)
{
    (void)state;
    const char *path = default_model();
    if (!path) {
        skip();
    }
    attn_gguf *file;
    attn_tokenizer *t;
    assert_int_equal(attn_gguf_open(path, &file), ATTN_OK);
    assert_int_equal(attn_tokenizer_create(file, &t), ATTN_OK);
    attn_gguf_close(file);
    expect_chat(
        t, NULL, chat + 3, 1, true,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
        "Face<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
    attn_tokenizer_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_default_system_message),
        cmocka_unit_test(test_recognises_templates),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_default_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
