/**
 * fuzz_gguf.c: any bytes as a model file. Opening either fails with a reason or gives a file of which every part
 * can be walked; a tokenizer made from it survives encoding. Run: ./dev fuzz
 */
#define _GNU_SOURCE
#include "memory_file.h"

#include <attn/lm.h>

#include <stdlib.h>
#include <string.h>

#define MAX_VALUES \
    4096 /* floats dequantised per tensor, tokens encoded: enough to touch everything */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static attn_status open_bytes(const uint8_t *data, size_t size, attn_gguf **opened)
{
    const memory_file file = memory_file_of(data, size);
    const attn_status status = attn_gguf_open(file.path, opened);
    close(file.fd);
    return status;
}

static void walk_metadata(const attn_gguf *file)
{
    for (int64_t i = 0; i < attn_gguf_key_count(file); i++) {
        attn_gguf_type type, element;
        const char *key = attn_gguf_key_at(file, i, &type);
        int64_t number, count;
        double real;
        bool flag;
        attn_gguf_string text;
        volatile size_t sink = strlen(key);
        attn_gguf_get_int(file, key, &number);
        attn_gguf_get_float(file, key, &real);
        attn_gguf_get_bool(file, key, &flag);
        if (attn_gguf_get_string(file, key, &text) && text.size > 0) {
            sink += (unsigned char)text.data[0] + (unsigned char)text.data[text.size - 1];
        }
        if (attn_gguf_get_array(file, key, &element, &count)) {
            for (int64_t at = -1; at <= count && at < MAX_VALUES; at++) {
                attn_gguf_array_int(file, key, at, &number);
                attn_gguf_array_float(file, key, at, &real);
                if (attn_gguf_array_string(file, key, at, &text) && text.size > 0) {
                    sink += (unsigned char)text.data[text.size - 1];
                }
            }
        }
        (void)sink;
    }
}

static void walk_tensors(const attn_gguf *file)
{
    static float floats[MAX_VALUES];
    for (int64_t i = 0; i < attn_gguf_tensor_count(file); i++) {
        const attn_gguf_tensor *tensor = attn_gguf_tensor_at(file, i);
        if (attn_gguf_find(file, tensor->name) == NULL) {
            abort();
        }
        int64_t elements = 1;
        for (int d = 0; d < tensor->ndim && elements <= MAX_VALUES; d++) {
            elements = tensor->dims[d] > MAX_VALUES ? MAX_VALUES + 1 : elements * tensor->dims[d];
        }
        if (elements <= MAX_VALUES) {
            attn_gguf_dequantize(tensor, floats, elements);
        }
    }
}

static void try_tokenizer(const attn_gguf *file)
{
    attn_tokenizer *tokenizer;
    if (attn_tokenizer_create(file, &tokenizer) != ATTN_OK) {
        return;
    }
    static const char text[] = "Hello  w\xc3\xb6rld\xff\n\t123 <|im_start|>";
    int32_t ids[256];
    size_t count = 0;
    attn_tokenizer_encode(tokenizer, text, sizeof text - 1, true, ids, 256, &count);
    for (size_t i = 0; i < count && i < 256; i++) {
        size_t bytes;
        attn_tokenizer_piece(tokenizer, ids[i], true, &bytes);
    }
    attn_tokenizer_destroy(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    attn_gguf *file = NULL;
    if (open_bytes(data, size, &file) != ATTN_OK) {
        if (file != NULL || attn_last_error()[0] == '\0') {
            abort(); /* a failure leaves NULL and says why */
        }
        return 0;
    }
    walk_metadata(file);
    walk_tensors(file);
    try_tokenizer(file);
    attn_model_config config;
    attn_model_config_read(file, &config);
    attn_gguf_close(file);
    return 0;
}
