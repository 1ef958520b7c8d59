/**
 * dropout.c: the keep-mask comes from a counter, not from a stream: element i is kept or not whatever thread looks, and backward
 * asks again instead of remembering. Source: Srivastava et al. 2014; Salmon et al. 2011 (Philox4x32-10).
 */
#include "tensor/tensor.h"

enum { PIECE = 8192 }; /* elements of a task, a multiple of 4 */

/* The four words of one counter. */
static void philox(uint64_t seed, uint64_t counter, uint32_t word[4])
{
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    word[0] = c0;
    word[1] = c1;
    word[2] = c2;
    word[3] = c3;
}

typedef struct dropout_call {
    const attn_view *x, *y; /* dense */
    int64_t count;
    uint64_t seed;
    uint32_t threshold; /* kept from here on */
    double factor;
    bool accumulate;
} dropout_call;

#define APPLY(T)                                                                         \
    static void apply_##T(const dropout_call *c, int64_t i, int64_t n, const bool *kept) \
    {                                                                                    \
        const T *x = (const T *)c->x->data + i;                                          \
        T *y = (T *)c->y->data + i, factor = (T)c->factor;                               \
        for (int64_t k = 0; k < n; k++) {                                                \
            T value = kept[k] ? x[k] * factor : 0;                                       \
            y[k] = c->accumulate ? y[k] + value : value;                                 \
        }                                                                                \
    }
APPLY(float)
APPLY(double)

static void dropout_task(void *argument, int64_t index, int worker)
{
    enum { GROUP = 64 };
    const dropout_call *c = argument;
    int64_t end = (index + 1) * PIECE < c->count ? (index + 1) * PIECE : c->count;
    (void)worker;
    for (int64_t i = index * PIECE; i < end; i += GROUP) {
        bool kept[GROUP];
        for (int64_t k = 0; k < GROUP; k += 4) {
            uint32_t word[4];
            philox(c->seed, (uint64_t)(i + k) / 4, word);
            for (int64_t w = 0; w < 4; w++) {
                kept[k + w] = word[w] >= c->threshold;
            }
        }
        int64_t n = end - i < GROUP ? end - i : GROUP;
        if (c->x->dtype == ATTN_F32) {
            apply_float(c, i, n, kept);
        } else {
            apply_double(c, i, n, kept);
        }
    }
}

static attn_status run(attn_tape *tape, const attn_view *x, const attn_view *y, double p,
                       uint64_t seed, bool accumulate)
{
    dropout_call c = {.x = x, .y = y, .count = attn_view_count(x), .seed = seed};
    c.threshold = (uint32_t)(p * 0x1p32);
    c.factor = 1.0 / (1.0 - p);
    c.accumulate = accumulate;
    return attn_parallel_for(tape->context, (c.count + PIECE - 1) / PIECE, dropout_task, &c);
}

static attn_status dropout_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_grad_target dx;
    attn_tensor *held = attn_tensor_dense(tape, dy);
    attn_status status = held ? attn_grad_dense(tape, node->in[0], dy, &dx) : ATTN_ERR_NO_MEMORY;
    if (held) {
        if (status == ATTN_OK) {
            status = run(tape, &held->view, &dx.rows, node->params.number[0],
                         (uint64_t)node->params.integer[0], dx.accumulate);
        }
        status = attn_grad_done(tape, &dx, status);
    }
    attn_tensor_release(held);
    return status;
}

static const attn_op dropout_op = {"dropout", dropout_backward};

attn_tensor *attn_tensor_dropout(attn_tape *tape, attn_tensor *a, double p, uint64_t seed)
{
    if (!attn_op_begin(tape, &dropout_op, 1, &a)) {
        return NULL;
    }
    if (!(p >= 0.0 && p < 1.0)) {
        return attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                            "dropout: p = %g must be at least 0 and less than 1; it is the share "
                            "that is dropped",
                            p);
    }
    if (p == 0.0) {
        return a;
    }
    attn_tensor *out = attn_op_result(tape, a->view.dtype, a->view.ndim, a->view.shape, NULL);
    attn_tensor *x = out ? attn_tensor_dense(tape, a) : NULL;
    attn_status status = x ? run(tape, &x->view, &out->view, p, seed, false) : ATTN_ERR_NO_MEMORY;
    attn_tensor_release(x);
    attn_params params = {.number = {p}, .integer = {(int64_t)seed}};
    return attn_op_ok(tape, status) ? attn_op_record(tape, &dropout_op, out, 1, &a, 0, &params)
                                    : NULL;
}
