/**
 * lm/generate_text.h: bytes of tokens → text that is final: whole UTF-8 characters, no part of a
 * stop string.
 */
#ifndef ATTN_LM_GENERATE_TEXT_H
#define ATTN_LM_GENERATE_TEXT_H

#include <attn/base.h>

typedef struct lm_text {
    char *text; /* valid UTF-8 of everything so far, NUL-terminated; cut at a stop string */
    size_t size, capacity;
    size_t given;             /* bytes of it already handed out */
    unsigned char partial[4]; /* a character that is not complete yet */
    size_t partial_size;
    const char *const *stop;
    size_t stop_count, stop_longest;
    bool stopped; /* a stop string was found: text ends before it */
} lm_text;

/** Strings of stop are borrowed; one that does not begin with a whole character is never found.
 * ARGUMENT for an empty one. */
attn_status lm_text_begin(lm_text *text, const char *const *stop, size_t stop_count);

/** Adds a token's bytes; sets text->stopped at the first stop string. */
attn_status lm_text_add(lm_text *text, const char *bytes, size_t size);

/** No more bytes: an incomplete character becomes U+FFFD (unless a stop string ended the text). */
attn_status lm_text_end(lm_text *text);

/**
 * The next piece that is final: *piece and its size (0: nothing yet). `all`: also what is held back
 * because a stop string might begin there.
 */
size_t lm_text_take(lm_text *text, bool all, const char **piece);

void lm_text_free(lm_text *text);

#endif
