/* UTF-8: one character at a time; the table of well-formed sequences is Unicode 15, table 3-7. */
#include "lm/utf8.h"

#include <stdbool.h>

/* Length a first byte announces, and the range its second byte must be in; 0 for a byte that starts
 * nothing. */
static size_t announced(unsigned char first, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (first < 0x80) {
        return 1;
    }
    if (first >= 0xc2 && first <= 0xdf) {
        return 2;
    }
    if (first >= 0xe0 && first <= 0xef) {
        *low = first == 0xe0 ? 0xa0 : 0x80;
        *high = first == 0xed ? 0x9f : 0xbf;
        return 3;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        *low = first == 0xf0 ? 0x90 : 0x80;
        *high = first == 0xf4 ? 0x8f : 0xbf;
        return 4;
    }
    return 0;
}

/* Whether bytes 1 … have − 1 of a sequence are what its first byte asks for. */
static bool continues(const unsigned char *p, size_t have, unsigned char low, unsigned char high)
{
    for (size_t i = 1; i < have; i++) {
        unsigned char from = i == 1 ? low : 0x80, to = i == 1 ? high : 0xbf;
        if (p[i] < from || p[i] > to) {
            return false;
        }
    }
    return true;
}

size_t utf8_decode(const char *text, size_t size, uint32_t *code)
{
    const unsigned char *p = (const unsigned char *)text;
    unsigned char low, high;
    size_t length = size > 0 ? announced(p[0], &low, &high) : 0;
    if (length == 0 || length > size || !continues(p, length, low, high)) {
        return 0;
    }
    if (code) {
        uint32_t c = length == 1 ? p[0] : p[0] & (0xffu >> (length + 1));
        for (size_t i = 1; i < length; i++) {
            c = c << 6 | (p[i] & 0x3fu);
        }
        *code = c;
    }
    return length;
}

size_t utf8_valid_prefix(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        size_t length =
            (unsigned char)text[at] < 0x80 ? 1 : utf8_decode(text + at, size - at, NULL);
        if (length == 0) {
            break;
        }
        at += length;
    }
    return at;
}
