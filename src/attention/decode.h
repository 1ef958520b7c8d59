/**
 * attention/decode.h: the inside of the decode path: what its tasks share. decode.c makes tasks, decode_piece.c computes a piece of
 * keys, decode_merge.c joins the pieces of a head.
 */
#ifndef ATTN_ATTENTION_DECODE_H
#define ATTN_ATTENTION_DECODE_H

#include "attention/call.h"
#include "kernels/convert/convert.h"
#include "kernels/decode/decode.h"

enum {
    DECODE_CHUNK = ATTN_DECODE_CHUNK,
    DECODE_ROWS = ATTN_DECODE_ROWS,
    DECODE_PIECE = 1024, /* keys of a task */
    DECODE_COPY = 256,   /* elements of V rows copied at a time where they need care */
    DECODE_BLOCK = 1024  /* elements of a row merged at a time */
};

/* Units of o where sums of finite V overflow f32; a power of two, so that nothing is rounded. */
#define DECODE_UNIT 0x1p32f

/* Sizes and kernels of a call. Row r of a KV head is query i = r / group of head kv_head·group + r % group. */
typedef struct decode_job {
    const sdpa_call *call;
    const attn_decode_kernels *kernels;
    const attn_convert_kernels *convert;
    int type;                         /* of K and V, index into the kernels' tables */
    int64_t rows;                     /* len_q · group */
    int64_t pieces;                   /* per KV head */
    int64_t q_stride, o_stride, copy; /* floats from row to row of q, o, and copies of V */
    size_t counters, part;            /* bytes of all counters; of one partial result */
    size_t per_worker;
    char *shared, *workers;
} decode_job;

/* Result of one piece: o = Σ_j e^(s_j − m)·v_j / unit and l = Σ_j e^(s_j − m) of each row. */
typedef struct decode_part {
    float m[DECODE_ROWS]; /* −inf: no finite score */
    float l[DECODE_ROWS];
    int64_t best[DECODE_ROWS]; /* column of a key whose score is m */
    float unit;
    bool empty; /* no row sees a key of this piece: o is undefined */
    char pad[64 - sizeof(float) - sizeof(bool)];
    float o[]; /* rows × o_stride */
} decode_part;

/* What a worker has for itself. */
typedef struct decode_worker {
    float s[DECODE_ROWS * DECODE_CHUNK], addend[DECODE_CHUNK], alpha[DECODE_ROWS];
    unsigned char hidden[DECODE_CHUNK];
    float data[]; /* q: rows × q_stride; then DECODE_CHUNK × copy, which merging uses too */
} decode_worker;

_Static_assert(sizeof(decode_part) % 64 == 0, "rows are read by aligned vectors");
_Static_assert(offsetof(decode_worker, data) % 64 == 0, "rows are read by aligned vectors");
_Static_assert(DECODE_ROWS *DECODE_CHUNK >= DECODE_BLOCK, "a merged block is rounded in s");

static inline decode_part *decode_part_of(const decode_job *job, int64_t head, int64_t piece)
{
    size_t index = (size_t)head * (size_t)job->pieces + (size_t)piece;
    return (decode_part *)(void *)(job->shared + job->counters + index * job->part);
}

static inline int64_t decode_query(const decode_job *job, int64_t r)
{
    return r / job->call->group;
}

static inline int64_t decode_head(const decode_job *job, int64_t kv_head, int64_t r)
{
    return kv_head * job->call->group + r % job->call->group;
}

/** Piece `piece` of head index batch·heads_kv; leaves the head's queries in worker->data. */
void decode_run_piece(const decode_job *job, int64_t head, int64_t piece, decode_worker *worker);

/** out and lse of a head all of whose pieces are there; worker->data holds its queries. */
void decode_merge(const decode_job *job, int64_t head, decode_worker *worker);

#endif
