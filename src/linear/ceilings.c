/**
 * ceilings.c: measuring what the machine can do at most.
 */
#define _GNU_SOURCE
#include <attn/context.h>

#include "base/alloc.h"
#include "kernels/peak/peak.h"
#include "par/context.h"

#include <string.h>
#include <time.h>

#define READ_PIECE ((size_t)256 << 10)
#define READ_BYTES ((size_t)256 << 20)

typedef struct measurement {
    const attn_peak_kernels *kernels;
    int64_t rounds;
    const void *const *buffers;
    const size_t *bytes;
    int count;
    _Atomic uint64_t sink; /* what was read must be used, or nothing is read */
} measurement;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void fma_task(void *argument, int64_t index, int worker)
{
    (void)index;
    (void)worker;
    measurement *m = argument;
    m->sink += (uint64_t)(int64_t)m->kernels->fma(m->rounds);
}

double attn_measure_fma(attn_context *context)
{
    measurement m = {.kernels = attn_peak_table(attn_context_isa(context))};
    int threads = attn_context_threads(context);
    double best = 0;
    m.rounds = 1000;
    fma_task(&m, 0, 0); /* wakes wide units, and gives a first guess */
    double start = seconds();
    fma_task(&m, 0, 0);
    double once = seconds() - start;
    m.rounds = (int64_t)(1000 * (4e-3 / (once > 1e-7 ? once : 1e-7)));
    for (int repeat = 0; repeat < 5; repeat++) {
        start = seconds();
        attn_context_run(context, threads, true, fma_task, &m);
        double flops = (double)m.rounds * (double)m.kernels->flops_per_round * threads;
        double rate = flops / (seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

static void read_task(void *argument, int64_t index, int worker)
{
    (void)worker;
    measurement *m = argument;
    for (int b = 0; b < m->count; b++) {
        int64_t pieces = (int64_t)((m->bytes[b] + READ_PIECE - 1) / READ_PIECE);
        if (index < pieces) {
            size_t begin = (size_t)index * READ_PIECE, left = m->bytes[b] - begin;
            m->sink += m->kernels->read((const char *)m->buffers[b] + begin,
                                        left < READ_PIECE ? left : READ_PIECE);
            return;
        }
        index -= pieces;
    }
}

double attn_measure_read(attn_context *context, const void *const *buffers, const size_t *bytes,
                         int count)
{
    measurement m = {.kernels = attn_peak_table(attn_context_isa(context)),
                     .buffers = buffers,
                     .bytes = bytes,
                     .count = count};
    int64_t pieces = 0;
    for (int b = 0; b < count; b++) {
        pieces += (int64_t)((bytes[b] + READ_PIECE - 1) / READ_PIECE);
    }
    double start = seconds();
    attn_context_run(context, pieces, true, read_task, &m);
    return seconds() - start;
}

attn_status attn_measure_ceilings(attn_context *context, attn_ceilings *ceilings)
{
    if (!context || !ceilings) {
        return attn_fail(ATTN_ERR_ARGUMENT, "attn_measure_ceilings: %s must not be NULL",
                         context ? "ceilings" : "context");
    }
    const attn_allocator *allocator = attn_context_allocator(context);
    void *buffer = attn_alloc(allocator, READ_BYTES, "buffer to read");
    if (!buffer) {
        return ATTN_ERR_NO_MEMORY;
    }
    memset(buffer, 1, READ_BYTES); /* untouched pages are all the same zero page */
    const void *buffers[] = {buffer};
    const size_t bytes[] = {READ_BYTES};
    double best = 0;
    for (int repeat = 0; repeat < 5; repeat++) {
        double rate = (double)READ_BYTES / attn_measure_read(context, buffers, bytes, 1) * 1e-9;
        best = rate > best ? rate : best;
    }
    attn_free(allocator, buffer, READ_BYTES);
    *ceilings = (attn_ceilings){.fma_gflops = attn_measure_fma(context),
                                .read_gbytes_per_s = best,
                                .threads = attn_context_threads(context)};
    return ATTN_OK;
}
