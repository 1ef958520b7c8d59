/**
 * linear/check.h: what public functions of this room demand of a view, in one sentence on failure.
 */
#ifndef ATTN_LINEAR_CHECK_H
#define ATTN_LINEAR_CHECK_H

#include <attn/view.h>

/** Data, known dtype, 1 … 4 dimensions of sizes ≥ 0. `name` is the argument's. */
attn_status attn_check_view(const char *name, const attn_view *view);

/** Besides: f32, `ndim` dimensions called `shape` in the text, unit last stride. */
attn_status attn_check_f32(const char *name, const attn_view *view, int ndim, const char *shape);

/** The same for f32 or f64. */
attn_status attn_check_float(const char *name, const attn_view *view, int ndim, const char *shape);

/** a and b (of one ndim) have the same sizes. */
attn_status attn_check_same_shape(const char *a_name, const attn_view *a, const char *b_name,
                                  const attn_view *b);

/** No element of a view that is written has the place of another. */
attn_status attn_check_apart(const char *name, const attn_view *view);

/** Rows of a matrix that is written do not overlap each other. */
attn_status attn_check_rows_apart(const char *name, const attn_view *view);

#endif
