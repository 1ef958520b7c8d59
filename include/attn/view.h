/**
 * attn/view.h: attn_view, a strided, typed, non-owning window on memory, and attn_kv_view, what
 * attention reads of a key/value cache.
 */
#ifndef ATTN_VIEW_H
#define ATTN_VIEW_H

#include <attn/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Element [i0, i1, …] is at data + Σ i_n·stride[n], strides in elements, not bytes. A view owns
 * nothing. Sizes ≥ 0. Strides of inputs may be 0 or negative except the last, which must be 1 (any
 * value where its size is 1). A zeroed view (dtype NONE) is "no view".
 */
typedef struct attn_view {
    void *data;
    attn_dtype dtype;
    int ndim; /**< 1 … 4; shape and stride beyond it are ignored */
    int64_t shape[4];
    int64_t stride[4];
} attn_view;

/** A dense row-major view of 1 … 4 dimensions (ndim outside that gives a zeroed view). */
ATTN_API attn_view attn_view_dense(const void *data, attn_dtype dtype, int ndim,
                                   const int64_t *shape);

/** [batch, heads, len, dim] over memory laid out [batch, heads, len, dim]. */
ATTN_API attn_view attn_view_bhld(const void *data, attn_dtype dtype, int64_t batch, int64_t heads,
                                  int64_t len, int64_t dim);

/** [batch, heads, len, dim] over memory laid out [batch, len, heads, dim] (what projections give). */
ATTN_API attn_view attn_view_blhd(const void *data, attn_dtype dtype, int64_t batch, int64_t len,
                                  int64_t heads, int64_t dim);

/** [rows, cols] with row stride `stride` (elements). */
ATTN_API attn_view attn_view_matrix(const void *data, attn_dtype dtype, int64_t rows, int64_t cols,
                                    int64_t stride);

/**
 * What attention reads of a cache. Key j of sequence b (0 = the oldest held) has the absolute position
 * first[b] + j and lives in slot j, or, when `ring` > 0, in slot (first[b] + j) mod ring.
 * Logical shape of k: [batch, heads_kv, slots, dim_qk]; of v: [batch, heads_kv, slots, dim_v]; unit last stride;
 * k and v of one dtype (f32, bf16, f16; f64).
 */
typedef struct attn_kv_view {
    size_t struct_size;    /**< sizeof(attn_kv_view); set by attn_kv_view_init */
    attn_view k, v;        /**< 4-D, see above */
    const int64_t *length; /**< [batch] keys held per sequence; NULL: all slots */
    const int64_t *first;  /**< [batch] absolute position of the oldest key held; NULL: 0 */
    int64_t ring;          /**< 0: slot = index; else the ring's capacity in slots (== slots) */
} attn_kv_view;

/** Plain arrays as a kv view: every slot held, positions from 0. */
ATTN_API attn_kv_view attn_kv_view_init(attn_view k, attn_view v);

#ifdef __cplusplus
}
#endif
#endif
