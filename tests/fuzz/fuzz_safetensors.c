/**
 * fuzz_safetensors.c: any bytes as a safetensors file. Opening either fails with a reason or gives a file of which every part can
 * be walked, and which written again and opened is the same; as a model it is opened too. Run: ./dev fuzz
 */
#define _GNU_SOURCE
#include "memory_file.h"

#include <attn/lm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_VALUES 4096
#define MAX_ITEMS  64

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* As a trained model or an adapter: its configuration, tokenizer and tensors seen as GGUF. */
static void open_model(const char *path)
{
    attn_gguf *file = NULL;
    attn_tokenizer *tokenizer = NULL;
    attn_model_config config;
    if (attn_model_open(path, NULL, &file) != ATTN_OK) {
        if (file != NULL || attn_last_error()[0] == '\0') {
            abort();
        }
        return;
    }
    attn_model_config_read(file, &config);
    if (attn_tokenizer_create(file, &tokenizer) == ATTN_OK) {
        static const char text[] = "Hello  w\xc3\xb6rld\xff <|endoftext|>";
        int32_t ids[64];
        size_t count;
        attn_tokenizer_encode(tokenizer, text, sizeof text - 1, true, ids, 64, &count);
    }
    attn_tokenizer_destroy(tokenizer);
    attn_gguf_close(file);
}

static attn_status open_bytes(const uint8_t *data, size_t size, attn_safetensors **opened)
{
    const memory_file file = memory_file_of(data, size);
    const attn_status status = attn_safetensors_open(file.path, opened);
    open_model(file.path);
    close(file.fd);
    return status;
}

static void walk_tensor(const attn_safetensors *file, const attn_safetensor *tensor)
{
    static double values[MAX_VALUES];
    volatile size_t sink = strlen(tensor->name);
    if (attn_safetensors_find(file, tensor->name) != tensor) {
        abort();
    }
    if (tensor->bytes > 0) {
        const unsigned char *bytes = tensor->data;
        sink += (size_t)bytes[0] + bytes[tensor->bytes - 1];
    }
    if (tensor->elements <= MAX_VALUES) {
        attn_safetensors_read(tensor, ATTN_F32, values, tensor->elements);
        attn_safetensors_read(tensor, ATTN_F64, values, tensor->elements);
        attn_safetensors_read(tensor, ATTN_DTYPE_NONE, values, tensor->elements);
    }
    (void)sink;
}

/* What can be read can be written, and is then read as the same. */
static void write_again(const attn_safetensors *file)
{
    static attn_safetensors_item items[MAX_ITEMS];
    attn_safetensors_pair pairs[MAX_ITEMS];
    const size_t count = (size_t)attn_safetensors_count(file);
    const size_t strings = (size_t)attn_safetensors_metadata_count(file);
    if (count > MAX_ITEMS || strings > MAX_ITEMS) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const attn_safetensor *t = attn_safetensors_at(file, (int64_t)i);
        items[i] = (attn_safetensors_item){
            .name = t->name, .dtype = t->dtype, .ndim = t->ndim, .data = t->data};
        memcpy(items[i].shape, t->shape, sizeof t->shape);
    }
    for (size_t i = 0; i < strings; i++) {
        pairs[i].key = attn_safetensors_metadata_at(file, (int64_t)i, &pairs[i].value);
    }
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/attn-fuzz-%ld", (long)getpid());
    attn_safetensors *again = NULL;
    if (attn_safetensors_save(path, items, count, pairs, strings) != ATTN_OK ||
        attn_safetensors_open(path, &again) != ATTN_OK ||
        attn_safetensors_count(again) != (int64_t)count) {
        fprintf(stderr, "%s\n", attn_last_error());
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        const attn_safetensor *t = attn_safetensors_find(again, items[i].name);
        const attn_safetensor *old = attn_safetensors_at(file, (int64_t)i);
        if (!t || t->bytes != old->bytes ||
            (t->bytes > 0 && memcmp(t->data, old->data, t->bytes) != 0)) {
            abort();
        }
    }
    attn_safetensors_close(again);
    unlink(path);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    attn_safetensors *file = NULL;
    if (open_bytes(data, size, &file) != ATTN_OK) {
        if (file != NULL || attn_last_error()[0] == '\0') {
            abort(); /* a failure leaves NULL and says why */
        }
        return 0;
    }
    for (int64_t i = 0; i < attn_safetensors_count(file); i++) {
        walk_tensor(file, attn_safetensors_at(file, i));
    }
    write_again(file);
    attn_safetensors_close(file);
    return 0;
}
