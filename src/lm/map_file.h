/**
 * lm/map_file.h: regular files as memory that is read.
 */
#ifndef ATTN_LM_MAP_FILE_H
#define ATTN_LM_MAP_FILE_H

#include <attn/base.h>

/** What an error says of a kind of file. */
typedef struct map_kind {
    const char *extension; /**< ".gguf" */
    const char
        *least; /**< before the bytes of the smallest file: "a GGUF file, whose header alone has" */
    int least_bytes;
} map_kind;

/**
 * Maps all of `path`; *map is for unmap_file. IO when it cannot be opened, is no regular file or cannot be mapped, FORMAT when it has fewer
 * bytes than the kind's smallest file.
 */
attn_status map_file(const char *path, const map_kind *kind, const unsigned char **map,
                     size_t *size);

/** `map` may be NULL. */
void unmap_file(const unsigned char *map, size_t size);

#endif
