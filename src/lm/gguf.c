/* Opening and closing: the file is mapped, its contents are read by gguf_parse.c. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lm/gguf_file.h"

/* Magic, version, two counts. */
#define HEADER_BYTES 24

static attn_status map_file(attn_gguf *file, int fd)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return attn_fail(ATTN_ERR_IO, "%s: cannot tell its size: %s", file->path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return attn_fail(ATTN_ERR_IO, "%s: not a regular file; give the path of a .gguf file",
                         file->path);
    }
    if (info.st_size < HEADER_BYTES) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: %lld bytes are too few for a GGUF file, whose header alone has %d",
                         file->path, (long long)info.st_size, HEADER_BYTES);
    }
    void *map = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED) {
        return attn_fail(errno == ENOMEM ? ATTN_ERR_NO_MEMORY : ATTN_ERR_IO,
                         "%s: cannot map %lld bytes: %s", file->path, (long long)info.st_size,
                         strerror(errno));
    }
    file->map = map;
    file->size = (size_t)info.st_size;
    return ATTN_OK;
}

static attn_status open_and_parse(attn_gguf *file)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return attn_fail(ATTN_ERR_IO, "%s: cannot open: %s", file->path, strerror(errno));
    }
    attn_status status = map_file(file, fd);
    close(fd);
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
    } else if (file->map) {
        munmap((void *)(uintptr_t)file->map, file->size);
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
