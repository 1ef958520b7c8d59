/* kernels/flash, double: scores and weighted sum of one query row. */
#include "kernels/flash/flash_f64.h"

#include <assert.h>

/*
 * Terms that are summed before halves are added pairwise: the error of a sum then grows with the
 * logarithm of its length.
 */
enum { RUN = 32 };

static double dot(const double *a, const double *b, int64_t n)
{
    if (n > RUN) {
        int64_t half = (n / 2 + RUN - 1) / RUN * RUN;
        return dot(a, b, half) + dot(a + half, b + half, n - half);
    }
    double sum[8] = {0};
    int64_t d = 0;
    for (; d + 8 <= n; d += 8) {
        for (int lane = 0; lane < 8; lane++) {
            sum[lane] += a[d + lane] * b[d + lane];
        }
    }
    for (int lane = 0; d < n; d++, lane++) {
        sum[lane] += a[d] * b[d];
    }
    return ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
}

void attn_flash_f64_scores(const double *q, const double *k, int64_t stride, int64_t dim,
                           int64_t keys, double scale, double *s)
{
    assert(dim >= 1 && keys >= 0);
    for (int64_t j = 0; j < keys; j++) {
        s[j] = scale * dot(q, k + j * stride, dim);
    }
}

void attn_flash_f64_accumulate(const double *p, const unsigned char *hidden, const double *v,
                               int64_t stride, int64_t dim, int64_t keys, double *o)
{
    assert(dim >= 1 && keys >= 0);
    for (int64_t j = 0; j < keys; j++) {
        if (hidden[j]) {
            continue;
        }
        const double *row = v + j * stride;
        for (int64_t d = 0; d < dim; d++) {
            o[d] += p[j] * row[d];
        }
    }
}

void attn_flash_f64_spread(const double *p, const unsigned char *hidden, const double *row,
                           int64_t dim, int64_t keys, double *o, int64_t stride)
{
    assert(dim >= 1 && keys >= 0);
    for (int64_t j = 0; j < keys; j++) {
        if (hidden[j]) { /* asked once: `to` might be what hidden points at, for all that C knows */
            continue;
        }
        double weight = p[j], *to = o + j * stride;
        for (int64_t d = 0; d < dim; d++) {
            to[d] += weight * row[d];
        }
    }
}
