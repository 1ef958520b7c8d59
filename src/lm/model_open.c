/* Opening a model file of any kind. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lm/model_files.h"

attn_model_open_options attn_model_open_options_init(void)
{
    attn_model_open_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    return options;
}

/*
 * By the first bytes: a GGUF file says so, the header of a safetensors file begins at byte 8. The name decides about files that are
 * neither, so that the reader that refuses them speaks of what they claim to be.
 */
static bool looks_like_safetensors(const char *path)
{
    char bytes[9] = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, bytes, sizeof bytes) : -1;
    if (fd >= 0) {
        close(fd);
    }
    if (n >= 4 && memcmp(bytes, "GGUF", 4) == 0) {
        return false;
    }
    const char *suffix = strrchr(path, '.');
    return (n == (ssize_t)sizeof bytes && bytes[8] == '{') ||
           (suffix && strcmp(suffix, ".safetensors") == 0);
}

/* A GGUF file or a trained model; `from` is the latter, opened, or NULL. */
static attn_status open_base(const char *path, attn_safetensors *from, attn_gguf **file)
{
    if (from) {
        return lm_open_trained(from, file);
    }
    if (!looks_like_safetensors(path)) {
        return attn_gguf_open(path, file);
    }
    attn_status status = attn_safetensors_open(path, &from);
    return status == ATTN_OK ? lm_open_trained(from, file) : status;
}

static attn_status merge(attn_gguf **file, const attn_safetensors *adapter, const lm_adapter *says,
                         const attn_model_open_options *options)
{
    attn_status status = lm_merge_adapter(*file, adapter, says, options);
    if (status != ATTN_OK) {
        attn_gguf_close(*file);
        *file = NULL;
    }
    return status;
}

/* <folder>/<name> when there is such a file; else NULL. *failed: without memory. */
static char *look_in(const char *folder, size_t size, const char *name, bool *failed)
{
    char *path;
    if (asprintf(&path, "%.*s%s%s", (int)size, folder, size ? "/" : "", name) < 0) {
        *failed = true;
        return NULL;
    }
    if (access(path, F_OK) == 0) {
        return path;
    }
    free(path);
    return NULL;
}

/* Where the base of an adapter is. malloc'd. */
static attn_status find_base(const char *adapter, const lm_adapter *says,
                             const attn_model_open_options *options, char **path)
{
    const char *slash = strrchr(adapter, '/');
    bool failed = false;
    size_t folder = slash ? (size_t)(slash - adapter) : 0;
    *path = slash == adapter ? look_in("/.", 2, says->base, &failed)
                             : look_in(adapter, folder, says->base, &failed);
    for (size_t i = 0; !*path && !failed && options->folders && i < options->folder_count; i++) {
        const char *other = options->folders[i];
        *path = look_in(other, strlen(other), says->base, &failed);
    }
    if (failed) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to look for the base of %s", adapter);
    }
    return *path ? ATTN_OK
                 : attn_fail(ATTN_ERR_IO,
                             "%s: its base '%s' (SHA-256 %.16s…) is neither beside it nor where "
                             "models are kept; give the base as the model and this as its adapter",
                             adapter, says->base, says->sha256);
}

/* An adapter by itself: its base is looked for. */
static attn_status open_adapter(const char *path, attn_safetensors *adapter,
                                const attn_model_open_options *options, attn_gguf **file)
{
    lm_adapter says;
    char *base = NULL;
    attn_status status = lm_read_adapter(adapter, &says);
    if (status == ATTN_OK) {
        status = find_base(path, &says, options, &base);
    }
    if (status == ATTN_OK) {
        status = open_base(base, NULL, file);
    }
    if (status == ATTN_OK) {
        status = merge(file, adapter, &says, options);
    }
    free(base);
    attn_safetensors_close(adapter);
    return status;
}

/* A base and its adapter, both given. */
static attn_status open_both(const char *path, const attn_model_open_options *options,
                             attn_gguf **file)
{
    attn_safetensors *adapter;
    lm_adapter says;
    attn_status status = attn_safetensors_open(options->adapter, &adapter);
    if (status != ATTN_OK) {
        return status;
    }
    status = lm_read_adapter(adapter, &says);
    if (status == ATTN_OK) {
        status = open_base(path, NULL, file);
    }
    if (status == ATTN_OK) {
        status = merge(file, adapter, &says, options);
    }
    attn_safetensors_close(adapter);
    return status;
}

attn_status attn_model_open(const char *path, const attn_model_open_options *options,
                            attn_gguf **file)
{
    attn_model_open_options o = attn_model_open_options_init();
    if (!file) {
        return attn_fail(ATTN_ERR_ARGUMENT, "file: NULL; give the address of an attn_gguf pointer");
    }
    *file = NULL;
    if (!path) {
        return attn_fail(ATTN_ERR_ARGUMENT, "path: NULL; give the path of a model file");
    }
    attn_status status =
        attn_take_struct("options", "attn_model_open_options_init", options, &o, sizeof o);
    if (status != ATTN_OK) {
        return status;
    }
    if (o.adapter) {
        return open_both(path, &o, file);
    }
    if (!looks_like_safetensors(path)) {
        return attn_gguf_open(path, file);
    }
    attn_safetensors *from;
    status = attn_safetensors_open(path, &from);
    if (status != ATTN_OK) {
        return status;
    }
    return attn_safetensors_metadata(from, ADAPTER_KEY) ? open_adapter(path, from, &o, file)
                                                        : open_base(path, from, file);
}
