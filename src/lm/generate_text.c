/**
 * lm/generate_text.c: byte tokens cut characters and stop strings in two; a reader should see
 * neither.
 *
 * Bytes go through a UTF-8 decoder (what is ill-formed becomes U+FFFD, one for each maximal
 * subpart, Unicode 15, section 3.9) into a growing text. Stop strings are looked for in the text,
 * where a match can begin at most stop_longest − 1 bytes before the new part. What could still
 * become a stop string is held back: the longest end of the text that begins one.
 */
#include "lm/generate_text.h"
#include <stdlib.h>
#include <string.h>

attn_status lm_text_begin(lm_text *text, const char *const *stop, size_t stop_count)
{
    memset(text, 0, sizeof *text);
    for (size_t i = 0; i < stop_count; i++) {
        size_t size = stop[i] ? strlen(stop[i]) : 0;
        if (size == 0) {
            return attn_fail(ATTN_ERR_ARGUMENT, "stop: string %zu is empty", i);
        }
        text->stop_longest = size > text->stop_longest ? size : text->stop_longest;
    }
    text->stop = stop;
    text->stop_count = stop_count;
    text->capacity = 256;
    text->text = calloc(1, text->capacity);
    return text->text ? ATTN_OK : attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for the text");
}

void lm_text_free(lm_text *text)
{
    free(text->text);
    memset(text, 0, sizeof *text);
}

static attn_status put(lm_text *text, const void *bytes, size_t size)
{
    if (size >= text->capacity - text->size) {
        size_t capacity = 2 * (text->size + size + 1);
        char *grown = realloc(text->text, capacity);
        if (grown == NULL) {
            return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for %zu bytes of text",
                             capacity);
        }
        text->text = grown;
        text->capacity = capacity;
    }
    memcpy(text->text + text->size, bytes, size);
    text->size += size;
    text->text[text->size] = '\0';
    return ATTN_OK;
}

static attn_status put_replacement(lm_text *text)
{
    return put(text, "\xef\xbf\xbd", 3);
}

/* Bytes of the character that `lead` begins; 0 for a byte that begins none. */
static size_t utf8_length(unsigned char lead)
{
    return lead < 0x80                    ? 1
           : lead >= 0xc2 && lead <= 0xdf ? 2
           : lead >= 0xe0 && lead <= 0xef ? 3
           : lead >= 0xf0 && lead <= 0xf4 ? 4
                                          : 0;
}

/* Whether `byte` may follow as byte number `index` after `lead` (table 3-7: no overlong forms,
 * surrogates, or beyond U+10FFFF). */
static bool utf8_continues(unsigned char lead, size_t index, unsigned char byte)
{
    unsigned char low = 0x80, high = 0xbf;
    if (index == 1) {
        low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
        high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    }
    return byte >= low && byte <= high;
}

static attn_status decode(lm_text *text, unsigned char byte)
{
    if (text->partial_size > 0) {
        if (utf8_continues(text->partial[0], text->partial_size, byte)) {
            text->partial[text->partial_size++] = byte;
            if (text->partial_size < utf8_length(text->partial[0])) {
                return ATTN_OK;
            }
            size_t size = text->partial_size;
            text->partial_size = 0;
            return put(text, text->partial, size);
        }
        text->partial_size = 0;
        attn_status s = put_replacement(text);
        if (s != ATTN_OK) {
            return s;
        }
    }
    size_t length = utf8_length(byte);
    if (length == 0) {
        return put_replacement(text);
    }
    if (length == 1) {
        return put(text, &byte, 1);
    }
    text->partial[0] = byte;
    text->partial_size = 1;
    return ATTN_OK;
}

/* Whether a character begins at `at` (the text is valid UTF-8): only there may the text be cut. */
static bool boundary(const lm_text *text, size_t at)
{
    return ((unsigned char)text->text[at] & 0xc0) != 0x80;
}

/* The earliest stop string that begins at `from` or later cuts the text. */
static void find_stop(lm_text *text, size_t from)
{
    for (size_t at = from; at < text->size; at++) {
        for (size_t i = 0; i < text->stop_count; i++) {
            size_t size = strlen(text->stop[i]);
            if (size <= text->size - at && boundary(text, at) &&
                memcmp(text->text + at, text->stop[i], size) == 0) {
                text->size = at;
                text->text[at] = '\0';
                text->stopped = true;
                return;
            }
        }
    }
}

attn_status lm_text_add(lm_text *text, const char *bytes, size_t size)
{
    for (size_t i = 0; i < size && !text->stopped; i++) {
        size_t before = text->size;
        attn_status s = decode(text, (unsigned char)bytes[i]);
        if (s != ATTN_OK) {
            return s;
        }
        if (text->size > before && text->stop_count > 0) {
            size_t back = text->stop_longest - 1;
            size_t from = before > back ? before - back : 0;
            find_stop(text, from > text->given ? from : text->given);
        }
    }
    return ATTN_OK;
}

attn_status lm_text_end(lm_text *text)
{
    if (text->partial_size > 0 && !text->stopped) {
        text->partial_size = 0;
        return put_replacement(text);
    }
    return ATTN_OK;
}

/* Length of the longest end of the text, not handed out yet, that begins a stop string. */
static size_t held_back(const lm_text *text)
{
    size_t rest = text->size - text->given;
    size_t most = text->stop_longest > 0 ? text->stop_longest - 1 : 0;
    for (size_t size = most < rest ? most : rest; size > 0; size--) {
        for (size_t i = 0; i < text->stop_count; i++) {
            if (strlen(text->stop[i]) > size && boundary(text, text->size - size) &&
                memcmp(text->text + text->size - size, text->stop[i], size) == 0) {
                return size;
            }
        }
    }
    return 0;
}

size_t lm_text_take(lm_text *text, bool all, const char **piece)
{
    size_t end = text->size;
    if (!all && !text->stopped) {
        end -= held_back(text);
    }
    *piece = text->text + text->given;
    size_t size = end - text->given;
    text->given = end;
    return size;
}
