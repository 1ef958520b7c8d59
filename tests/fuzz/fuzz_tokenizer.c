/**
 * fuzz_tokenizer.c: any bytes as text, for each pre-split: the pieces of its tokens joined are the
 * text again. Run: ./dev fuzz
 *
 * The vocabulary has a token for every byte, merges of common pairs, and special tokens that begin
 * alike.
 */
#define _GNU_SOURCE
#include "round_trip.h"

#include <attn/lm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PRES = 4 };

/* A file in memory, as it grows. */
typedef struct file_bytes {
    char data[1 << 16];
    size_t size;
} file_bytes;

static void put(file_bytes *f, const void *data, size_t size)
{
    if (size > sizeof f->data - f->size) {
        abort();
    }
    memcpy(f->data + f->size, data, size);
    f->size += size;
}

/* The machines this runs on are little-endian, as the file is. */
static void put_u32(file_bytes *f, uint32_t value)
{
    put(f, &value, sizeof value);
}

static void put_u64(file_bytes *f, uint64_t value)
{
    put(f, &value, sizeof value);
}

static void put_string(file_bytes *f, const char *text)
{
    put_u64(f, strlen(text));
    put(f, text, strlen(text));
}

static void put_pair(file_bytes *f, const char *key, const char *text)
{
    put_string(f, key);
    put_u32(f, ATTN_GGUF_STRING);
    put_string(f, text);
}

static void put_array(file_bytes *f, const char *key, attn_gguf_type element, uint64_t count)
{
    put_string(f, key);
    put_u32(f, ATTN_GGUF_ARRAY);
    put_u32(f, (uint32_t)element);
    put_u64(f, count);
}

/* A byte in GPT-2's alphabet, as UTF-8. */
static void spell(unsigned byte, char text[3])
{
    unsigned code = byte;
    if (byte <= 0x20) {
        code = 0x100 + byte;
    } else if (byte >= 0x7f && byte <= 0xa0) {
        code = 0x121 + byte - 0x7f;
    } else if (byte == 0xad) {
        code = 0x143;
    }
    text[0] = (char)(code < 0x80 ? code : 0xc0 | code >> 6);
    text[1] = (char)(code < 0x80 ? 0 : 0x80 | (code & 0x3f));
    text[2] = 0;
}

static attn_tokenizer *make_tokenizer(const char *pre)
{
    static const char *const merges[] = {"a a",
                                         "aa a",
                                         "aa aa",
                                         "1 1",
                                         "11 1",
                                         "' s",
                                         "\xc4\xa0 a",
                                         "\xc4\xa0 \xc4\xa0",
                                         "\xc4\x8a \xc4\x8a",
                                         "\xc3\xa2 \xc4\xa4"};
    static const char *const specials[] = {"<|im_start|>", "<|im_end|>", "<|im_", "<"};
    enum { MERGES = sizeof merges / sizeof *merges, SPECIALS = sizeof specials / sizeof *specials };
    static file_bytes f;
    f.size = 0;
    put(&f, "GGUF", 4);
    put_u32(&f, 3);
    put_u64(&f, 0);
    put_u64(&f, 5);
    put_pair(&f, "tokenizer.ggml.model", "gpt2");
    put_pair(&f, "tokenizer.ggml.pre", pre);
    put_array(&f, "tokenizer.ggml.tokens", ATTN_GGUF_STRING, 256 + MERGES + SPECIALS);
    for (unsigned b = 0; b < 256; b++) {
        char text[3];
        spell(b, text);
        put_string(&f, text);
    }
    for (int i = 0; i < MERGES; i++) {
        const char *space = strchr(merges[i], ' ');
        char joined[32];
        snprintf(joined, sizeof joined, "%.*s%s", (int)(space - merges[i]), merges[i], space + 1);
        put_string(&f, joined);
    }
    for (int i = 0; i < SPECIALS; i++) {
        put_string(&f, specials[i]);
    }
    put_array(&f, "tokenizer.ggml.token_type", ATTN_GGUF_U32, 256 + MERGES + SPECIALS);
    for (int i = 0; i < 256 + MERGES + SPECIALS; i++) {
        put_u32(&f, i < 256 + MERGES ? 1 : 3);
    }
    put_array(&f, "tokenizer.ggml.merges", ATTN_GGUF_STRING, MERGES);
    for (int i = 0; i < MERGES; i++) {
        put_string(&f, merges[i]);
    }
    const int fd = memfd_create("fuzz.gguf", 0);
    if (fd < 0 || write(fd, f.data, f.size) != (ssize_t)f.size) {
        abort();
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    attn_gguf *file;
    attn_tokenizer *tokenizer;
    if (attn_gguf_open(path, &file) != ATTN_OK ||
        attn_tokenizer_create(file, &tokenizer) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        abort();
    }
    attn_gguf_close(file);
    close(fd);
    return tokenizer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const pres[PRES] = {"smollm", "gpt-2", "llama-bpe", "qwen2"};
    static attn_tokenizer *tokenizers[PRES];
    for (int i = 0; i < PRES; i++) {
        if (!tokenizers[i]) {
            tokenizers[i] = make_tokenizer(pres[i]);
        }
        check_round_trip(tokenizers[i], (const char *)data, size, false);
        check_round_trip(tokenizers[i], (const char *)data, size, true);
    }
    return 0;
}
