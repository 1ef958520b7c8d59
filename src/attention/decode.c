/*
 * The decode path: 1 … 16 query rows per KV head. One task per (sequence, KV head, piece of DECODE_PIECE keys) leaves a partial
 * result in shared scratch; who finishes a head's last piece merges them, in the order of pieces. Pieces are cut by key columns
 * alone, so bits do not depend on threads.
 */
#include "attention/decode.h"

#include <stdatomic.h>

#include "base/alloc.h"
#include "par/context.h"

static size_t product(size_t a, size_t b)
{
    size_t out;
    return attn_mul_size(a, b, &out) ? out : SIZE_MAX / 2; /* the plan refuses such sizes */
}

static decode_job make_job(const sdpa_call *call)
{
    attn_isa isa = attn_context_isa(call->context);
    decode_job job = {.call = call,
                      .kernels = attn_decode_table(isa),
                      .convert = attn_convert_table(isa),
                      .type = call->kv.k.dtype == ATTN_F32    ? ATTN_DECODE_F32
                              : call->kv.k.dtype == ATTN_BF16 ? ATTN_DECODE_BF16
                                                              : ATTN_DECODE_F16,
                      .rows = call->len_q * call->group,
                      .pieces = call->len_k > 0 ? (call->len_k - 1) / DECODE_PIECE + 1 : 1,
                      .q_stride = (call->dim_qk + 15) / 16 * 16,
                      .o_stride = (call->dim_v + 15) / 16 * 16};
    size_t heads = product((size_t)call->batch, (size_t)call->heads_kv);
    job.counters = attn_round_up(product(heads, sizeof(atomic_int)));
    job.part = sizeof(decode_part) + (size_t)job.rows * (size_t)job.o_stride * sizeof(float);
    job.copy = job.o_stride < DECODE_COPY ? job.o_stride : DECODE_COPY;
    job.per_worker =
        attn_round_up(sizeof(decode_worker) +
                      ((size_t)job.rows * (size_t)job.q_stride + DECODE_CHUNK * (size_t)job.copy) *
                          sizeof(float));
    return job;
}

bool sdpa_decode_fits(const sdpa_call *call)
{
    return call->kv.k.dtype != ATTN_F64 && call->weights.dtype == ATTN_DTYPE_NONE &&
           call->len_q <= DECODE_ROWS && call->group <= DECODE_ROWS &&
           call->len_q * call->group <= DECODE_ROWS;
}

sdpa_needs sdpa_decode_needs(const sdpa_call *call)
{
    decode_job job = make_job(call);
    size_t heads = product((size_t)call->batch, (size_t)call->heads_kv);
    size_t parts = product(product(heads, (size_t)job.pieces), job.part);
    return (sdpa_needs){.shared = job.counters + parts,
                        .per_worker = job.per_worker,
                        .tasks = (int64_t)heads * job.pieces,
                        .split = DECODE_PIECE,
                        .kernel = job.kernels->name[job.type]};
}

static void task(void *argument, int64_t index, int worker)
{
    const decode_job *job = argument;
    int64_t head = index / job->pieces;
    decode_worker *w = (void *)(job->workers + (size_t)worker * job->per_worker);
    decode_run_piece(job, head, index % job->pieces, w);
    atomic_int *done = (atomic_int *)(void *)job->shared + head;
    if (atomic_fetch_add_explicit(done, 1, memory_order_acq_rel) + 1 == job->pieces) {
        decode_merge(job, head, w);
    }
}

void sdpa_decode_run(const sdpa_call *call, void *scratch)
{
    decode_job job = make_job(call);
    sdpa_needs needs = sdpa_decode_needs(call);
    job.shared = scratch;
    job.workers = job.shared + attn_round_up(needs.shared);
    for (int64_t head = 0; head < call->batch * call->heads_kv; head++) {
        atomic_init((atomic_int *)(void *)job.shared + head, 0);
    }
    attn_context_run(call->context, needs.tasks, true, task, &job);
}
