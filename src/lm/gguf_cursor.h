/**
 * lm/gguf_cursor.h: reading a mapped GGUF file from front to back. Nothing read from the file is
 * used as a size or an offset before it has been compared with the bytes that are left, so memory
 * stays proportional to the file.
 */
#ifndef ATTN_LM_GGUF_CURSOR_H
#define ATTN_LM_GGUF_CURSOR_H

#include "lm/gguf_file.h"

/** Where reading is: file->map[at …). */
typedef struct gguf_cursor {
    attn_gguf *file;
    size_t at;
} gguf_cursor;

/** A name from the file, shortened and without control characters, for error texts. */
typedef struct gguf_shown {
    char text[96];
} gguf_shown;

gguf_shown gguf_show(const char *name);

/** *p = the next `bytes` bytes; FORMAT, naming `what` and both places, where the file ends before.
 */
attn_status gguf_take(gguf_cursor *c, size_t bytes, const char *what, const uint8_t **p);
attn_status gguf_take_u32(gguf_cursor *c, const char *what, uint32_t *value);
attn_status gguf_take_u64(gguf_cursor *c, const char *what, uint64_t *value);

/** A string: its length is read, its bytes stay in the map. */
attn_status gguf_take_string(gguf_cursor *c, const char *what, const uint8_t **bytes, size_t *size);

/** A key or tensor name: not empty, no NUL inside; a copy with a NUL after it that lives as long as
 * the file. */
attn_status gguf_take_name(gguf_cursor *c, const char *what, char **name);

/** 0 … count − 1 sorted by `compare`, whose third argument is the file; malloc'd; NULL without
 * memory (text set). */
uint32_t *gguf_sorted_indices(attn_gguf *file, size_t count,
                              int (*compare)(const void *, const void *, void *));

/** Reads the file->tensor_count entries of the tensor table, and checks and places each. */
attn_status gguf_take_tensors(gguf_cursor *c);

#endif
