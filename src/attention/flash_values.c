/*
 * How a block of query rows reads V.
 *
 * V is not looked at beforehand. A masked slot has a weight of 0, and 0·NaN is NaN, so a NaN in V
 * could reach rows that do not attend to it. But then it also shows: those rows come out
 * non-finite. So blocks run as if V were finite, finish looks at the output, and only rows with
 * non-finite output are redone, with such rows of V as zeros (the same bits for rows that do not
 * attend to them: adding 0·x leaves a sum as it is) and added afterwards to the rows that do.
 * Finite inputs pay nothing for it.
 */
#include "attention/flash_block.h"

#include <math.h>
#include <string.h>

enum { ROWS = ATTN_FLASH_ROWS, MAX_KEYS = 1024 };

/*
 * Panel `d` / FLASH_PANEL of a run's rows, in f32: [count][FLASH_PANEL], its first `columns`
 * columns set.
 */
static float *copy_panel(const flash_block *x, const sdpa_kv_run *run, int64_t d, int64_t columns)
{
    attn_dtype dtype = x->call->kv.v.dtype;
    int64_t size = (int64_t)attn_dtype_size(dtype);
    float *panel = x->v + d * x->layout->keys;
    for (int64_t j = 0; j < run->count; j++) {
        const char *row = (const char *)run->v + (j * run->v_stride + d) * size;
        flash_to_f32(x, dtype, row, columns, panel + j * FLASH_PANEL);
    }
    return panel;
}

/* Marks rows of V that hold anything but finite numbers; bad comes in as all false. */
static void find_bad(const flash_block *x, const sdpa_kv_run *run, bool *bad)
{
    int64_t dim = x->call->dim_v;
    for (int64_t d = 0; d < dim; d += FLASH_PANEL) {
        int64_t columns = dim - d < FLASH_PANEL ? dim - d : FLASH_PANEL;
        const float *panel = copy_panel(x, run, d, columns);
        for (int64_t j = 0; j < run->count; j++) {
            for (int64_t c = 0; c < columns; c++) {
                bad[j] = bad[j] || !isfinite(panel[j * FLASH_PANEL + c]);
            }
        }
    }
}

/* Bad rows of a panel become 0, to be added by add_bad; in the scaled mode the others shrink. */
static void clean_panel(const flash_block *x, int64_t count, const bool *bad, float *panel)
{
    float unit = x->mode == FLASH_SCALED ? 1.0f / FLASH_UNIT : 1.0f;
    for (int64_t j = 0; j < count; j++) {
        for (int64_t c = 0; c < FLASH_PANEL; c++) {
            float *at = &panel[j * FLASH_PANEL + c];
            *at = bad[j] ? 0.0f : *at * unit;
        }
    }
}

/* o += p·v for the bad rows of V, where they are attended. */
static void add_bad(const flash_block *x, const sdpa_kv_run *run, int64_t begin, const bool *bad)
{
    const sdpa_call *call = x->call;
    int64_t size = (int64_t)attn_dtype_size(call->kv.v.dtype);
    float unit = x->mode == FLASH_SCALED ? 1.0f / FLASH_UNIT : 1.0f;
    for (int64_t j = 0; j < run->count; j++) {
        if (!bad[j]) {
            continue;
        }
        flash_to_f32(x, call->kv.v.dtype, (const char *)run->v + j * run->v_stride * size,
                     call->dim_v, x->row);
        for (int32_t r = 0; r < x->valid; r++) {
            if (!sdpa_attends(call, x->b, x->head[r], x->query[r], begin + j)) {
                continue;
            }
            float *o = x->o + r * x->layout->ldo, p = x->s[j * ROWS + r] * unit;
            for (int64_t d = 0; d < call->dim_v; d++) {
                o[d] += p * x->row[d];
            }
        }
    }
}

void flash_values(flash_block *x, const sdpa_kv_run *run, int64_t begin)
{
    int64_t dim = x->call->dim_v, ldo = x->layout->ldo;
    bool bad[MAX_KEYS] = {false}; /* layout.keys is less */
    if (x->mode == FLASH_PLAIN && !x->layout->copy) {
        x->kernels->values(&x->tile, x->s, run->v, run->v_stride, dim, x->alpha, x->o, ldo);
        return;
    }
    if (x->mode != FLASH_PLAIN) {
        find_bad(x, run, bad);
    }
    for (int64_t d = 0; d < dim; d += FLASH_PANEL) {
        int64_t columns = dim - d < FLASH_PANEL ? dim - d : FLASH_PANEL;
        float *panel = copy_panel(x, run, d, columns);
        if (x->mode != FLASH_PLAIN) {
            clean_panel(x, run->count, bad, panel);
        }
        x->kernels->values(&x->tile, x->s, panel, FLASH_PANEL, columns, x->alpha, x->o + d, ldo);
    }
    if (x->mode != FLASH_PLAIN) {
        add_bad(x, run, begin, bad);
    }
}
