/**
 * attn/tensor.h: tensors that remember how they were made: reverse-mode automatic differentiation.
 *
 *   attn_tensor   owning, reference-counted, strided numbers, f32 (f64 for tests), 1 to 4 dimensions
 *   attn_tape     records operations as they run, holds their results, and walks them back for gradients
 *
 *   attn_tensor *scores = attn_tensor_scale(tape, attn_tensor_matmul(tape, q, attn_tensor_transpose(tape, k, -1, -2)), scale);
 *   attn_tensor *out = attn_tensor_matmul(tape, attn_tensor_softmax(tape, scores, -1), v);
 *   attn_tensor *loss = attn_tensor_mean_all(tape, out);
 *   if (attn_tape_backward(tape, loss, NULL) == ATTN_OK) … attn_tensor_grad(q) …
 *   attn_tape_clear(tape);
 *
 * Operations take the tape first and return a result that the tape owns: read it until attn_tape_clear, or
 * attn_tensor_retain it. On failure they return NULL, and the tape keeps the status of its first failure until it is
 * cleared; an operation given NULL after that returns NULL and leaves the text in place, so a chain needs one check, at its
 * end (attn_tape_backward makes it too). Errors of operations: SHAPE, DTYPE (one dtype per operation), ARGUMENT,
 * UNSUPPORTED, NO_MEMORY.
 *
 * Threads: a tape, and every tensor used with it, belong to one thread at a time; the arithmetic runs on the context's
 * threads. Bits of results and gradients do not depend on how many those are. Dimensions may be counted from the
 * last: −1 is the last one. Where two tensors meet, shapes broadcast NumPy-style, aligned at the right.
 * docs/autograd.md tells how it works inside.
 */
#ifndef ATTN_TENSOR_H
#define ATTN_TENSOR_H

#include <attn/attention.h>
#include <attn/context.h>
#include <attn/ops.h>
#include <attn/train_ops.h>
#include <attn/view.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_tensor attn_tensor;
typedef struct attn_tape attn_tape;

/* ---- tensors on their own ------------------------------------------------------------------------ */

/**
 * A new tensor of zeros, dense row-major; the caller holds its one reference. dtype f32 or f64, ndim 1 … 4, sizes ≥ 0.
 * *tensor is NULL on failure. Errors: ARGUMENT, DTYPE, SHAPE (sizes whose product overflows), NO_MEMORY.
 */
ATTN_API attn_status attn_tensor_create(attn_dtype dtype, int ndim, const int64_t *shape,
                                        attn_tensor **tensor);

/**
 * Tensors of zeros that lie one after the other in one piece of memory: tensors[i] is [rows[i], columns], or [rows[i]] where columns is 0. Each
 * is a leaf of its own, with its own reference and gradient; attn_tensor_linear_joined takes them as one matrix. attn_tensor_write of one counts
 * as a change of all. tensors[count] are NULL on failure. Errors: as attn_tensor_create.
 */
ATTN_API attn_status attn_tensor_create_joined(attn_dtype dtype, int count, const int64_t *rows,
                                               int64_t columns, attn_tensor **tensors);

/** A dense copy of what a view shows (f32 or f64, any strides). As attn_tensor_create otherwise. */
ATTN_API attn_status attn_tensor_from(const attn_view *values, attn_tensor **tensor);

/** One more reference; returns the tensor. NULL passes through. */
ATTN_API attn_tensor *attn_tensor_retain(attn_tensor *tensor);

/** One reference less; the last one frees the tensor, and its numbers once no other view shares them. NULL is allowed. */
ATTN_API void attn_tensor_release(attn_tensor *tensor);

/** 1 … 4; 0 for NULL. A single number (a loss) has the shape [1]. */
ATTN_API int attn_tensor_ndim(const attn_tensor *tensor);
/** Size of a dimension, negative ones counted from the last; 0 for NULL or a dimension it has not. */
ATTN_API int64_t attn_tensor_size(const attn_tensor *tensor, int dim);
/** Number of elements; 0 for NULL. */
ATTN_API int64_t attn_tensor_count(const attn_tensor *tensor);
/** ATTN_F32 or ATTN_F64; NONE for NULL. */
ATTN_API attn_dtype attn_tensor_dtype(const attn_tensor *tensor);

/** The numbers, to read, as long as the tensor lives; any strides, also of the last dimension. Zeroed for NULL. */
ATTN_API attn_view attn_tensor_view(const attn_tensor *tensor);

/**
 * The numbers, to change in place (an optimizer's step, initial values, a copy into a slice). Every call counts as a change of all that shares the
 * memory: attn_tape_backward fails and names the operation where one recorded before needs the old values.
 */
ATTN_API attn_view attn_tensor_write(attn_tensor *tensor);

/** The only element; NAN for NULL or where there are several. */
ATTN_API double attn_tensor_item(const attn_tensor *tensor);

/**
 * Marks a leaf (a parameter: made by attn_tensor_create or attn_tensor_from) as one that gradients are wanted of. No effect
 * on a recorded result, which knows it from its inputs; a constant (detached, or kept from a tape that was cleared) becomes a leaf.
 */
ATTN_API void attn_tensor_require_grad(attn_tensor *tensor, bool require);
ATTN_API bool attn_tensor_requires_grad(const attn_tensor *tensor);

/**
 * The gradient that attn_tape_backward has added up in a leaf since the last attn_tensor_clear_grad: dense, the leaf's shape
 * and dtype. Borrowed: the leaf owns it, and the next clear_grad + backward writes it anew. NULL when there is none.
 */
ATTN_API attn_tensor *attn_tensor_grad(const attn_tensor *tensor);

/** Forgets the gradient: the next backward begins from zero. The memory is kept for it. NULL is allowed. */
ATTN_API void attn_tensor_clear_grad(attn_tensor *tensor);

/* ---- the tape ------------------------------------------------------------------------------------ */

/** A tape that records, on a context that must outlive it. Errors: ARGUMENT, NO_MEMORY. */
ATTN_API attn_status attn_tape_create(attn_context *context, attn_tape **tape);

/** Results not retained are gone with it. NULL is allowed. */
ATTN_API void attn_tape_destroy(attn_tape *tape);

/**
 * Forgets operations and failures and releases the results; a result somebody retained becomes a constant.
 * The memory is kept for the next step, so that one training step after the other finds its pages in place.
 */
ATTN_API void attn_tape_clear(attn_tape *tape);

/** The first failure since the last clear, or OK. attn_last_error() has its text if nothing failed since. */
ATTN_API attn_status attn_tape_status(const attn_tape *tape);

/**
 * Makes `status` the tape's failure unless it has one, for layers built on tensors that find their arguments wrong; the text is attn_fail's.
 * Returns NULL, to be passed on. A NULL tape is allowed.
 */
ATTN_API attn_tensor *attn_tape_fail(attn_tape *tape, attn_status status);

/** false: operations run without being recorded (evaluation, sampling). Returns the previous value. */
ATTN_API bool attn_tape_set_recording(attn_tape *tape, bool recording);

ATTN_API attn_context *attn_tape_context(const attn_tape *tape);

/** Bytes of results and gradients held now, memory kept for the next step included. */
ATTN_API size_t attn_tape_bytes(const attn_tape *tape);

/** Operations recorded since the last clear. */
ATTN_API int64_t attn_tape_length(const attn_tape *tape);

/**
 * Adds ∂loss/∂leaf to the gradient of every leaf that requires one and that `loss` was computed from:
 *   one walk over the recorded operations, last to first, past those that the loss does not depend on.
 * seed: what to start with, loss's shape and dtype; NULL: 1, for which loss must be one element.
 * May be called again on the same tape (another loss; gradients add up). On failure gradients are
 * incomplete: clear them. Errors: the tape's own failure; ARGUMENT (loss not from this tape, or
 * without a leaf that requires a gradient; numbers changed in place), SHAPE, NO_MEMORY.
 */
ATTN_API attn_status attn_tape_backward(attn_tape *tape, attn_tensor *loss,
                                        const attn_tensor *seed);

/* ---- element by element -------------------------------------------------------------------------- */

ATTN_API attn_tensor *attn_tensor_add(attn_tape *tape, attn_tensor *a, attn_tensor *b);
ATTN_API attn_tensor *attn_tensor_sub(attn_tape *tape, attn_tensor *a, attn_tensor *b);
ATTN_API attn_tensor *attn_tensor_mul(attn_tape *tape, attn_tensor *a, attn_tensor *b);
ATTN_API attn_tensor *attn_tensor_div(attn_tape *tape, attn_tensor *a, attn_tensor *b);

/** a·factor */
ATTN_API attn_tensor *attn_tensor_scale(attn_tape *tape, attn_tensor *a, double factor);
/** a + value */
ATTN_API attn_tensor *attn_tensor_add_scalar(attn_tape *tape, attn_tensor *a, double value);
/** −a */
ATTN_API attn_tensor *attn_tensor_neg(attn_tape *tape, attn_tensor *a);
/** a^exponent; the gradient is exponent·a^(exponent − 1) */
ATTN_API attn_tensor *attn_tensor_pow(attn_tape *tape, attn_tensor *a, double exponent);

/** f(a) for any function of attn_activate; the named ones below are short for it. */
ATTN_API attn_tensor *attn_tensor_activate(attn_tape *tape, attn_activation kind, attn_tensor *a);
ATTN_API attn_tensor *attn_tensor_relu(attn_tape *tape, attn_tensor *a);
/** a·Φ(a) (Hendrycks & Gimpel 2016); tanh_form: the approximation with tanh that GPT-2 uses */
ATTN_API attn_tensor *attn_tensor_gelu(attn_tape *tape, attn_tensor *a, bool tanh_form);
ATTN_API attn_tensor *attn_tensor_silu(attn_tape *tape, attn_tensor *a);
ATTN_API attn_tensor *attn_tensor_tanh(attn_tape *tape, attn_tensor *a);
ATTN_API attn_tensor *attn_tensor_sigmoid(attn_tape *tape, attn_tensor *a);
ATTN_API attn_tensor *attn_tensor_exp(attn_tape *tape, attn_tensor *a);
/** natural logarithm */
ATTN_API attn_tensor *attn_tensor_log(attn_tape *tape, attn_tensor *a);

/** silu(gate)·up, same shapes */
ATTN_API attn_tensor *attn_tensor_swiglu(attn_tape *tape, attn_tensor *gate, attn_tensor *up);

/** The same of [.., 2·n], gate in the first half of the last dimension and up in the second → [.., n] */
ATTN_API attn_tensor *attn_tensor_swiglu_joined(attn_tape *tape, attn_tensor *both);

/**
 * Kept elements × 1/(1−p), the others 0; 0 ≤ p < 1 (0: a itself). Philox4x32-10, key = seed, counter = element index/4 (row-major),
 * word = index mod 4, kept when word ≥ ⌊p·2³²⌋: the same for any number of threads, and made again in backward instead of kept.
 */
ATTN_API attn_tensor *attn_tensor_dropout(attn_tape *tape, attn_tensor *a, double p, uint64_t seed);

/**
 * `value` where mask is true, else a. mask: BOOL, broadcasts to a's shape; its memory must stay as it is
 * until the tape is cleared. (For attention's masks, where true means attend, use attn_tensor_sdpa's options.)
 */
ATTN_API attn_tensor *attn_tensor_masked_fill(attn_tape *tape, attn_tensor *a,
                                              const attn_view *mask, double value);

/** a where mask is true, else b; a and b broadcast, mask broadcasts to their shape and must stay until the tape is cleared. */
ATTN_API attn_tensor *attn_tensor_where(attn_tape *tape, const attn_view *mask, attn_tensor *a,
                                        attn_tensor *b);

/* ---- products ------------------------------------------------------------------------------------ */

/** a·b: [.., m, k]·[.., k, n] → [.., m, n]; 2 to 4 dimensions, the leading ones broadcast. Transposed views cost nothing extra. */
ATTN_API attn_tensor *attn_tensor_matmul(attn_tape *tape, attn_tensor *a, attn_tensor *b);

/** x·weightᵀ + bias: x [.., in], weight [out, in], bias [out] or NULL → [.., out] */
ATTN_API attn_tensor *attn_tensor_linear(attn_tape *tape, attn_tensor *x, attn_tensor *weight,
                                         attn_tensor *bias);

/**
 * Several layers that read one x, their results side by side: x [.., in], weights[count] [outᵢ, in], biases[count] [outᵢ] or NULL each, biases NULL: none
 * → [.., Σ outᵢ]. The numbers of attn_tensor_linear for each. One product, forward and back, where weights (and biases) were made by
 * attn_tensor_create_joined in this order; else one for each. count: 1 … 8.
 */
ATTN_API attn_tensor *attn_tensor_linear_joined(attn_tape *tape, attn_tensor *x, int count,
                                                attn_tensor *const *weights,
                                                attn_tensor *const *biases);

/**
 * Attention, fused: out = softmax(…)·v as attn_sdpa computes it, with O(len) memory forward and back. q, k, v [batch, heads, len, dim].
 *   options   as attn_sdpa's, NULL for defaults; copied, arrays of lengths and offsets too; the memory of mask and bias views must stay until the tape is cleared.
 *             `weights` may be asked for (no gradient flows through it); lse and scratch must be unset.
 *   terms     NULL, or bias, sinks and slopes as tensors that may require gradients (the same one not also in options)
 * out has q's order of dimensions in memory: after a transpose back to [batch, len, heads, dim], reshape needs no copy.
 * Errors: what attn_sdpa and attn_sdpa_backward refuse.
 */
typedef struct attn_tensor_sdpa_terms {
    attn_tensor *bias;  /**< 2-4 dims, broadcasts to [batch, heads_q, len_q, len_k]; NULL: none */
    attn_tensor *sinks; /**< [heads_q] */
    attn_tensor *alibi; /**< [heads_q] slopes */
} attn_tensor_sdpa_terms;

ATTN_API attn_tensor *attn_tensor_sdpa(attn_tape *tape, const attn_sdpa_options *options,
                                       attn_tensor *q, attn_tensor *k, attn_tensor *v,
                                       const attn_tensor_sdpa_terms *terms);

/** Rotary embedding of q and k, as attn_tensor_rope does it. */
typedef struct attn_tensor_rotation {
    const int64_t *positions; /**< [batch·len], copied; NULL: 0 … len−1 in every sequence */
    double theta;
    int64_t dims; /**< 0: all of a head */
    attn_rope_pairing pairing;
} attn_tensor_rotation;

/**
 * Self-attention on q, k and v side by side: qkv [batch, len, (heads + 2·heads_kv)·dim], q's heads first → [batch, len, heads·dim]. The numbers of
 * slice, reshape, transpose, attn_tensor_rope and attn_tensor_sdpa, without their copies. options: as there; rotation: NULL for none.
 * With a rotation, a qkv that only the tape holds is rotated where it is and refused as an input from then on (do not read it either);
 * one that is a leaf, a view or retained is copied first.
 */
ATTN_API attn_tensor *attn_tensor_sdpa_joined(attn_tape *tape, const attn_sdpa_options *options,
                                              const attn_tensor_rotation *rotation,
                                              attn_tensor *qkv, int64_t heads, int64_t heads_kv);

/* ---- shapes: views wherever strides allow it ----------------------------------------------------- */

/** Swaps two dimensions. A view. */
ATTN_API attn_tensor *attn_tensor_transpose(attn_tape *tape, attn_tensor *a, int dim0, int dim1);
/** The same elements in row-major order under another shape; one size may be −1. A view where a's strides allow it, else a copy. */
ATTN_API attn_tensor *attn_tensor_reshape(attn_tape *tape, attn_tensor *a, int ndim,
                                          const int64_t *shape);
/** Elements begin … end−1 of a dimension; negative bounds count from the end. A view. */
ATTN_API attn_tensor *attn_tensor_slice(attn_tape *tape, attn_tensor *a, int dim, int64_t begin,
                                        int64_t end);
/** Tensors one after the other along a dimension; all other sizes equal. A copy. */
ATTN_API attn_tensor *attn_tensor_concat(attn_tape *tape, int count, attn_tensor *const *tensors,
                                         int dim);
/** The same numbers as a constant: no gradient flows through it. A view. */
ATTN_API attn_tensor *attn_tensor_detach(attn_tape *tape, attn_tensor *a);

/* ---- along a dimension --------------------------------------------------------------------------- */

/** e^a / Σ e^a along `dim`, the maximum subtracted first */
ATTN_API attn_tensor *attn_tensor_softmax(attn_tape *tape, attn_tensor *a, int dim);
ATTN_API attn_tensor *attn_tensor_log_softmax(attn_tape *tape, attn_tensor *a, int dim);

/** keepdim: the dimension stays with size 1, else it goes (a [n] becomes [1] either way). Summed in f64; the mean of nothing is NaN. */
ATTN_API attn_tensor *attn_tensor_sum(attn_tape *tape, attn_tensor *a, int dim, bool keepdim);
ATTN_API attn_tensor *attn_tensor_mean(attn_tape *tape, attn_tensor *a, int dim, bool keepdim);
/** The gradient goes to the first of equal maxima; a NaN is the maximum of its row. */
ATTN_API attn_tensor *attn_tensor_max(attn_tape *tape, attn_tensor *a, int dim, bool keepdim);
/** Over all elements → [1] */
ATTN_API attn_tensor *attn_tensor_sum_all(attn_tape *tape, attn_tensor *a);
ATTN_API attn_tensor *attn_tensor_mean_all(attn_tape *tape, attn_tensor *a);

/** Over the last dimension: (x − mean)/√(var + eps)·weight + bias; weight, bias [dim] or NULL */
ATTN_API attn_tensor *attn_tensor_layer_norm(attn_tape *tape, attn_tensor *x, attn_tensor *weight,
                                             attn_tensor *bias, double eps);
/** x/√(mean(x²) + eps)·weight; weight [dim] or NULL */
ATTN_API attn_tensor *attn_tensor_rms_norm(attn_tape *tape, attn_tensor *x, attn_tensor *weight,
                                           double eps);

/* ---- words --------------------------------------------------------------------------------------- */

/**
 * Rows of table [vocab, dim] by number: ids of shape shape[ndim] (ndim 1 … 3; copied), 0 ≤ id < vocab → [shape…, dim].
 * An id outside is ARGUMENT and names its place.
 */
ATTN_API attn_tensor *attn_tensor_embedding(attn_tape *tape, attn_tensor *table, const int64_t *ids,
                                            int ndim, const int64_t *shape);

/**
 * −log softmax(logits)[target], the mean over the rows not ignored → [1]. logits [.., vocab]; targets: one per row, row-major, copied;
 * −1 is ignored; 0 when all are.
 */
ATTN_API attn_tensor *attn_tensor_cross_entropy(attn_tape *tape, attn_tensor *logits,
                                                const int64_t *targets);

/**
 * The same of logits x·weightᵀ, which are never there all at once: x [.., in], weight [vocab, in] → [1]. They are computed in pieces of rows (256 or as many as
 * have 4 Mi logits, the larger), each with its loss and, while recording, its share of both gradients, of which backward then only multiplies
 * what was computed: memory is a piece, and a gradient of x and weight each where they want one. So tell the tape not to record where no backward
 * will follow.
 */
ATTN_API attn_tensor *attn_tensor_linear_cross_entropy(attn_tape *tape, attn_tensor *x,
                                                       attn_tensor *weight, const int64_t *targets);

/**
 * Rotary embedding of x [batch, heads, len, dim] as attn_rope does it, into a new tensor of x's order in memory. positions [batch·len], copied, or
 * NULL: 0 … len−1 in every sequence. dims 0: all of dim.
 */
ATTN_API attn_tensor *attn_tensor_rope(attn_tape *tape, attn_tensor *x, const int64_t *positions,
                                       double theta, int64_t dims, attn_rope_pairing pairing);

/* ---- less memory --------------------------------------------------------------------------------- */

/**
 * One result from inputs[count], computed by operations on `tape`; called again in backward, it must do the same again. It returns
 * its last operation's result, or NULL after a failure, and may call attn_tensor_checkpoint itself.
 */
typedef attn_tensor *attn_tensor_function(void *user, attn_tape *tape, attn_tensor *const *inputs,
                                          int count);

/**
 * function(inputs) without keeping what it computes on the way: only inputs and the result stay; backward runs the function again,
 * recorded, and gives bit for bit the same gradients (Chen et al. 2016). Other tensors that it reads (parameters behind `user`) get their
 * gradients too. `user` must stay valid until the tape is cleared; inputs: at least one, no NULL.
 */
ATTN_API attn_tensor *attn_tensor_checkpoint(attn_tape *tape, attn_tensor_function *function,
                                             void *user, attn_tensor *const *inputs, int count);

#ifdef __cplusplus
}
#endif
#endif
