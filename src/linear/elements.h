/**
 * linear/elements.h: up to four f32 or f64 views of the same sizes, walked element by element in fixed pieces on the context's
 * threads. Where a piece begins and ends does not depend on the number of threads.
 */
#ifndef ATTN_LINEAR_ELEMENTS_H
#define ATTN_LINEAR_ELEMENTS_H

#include <attn/context.h>
#include <attn/view.h>

enum {
    ATTN_ELEMENTS_VIEWS = 4,
    ATTN_ELEMENTS_PIECE =
        16384 /* elements; some 10 µs of one core, below which a thread costs more than it saves */
};

typedef struct attn_elements_view {
    const char *name;
    const attn_view *view;
    bool written;
} attn_elements_view;

typedef struct attn_elements {
    int views;
    attn_dtype dtype;
    int64_t columns; /* elements side by side in every view */
    int64_t count;   /* of all elements */
    /* Outer dimensions, the slowest first. */
    int outer;
    int64_t shape[4];
    int64_t stride[ATTN_ELEMENTS_VIEWS][4];
    void *data[ATTN_ELEMENTS_VIEWS];
} attn_elements;

/**
 * Checks the views (and the context) and describes the walk: one type, f32 or f64, one shape, unit last stride, and no overlap of what is
 * written with itself. `merge`: dimensions that lie side by side in all views become one; otherwise columns is the last dimension.
 */
attn_status attn_elements_make(const attn_context *context, int views,
                               const attn_elements_view *view, bool merge, attn_elements *e);

/** n elements side by side, the first of them element `at` in row-major order; data[i] is in view i. */
typedef void attn_elements_fn(void *argument, int64_t at, int64_t n, void *const *data);

/** Calls fn for runs that cover pieces of `piece` elements; a run ends at the end of a row of columns. f32: subnormals flushed. */
void attn_elements_run(attn_context *context, const attn_elements *e, int64_t piece,
                       attn_elements_fn *fn, void *argument);

/** The piece for work on whole rows. */
static inline int64_t attn_elements_rows(const attn_elements *e)
{
    int64_t columns = e->columns > 0 ? e->columns : 1;
    return columns >= ATTN_ELEMENTS_PIECE ? columns : ATTN_ELEMENTS_PIECE / columns * columns;
}

#endif
