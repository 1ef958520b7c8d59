/* The built-in formats. Each is what its model's own template renders for system, user and
 * assistant messages. */
#include <string.h>

#include "lm/chat.h"

static bool is_role(const attn_chat_message *message, const char *role)
{
    return strcmp(message->role, role) == 0;
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static void put_right_trimmed(chat_text *out, const char *content)
{
    size_t size = strlen(content);
    while (size > 0 && is_space(content[size - 1])) {
        size--;
    }
    chat_put(out, content, size);
}

/* Content without the white space around it, as templates that say "| trim" want it. */
static void put_trimmed(chat_text *out, const char *content)
{
    while (is_space(*content)) {
        content++;
    }
    put_right_trimmed(out, content);
}

/* head role neck content tail, for every message: the shape of most formats. */
static void put_turn(chat_text *out, const char *head, const char *role, const char *neck,
                     const char *content, const char *tail)
{
    chat_puts(out, head);
    chat_puts(out, role);
    chat_puts(out, neck);
    chat_puts(out, content);
    chat_puts(out, tail);
}

static attn_status render_chatml(const chat_request *r, chat_text *out)
{
    for (size_t i = 0; i < r->count; i++) {
        put_turn(out, "<|im_start|>", r->messages[i].role, "\n", r->messages[i].content,
                 "<|im_end|>\n");
    }
    chat_puts(out, r->open ? "<|im_start|>assistant\n" : "");
    return ATTN_OK;
}

static attn_status render_zephyr(const chat_request *r, chat_text *out)
{
    for (size_t i = 0; i < r->count; i++) {
        put_turn(out, "<|", r->messages[i].role, "|>\n", r->messages[i].content, r->eos);
        chat_puts(out, "\n");
    }
    chat_puts(out, r->open ? "<|assistant|>\n" : "");
    return ATTN_OK;
}

static attn_status render_llama3(const chat_request *r, chat_text *out)
{
    chat_puts(out, r->bos);
    for (size_t i = 0; i < r->count; i++) {
        chat_puts(out, "<|start_header_id|>");
        chat_puts(out, r->messages[i].role);
        chat_puts(out, "<|end_header_id|>\n\n");
        put_trimmed(out, r->messages[i].content);
        chat_puts(out, "<|eot_id|>");
    }
    chat_puts(out, r->open ? "<|start_header_id|>assistant<|end_header_id|>\n\n" : "");
    return ATTN_OK;
}

/* Formats without a place for it put the system message into the first user message; then turns
 * must alternate. */
static attn_status check_alternation(const chat_request *r, const char *name, bool *has_system)
{
    *has_system = r->count > 0 && is_role(&r->messages[0], "system");
    for (size_t i = *has_system ? 1 : 0, turn = 0; i < r->count; i++, turn++) {
        const char *wanted = turn % 2 == 0 ? "user" : "assistant";
        if (!is_role(&r->messages[i], wanted)) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "messages[%zu]: role '%s', but template %s wants '%s' here: an "
                             "optional system message, then user and assistant in turn",
                             i, r->messages[i].role, name, wanted);
        }
    }
    return ATTN_OK;
}

static attn_status render_llama2(const chat_request *r, chat_text *out)
{
    bool has_system;
    attn_status status = check_alternation(r, "llama2", &has_system);
    for (size_t i = has_system ? 1 : 0; i < r->count && status == ATTN_OK; i++) {
        if (is_role(&r->messages[i], "assistant")) {
            chat_puts(out, " ");
            put_trimmed(out, r->messages[i].content);
            chat_puts(out, " ");
            chat_puts(out, r->eos);
            continue;
        }
        chat_puts(out, r->bos);
        chat_puts(out, "[INST] ");
        if (has_system && i == 1) {
            /* Its template trims the system block and the message as one. */
            put_turn(out, "<<SYS>>\n", "", "", r->messages[0].content, "\n<</SYS>>\n\n");
            put_right_trimmed(out, r->messages[i].content);
        } else {
            put_trimmed(out, r->messages[i].content);
        }
        chat_puts(out, " [/INST]");
    }
    return status;
}

static attn_status render_gemma(const chat_request *r, chat_text *out)
{
    bool has_system;
    attn_status status = check_alternation(r, "gemma", &has_system);
    chat_puts(out, r->bos);
    for (size_t i = has_system ? 1 : 0; i < r->count && status == ATTN_OK; i++) {
        bool user = is_role(&r->messages[i], "user");
        chat_puts(out, user ? "<start_of_turn>user\n" : "<start_of_turn>model\n");
        if (has_system && i == 1) {
            chat_puts(out, r->messages[0].content);
            chat_puts(out, "\n\n");
        }
        put_trimmed(out, r->messages[i].content);
        chat_puts(out, "<end_of_turn>\n");
    }
    chat_puts(out, r->open ? "<start_of_turn>model\n" : "");
    return status;
}

static const chat_format formats[] = {
    {.name = "chatml",
     .render = render_chatml,
     .needs = {"<|im_start|>", "<|im_end|>", "message"},
     .lacks = {"<|im_sep|>", "[INST]", "<|start_header_id|>"}},
    {.name = "llama2",
     .render = render_llama2,
     .needs = {"[INST]", "[/INST]", "<<SYS>>"},
     .lacks = {"[TOOL_CALLS]", "[AVAILABLE_TOOLS]"}},
    {.name = "llama3",
     .render = render_llama3,
     /* Llama 3.1 and later templates write a system turn with dates and tools of their own. */
     .needs = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
     .lacks = {"Cutting Knowledge Date", "tools"}},
    {.name = "zephyr",
     .render = render_zephyr,
     .needs = {"<|user|>\\n", "<|assistant|>", "eos_token"},
     .lacks = {"<|end|>", "<|im_start|>", "bos_token"}},
    {.name = "gemma",
     .render = render_gemma,
     .needs = {"<start_of_turn>", "<end_of_turn>", "model"},
     .lacks = {"tools"}},
};

#define NAMES "chatml, llama2, llama3, zephyr, gemma"

const char *attn_chat_template_names(void)
{
    return NAMES;
}

const chat_format *chat_format_named(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(formats[i].name, name) == 0) {
            return &formats[i];
        }
    }
    return NULL;
}

static bool fits(const chat_format *format, const char *chat_template)
{
    for (int i = 0; i < 4 && format->needs[i]; i++) {
        if (!strstr(chat_template, format->needs[i])) {
            return false;
        }
    }
    for (int i = 0; i < 8 && format->lacks[i]; i++) {
        if (strstr(chat_template, format->lacks[i])) {
            return false;
        }
    }
    return true;
}

const chat_format *chat_format_of(const char *chat_template)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (fits(&formats[i], chat_template)) {
            return &formats[i];
        }
    }
    return NULL;
}
