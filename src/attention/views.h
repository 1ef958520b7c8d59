/**
 * attention/views.h: checks of one view, shared by the validation of attention's public calls.
 */
#ifndef ATTN_ATTENTION_VIEWS_H
#define ATTN_ATTENTION_VIEWS_H

#include <attn/view.h>

/** Room for a shape in words, "[2,8,128,64]". */
typedef struct sdpa_text {
    char text[96];
} sdpa_text;
sdpa_text sdpa_shape_text(const attn_view *view);

/**
 * What holds for every view: sizes ≥ 0, unit last stride, an extent that fits the address space,
 * data that is there and aligned to its elements. `name` is the argument's.
 */
attn_status sdpa_check_view(const char *name, const attn_view *view);

/** An output: besides, no two elements share memory. */
attn_status sdpa_check_output(const char *name, const attn_view *view);

/** The bytes that a view's elements lie in: [begin, end), empty when it has no elements. */
typedef struct sdpa_extent {
    const char *name;
    uintptr_t begin, end;
    attn_view view;
} sdpa_extent;
sdpa_extent sdpa_view_extent(const char *name, const attn_view *view);

/**
 * Fails when an output shares memory with another argument: `outputs` against `inputs` and each
 * other. Views that interleave, like the parts of one [len, 3, heads, dim] buffer, are told apart;
 * of more contrived patterns some that never meet are refused.
 */
attn_status sdpa_check_overlap(const sdpa_extent *outputs, int n_outputs, const sdpa_extent *inputs,
                               int n_inputs);

/**
 * Broadcasts a mask-like view of 2 to 4 dimensions to shape [batch, heads, len_q, len_k],
 * NumPy-style from the right: *out is 4-D with stride 0 where a size is repeated.
 */
attn_status sdpa_broadcast(const char *name, const attn_view *view, const int64_t shape[4],
                           attn_view *out);

#endif
