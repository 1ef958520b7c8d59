/**
 * lm/utf8.h: UTF-8 as RFC 3629 defines it (no overlong forms, no surrogates, at most U+10FFFF).
 */
#ifndef ATTN_LM_UTF8_H
#define ATTN_LM_UTF8_H

#include <stddef.h>
#include <stdint.h>

/** Bytes of the character at text[0 … size) and its code point in *code (may be NULL); 0 where
 * there is no valid one. */
size_t utf8_decode(const char *text, size_t size, uint32_t *code);

/** Length of the longest prefix of text[0 … size) that is valid. */
size_t utf8_valid_prefix(const char *text, size_t size);

#endif
