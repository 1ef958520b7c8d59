/* What validating a forward and a backward call have in common. */
#include "attention/take.h"

#include <string.h>

attn_status sdpa_take_rows(const char *name, const attn_view *given, int ndim, bool output,
                           const sdpa_call *call, attn_view *taken)
{
    attn_dtype must = call->q.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    const int64_t shape[4] = {call->batch, call->heads_q, call->len_q, call->len_k};
    if (!given) {
        return ATTN_OK;
    }
    if (given->dtype != must) {
        return attn_fail(ATTN_ERR_DTYPE, "%s: type is %s but must be %s beside %s q", name,
                         attn_dtype_name(given->dtype), attn_dtype_name(must),
                         attn_dtype_name(call->q.dtype));
    }
    bool fits = given->ndim == ndim;
    for (int n = 0; fits && n < ndim; n++) {
        fits = given->shape[n] == shape[n];
    }
    if (!fits) {
        attn_view want = {.ndim = ndim, .shape = {shape[0], shape[1], shape[2], shape[3]}};
        return attn_fail(ATTN_ERR_SHAPE, "%s: shape %s must be %s, that is [batch, heads_q, %s",
                         name, sdpa_shape_text(given).text, sdpa_shape_text(&want).text,
                         ndim == 4 ? "len_q, len_k]" : "len_q]");
    }
    *taken = *given;
    return output ? sdpa_check_output(name, given) : sdpa_check_view(name, given);
}

/* Arrays of int64 are views of as many 8-byte elements. */
static sdpa_extent array_extent(const char *name, const int64_t *array, int64_t count)
{
    const int64_t shape[] = {array ? count : 0};
    attn_view view = attn_view_dense(array, ATTN_F64, 1, shape);
    return sdpa_view_extent(name, &view);
}

void sdpa_input_extents(const sdpa_call *call, sdpa_extent inputs[SDPA_INPUTS])
{
    const sdpa_extent all[SDPA_INPUTS] = {
        sdpa_view_extent("q", &call->q),
        sdpa_view_extent("k", &call->kv.k),
        sdpa_view_extent("v", &call->kv.v),
        sdpa_view_extent("mask", &call->mask),
        sdpa_view_extent("bias", &call->bias),
        sdpa_view_extent("sinks", &call->sinks),
        sdpa_view_extent("alibi", &call->alibi),
        array_extent("lengths_q", call->lengths_q, call->batch),
        array_extent("lengths_k", call->lengths_k, call->batch),
        array_extent("q_offset", call->q_offset, call->q_offset_step ? call->batch : 1),
        array_extent("kv first", call->kv.first, call->batch),
    };
    memcpy(inputs, all, sizeof all);
}
