/*
 * The path of many query rows: what it needs, its tasks, and the end of a block: divide, round
 * once, LSE, weights.
 */
#include "attention/flash_block.h"
#include "base/alloc.h"
#include "par/context.h"

#include <math.h>
#include <string.h>

sdpa_needs sdpa_flash_needs(const sdpa_call *call)
{
    flash_layout layout = flash_make_layout(call);
    return (sdpa_needs){
        .per_worker = layout.size,
        .tasks = call->batch * call->heads_kv * layout.row_blocks,
        .kernel = attn_flash_table(attn_context_isa(call->context))->name,
    };
}

/*
 * Denominator, factor and LSE of lane r: here the sink enters, and rows without a finite sum are
 * told apart.
 */
static void close_row(flash_block *x, int32_t r)
{
    const sdpa_call *call = x->call;
    float m = x->m[r], l = x->l[r], shrink = 1.0f;
    x->nothing[r] = false;
    if (r >= x->valid || l == 0.0f) { /* a finite maximum weighs 1, so l ≥ 1: here it is −inf */
        x->nothing[r] = r >= x->valid || !sdpa_row_attends(call, x->b, x->head[r], x->query[r]);
        x->factor[r] =
            x->nothing[r] ? 0.0f : NAN; /* NAN: attended scores that overflowed to −inf */
        x->lse[r] = x->nothing[r] ? -INFINITY : NAN;
        return;
    }
    /*
     * LSE = maximum + ln(sum). The maximum carries the rounding of a whole dot product, and where
     * many keys are alike the others carry the same, so that it shows in nothing but here: the best
     * key's score is computed once more, exactly.
     */
    bool lse = call->lse.dtype != ATTN_DTYPE_NONE;
    double exact = lse && isfinite(m) ? flash_exact_score(x, r, x->best[r]) : (double)m;
    if (call->sinks.dtype != ATTN_DTYPE_NONE) {
        float sink = (float)sdpa_sink(call, x->head[r]);
        float top = sink > m ? sink : m;
        shrink = expf(m - top);
        l = l * shrink + expf(sink - top);
        exact = sink > m ? (double)sink : exact;
    }
    x->factor[r] = shrink / l;
    x->lse[r] = lse ? (float)(exact + (double)logf(l)) : 0.0f;
}

static void *out_row(const flash_block *x, int32_t r)
{
    const attn_view *out = &x->call->out;
    int64_t at = x->b * out->stride[0] + x->head[r] * out->stride[1] + x->query[r] * out->stride[2];
    return (char *)out->data + at * (int64_t)attn_dtype_size(out->dtype);
}

/* out of lane r; false where a row whose weights are finite came out non-finite. */
static bool write_row(flash_block *x, int32_t r)
{
    const sdpa_call *call = x->call;
    attn_dtype dtype = call->out.dtype;
    void *out = out_row(x, r);
    float *row = dtype == ATTN_F32 ? out : x->row;
    bool finite = true;
    if (x->nothing[r]) {
        memset(row, 0, (size_t)call->dim_v * sizeof *row);
    } else {
        finite = x->kernels->finish(x->o + r * x->layout->ldo, x->factor[r], call->dim_v, row);
        if (x->mode == FLASH_SCALED) {
            for (int64_t d = 0; d < call->dim_v; d++) {
                row[d] *= FLASH_UNIT;
            }
        }
    }
    if (dtype == ATTN_BF16) {
        x->convert->f32_to_bf16(row, out, call->dim_v);
    } else if (dtype == ATTN_F16) {
        x->convert->f32_to_f16(row, out, call->dim_v);
    }
    return finite || !isfinite(x->factor[r]);
}

bool flash_finish(flash_block *x)
{
    const attn_view *lse = &x->call->lse;
    bool any = false;
    for (int32_t r = 0; r < x->rows; r++) {
        if (!x->again[r]) {
            continue;
        }
        close_row(x, r);
        x->again[r] = !write_row(x, r);
        any = any || x->again[r];
        if (lse->dtype != ATTN_DTYPE_NONE) {
            int64_t at =
                x->b * lse->stride[0] + x->head[r] * lse->stride[1] + x->query[r] * lse->stride[2];
            ((float *)lse->data)[at] = x->lse[r];
        }
    }
    return any;
}

static float *weights_row(const flash_block *x, int32_t r)
{
    const attn_view *w = &x->call->weights;
    return (float *)w->data + x->b * w->stride[0] + x->head[r] * w->stride[1] +
           x->query[r] * w->stride[2];
}

static int64_t weights_tile(flash_block *x, int64_t begin, int64_t wanted, bool partial)
{
    _Alignas(64) float m[ATTN_FLASH_ROWS], l[ATTN_FLASH_ROWS], alpha[ATTN_FLASH_ROWS];
    sdpa_kv_run run = flash_scores(x, begin, wanted, partial);
    memcpy(m, x->m, sizeof m);
    memset(l, 0, sizeof l);
    x->kernels->softmax(&x->tile, x->m, x->s, m, l, alpha);
    for (int32_t r = 0; r < x->valid; r++) {
        float *to = weights_row(x, r) + begin;
        float factor = x->factor[r];
        if (x->nothing[r]) {
            continue;
        }
        for (int64_t j = 0; j < run.count; j++) {
            float p = x->s[j * ATTN_FLASH_ROWS + r] * factor;
            /* masked slots of a row of NaN are 0 all the same */
            to[j] = isnan(p) && !sdpa_attends(x->call, x->b, x->head[r], x->query[r], begin + j)
                        ? 0.0f
                        : p;
        }
    }
    return run.count;
}

void flash_weights(flash_block *x)
{
    for (int32_t r = 0; r < x->rows; r++) {
        memset(weights_row(x, r), 0, (size_t)x->call->len_k * sizeof(float));
    }
    flash_walk(x, weights_tile);
}

typedef struct flash_job {
    const sdpa_call *call;
    flash_layout layout;
    const attn_flash_kernels *kernels;
    const attn_convert_kernels *convert;
    attn_dropout_tile_fn *drop;
    char *scratch;
} flash_job;

/*
 * One block of rows. The last blocks of a head come first: under a causal mask they are the heavy
 * ones.
 */
static void task(void *argument, int64_t index, int worker)
{
    const flash_job *job = argument;
    const sdpa_call *call = job->call;
    const flash_layout *at = &job->layout;
    char *scratch = job->scratch + (size_t)worker * attn_round_up(at->size);
    flash_block x = {
        .call = call,
        .layout = at,
        .kernels = job->kernels,
        .convert = job->convert,
        .drop = job->drop,
        .qt = (void *)(scratch + at->qt),
        .s = (void *)(scratch + at->s),
        .o = (void *)(scratch + at->o),
        .total = (void *)(scratch + at->total),
        .addend = (void *)(scratch + at->addend),
        .k = (void *)(scratch + at->k),
        .v = (void *)(scratch + at->v),
        .row = (void *)(scratch + at->row),
    };
    int64_t head = index / at->row_blocks;
    int64_t block = at->row_blocks - 1 - index % at->row_blocks;
    flash_begin(&x, head / call->heads_kv, head % call->heads_kv, block * ATTN_FLASH_ROWS);
    for (int mode = FLASH_PLAIN; mode < FLASH_MODES; mode++) {
        x.mode = (flash_mode)mode;
        flash_attend(&x);
        if (!flash_finish(&x)) {
            break;
        }
    }
    if (call->weights.dtype != ATTN_DTYPE_NONE) {
        flash_weights(&x);
    }
}

void sdpa_flash_run(const sdpa_call *call, void *scratch)
{
    attn_isa isa = attn_context_isa(call->context);
    flash_job job = {
        .call = call,
        .layout = flash_make_layout(call),
        .kernels = attn_flash_table(isa),
        .convert = attn_convert_table(isa),
        .drop = call->dropout > 0.0 ? attn_dropout_tile_for(isa) : NULL,
        .scratch = scratch,
    };
    attn_context_run(call->context, call->batch * call->heads_kv * job.layout.row_blocks, true,
                     task, &job);
}
