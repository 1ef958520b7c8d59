/**
 * linear/matmul.h: a product of matrices after its checks: plain sizes and strides.
 */
#ifndef ATTN_LINEAR_MATMUL_H
#define ATTN_LINEAR_MATMUL_H

#include <attn/context.h>

/**
 * c[x, y] = a[x, y]·b[x, y] (+ c) (+ bias) for x < lead[0], y < lead[1]; strides in elements, those of sizes that are 1 are 0
 * or lead to the same place. c's columns are contiguous.
 */
typedef struct attn_matmul_call {
    int64_t lead[2], m, n, k;
    const void *a, *b, *bias; /* bias [n] or NULL */
    void *c;
    int64_t a_lead[2], a_row, a_k;
    int64_t b_lead[2], b_k, b_column;
    int64_t c_lead[2], c_row;
    bool accumulate;
} attn_matmul_call;

/** Both: m, n and lead ≥ 1, k ≥ 0. Every element is one chain of additions in the order of k. */
attn_status attn_matmul_f32(attn_context *context, const attn_matmul_call *call);
void attn_matmul_f64(attn_context *context, const attn_matmul_call *call);

#endif
