/**
 * kernels/adamw/adamw_lanes.h: the step of adamw_c.c on lanes. Include in adamw_<isa>.c, after lanes_<isa>.h.
 */
#ifndef ATTN_KERNELS_ADAMW_ADAMW_LANES_H
#define ATTN_KERNELS_ADAMW_ADAMW_LANES_H

#include "kernels/adamw/adamw.h"

typedef struct lanes_state {
    lanes g, p, m, v;
} lanes_state;

static inline void advance(const attn_adamw_factors *f, lanes_state *s)
{
    lanes g = s->g * lanes_set((float)f->grad_scale);
    s->m = lanes_fma(lanes_set((float)f->beta1), s->m, lanes_set((float)f->rest1) * g);
    s->v = lanes_fma(lanes_set((float)f->beta2), s->v, lanes_set((float)f->rest2) * g * g);
    lanes size = lanes_sqrt(s->v * lanes_set((float)f->correct2)) + lanes_set((float)f->eps);
    lanes move = lanes_set((float)f->rate) * s->m / size;
    s->p = s->p - lanes_fma(lanes_set((float)f->decay), s->p, move);
}

static void step(const attn_adamw_factors *f, const float *g, int64_t n, float *p, float *m,
                 float *v)
{
    const attn_adamw_factors own = *f; /* stores cannot change it: its lanes stay in registers */
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        lanes_state s = {lanes_load(g + i), lanes_load(p + i), lanes_load(m + i),
                         lanes_load(v + i)};
        advance(&own, &s);
        lanes_store(p + i, s.p);
        lanes_store(m + i, s.m);
        lanes_store(v + i, s.v);
    }
    if (i < n) {
        int64_t left = n - i;
        lanes_state s = {lanes_load_some(g + i, left, 0.0f), lanes_load_some(p + i, left, 0.0f),
                         lanes_load_some(m + i, left, 0.0f), lanes_load_some(v + i, left, 0.0f)};
        advance(&own, &s);
        lanes_store_some(p + i, left, s.p);
        lanes_store_some(m + i, left, s.m);
        lanes_store_some(v + i, left, s.v);
    }
}

#endif
