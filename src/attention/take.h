/**
 * attention/take.h: what validating a forward and a backward call have in common.
 */
#ifndef ATTN_ATTENTION_TAKE_H
#define ATTN_ATTENTION_TAKE_H

#include "attention/call.h"
#include "attention/views.h"

/**
 * lse, weights, dlse: [batch, heads_q, len_q (, len_k)] in the type of the arithmetic, `ndim` 3 or
 * 4. NULL leaves *taken as it is.
 */
attn_status sdpa_take_rows(const char *name, const attn_view *given, int ndim, bool output,
                           const sdpa_call *call, attn_view *taken);

enum { SDPA_INPUTS = 11 };

/** The memory of all that a forward call reads. */
void sdpa_input_extents(const sdpa_call *call, sdpa_extent inputs[SDPA_INPUTS]);

#endif
