/**
 * saved.c: the object that holds a forward call's results for its backward, and what both directions share: sizes of a
 * block, the joined mask, the options of attention.
 */
#include "base/alloc.h"
#include "multihead/forward.h"
#include "par/context.h"

attn_status attn_multihead_saved_create(attn_context *context, attn_multihead_saved **saved)
{
    if (!saved) {
        return attn_fail(ATTN_ERR_ARGUMENT, "saved: must not be NULL; pass where to put it");
    }
    *saved = NULL;
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL");
    }
    attn_multihead_saved *s =
        attn_alloc(attn_context_allocator(context), sizeof *s, "multi-head saved results");
    if (!s) {
        return ATTN_ERR_NO_MEMORY;
    }
    *s = (attn_multihead_saved){.context = context};
    *saved = s;
    return ATTN_OK;
}

void attn_multihead_saved_destroy(attn_multihead_saved *saved)
{
    if (!saved) {
        return;
    }
    const attn_allocator *allocator = attn_context_allocator(saved->context);
    attn_free(allocator, saved->workspace.block, saved->workspace.bytes);
    attn_free(allocator, saved, sizeof *saved);
}

size_t attn_multihead_saved_bytes(const attn_multihead_saved *saved)
{
    return saved ? saved->workspace.bytes : 0;
}

size_t multihead_reserve(size_t *bytes, bool *fits, const int64_t sizes[4], size_t size)
{
    size_t at = *bytes, part = size;
    for (int n = 0; n < 4; n++) {
        *fits = *fits && attn_mul_size(part, (size_t)sizes[n], &part);
    }
    *fits = *fits && part <= (size_t)INT64_MAX / 2 && *bytes <= (size_t)INT64_MAX / 2;
    if (*fits) {
        *bytes += attn_round_up(part);
    }
    return at;
}

void multihead_mask_sizes(const multihead_call *c, int64_t sizes[4])
{
    sizes[0] = c->o.key_padding_mask ? c->batch : 0;
    sizes[1] = c->mask.dtype ? c->mask.shape[1] : 1;
    sizes[2] = c->mask.dtype ? c->mask.shape[2] : 1;
    sizes[3] = c->columns;
}

attn_view multihead_join_masks(const multihead_call *c, unsigned char *to)
{
    const attn_view *padding = c->o.key_padding_mask, *mask = &c->mask;
    int64_t sizes[4];
    if (!padding) {
        return *mask;
    }
    multihead_mask_sizes(c, sizes);
    bool has_mask = mask->dtype != ATTN_DTYPE_NONE;
    int64_t heads = sizes[1], rows = sizes[2];
    attn_view joined = attn_view_bhld(to, ATTN_BOOL, c->batch, heads, rows, c->columns);
    for (int64_t row = 0; row < c->batch * heads * rows; row++, to += c->columns) {
        int64_t b = row / rows / heads, h = row / rows % heads, i = row % rows;
        const unsigned char *ignore = (const unsigned char *)padding->data + b * padding->stride[0];
        for (int64_t j = 0; j < c->columns; j++) {
            to[j] = !ignore[j];
        }
        if (has_mask) {
            const unsigned char *from = (const unsigned char *)mask->data +
                                        (mask->shape[0] > 1 ? b : 0) * mask->stride[0] +
                                        h * mask->stride[1] + i * mask->stride[2];
            int64_t step = mask->shape[3] > 1 ? 1 : 0;
            for (int64_t j = 0; j < c->columns; j++) {
                to[j] = to[j] && from[j * step];
            }
        }
    }
    return joined;
}

attn_sdpa_options multihead_sdpa_options(const multihead_call *c, const attn_view *mask)
{
    const attn_multihead_forward_options *given = &c->o;
    attn_sdpa_options o = attn_sdpa_options_init();
    o.causal = given->causal;
    o.has_window = given->has_window;
    o.window_left = given->window_left;
    o.window_right = given->window_right;
    o.mask = mask->dtype == ATTN_DTYPE_NONE ? NULL : mask;
    o.lengths_q = given->lengths_q;
    o.lengths_k = given->cache ? NULL : given->lengths_k;
    o.dropout = given->dropout;
    o.dropout_seed = given->dropout_seed;
    return o;
}
