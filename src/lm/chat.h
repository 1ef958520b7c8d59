/**
 * lm/chat.h: the built-in chat formats, and how a file's Jinja template is recognised as one of
 * them.
 */
#ifndef ATTN_LM_CHAT_H
#define ATTN_LM_CHAT_H

#include <attn/tokenizer.h>

/** Text that grows; `failed` once memory ran out (then more is ignored). */
typedef struct chat_text {
    char *bytes;
    size_t size, capacity;
    bool failed;
} chat_text;

void chat_put(chat_text *out, const char *bytes, size_t size);
void chat_puts(chat_text *out, const char *string);

/** What a format is given. */
typedef struct chat_request {
    const attn_chat_message *messages;
    size_t count;
    bool open;
    const char *bos, *eos; /**< texts of these tokens, "" where there are none */
} chat_request;

typedef struct chat_format {
    const char *name;
    attn_status (*render)(const chat_request *request, chat_text *out);
    /** A file's template is of this format when it contains all of `needs` and nothing of `lacks`.
     */
    const char *needs[4];
    const char *lacks[8];
} chat_format;

/** By name; NULL when there is none. */
const chat_format *chat_format_named(const char *name);

/** The one a file's template is recognised as; NULL when it is none of them. */
const chat_format *chat_format_of(const char *chat_template);

#endif
