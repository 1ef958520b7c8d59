/* Opening and closing: the file is mapped, its contents are read by gguf_parse.c. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/gguf_file.h"
#include "lm/map_file.h"

/* Magic, version, two counts. */
#define HEADER_BYTES 24

static attn_status open_and_parse(attn_gguf *file)
{
    static const map_kind kind = {".gguf", "a GGUF file, whose header alone has", HEADER_BYTES};
    attn_status status = map_file(file->path, &kind, &file->map, &file->size);
    return status == ATTN_OK ? gguf_parse(file) : status;
}

attn_status attn_gguf_open(const char *path, attn_gguf **file)
{
    if (!file) {
        return attn_fail(ATTN_ERR_ARGUMENT, "file: NULL; give the address of an attn_gguf pointer");
    }
    *file = NULL;
    if (!path) {
        return attn_fail(ATTN_ERR_ARGUMENT, "path: NULL; give the path of a .gguf file");
    }
    attn_gguf *opened = calloc(1, sizeof *opened);
    if (opened) {
        opened->path = strdup(path);
    }
    if (!opened || !opened->path) {
        free(opened);
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to open %s", path);
    }
    attn_status status = open_and_parse(opened);
    if (status != ATTN_OK) {
        attn_gguf_close(opened);
        return status;
    }
    *file = opened;
    return ATTN_OK;
}

void attn_gguf_close(attn_gguf *file)
{
    if (!file) {
        return;
    }
    for (size_t i = 0; i < file->pair_count; i++) {
        free(file->pairs[i].strings);
    }
    free(file->pairs);
    free(file->pair_order);
    free(file->tensors);
    free(file->tensor_order);
    gguf_free_names(file);
    if (file->heap) {
        free((void *)(uintptr_t)file->map);
    } else {
        unmap_file(file->map, file->size);
    }
    attn_safetensors_close(file->lender);
    free(file->path);
    free(file);
}

const char *attn_gguf_path(const attn_gguf *file)
{
    return file ? file->path : "";
}

size_t attn_gguf_file_bytes(const attn_gguf *file)
{
    return file ? (file->shown_bytes ? file->shown_bytes : file->size) : 0;
}
