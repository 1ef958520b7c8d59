/**
 * kernels/adamw/adamw.h: one step of AdamW on n ≥ 0 elements, in place:
 *   g = grad_scale·g,  m = beta1·m + rest1·g,  v = beta2·v + rest2·g²,  p −= decay·p + rate·m/(√(v·correct2) + eps)
 * with rest = 1 − β, decay = lr·weight_decay (1 − decay in f32 would lose it), rate = lr/(1 − β₁^t), correct2 = 1/(1 − β₂^t). p, g, m, v apart; no alignment.
 */
#ifndef ATTN_KERNELS_ADAMW_ADAMW_H
#define ATTN_KERNELS_ADAMW_ADAMW_H

#include <attn/context.h>

typedef struct attn_adamw_factors {
    double grad_scale, beta1, rest1, beta2, rest2, decay, rate, correct2, eps;
} attn_adamw_factors;

typedef struct attn_adamw_table {
    void (*step)(const attn_adamw_factors *f, const float *g, int64_t n, float *p, float *m,
                 float *v);
} attn_adamw_table;

/** The best kernel for a level; C for levels it does not know. Never NULL. */
const attn_adamw_table *attn_adamw_table_for(attn_isa isa);

extern const attn_adamw_table attn_adamw_c, attn_adamw_avx2, attn_adamw_avx512;

/** The same in f64. */
void attn_adamw_f64_c(const attn_adamw_factors *f, const double *g, int64_t n, double *p, double *m,
                      double *v);

#endif
