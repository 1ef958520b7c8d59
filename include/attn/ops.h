/**
 * attn/ops.h (advanced level): what stands beside attention in a transformer: norms, rotary embedding, SwiGLU, and the context's
 * threads for your own loops.
 */
#ifndef ATTN_OPS_H
#define ATTN_OPS_H

#include <attn/context.h>
#include <attn/view.h>

#ifdef __cplusplus
extern "C" {
#endif

/**
 * Calls task(argument, i, worker) for i in 0 … count−1 on the context's threads; returns when all are done. worker is in
 * 0 … attn_context_threads−1; no two tasks with the same worker run at the same time. Tasks must not call attn with the same context.
 */
ATTN_API attn_status attn_parallel_for(attn_context *context, int64_t count,
                                       void (*task)(void *argument, int64_t index, int worker),
                                       void *argument);

/**
 * y[r,:] = x[r,:] / √(mean(x[r,:]²) + eps) · weight          (Zhang & Sennrich 2019)
 * x, y [rows, dim] f32, unit last stride, y may be x; weight [dim] f32 or NULL (ones).
 */
ATTN_API attn_status attn_rms_norm(attn_context *context, const attn_view *x, const float *weight,
                                   double eps, const attn_view *y);

/**
 * y[r,:] = (x[r,:] − mean) / √(var + eps) · weight + bias     (Ba et al. 2016; biased variance)
 * weight, bias [dim] f32 or NULL (ones, zeros); y may be x.
 */
ATTN_API attn_status attn_layer_norm(attn_context *context, const attn_view *x, const float *weight,
                                     const float *bias, double eps, const attn_view *y);

/**
 * Gradients of attn_rms_norm and attn_layer_norm: with f = 1/√(… + eps), x̂ = x·f (layer: (x − mean)·f) and g = dy·weight
 *
 *   dx (+)= f·(g − x̂·mean(g·x̂))      layer: f·(g − mean(g) − x̂·mean(g·x̂))
 *   dweight (+)= Σ_r dy·x̂             dbias (+)= Σ_r dy
 *
 * x, dy, dx [rows, dim], weight, dweight, dbias [dim]: all f32 or all f64, unit last stride. weight NULL (or zeroed): ones. dx, dweight,
 * dbias NULL (or zeroed): not wanted. `accumulate` adds to what they hold. dx may be dy, else nothing written overlaps anything. Sums over rows run in an
 * order that depends on their number alone, not on threads. Scratch: dim·rows/32 elements for each of dweight and dbias.
 * Errors: ARGUMENT, DTYPE, SHAPE, NO_MEMORY. One call at a time per context.
 */
ATTN_API attn_status attn_rms_norm_backward(attn_context *context, const attn_view *x,
                                            const attn_view *weight, double eps,
                                            const attn_view *dy, bool accumulate,
                                            const attn_view *dx, const attn_view *dweight);
ATTN_API attn_status attn_layer_norm_backward(attn_context *context, const attn_view *x,
                                              const attn_view *weight, double eps,
                                              const attn_view *dy, bool accumulate,
                                              const attn_view *dx, const attn_view *dweight,
                                              const attn_view *dbias);

/** Which pairs of a head RoPE rotates. */
typedef enum attn_rope_pairing {
    ATTN_ROPE_INTERLEAVED = 0, /**< (2i, 2i+1): GGUF llama, RoFormer's own */
    ATTN_ROPE_HALVES = 1       /**< (i, i + dims/2): NeoX, Gemma, Hugging Face llama */
} attn_rope_pairing;

/**
 * Rotates pair i of the first `dims` elements of x[b,h,l,:] in place by the angle positions·theta^(−2i/dims)   (Su et al. 2021).
 * x [batch, heads, len, dim] f32 (or f64: plain loops, for tests), dims even ≤ dim (0: dim); positions [batch, len] absolute (dense), f64 angles.
 */
ATTN_API attn_status attn_rope(attn_context *context, const attn_view *x, const int64_t *positions,
                               double theta, int64_t dims, attn_rope_pairing pairing);

/** attn_rope by the opposite angles: undoes it, and is its gradient, since rotations are orthogonal. Arguments as there. */
ATTN_API attn_status attn_rope_inverse(attn_context *context, const attn_view *x,
                                       const int64_t *positions, double theta, int64_t dims,
                                       attn_rope_pairing pairing);

/** y[r,i] = silu(gate[r,i])·up[r,i], silu(z) = z/(1+e^−z). All [rows, n] f32; y may be gate or up. */
ATTN_API attn_status attn_swiglu(attn_context *context, const attn_view *gate, const attn_view *up,
                                 const attn_view *y);

/**
 * Gradients of attn_swiglu: with σ = 1/(1 + e^−gate)
 *   dup = dy·gate·σ          dgate = dy·up·σ·(1 + gate·(1 − σ))
 * All [rows, n], f32 or f64, unit last stride; dgate and dup may be gate, up or dy, but not each other. An infinite gate gives NaN.
 * Errors: ARGUMENT, DTYPE, SHAPE.
 */
ATTN_API attn_status attn_swiglu_backward(attn_context *context, const attn_view *gate,
                                          const attn_view *up, const attn_view *dy,
                                          const attn_view *dgate, const attn_view *dup);

/** dst = src converted element by element between f32, f64, bf16, f16 (round to nearest even); same shapes, 1-4 dims. */
ATTN_API attn_status attn_convert(attn_context *context, const attn_view *src,
                                  const attn_view *dst);

/**
 * x[i] = uniform in [low, high), or normal(mean, std) (Box & Muller 1958), i counting row by row: element i of the stream (seed, stream) of
 * Philox4x32-10 (Salmon et al. 2011), so the same call gives the same numbers anywhere. x: f32 or f64, 1-4 dims, unit last stride. context: whose threads
 * share the work, which changes no bit; NULL: the caller's alone.
 */
ATTN_API attn_status attn_fill_uniform(attn_context *context, uint64_t seed, uint64_t stream,
                                       double low, double high, const attn_view *x);
ATTN_API attn_status attn_fill_normal(attn_context *context, uint64_t seed, uint64_t stream,
                                      double mean, double std, const attn_view *x);

#ifdef __cplusplus
}
#endif
#endif
