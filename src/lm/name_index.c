/* See name_index.h. */
#include "lm/name_index.h"

#include <string.h>

int64_t name_index_find(const uint32_t *order, size_t count, name_of *of, const void *file,
                        const char *name)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int difference = strcmp(of(file, order[middle]), name);
        if (difference == 0) {
            return order[middle];
        }
        if (difference < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return -1;
}
