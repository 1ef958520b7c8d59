/* The vocabulary: tokens as bytes. Look-ups are binary searches in sorted lists, so that no file
 * can make them slow. */
#define _GNU_SOURCE
#include "lm/tokenizer_vocab.h"

#include <stdlib.h>
#include <string.h>

#include "lm/utf8.h"

#define TOKENS "tokenizer.ggml.tokens"
#define TYPES  "tokenizer.ggml.token_type"

/* GPT-2's alphabet: ! … ~, ¡ … ¬ and ® … ÿ stand for themselves. */
static bool prints(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
           (byte >= 0xae && byte <= 0xff);
}

/* The byte of a character of the alphabet; the n-th byte that does not print is U+0100 + n. */
static int byte_of(uint32_t code)
{
    if (code < 0x100) {
        return prints(code) ? (int)code : -1;
    }
    uint32_t n = code - 0x100;
    if (n <= 0x20) {
        return (int)n; /* 0x00 … 0x20 */
    }
    if (n <= 0x42) {
        return (int)(0x7f + n - 0x21); /* 0x7f … 0xa0 */
    }
    return n == 0x43 ? 0xad : -1;
}

size_t vocab_encode_byte(unsigned char byte, char text[2])
{
    uint32_t code = byte;
    if (!prints(byte)) {
        code = 0x100 + (byte <= 0x20   ? byte
                        : byte == 0xad ? 0x43u
                                       : (uint32_t)(byte - 0x7f + 0x21));
    }
    if (code < 0x80) {
        text[0] = (char)code;
        return 1;
    }
    text[0] = (char)(0xc0 | code >> 6);
    text[1] = (char)(0x80 | (code & 0x3f));
    return 2;
}

bool vocab_decode(const char *text, size_t size, char *bytes, size_t *count)
{
    *count = 0;
    for (size_t at = 0; at < size;) {
        uint32_t code;
        size_t length = utf8_decode(text + at, size - at, &code);
        int byte = length ? byte_of(code) : -1;
        if (byte < 0) {
            return false;
        }
        bytes[(*count)++] = (char)byte;
        at += length;
    }
    return true;
}

static bool kind_is_special(uint8_t kind)
{
    return kind == TOKEN_CONTROL || kind == TOKEN_USER || kind == TOKEN_UNKNOWN;
}

static int compare_bytes(const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t shorter = a_size < b_size ? a_size : b_size;
    int order = shorter ? memcmp(a, b, shorter) : 0;
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static uint64_t prefix_of(const char *bytes, size_t size)
{
    uint64_t prefix = 0;
    for (size_t i = 0; i < 8; i++) {
        prefix = prefix << 8 | (i < size ? (unsigned char)bytes[i] : 0);
    }
    return prefix;
}

/* By bytes; where two tokens share them, ordinary before user-defined, then by id: look-ups find
 * the first. */
static int by_bytes(const void *a, const void *b, void *user)
{
    const vocab *v = user;
    const vocab_entry *x = a, *y = b;
    if (x->prefix != y->prefix) {
        return x->prefix < y->prefix ? -1 : 1;
    }
    size_t x_size, y_size;
    const char *x_bytes = vocab_bytes(v, x->id, &x_size), *y_bytes = vocab_bytes(v, y->id, &y_size);
    int order = compare_bytes(x_bytes, x_size, y_bytes, y_size);
    if (order) {
        return order;
    }
    int user_defined = (v->kind[x->id] == TOKEN_USER) - (v->kind[y->id] == TOKEN_USER);
    return user_defined ? user_defined : (x->id > y->id) - (x->id < y->id);
}

/* The first token of a sorted list with exactly these bytes, or −1. */
static int32_t find_in(const vocab *v, const vocab_entry *list, int32_t count, const char *bytes,
                       size_t size)
{
    uint64_t prefix = prefix_of(bytes, size);
    int32_t low = 0, high = count, found = -1;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        const vocab_entry *entry = &list[middle];
        int order = (entry->prefix > prefix) - (entry->prefix < prefix);
        if (order == 0) {
            size_t there;
            const char *p = vocab_bytes(v, entry->id, &there);
            order = compare_bytes(p, there, bytes, size);
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
            found = order == 0 ? entry->id : found;
        }
    }
    return found;
}

int32_t vocab_find(const vocab *v, const char *bytes, size_t size)
{
    return find_in(v, v->ordinary, v->ordinary_count, bytes, size);
}

int32_t vocab_find_special(const vocab *v, const char *bytes, size_t size)
{
    return find_in(v, v->special, v->special_count, bytes, size);
}

/* Keeps, byte by byte, the range of the sorted list that agrees with the text so far; a token that
 * ends within that range is its first. */
int32_t vocab_match_special(const vocab *v, const char *text, size_t size)
{
    int32_t low = 0, high = v->special_count, best = -1;
    for (size_t depth = 0; low < high; depth++) {
        size_t length;
        (void)vocab_bytes(v, v->special[low].id, &length);
        if (length == depth && depth > 0) {
            best = v->special[low].id;
        }
        if (depth == size) {
            break;
        }
        /* Entries of this range have depth bytes or more; those that end here sort first. */
        unsigned char next = (unsigned char)text[depth];
        int32_t ends[2];
        for (int side = 0; side < 2; side++) {
            int32_t from = low, to = high;
            while (from < to) {
                int32_t middle = from + (to - from) / 2;
                const char *p = vocab_bytes(v, v->special[middle].id, &length);
                int byte = length > depth ? (unsigned char)p[depth] : -1;
                if (byte < (int)next + side) {
                    from = middle + 1;
                } else {
                    to = middle;
                }
            }
            ends[side] = from;
        }
        low = ends[0];
        high = ends[1];
    }
    return best;
}

static attn_status read_kinds(vocab *v, const attn_gguf *file)
{
    int64_t count;
    attn_gguf_type element;
    if (!attn_gguf_get_array(file, TYPES, &element, &count)) {
        memset(v->kind, TOKEN_NORMAL, (size_t)v->count);
        return ATTN_OK;
    }
    if (count != v->count) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: " TYPES " has %lld entries, " TOKENS " has %d",
                         attn_gguf_path(file), (long long)count, v->count);
    }
    for (int32_t i = 0; i < v->count; i++) {
        int64_t kind;
        if (!attn_gguf_array_int(file, TYPES, i, &kind) || kind < 0 || kind > TOKEN_BYTE) {
            return attn_fail(ATTN_ERR_FORMAT, "%s: " TYPES "[%d] is not a number from 0 to 6",
                             attn_gguf_path(file), i);
        }
        v->kind[i] = (uint8_t)kind;
    }
    return ATTN_OK;
}

/* Bytes of every token. A text outside the alphabet is taken as it is: it can be printed, but no
 * text is made of it. */
static attn_status read_bytes(vocab *v, const attn_gguf *file, bool *decoded)
{
    size_t total = 0;
    attn_gguf_string s;
    for (int32_t i = 0; i < v->count; i++) {
        if (!attn_gguf_array_string(file, TOKENS, i, &s)) {
            return attn_fail(ATTN_ERR_FORMAT, "%s: " TOKENS " is not an array of strings",
                             attn_gguf_path(file));
        }
        total += s.size; /* of strings that do not overlap in the file: no overflow */
    }
    v->bytes = malloc(total + 1);
    if (!v->bytes) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for %zu bytes of tokens", total);
    }
    size_t at = 0;
    for (int32_t i = 0; i < v->count; i++) {
        attn_gguf_array_string(file, TOKENS, i, &s);
        size_t size = 0;
        decoded[i] = !kind_is_special(v->kind[i]) && s.size > 0 &&
                     vocab_decode(s.data, s.size, v->bytes + at, &size);
        if (!decoded[i]) {
            memcpy(v->bytes + at, s.data, s.size);
            size = s.size;
        }
        v->start[i] = at;
        at += size;
    }
    v->start[v->count] = at;
    return ATTN_OK;
}

static vocab_entry entry_of(const vocab *v, int32_t id)
{
    size_t size;
    const char *bytes = vocab_bytes(v, id, &size);
    return (vocab_entry){.prefix = prefix_of(bytes, size), .id = id};
}

static void index_tokens(vocab *v, const bool *decoded)
{
    for (int32_t i = 0; i < v->count; i++) {
        uint8_t kind = v->kind[i];
        bool empty = v->start[i + 1] == v->start[i];
        if (kind_is_special(kind) && !empty) {
            v->special[v->special_count++] = entry_of(v, i);
        }
        if ((decoded[i] && kind != TOKEN_UNUSED) || (kind == TOKEN_USER && !empty)) {
            v->ordinary[v->ordinary_count++] = entry_of(v, i);
        }
    }
    qsort_r(v->special, (size_t)v->special_count, sizeof *v->special, by_bytes, v);
    qsort_r(v->ordinary, (size_t)v->ordinary_count, sizeof *v->ordinary, by_bytes, v);
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        v->byte[b] = vocab_find(v, &byte, 1);
    }
}

attn_status vocab_load(vocab *v, const attn_gguf *file)
{
    *v = (vocab){0};
    attn_gguf_type element;
    int64_t count;
    if (!attn_gguf_get_array(file, TOKENS, &element, &count) || element != ATTN_GGUF_STRING ||
        count == 0) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: no tokens (" TOKENS " must be an array of strings)",
                         attn_gguf_path(file));
    }
    if (count > INT32_MAX - 1) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: " TOKENS " has %lld entries; ids are 32 bits",
                         attn_gguf_path(file), (long long)count);
    }
    size_t n = (size_t)count;
    v->count = (int32_t)count;
    v->start = malloc((n + 1) * sizeof *v->start);
    v->kind = malloc(n);
    v->ordinary = malloc(n * sizeof *v->ordinary);
    v->special = malloc(n * sizeof *v->special);
    bool *decoded = malloc(n * sizeof *decoded);
    attn_status status = ATTN_OK;
    if (!v->start || !v->kind || !v->ordinary || !v->special || !decoded) {
        status = attn_fail(ATTN_ERR_NO_MEMORY, "no memory for %zu tokens", n);
    }
    if (status == ATTN_OK) {
        status = read_kinds(v, file);
    }
    if (status == ATTN_OK) {
        status = read_bytes(v, file, decoded);
    }
    if (status == ATTN_OK) {
        index_tokens(v, decoded);
    }
    free(decoded);
    return status;
}

void vocab_free(vocab *v)
{
    free(v->bytes);
    free(v->start);
    free(v->kind);
    free(v->ordinary);
    free(v->special);
    *v = (vocab){0};
}
