/* Checks of one view: layout, extent, overlap, broadcasting. */
#include "attention/views.h"

#include <stdio.h>

sdpa_text sdpa_shape_text(const attn_view *view)
{
    sdpa_text result;
    size_t used = 0;
    result.text[used++] = '[';
    for (int n = 0; n < view->ndim && n < 4; n++) {
        used += (size_t)snprintf(result.text + used, sizeof result.text - used, "%s%lld",
                                 n ? "," : "", (long long)view->shape[n]);
    }
    snprintf(result.text + used, sizeof result.text - used, "]");
    return result;
}

static bool has_elements(const attn_view *view)
{
    for (int n = 0; n < view->ndim; n++) {
        if (view->shape[n] == 0) {
            return false;
        }
    }
    return true;
}

/*
 * Bytes below and from `data` on that elements reach; false when they do not fit the address space.
 */
static bool reach(const attn_view *view, size_t *below, size_t *above)
{
    int64_t low = 0, high = 0, step;
    int64_t size = (int64_t)attn_dtype_size(view->dtype);
    for (int n = 0; n < view->ndim; n++) {
        if (view->shape[n] <= 1) {
            continue;
        }
        if (__builtin_mul_overflow(view->shape[n] - 1, view->stride[n], &step) ||
            __builtin_mul_overflow(step, size, &step)) {
            return false;
        }
        if (step < 0 ? __builtin_add_overflow(low, step, &low)
                     : __builtin_add_overflow(high, step, &high)) {
            return false;
        }
    }
    if (low == INT64_MIN || __builtin_add_overflow(high, size, &high)) {
        return false;
    }
    *below = (size_t)-low;
    *above = (size_t)high;
    uintptr_t data = (uintptr_t)view->data, end;
    return *below <= data && !__builtin_add_overflow(data, *above, &end);
}

attn_status sdpa_check_view(const char *name, const attn_view *view)
{
    for (int n = 0; n < view->ndim; n++) {
        if (view->shape[n] < 0) {
            return attn_fail(ATTN_ERR_SHAPE,
                             "%s: size of dimension %d is %lld but must be at least 0; was the "
                             "view filled in?",
                             name, n, (long long)view->shape[n]);
        }
    }
    int last = view->ndim - 1;
    if (view->shape[last] > 1 && view->stride[last] != 1) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: last stride is %lld but must be 1; copy it so that its last "
                         "dimension lies in consecutive elements",
                         name, (long long)view->stride[last]);
    }
    if (!has_elements(view)) {
        return ATTN_OK;
    }
    if (view->data == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "%s: data is NULL but the view %s has elements; point it at them", name,
                         sdpa_shape_text(view).text);
    }
    if ((uintptr_t)view->data % attn_dtype_size(view->dtype) != 0) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "%s: data at %p must be aligned to its %zu-byte %s elements; copy it to "
                         "an aligned buffer",
                         name, view->data, attn_dtype_size(view->dtype),
                         attn_dtype_name(view->dtype));
    }
    size_t below, above;
    if (!reach(view, &below, &above)) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: shape %s with its strides reaches beyond the address space; strides "
                         "are in elements, not bytes",
                         name, sdpa_shape_text(view).text);
    }
    return ATTN_OK;
}

attn_status sdpa_check_output(const char *name, const attn_view *view)
{
    attn_status status = sdpa_check_view(name, view);
    if (status != ATTN_OK || !has_elements(view)) {
        return status;
    }
    /* Dimensions from the smallest stride up: each must step over all that lies inside it. */
    bool done[4] = {false, false, false, false};
    uint64_t inside = 0;
    for (int round = 0; round < view->ndim; round++) {
        int best = -1;
        uint64_t best_step = 0;
        for (int n = 0; n < view->ndim; n++) {
            uint64_t step =
                view->stride[n] < 0 ? -(uint64_t)view->stride[n] : (uint64_t)view->stride[n];
            if (!done[n] && (best < 0 || step < best_step)) {
                best = n;
                best_step = step;
            }
        }
        done[best] = true;
        if (view->shape[best] == 1) {
            continue;
        }
        if (best_step <= inside) {
            return attn_fail(ATTN_ERR_SHAPE,
                             "%s: stride %lld of dimension %d makes elements share memory but it "
                             "must step over more than %llu elements; give outputs a stride per "
                             "dimension of their own",
                             name, (long long)view->stride[best], best, (unsigned long long)inside);
        }
        inside += best_step * (uint64_t)(view->shape[best] - 1);
    }
    return ATTN_OK;
}

sdpa_extent sdpa_view_extent(const char *name, const attn_view *view)
{
    sdpa_extent extent = {.name = name, .view = *view};
    size_t below, above;
    if (view->dtype != ATTN_DTYPE_NONE && has_elements(view) && reach(view, &below, &above)) {
        extent.begin = (uintptr_t)view->data - below;
        extent.end = (uintptr_t)view->data + above;
    }
    return extent;
}

static uint64_t magnitude(int64_t value)
{
    return value < 0 ? -(uint64_t)value : (uint64_t)value;
}

/*
 * Where a view's elements lie modulo `period` bytes: one interval [*begin, *begin + *length) that may
 * wrap around. False when they spread over the whole period.
 */
static bool residues(const sdpa_extent *extent, uint64_t period, uint64_t *begin, uint64_t *length)
{
    const attn_view *view = &extent->view;
    uint64_t size = attn_dtype_size(view->dtype), below = 0, above = size;
    for (int n = 0; n < view->ndim; n++) {
        uint64_t step = magnitude(view->stride[n]) * size;
        if (view->shape[n] <= 1 || step % period == 0) {
            continue;
        }
        if (step > period) {
            return false;
        }
        uint64_t reach = step * (uint64_t)(view->shape[n] - 1);
        below += view->stride[n] < 0 ? reach : 0;
        above += view->stride[n] < 0 ? 0 : reach;
    }
    *begin = ((uintptr_t)view->data - below) % period;
    *length = below + above;
    return *length <= period;
}

/* Whether two views whose extents meet take turns: never the same bytes modulo a stride of either. */
static bool take_turns(const sdpa_extent *a, const sdpa_extent *b)
{
    const sdpa_extent *both[] = {a, b};
    for (int side = 0; side < 2; side++) {
        const attn_view *view = &both[side]->view;
        for (int n = 0; n < view->ndim; n++) {
            uint64_t period = magnitude(view->stride[n]) * attn_dtype_size(view->dtype);
            uint64_t begin_a, begin_b, length_a, length_b;
            if (view->shape[n] <= 1 || period == 0 || !residues(a, period, &begin_a, &length_a) ||
                !residues(b, period, &begin_b, &length_b)) {
                continue;
            }
            uint64_t ahead = (begin_b + period - begin_a) % period; /* from a's begin to b's */
            if (ahead >= length_a && ahead + length_b <= period) {
                return true;
            }
        }
    }
    return false;
}

static bool meet(const sdpa_extent *a, const sdpa_extent *b)
{
    return a->begin < a->end && b->begin < b->end && a->begin < b->end && b->begin < a->end &&
           !take_turns(a, b);
}

attn_status sdpa_check_overlap(const sdpa_extent *outputs, int n_outputs, const sdpa_extent *inputs,
                               int n_inputs)
{
    for (int n = 0; n < n_outputs; n++) {
        for (int m = 0; m < n_inputs + n; m++) {
            const sdpa_extent *other = m < n_inputs ? &inputs[m] : &outputs[m - n_inputs];
            if (meet(&outputs[n], other)) {
                return attn_fail(ATTN_ERR_ARGUMENT,
                                 "%s: its memory overlaps %s's but must be its own; give it a "
                                 "buffer that nothing else of the call uses",
                                 outputs[n].name, other->name);
            }
        }
    }
    return ATTN_OK;
}

static attn_status broadcast_failed(const char *name, const attn_view *view, const int64_t shape[4])
{
    char trap[160] = "each size must be 1 or the full one";
    if (view->ndim == 3 && view->shape[0] == shape[0] && view->shape[0] != 1 &&
        view->shape[0] != shape[1]) {
        snprintf(trap, sizeof trap,
                 "3 dimensions mean (heads_q, len_q, len_k), and its first size is the batch; "
                 "give it as [%lld,1,%lld,%lld]",
                 (long long)view->shape[0], (long long)view->shape[1], (long long)view->shape[2]);
    }
    return attn_fail(ATTN_ERR_SHAPE,
                     "%s %s does not broadcast to [batch=%lld, heads=%lld, len_q=%lld, "
                     "len_k=%lld]; %s",
                     name, sdpa_shape_text(view).text, (long long)shape[0], (long long)shape[1],
                     (long long)shape[2], (long long)shape[3], trap);
}

attn_status sdpa_broadcast(const char *name, const attn_view *view, const int64_t shape[4],
                           attn_view *out)
{
    if (view->ndim < 2 || view->ndim > 4) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "%s: has %d dimensions but must have 2 (len_q, len_k), 3 (heads_q, len_q, "
                         "len_k) or 4; add dimensions of size 1 in front",
                         name, view->ndim);
    }
    attn_status status = sdpa_check_view(name, view);
    if (status != ATTN_OK) {
        return status;
    }
    attn_view wide = {.data = view->data, .dtype = view->dtype, .ndim = 4};
    for (int n = 0; n < 4; n++) {
        int from = n - (4 - view->ndim);
        int64_t size = from < 0 ? 1 : view->shape[from];
        if (size != 1 && size != shape[n]) {
            return broadcast_failed(name, view, shape);
        }
        wide.shape[n] = shape[n];
        wide.stride[n] = size == 1 ? 0 : view->stride[from];
    }
    *out = wide;
    return ATTN_OK;
}
