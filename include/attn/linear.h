/**
 * attn/linear.h (advanced level): y = x·Wᵀ (+ bias) with weights packed once, in f32 or in GGUF's block formats.
 */
#ifndef ATTN_LINEAR_H
#define ATTN_LINEAR_H

#include <attn/context.h>
#include <attn/view.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Stored formats of a weight matrix [out_features, in_features], rows one after the other. */
typedef enum attn_weight_type {
    ATTN_WEIGHT_F32 = 1,
    ATTN_WEIGHT_F16 = 2,
    ATTN_WEIGHT_BF16 = 3,
    ATTN_WEIGHT_Q8_0 = 4, /**< blocks of 32: f16 d, 32 int8; w = d·q. in_features % 32 == 0 */
    ATTN_WEIGHT_Q4_0 =
        5, /**< blocks of 32: f16 d, 16 bytes (low nibbles first half); w = d·(q − 8) */
    ATTN_WEIGHT_Q4_1 = 6 /**< blocks of 32: f16 d, f16 m, 16 bytes; w = d·q + m */
} attn_weight_type;

/** Bytes of `rows` × `cols` of a format; 0 where cols does not fit it or the product overflows. */
ATTN_API size_t attn_weight_bytes(attn_weight_type type, int64_t rows, int64_t cols);

/** dst[count] = the floats that `src` stands for, exactly (count a multiple of the block, 32 for Q*). */
ATTN_API attn_status attn_weight_dequantize(attn_weight_type type, const void *src, int64_t count,
                                            float *dst);

typedef enum attn_activations {
    /**
     * f32 for F32, F16 and BF16 weights. For Q* weights as INT8, and up to 64 rows what those 8 bits leave over takes
     * another 8, which makes about 15: nearly exact, and next to free where memory is the limit.
     */
    ATTN_ACTIVATIONS_AUTO = 0,
    ATTN_ACTIVATIONS_F32 = 1, /**< exact: dequantised f32 weights, f32 activations */
    ATTN_ACTIVATIONS_INT8 = 2 /**< 8 bits per block of 32; Q* weights only */
} attn_activations;

typedef struct attn_linear attn_linear;

typedef struct attn_linear_options {
    size_t struct_size;
    attn_activations activations;
} attn_linear_options;

ATTN_API attn_linear_options attn_linear_options_init(void);

/**
 * Packs `weights` [out_features, in_features] of `type` (and copies bias, f32 [out_features] or NULL) into the layout
 * the context's kernels read. Nothing of `weights` is needed afterwards. Several matrices that read the same input may be packed as one: give them
 * as `parts` with their own rows; outputs are concatenated in order (q, k, v; gate, up).
 * Memory from the context's allocator; the context must outlive it. Errors: SHAPE, ARGUMENT, UNSUPPORTED, NO_MEMORY.
 */
typedef struct attn_linear_part {
    attn_weight_type type; /**< all parts of one type */
    const void *weights;
    int64_t out_features;
} attn_linear_part;

ATTN_API attn_status attn_linear_create(attn_context *context, const attn_linear_options *options,
                                        int64_t in_features, int parts,
                                        const attn_linear_part *part, const float *bias,
                                        attn_linear **linear);
ATTN_API void attn_linear_destroy(attn_linear *linear);

/**
 * y[r, :] = W·x[r, :] + bias for every row r.
 * x [rows, in_features] f32, y [rows, out_features] f32, unit last stride, rows ≥ 0; y overlaps nothing. `context` may differ from
 * the one it was created with if its ISA level is the same.
 * Bits do not depend on threads; they may depend on rows (another kernel takes few rows).
 */
ATTN_API attn_status attn_linear_forward(attn_context *context, const attn_linear *linear,
                                         const attn_view *x, const attn_view *y);

ATTN_API int64_t attn_linear_in_features(const attn_linear *linear);
ATTN_API int64_t attn_linear_out_features(const attn_linear *linear);
/** Bytes of packed weights held. */
ATTN_API size_t attn_linear_bytes(const attn_linear *linear);

/**
 * c = a·b (+ c, where `accumulate`) (+ bias on every row)
 *
 * a    [.., m, k]  read     any strides, so that a transpose is a view with two sizes and strides swapped
 * b    [.., k, n]  read     any strides
 * bias [n]         read     unit stride; NULL: none
 * c    [.., m, n]  written  unit last stride; overlaps nothing that is read
 *
 * 2 to 4 dimensions each; leading ones of a and b are those of c or 1, aligned at the right. All f32, or all f64 (plain
 * loops, for tests). m, n, k may be 0: without k, c is what the sum starts from.
 * A linear layer y = x·Wᵀ + bias with W [out, in] has dx = dy·W and dW = dyᵀ·x.
 * Every element is one chain of fused multiply-adds in the order of k (f64, and level C: products, then sums): bits do not depend on
 * threads, strides or the other elements. A NaN or infinity spreads as the formula says. Scratch: a few MiB, from the
 * context. Errors: ARGUMENT, DTYPE, SHAPE, NO_MEMORY. One call at a time per context.
 * Source: Goto & van de Geijn 2008; Van Zee & van de Geijn 2015 (blocking).
 */
ATTN_API attn_status attn_matmul(attn_context *context, const attn_view *a, const attn_view *b,
                                 const attn_view *bias, bool accumulate, const attn_view *c);

/**
 * dst[i] = Σ_r x[r, i] (+ dst[i], where `accumulate`): the gradient of a bias.
 * x [rows, n] and dst [n], both f32 or both f64, unit last stride; dst overlaps nothing of x. Rows are summed in an order that depends on
 * their number alone. Scratch: rows·n/64 elements. Errors: ARGUMENT, DTYPE, SHAPE, NO_MEMORY.
 */
ATTN_API attn_status attn_sum_rows(attn_context *context, const attn_view *x, bool accumulate,
                                   const attn_view *dst);

#ifdef __cplusplus
}
#endif
#endif
