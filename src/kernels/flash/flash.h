/**
 * kernels/flash: attention of a block of up to 64 query rows against a block of keys, f32.
 *
 * Scores are kept transposed, Sᵀ[key][64]: the queries lie in vector lanes. So softmax needs no
 * horizontal operations, K and V are read in place with any row stride, and the same tile is a
 * ready operand of Pᵀ·V. One block of keys goes through
 *
 *   scores → (modify) → softmax → values        and after the last one → finish
 *
 * Rows are sorted so that both ends of the interval of keys that a row attends to never fall from
 * lane to lane; that is true of causal and windowed attention, and lets a stage skip whole groups
 * of 16 lanes.
 *
 * All arrays of the caller may have any alignment of their elements; arrays of the tile (qt, s, o,
 * addend and the per-lane vectors) are aligned to 64 bytes. Kernels read and write nothing outside
 * the sizes given here.
 */
#ifndef ATTN_KERNELS_FLASH_FLASH_H
#define ATTN_KERNELS_FLASH_FLASH_H

#include <attn/context.h>

enum {
    ATTN_FLASH_ROWS = 64,  /* query rows of a block: lanes of Sᵀ */
    ATTN_FLASH_LANES = 16, /* the unit in which lanes are skipped */
    ATTN_FLASH_KEYS = 6    /* the unit in which keys are computed: Sᵀ has room for a multiple */
};

/** One block of keys as a block of rows sees it. */
typedef struct attn_flash_tile {
    int32_t rows; /* lanes in use, 1 … 64; the others hold anything and are never looked at */
    int32_t keys; /* ≥ 1 */
    bool partial; /* whether some row attends to less than all keys: then lo and hi hold */
    /*
     * Row r attends to keys lo[r] … hi[r]−1, 0 ≤ lo ≤ hi ≤ keys, neither falls with r; lanes ≥ rows
     * repeat the last row's.
     */
    _Alignas(64) int32_t lo[ATTN_FLASH_ROWS];
    _Alignas(64) int32_t hi[ATTN_FLASH_ROWS];
} attn_flash_tile;

typedef struct attn_flash_kernels {
    const char *name;   /* "flash_f32_<isa>" */
    int32_t block_keys; /* keys of a block that work best, a multiple of ATTN_FLASH_KEYS */

    /**
     * qt[d·64 + r] = rows[r][d], r < count ≤ 16, d < dim; lanes count … 15 are set to 0. qt points
     * at the first of the 16 lanes.
     */
    void (*pack)(const float *const *rows, int32_t count, int64_t dim, float *qt);

    /**
     * s[j·64 + r] = scale·Σ_d qt[d·64 + r]·k[j·stride + d]; maximum[r] = max(maximum[r], s[…]). On
     * a partial tile, lane groups that attend to none of 6 neighbouring keys are left out, and
     * maximum counts all that was computed: `modify` counts anew. Backward wants none (NULL).
     */
    void (*scores)(const attn_flash_tile *tile, const float *qt, const float *k, int64_t stride,
                   int64_t dim, float scale, float *s, float *maximum);

    /**
     * s = cap·tanh(s/cap) where cap > 0; + addend[r·ld + j] where addend is given, and −inf where
     * it is −inf whatever s is; −inf outside lo … hi. Then maximum[r] = max(maximum[r], s[…]). `ld`
     * is a multiple of 16, ≥ keys rounded up to one; addend is not read beyond the 16 lanes of the
     * last row in use.
     */
    void (*modify)(const attn_flash_tile *tile, float cap, const float *addend, int64_t ld,
                   float *s, float *maximum);

    /**
     * key[r] = the last j with s[j·64 + r] == maximum[r], inside lo … hi; left as it is where there
     * is none. Outside lo … hi s holds −inf, as modify leaves it.
     */
    void (*argmax)(const attn_flash_tile *tile, const float *s, const float *maximum, int32_t *key);

    /**
     * The online softmax: with M = maximum, or 0 where that is −inf,
     *   alpha = exp(m − M), s = exp(s − M) (0 outside lo … hi), l = l·alpha + Σ_j s, m = maximum.
     * Outside lo … hi s comes in as −inf, as modify leaves it. NaN scores give NaN in their row alone.
     */
    void (*softmax)(const attn_flash_tile *tile, const float *maximum, float *s, float *m, float *l,
                    float *alpha);

    /**
     * o[r·ldo + d] = o[r·ldo + d]·alpha[r] + Σ_j s[j·64 + r]·v[j·stride + d], d < dim. ldo is a
     * multiple of 16, ≥ dim; rows are computed up to a multiple of 6 (o has 64 rows). Keys outside
     * a row's interval may be touched with a weight of 0.
     */
    void (*values)(const attn_flash_tile *tile, const float *s, const float *v, int64_t stride,
                   int64_t dim, const float *alpha, float *o, int64_t ldo);

    /** total[r·ldo + d] = total[r·ldo + d]·beta[r] + o[r·ldo + d]; o = 0: long sums are folded. */
    void (*fold)(int32_t rows, int64_t ldo, const float *beta, float *o, float *total);

    /** out[d] = o[d]·factor, d < dim; whether all of them are finite. */
    bool (*finish)(const float *o, float factor, int64_t dim, float *out);
} attn_flash_kernels;

/** Lane groups [*first, *last) that attend to any key of begin … end−1. */
static inline void attn_flash_groups(const attn_flash_tile *tile, int32_t begin, int32_t end,
                                     int32_t *first, int32_t *last)
{
    int32_t a = 0, z = (tile->rows + ATTN_FLASH_LANES - 1) / ATTN_FLASH_LANES;
    if (tile->partial) {
        while (a < z && tile->hi[a * ATTN_FLASH_LANES + ATTN_FLASH_LANES - 1] <= begin) {
            a++;
        }
        while (z > a && tile->lo[(z - 1) * ATTN_FLASH_LANES] >= end) {
            z--;
        }
    }
    *first = a;
    *last = z;
}

/** Keys [*begin, *end) that any of the lanes first … last−1 attends to. */
static inline void attn_flash_keys(const attn_flash_tile *tile, int32_t first, int32_t last,
                                   int32_t *begin, int32_t *end)
{
    *begin = tile->partial ? tile->lo[first] : 0;
    *end = tile->partial ? tile->hi[last - 1] : tile->keys;
}

/** The kernels of a level, or of the best one below it that there are any of. */
const attn_flash_kernels *attn_flash_table(attn_isa isa);

extern const attn_flash_kernels attn_flash_c;
extern const attn_flash_kernels attn_flash_avx2;
extern const attn_flash_kernels attn_flash_avx512;

#endif
