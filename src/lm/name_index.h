/**
 * lm/name_index.h: looking names up in an index that is sorted by them.
 */
#ifndef ATTN_LM_NAME_INDEX_H
#define ATTN_LM_NAME_INDEX_H

#include <stddef.h>
#include <stdint.h>

/** The name of item `index` of a file. */
typedef const char *name_of(const void *file, uint32_t index);

/** The item called `name`, or -1; order[count] are items by name. */
int64_t name_index_find(const uint32_t *order, size_t count, name_of *of, const void *file,
                        const char *name);

#endif
