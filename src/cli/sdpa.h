/**
 * sdpa.h: the parts of `attn sdpa`: cmd_sdpa.c reads the command line, sdpa_arrays.c the arrays and
 * writes results, sdpa_backward.c computes and writes gradients.
 */
#ifndef ATTN_CLI_SDPA_H
#define ATTN_CLI_SDPA_H

#include "npy.h"

#include <attn/attn.h>

/** The gradients, in the order of attn_sdpa_gradients. */
enum { SDPA_DQ, SDPA_DK, SDPA_DV, SDPA_DBIAS, SDPA_DSINKS, SDPA_DALIBI, SDPA_GRADIENTS };

/** A gradient to write: of what shape, where its numbers are. */
typedef struct sdpa_gradient {
    void *data;
    attn_view view;
} sdpa_gradient;

/** What the command line said; texts are read as arrays later, once the types are known. */
typedef struct sdpa_request {
    const char *q, *k, *v, *out, *lse, *weights, *mask, *bias;
    const char *lengths, *lengths_q, *sinks, *alibi, *q_offset;
    const char *dout, *gradient[SDPA_GRADIENTS];
    attn_sdpa_options options;
    int64_t threads;
    bool explain;
} sdpa_request;

/** Everything that is held while the call runs. */
typedef struct sdpa_job {
    attn_context *context;
    npy_array q, k, v, mask, bias;
    attn_view q_view, k_view, v_view, out_view, mask_view, bias_view, lse_view, weights_view;
    attn_view sinks_view, alibi_view;
    int64_t *lengths, *lengths_q, *q_offset;
    void *sinks, *alibi, *out, *lse, *weights;
    int64_t n_sinks, n_alibi; /* numbers given: 1 repeats for all heads */
    npy_array dout;
    sdpa_gradient gradient[SDPA_GRADIENTS];
    bool f64;
} sdpa_job;

/** [batch, heads, len, dim] of an array, or a file, of 2 to 4 dimensions. */
attn_status sdpa_tensor_view(const char *path, const npy_array *array, attn_view *view);
attn_status sdpa_read_tensor(const char *path, npy_array *array, attn_view *view);

/** Every input that the request names, and the options that read them. */
attn_status sdpa_read_inputs(sdpa_request *r, sdpa_job *j);

/** Memory for a result; its size is checked. */
attn_status sdpa_make_output(const char *path, attn_dtype dtype, int ndim, const int64_t *shape,
                             void **data, attn_view *view);

/** Writes the last `ndim` sizes of a dense result. */
attn_status sdpa_write_result(const char *path, const attn_view *view, int ndim);

/** Whether any gradient is wanted. */
bool sdpa_wants_gradients(const sdpa_request *r);

/** Reads --dout and makes memory for the gradients. Call after sdpa_read_inputs. */
attn_status sdpa_prepare_backward(const sdpa_request *r, sdpa_job *j);

/** Computes the gradients from what forward wrote: j->out_view, j->lse_view. */
attn_status sdpa_run_backward(const sdpa_request *r, sdpa_job *j);

attn_status sdpa_write_gradients(const sdpa_request *r, const sdpa_job *j);

#endif
