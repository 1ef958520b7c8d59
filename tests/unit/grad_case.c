#include "grad_case.h"

#include "grad_oracle.h"
#include "oracle.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const grad_names[GRADS] = {"dq", "dk", "dv", "dbias", "dsinks", "dalibi"};

attn_view *grad_case_view(grad_case *c, int which)
{
    attn_view *all[GRADS] = {&c->wanted.dq,    &c->wanted.dk,     &c->wanted.dv,
                             &c->wanted.dbias, &c->wanted.dsinks, &c->wanted.dalibi};
    return all[which];
}

bool grad_case_row_attends(const grad_case *c, int64_t b, int64_t h, int64_t i)
{
    const sdpa_case *f = &c->forward;
    for (int64_t j = 0; j < f->len_k; j++) {
        if (oracle_attends(&f->options, &f->q.view, &f->kv, false, b, h, i, j)) {
            return true;
        }
    }
    return false;
}

/* dout and dlse: normal numbers, NaN where the row attends to nothing. */
static void fill_flow(grad_case *c, rng *r)
{
    const sdpa_case *f = &c->forward;
    bool smooth = f->kind == CASE_SMOOTH;
    double sigma = smooth || rng_chance(r, 60) ? 1 : pow(10, (double)rng_range(r, -4, 3));
    array_normal(&c->dout, r, sigma);
    if (c->wanted.dlse.dtype) {
        array_normal(&c->dlse, r, sigma);
    }
    for (int64_t b = 0; b < f->batch; b++) {
        for (int64_t h = 0; h < f->heads_q; h++) {
            for (int64_t i = 0; i < f->len_q; i++) {
                if (grad_case_row_attends(c, b, h, i)) {
                    continue;
                }
                for (int64_t d = 0; d < f->dim_v; d++) {
                    view_set(&c->dout.view, b, h, i, d, NAN);
                }
                if (c->wanted.dlse.dtype) {
                    view_set(&c->dlse.view, b, h, i, 0, NAN);
                }
            }
        }
    }
}

void grad_case_make(grad_case *c, sdpa_case_kind kind, uint64_t seed, int64_t index, int have)
{
    memset(c, 0, sizeof *c);
    sdpa_case *f = &c->forward;
    sdpa_case_make(f, kind, seed, index, have);
    rng *r = &f->random;
    bool smooth = kind == CASE_SMOOTH;
    attn_dtype exact = f->q_type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    static const attn_dtype types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    c->options = f->options;
    c->options.lse = NULL;
    c->wanted = attn_sdpa_gradients_init();
    /* no aliases in dout: rows are poisoned one by one */
    c->dout = array_random(r, exact == ATTN_F64 ? exact : types[rng_below(r, 3)], 4,
                           f->out.view.shape, false);
    if (rng_chance(r, 50)) {
        c->dlse = array_random(r, exact, 3, f->out.view.shape, false);
        c->wanted.dlse = c->dlse.view;
    }
    fill_flow(c, r);
    const array *of[GRADS] = {&f->q, &f->k, &f->v, &f->bias, &f->sinks, &f->alibi};
    for (int n = 0; n < GRADS; n++) {
        const attn_view *like = &of[n]->view;
        if (like->dtype == ATTN_DTYPE_NONE || (!smooth && rng_chance(r, 12))) {
            continue;
        }
        c->gradient[n] = array_random(r, rng_chance(r, 50) ? exact : like->dtype, like->ndim,
                                      like->shape, false);
        *grad_case_view(c, n) = c->gradient[n].view;
    }
    block_read_only(&c->dout.memory);
    if (c->dlse.memory.map) {
        block_read_only(&c->dlse.memory);
    }
}

void grad_case_free(grad_case *c)
{
    sdpa_case_free(&c->forward);
    array_free(&c->dout);
    array_free(&c->dlse);
    for (int n = 0; n < GRADS; n++) {
        array_free(&c->gradient[n]);
    }
}

attn_status grad_case_backward(grad_case *c, attn_context *context)
{
    const sdpa_case *f = &c->forward;
    for (int n = 0; n < GRADS; n++) {
        if (c->gradient[n].memory.map) {
            array_wipe(&c->gradient[n]);
        }
    }
    return attn_sdpa_backward(context, &c->options, &f->q.view, &f->k.view, &f->v.view,
                              &f->out.view, &f->lse.view, &c->dout.view, &c->wanted);
}

attn_status grad_case_run(grad_case *c, attn_context *context)
{
    attn_status status = sdpa_case_run(&c->forward, context);
    return status == ATTN_OK ? grad_case_backward(c, context) : status;
}

/* ---- comparing --------------------------------------------------------------------------------- */

static double largest_share;

double grad_largest_share(void)
{
    return largest_share;
}

static double rounding(attn_dtype dtype, double value)
{
    switch (dtype) {
    case ATTN_BF16: return 0x1p-8 * fabs(value) + 0x1p-134;
    case ATTN_F16: return 0x1p-11 * fabs(value) + 0x1p-25;
    default: return 0;
    }
}

/* Error as a share of what is allowed; ≤ 1 is right. */
static double excess(attn_dtype dtype, double got, double want, double allowed)
{
    double limit = dtype == ATTN_F16 ? 65520 : dtype == ATTN_F64 ? INFINITY : 0x1.ffffffp127;
    if (!isfinite(want)) {
        return isfinite(got) ? INFINITY : 0;
    }
    if (!isfinite(got)) { /* too large for its type */
        return isinf(got) && fabs(want) + allowed >= limit ? 0 : INFINITY;
    }
    double error = fabs(got - want);
    if (error == 0 || isnan(allowed)) { /* 0·inf: an infinite key, attended with weight 0 */
        return 0;
    }
    allowed += rounding(dtype, fabs(want) + allowed);
    return allowed > 0 ? error / allowed : INFINITY;
}

static bool check_one(grad_case *c, int which, const grad_tensor *want, char *text, size_t size)
{
    const attn_view *got = grad_case_view(c, which);
    double worst = 0;
    for (int64_t n = 0; n < want->count; n++) {
        int64_t at[4] = {0};
        for (int64_t d = want->ndim - 1, rest = n; d >= 0; d--) {
            at[d] = rest % want->shape[d];
            rest /= want->shape[d];
        }
        double x = view_get(got, at[0], at[1], at[2], at[3]);
        double share = excess(got->dtype, x, want->value[n], want->allowed[n]);
        if (attn_dtype_size(got->dtype) > 2) {
            largest_share = fmax(largest_share, share);
        }
        if (share > fmax(worst, 1)) {
            worst = share;
            snprintf(text, size,
                     "%s[%lld,%lld,%lld,%lld] is %.9g, must be %.9g ± %.3g (%.3g times the bound)",
                     grad_names[which], (long long)at[0], (long long)at[1], (long long)at[2],
                     (long long)at[3], x, want->value[n], want->allowed[n], share);
        }
    }
    if (worst <= 1 && !array_gaps_intact(&c->gradient[which])) {
        snprintf(text, size, "%s: written outside the view", grad_names[which]);
        return false;
    }
    return worst <= 1;
}

bool grad_case_check(grad_case *c, char *text, size_t size)
{
    grad_result want = grad_oracle(c);
    bool ok = true;
    for (int n = 0; n < GRADS && ok; n++) {
        ok = !grad_case_view(c, n)->dtype || check_one(c, n, &want.of[n], text, size);
    }
    grad_oracle_free(&want);
    return ok;
}
