/**
 * cli/chat_tokens.c: a rendered chat as tokens, in which a message cannot forge a turn.
 *
 * The template's special tokens ("<|im_start|>") must be read as such, but the same words inside a
 * message are just text. So a message that contains such words is rendered as a mark, and encoded
 * by itself, without special tokens, where the mark is; all else is encoded in one go, as the model
 * was trained.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef char mark[32]; /* stands for a message in the rendered chat: control characters keep it
                          apart from text */

/* Tokens that encoding with special tokens puts in front of any text: a BOS or none; −1 with the
 * sentence said. */
static int64_t leading_tokens(const cli_lm *lm)
{
    int64_t count = -1;
    int32_t *ids = cli_encode(lm, "", 0, true, &count);
    free(ids);
    return ids ? count : -1;
}

/* True when reading special tokens in this text makes a difference; *failed with the sentence said.
 */
static bool has_special(const cli_lm *lm, const char *text, int64_t leading, bool *failed)
{
    size_t size = strlen(text);
    int64_t plain_count = 0, special_count = 0;
    int32_t *plain = cli_encode(lm, text, size, false, &plain_count);
    int32_t *special = plain ? cli_encode(lm, text, size, true, &special_count) : NULL;
    bool differs = false;
    if (special == NULL) {
        *failed = true;
    } else {
        differs = plain_count != special_count - leading ||
                  memcmp(plain, special + leading, (size_t)plain_count * sizeof *plain) != 0;
    }
    free(plain);
    free(special);
    return differs;
}

typedef struct token_list {
    int32_t *ids;
    int64_t count;
} token_list;

/* Appends the tokens of a stretch of text, without a BOS of its own after the first; false with the
 * sentence said. */
static bool append(const cli_lm *lm, token_list *list, const char *text, size_t size, bool special,
                   int64_t leading)
{
    int64_t count = 0, skip = special && list->count > 0 ? leading : 0;
    if (size == 0) {
        return true;
    }
    int32_t *more = cli_encode(lm, text, size, special, &count);
    int32_t *grown =
        more ? realloc(list->ids, (size_t)(list->count + count + 1) * sizeof *grown) : NULL;
    if (grown) {
        list->ids = grown;
        memcpy(grown + list->count, more + skip, (size_t)(count - skip) * sizeof *grown);
        list->count += count - skip;
    } else if (more) {
        cli_fail("not enough memory for the prompt");
    }
    free(more);
    return grown != NULL;
}

/* The rendered text in stretches: between marks as the template has it, at marks the messages
 * themselves. */
static bool append_all(const cli_lm *lm, token_list *list, const char *text,
                       const attn_chat_message *messages, const mark *marks, size_t count,
                       int64_t leading)
{
    const char *done = text;
    for (size_t i = 0; i < count; i++) {
        const char *at = marks[i][0] ? strstr(done, marks[i]) : NULL;
        if (at) {
            if (!append(lm, list, done, (size_t)(at - done), true, leading) ||
                !append(lm, list, messages[i].content, strlen(messages[i].content), false, 0)) {
                return false;
            }
            done = at + strlen(marks[i]);
        }
    }
    return append(lm, list, done, strlen(done), true, leading);
}

int32_t *cli_encode_chat(const cli_lm *lm, const char *template_name,
                         const attn_chat_message *messages, size_t count, int64_t *tokens)
{
    attn_chat_message *marked = calloc(count + 1, sizeof *marked);
    mark *marks = calloc(count + 1, sizeof *marks);
    int64_t leading = leading_tokens(lm);
    bool failed = leading < 0 || marked == NULL || marks == NULL;
    if (failed && leading >= 0) {
        cli_fail("not enough memory for the prompt");
    }
    for (size_t i = 0; !failed && i < count; i++) {
        marked[i] = messages[i];
        if (has_special(lm, messages[i].content, leading, &failed)) {
            snprintf(marks[i], sizeof marks[i], "\x02message %zu\x03", i);
            marked[i].content = marks[i];
        }
    }
    char *text = NULL;
    token_list list = {NULL, 0};
    if (!failed &&
        attn_chat_render(lm->tokenizer, template_name, marked, count, true, &text) != ATTN_OK) {
        cli_fail_attn(template_name ? "--template" : NULL);
        failed = true;
    }
    failed = failed || !append_all(lm, &list, text, messages, (const mark *)marks, count, leading);
    if (!failed && list.count >= 2 && leading == 1 && list.ids[0] == list.ids[1]) {
        list.count--; /* the template writes the BOS itself */
        memmove(list.ids, list.ids + 1, (size_t)list.count * sizeof *list.ids);
    }
    free(text);
    free(marked);
    free(marks);
    if (failed) {
        free(list.ids);
        return NULL;
    }
    *tokens = list.count;
    return list.ids;
}
