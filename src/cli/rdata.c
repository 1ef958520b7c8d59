/**
 * cli/rdata.c: R's serialisation, read with every length compared to the bytes that are left. The format: R Internals, section
 * "Serialization Formats".
 */
#include "rdata.h"
#include <stdlib.h>
#include <string.h>
#define ZLIB_CONST
#include <zlib.h>

/* No deflate stream is shorter than its output by more than this (RFC 1951: 258 bytes in 2 bits). */
#define DEFLATE_RATIO 1032

/* Types of R's objects, in the low 8 bits of their flags; from bit 12 on, the encodings of strings. */
#define TYPE_CHARSXP  9
#define TYPE_STRSXP   16
#define HAS_ATTRIBUTE 0x200
#define ENCODING_BAD  (0x2000 | 0x4000) /* raw bytes, Latin-1 */

typedef struct cursor {
    const unsigned char *bytes;
    size_t size, at;
} cursor;

static uint32_t big_endian(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

static attn_status take(cursor *c, uint32_t *value)
{
    if (c->size - c->at < 4) {
        return attn_fail(ATTN_ERR_FORMAT, "the chunk ends at byte %zu, in the middle of a number",
                         c->size);
    }
    *value = big_endian(c->bytes + c->at);
    c->at += 4;
    return ATTN_OK;
}

/* "X\n", the version and those of R, in version 3 the name of an encoding. */
static attn_status take_head(cursor *c)
{
    uint32_t version = 0, skipped, length = 0;
    if (c->size < 2 || memcmp(c->bytes, "X\n", 2) != 0) {
        return attn_fail(ATTN_ERR_FORMAT, "the chunk is no R object in XDR form");
    }
    c->at = 2;
    attn_status status = take(c, &version);
    for (int i = 0; i < 2 && status == ATTN_OK; i++) {
        status = take(c, &skipped);
    }
    if (status == ATTN_OK && version != 2 && version != 3) {
        return attn_fail(ATTN_ERR_UNSUPPORTED, "R's serialisation has version %u; 2 and 3 are read",
                         version);
    }
    if (status == ATTN_OK && version == 3) {
        status = take(c, &length);
        if (status == ATTN_OK && length > c->size - c->at) {
            return attn_fail(ATTN_ERR_FORMAT, "the name of an encoding has %u bytes, %zu are left",
                             length, c->size - c->at);
        }
        c->at += length;
    }
    return status;
}

/* One string with a newline, appended at *to, where there is room: a string has 8 bytes before it. */
static attn_status take_string(cursor *c, char **to)
{
    uint32_t flags = 0, length = 0;
    attn_status status = take(c, &flags);
    if (status == ATTN_OK) {
        status = take(c, &length);
    }
    if (status != ATTN_OK) {
        return status;
    }
    if ((flags & 0xff) != TYPE_CHARSXP || (flags & ENCODING_BAD) || length == UINT32_MAX) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "byte %zu of the chunk: no string in ASCII or UTF-8 (flags %#x)",
                         c->at - 8, flags);
    }
    if (length > c->size - c->at) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "byte %zu of the chunk: a string of %u bytes, but %zu are left", c->at - 4,
                         length, c->size - c->at);
    }
    memcpy(*to, c->bytes + c->at, length);
    (*to)[length] = '\n';
    *to += length + 1;
    c->at += length;
    return ATTN_OK;
}

static attn_status take_vector(cursor *c, char **text, size_t *text_size)
{
    uint32_t flags = 0, count = 0;
    attn_status status = take_head(c);
    if (status == ATTN_OK) {
        status = take(c, &flags);
    }
    if (status == ATTN_OK && ((flags & 0xff) != TYPE_STRSXP || (flags & HAS_ATTRIBUTE))) {
        return attn_fail(ATTN_ERR_UNSUPPORTED, "the chunk is no plain character vector (flags %#x)",
                         flags);
    }
    if (status == ATTN_OK) {
        status = take(c, &count);
    }
    if (status == ATTN_OK && count > (c->size - c->at) / 8) {
        return attn_fail(ATTN_ERR_FORMAT, "the vector claims %u strings, but %zu bytes are left",
                         count, c->size - c->at);
    }
    if (status != ATTN_OK) {
        return status;
    }
    char *to = *text = malloc(c->size - c->at + 1);
    if (!to) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a text of %zu bytes", c->size);
    }
    for (uint32_t i = 0; i < count && status == ATTN_OK; i++) {
        status = take_string(c, &to);
    }
    *to = '\0';
    *text_size = (size_t)(to - *text);
    if (status == ATTN_OK && c->at != c->size) {
        status = attn_fail(ATTN_ERR_FORMAT, "%zu bytes are left after the vector", c->size - c->at);
    }
    return status;
}

/* Inflates exactly `size` bytes; *used: how many bytes of `from` that took. */
static attn_status inflate_exactly(const unsigned char *from, size_t room, unsigned char *to,
                                   size_t size, size_t *used)
{
    z_stream z;
    memset(&z, 0, sizeof z);
    z.next_in = from;
    z.avail_in = (uInt)(room < UINT32_MAX ? room : UINT32_MAX);
    z.next_out = to;
    z.avail_out = (uInt)size;
    if (inflateInit(&z) != Z_OK) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to inflate");
    }
    int result = inflate(&z, Z_FINISH);
    bool whole = result == Z_STREAM_END && z.avail_out == 0;
    *used = (size_t)(z.next_in - from);
    attn_status status = ATTN_OK;
    if (!whole) {
        status = attn_fail(ATTN_ERR_FORMAT,
                           "the zlib stream is damaged, or not of the %zu bytes that it announces",
                           size);
    }
    inflateEnd(&z);
    return status;
}

attn_status rdata_next(const unsigned char *file, size_t size, size_t *at, char **text,
                       size_t *text_size)
{
    *text = NULL;
    *text_size = 0;
    if (*at > size || size - *at < 4) {
        return attn_fail(ATTN_ERR_FORMAT, "the file ends at byte %zu, where a chunk should begin",
                         size);
    }
    size_t room = size - *at - 4, used = 0;
    cursor c = {.size = big_endian(file + *at)};
    if (c.size == 0 || c.size / DEFLATE_RATIO > room) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "the chunk at byte %zu announces %zu bytes, which %zu compressed ones "
                         "cannot hold",
                         *at, c.size, room);
    }
    unsigned char *bytes = malloc(c.size);
    if (!bytes) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a chunk of %zu bytes", c.size);
    }
    attn_status status = inflate_exactly(file + *at + 4, room, bytes, c.size, &used);
    c.bytes = bytes;
    if (status == ATTN_OK) {
        status = take_vector(&c, text, text_size);
    }
    free(bytes);
    if (status != ATTN_OK) {
        free(*text);
        *text = NULL;
        *text_size = 0;
        return status;
    }
    *at += 4 + used;
    return ATTN_OK;
}
