/**
 * check_flash_tile.h: random tiles of kernels/flash, for the checks of forward and of backward.
 */
#ifndef TESTS_CHECK_CHECK_FLASH_TILE_H
#define TESTS_CHECK_CHECK_FLASH_TILE_H

#include "check.h"

#include "kernels/flash/flash.h"

enum { LANES = ATTN_FLASH_ROWS, UNIT = ATTN_FLASH_KEYS, MOST_KEYS = 200, MOST_DIM = 140 };

static inline int64_t flash_up_to(int64_t n, int64_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* A random tile; on a partial one both ends rise from row to row, as causal and windows make them. */
static inline attn_flash_tile flash_make_tile(check *c)
{
    attn_flash_tile t = {.rows =
                             (int32_t)(c->index < LANES ? c->index + 1 : check_range(c, 1, LANES)),
                         .keys = (int32_t)check_size(c, 2 * UNIT, MOST_KEYS),
                         .partial = check_range(c, 0, 1) == 1};
    int64_t lo = check_range(c, 0, 2) ? 0 : check_range(c, 0, t.keys);
    int64_t hi = check_range(c, lo, t.keys);
    for (int r = 0; r < LANES; r++) {
        t.lo[r] = (int32_t)lo;
        t.hi[r] = (int32_t)hi;
        if (r < t.rows - 1) {
            hi = check_range(c, hi, hi + 4 < t.keys ? hi + 4 : t.keys);
            lo = check_range(c, 0, 1) ? lo : check_range(c, lo, lo + 3 < hi ? lo + 3 : hi);
        }
    }
    return t;
}

static inline bool flash_attends(const attn_flash_tile *t, int64_t r, int64_t j)
{
    return !t->partial || (j >= t->lo[r] && j < t->hi[r]);
}

/* Sᵀ with room for whole units of keys. */
static inline float *flash_take_tile(check *c, const char *name, const attn_flash_tile *t)
{
    return check_floats(c, name, flash_up_to(t->keys, UNIT) * LANES, 64);
}

#endif
