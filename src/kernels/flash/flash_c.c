/*
 * kernels/flash, readable: what every other level computes, in plain loops. The order of sums
 * differs between levels, the results agree within the accuracy of docs/numerics.md.
 */
#include "kernels/flash/flash.h"

#include <assert.h>
#include <math.h>

enum { ROWS = ATTN_FLASH_ROWS };

/* Sums are made of runs of 16 terms: the error of a plain sum grows with its length. */
enum { RUN = 16 };

static void pack(const float *const *rows, int32_t count, int64_t dim, float *qt)
{
    assert(count >= 0 && count <= ATTN_FLASH_LANES && dim >= 1);
    for (int64_t d = 0; d < dim; d++) {
        for (int32_t r = 0; r < ATTN_FLASH_LANES; r++) {
            qt[d * ROWS + r] = r < count ? rows[r][d] : 0.0f;
        }
    }
}

/* One key against the lanes first … last−1. */
static void score_key(const float *qt, const float *key, int64_t dim, float scale, int32_t first,
                      int32_t last, float *s, float *maximum)
{
    float sum[ROWS] = {0};
    for (int64_t begin = 0; begin < dim; begin += RUN) {
        int64_t end = begin + RUN < dim ? begin + RUN : dim;
        float run[ROWS] = {0};
        for (int64_t d = begin; d < end; d++) {
            for (int32_t r = first; r < last; r++) {
                run[r] += qt[d * ROWS + r] * key[d];
            }
        }
        for (int32_t r = first; r < last; r++) {
            sum[r] += run[r];
        }
    }
    for (int32_t r = first; r < last; r++) {
        s[r] = scale * sum[r];
        if (maximum) {
            maximum[r] = s[r] > maximum[r] ? s[r] : maximum[r];
        }
    }
}

static void scores(const attn_flash_tile *tile, const float *qt, const float *k, int64_t stride,
                   int64_t dim, float scale, float *s, float *maximum)
{
    assert(tile->rows >= 1 && tile->rows <= ROWS && tile->keys >= 1 && dim >= 1);
    for (int32_t j = 0; j < tile->keys; j++) {
        int32_t first, last;
        attn_flash_groups(tile, j, j + 1, &first, &last);
        score_key(qt, k + j * stride, dim, scale, first * ATTN_FLASH_LANES, last * ATTN_FLASH_LANES,
                  s + j * ROWS, maximum);
    }
}

static void modify(const attn_flash_tile *tile, float cap, const float *addend, int64_t ld,
                   float *s, float *maximum)
{
    for (int32_t j = 0; j < tile->keys; j++) {
        for (int32_t r = 0; r < tile->rows; r++) {
            float *slot = &s[j * ROWS + r];
            float plus = addend ? addend[r * ld + j] : 0.0f;
            if (plus == -INFINITY || (tile->partial && (j < tile->lo[r] || j >= tile->hi[r]))) {
                *slot = -INFINITY; /* selected, not added: the score may be NaN */
                continue;
            }
            if (cap > 0.0f) {
                *slot = cap * tanhf(*slot / cap);
            }
            *slot += plus;
            maximum[r] = *slot > maximum[r] ? *slot : maximum[r];
        }
    }
}

static void argmax(const attn_flash_tile *tile, const float *s, const float *maximum, int32_t *key)
{
    for (int32_t r = 0; r < tile->rows; r++) {
        for (int32_t j = 0; j < tile->keys; j++) {
            bool outside = tile->partial && (j < tile->lo[r] || j >= tile->hi[r]);
            key[r] = !outside && s[j * ROWS + r] == maximum[r] ? j : key[r];
        }
    }
}

static void softmax(const attn_flash_tile *tile, const float *maximum, float *s, float *m, float *l,
                    float *alpha)
{
    for (int32_t r = 0; r < tile->rows; r++) {
        float from = maximum[r] == -INFINITY ? 0.0f : maximum[r];
        float sum = 0.0f;
        for (int32_t j = 0; j < tile->keys; j++) {
            bool outside = tile->partial && (j < tile->lo[r] || j >= tile->hi[r]);
            float p = outside ? 0.0f : expf(s[j * ROWS + r] - from);
            s[j * ROWS + r] = p;
            sum += p;
        }
        alpha[r] = expf(m[r] - from);
        l[r] = l[r] * alpha[r] + sum;
        m[r] = maximum[r];
    }
}

/* o = o·alpha + Σ_j s[j·64]·v[j·stride], n ≤ 64 columns of one row. */
static void value_row(const float *s, const float *v, int64_t stride, int32_t keys, int64_t n,
                      float alpha, float *o)
{
    for (int64_t d = 0; d < n; d++) {
        o[d] *= alpha;
    }
    for (int32_t begin = 0; begin < keys; begin += RUN) {
        int32_t end = begin + RUN < keys ? begin + RUN : keys;
        float run[64] = {0};
        for (int32_t j = begin; j < end; j++) {
            for (int64_t d = 0; d < n; d++) {
                run[d] += s[j * ROWS] * v[j * stride + d];
            }
        }
        for (int64_t d = 0; d < n; d++) {
            o[d] += run[d];
        }
    }
}

static void values(const attn_flash_tile *tile, const float *s, const float *v, int64_t stride,
                   int64_t dim, const float *alpha, float *o, int64_t ldo)
{
    assert(dim >= 1 && ldo >= dim);
    for (int32_t r = 0; r < tile->rows; r++) {
        int32_t begin, end;
        attn_flash_keys(tile, r, r + 1, &begin, &end);
        for (int64_t d = 0; d < dim; d += 64) {
            value_row(s + begin * ROWS + r, v + begin * stride + d, stride, end - begin,
                      dim - d < 64 ? dim - d : 64, alpha[r], o + r * ldo + d);
        }
    }
}

static void fold(int32_t rows, int64_t ldo, const float *beta, float *o, float *total)
{
    for (int32_t r = 0; r < rows; r++) {
        for (int64_t d = r * ldo; d < (r + 1) * ldo; d++) {
            total[d] = total[d] * beta[r] + o[d];
            o[d] = 0.0f;
        }
    }
}

static bool finish(const float *o, float factor, int64_t dim, float *out)
{
    bool finite = true;
    for (int64_t d = 0; d < dim; d++) {
        out[d] = o[d] * factor;
        finite = finite && isfinite(out[d]);
    }
    return finite;
}

const attn_flash_kernels attn_flash_c = {
    .name = "flash_f32_c",
    .block_keys = 96,
    .pack = pack,
    .scores = scores,
    .modify = modify,
    .argmax = argmax,
    .softmax = softmax,
    .values = values,
    .fold = fold,
    .finish = finish,
};
