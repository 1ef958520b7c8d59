/* Rendering a chat: which format, whether the file's template adds a system message of its own, and
 * the text. */
#define _GNU_SOURCE
#include "lm/chat.h"

#include <stdlib.h>
#include <string.h>

#include "lm/tokenizer_impl.h"

void chat_put(chat_text *out, const char *bytes, size_t size)
{
    if (out->failed || size == 0) {
        return;
    }
    size_t needed;
    if (__builtin_add_overflow(out->size, size, &needed)) {
        out->failed = true;
        return;
    }
    if (!out->bytes || needed > out->capacity) {
        size_t capacity = needed > SIZE_MAX / 2 ? needed : 2 * needed;
        char *bigger = realloc(out->bytes, capacity);
        if (!bigger) {
            out->failed = true;
            return;
        }
        out->bytes = bigger;
        out->capacity = capacity;
    }
    memcpy(out->bytes + out->size, bytes, size);
    out->size = needed;
}

void chat_puts(chat_text *out, const char *string)
{
    chat_put(out, string, strlen(string));
}

/*
 * The default system message of a ChatML template, put into *out as the template's string literal
 * spells it: what stands between
 * "<|im_start|>system" with a line end and "<|im_end|>" inside one literal. A template adds it when
 * the first message is no system message, so it must have looked at messages[0] before.
 */
static bool find_default_system(const char *chat_template, chat_text *out)
{
    static const char head[] = "<|im_start|>system";
    const char *start = strstr(chat_template, "messages[0]");
    start = start ? strstr(start, head) : NULL;
    for (; start; start = strstr(start + 1, head)) {
        const char *p = start + sizeof head - 1;
        if (p[0] == '\n') {
            p += 1;
        } else if (p[0] == '\\' && p[1] == 'n') {
            p += 2;
        } else {
            continue;
        }
        char quote = start > chat_template ? start[-1] : 0;
        const char *end = strstr(p, "<|im_end|>");
        const char *close = quote == '\'' || quote == '"' ? strchr(p, quote) : NULL;
        while (close && close[-1] == '\\') {
            close = strchr(close + 1, quote);
        }
        if (!end || !close || close < end || end == p) {
            continue; /* the text is put together from pieces: not a constant */
        }
        for (; p < end; p++) {
            char c = *p;
            if (c == '\\' && p + 1 < end) {
                p++;
                c = *p == 'n' ? '\n' : *p == 't' ? '\t' : *p;
            }
            chat_put(out, &c, 1);
        }
        return true;
    }
    return false;
}

static const char *token_text(const attn_tokenizer *t, int32_t id, char **copy)
{
    size_t size;
    const char *bytes = attn_tokenizer_piece(t, id, true, &size);
    *copy = strndup(bytes ? bytes : "", size);
    return *copy;
}

/* Messages with `system` in front. */
static attn_chat_message *with_system(const attn_chat_message *messages, size_t count,
                                      const char *system)
{
    attn_chat_message *all = calloc(count + 1, sizeof *all);
    if (all) {
        all[0] = (attn_chat_message){.role = "system", .content = system};
        if (count > 0) {
            memcpy(all + 1, messages, count * sizeof *all);
        }
    }
    return all;
}

static attn_status pick_format(const attn_tokenizer *t, const char *name,
                               const chat_format **format)
{
    if (name) {
        *format = chat_format_named(name);
        return *format ? ATTN_OK
                       : attn_fail(ATTN_ERR_UNSUPPORTED,
                                   "template '%.64s' is not built in; those that are: %s", name,
                                   attn_chat_template_names());
    }
    if (!t->chat_template) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "the model's file has no chat template; name the one it was trained with: "
                         "%s",
                         attn_chat_template_names());
    }
    *format = chat_format_of(t->chat_template);
    return *format ? ATTN_OK
                   : attn_fail(ATTN_ERR_UNSUPPORTED,
                               "the chat template of the model's file is none of those built in; "
                               "name one that fits it: %s",
                               attn_chat_template_names());
}

static attn_status check_arguments(const attn_tokenizer *t, const attn_chat_message *messages,
                                   size_t count)
{
    if (!t || (!messages && count > 0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", t ? "messages" : "tokenizer");
    }
    for (size_t i = 0; i < count; i++) {
        const char *role = messages[i].role;
        if (!role || !messages[i].content) {
            return attn_fail(ATTN_ERR_ARGUMENT, "messages[%zu].%s: NULL", i,
                             role ? "content" : "role");
        }
        if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 &&
            strcmp(role, "assistant") != 0) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "messages[%zu].role: '%.64s'; it must be system, user or assistant", i,
                             role);
        }
    }
    return ATTN_OK;
}

/* Renders into *out; the file's default system message goes first where its template would put it.
 */
static attn_status render(const attn_tokenizer *t, const chat_format *format, chat_request *request,
                          bool own_template, chat_text *out)
{
    chat_text system = {0};
    attn_chat_message *all = NULL;
    bool has_system = request->count > 0 && strcmp(request->messages[0].role, "system") == 0;
    if (own_template && request->count > 0 && !has_system && strcmp(format->name, "chatml") == 0 &&
        find_default_system(t->chat_template, &system)) {
        chat_put(&system, "", 1);
        all = system.failed ? NULL : with_system(request->messages, request->count, system.bytes);
        if (!all) {
            free(system.bytes);
            return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to render a chat");
        }
        request->messages = all;
        request->count++;
    }
    attn_status status = format->render(request, out);
    chat_put(out, "", 1);
    if (status == ATTN_OK && out->failed) {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "no memory to render a chat");
    }
    free(all);
    free(system.bytes);
    return status;
}

attn_status attn_chat_render(const attn_tokenizer *tokenizer, const char *name,
                             const attn_chat_message *messages, size_t count, bool open,
                             char **text)
{
    if (!text) {
        return attn_fail(ATTN_ERR_ARGUMENT, "text: NULL; give the address of a char pointer");
    }
    *text = NULL;
    const chat_format *format;
    attn_status status = check_arguments(tokenizer, messages, count);
    if (status == ATTN_OK) {
        status = pick_format(tokenizer, name, &format);
    }
    if (status != ATTN_OK) {
        return status;
    }
    char *bos, *eos;
    chat_request request = {.messages = messages, .count = count, .open = open};
    request.bos = token_text(tokenizer, tokenizer->bos, &bos);
    request.eos = token_text(tokenizer, tokenizer->eos, &eos);
    chat_text out = {0};
    status = bos && eos ? render(tokenizer, format, &request, name == NULL, &out)
                        : attn_fail(ATTN_ERR_NO_MEMORY, "no memory to render a chat");
    free(bos);
    free(eos);
    if (status != ATTN_OK) {
        free(out.bytes);
        return status;
    }
    *text = out.bytes;
    return ATTN_OK;
}
