/**
 * position.c: positions that are added to embeddings, and ALiBi's slopes.
 */
#include "nn/init.h"
#include "nn/layers.h"

#include <math.h>

attn_status attn_alibi_slopes(int64_t heads, double *slopes)
{
    if (heads < 1 || !slopes) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s",
                         heads < 1 ? "heads: must be at least 1" : "slopes: must not be NULL");
    }
    int64_t power = 1;
    while (power <= heads / 2) {
        power *= 2;
    }
    for (int64_t h = 0; h < heads; h++) {
        slopes[h] = h < power ? exp2(-8.0 * (double)(h + 1) / (double)power)
                              : exp2(-4.0 * (double)(2 * (h - power) + 1) / (double)power);
    }
    return ATTN_OK;
}

/* table[p, 2i] = sin(p/10000^(2i/dim)), table[p, 2i+1] = cos of the same. */
static void sinusoids(const attn_view *view)
{
    int64_t dim = view->shape[1];
    for (int64_t p = 0; p < view->shape[0]; p++) {
        for (int64_t d = 0; d < dim; d++) {
            double angle = (double)p * pow(10000.0, -(double)(d - d % 2) / (double)dim);
            double value = d % 2 ? cos(angle) : sin(angle);
            if (view->dtype == ATTN_F64) {
                ((double *)view->data)[p * dim + d] = value;
            } else {
                ((float *)view->data)[p * dim + d] = (float)value;
            }
        }
    }
}

attn_status attn_nn_position_create(const attn_nn_options *options, attn_position_kind kind,
                                    int64_t max_len, int64_t dim, attn_module **module)
{
    attn_nn_options full;
    attn_status status = nn_no_place(module);
    if (status == ATTN_OK) {
        status = nn_options(options, &full);
    }
    if (status == ATTN_OK && kind != ATTN_POSITION_LEARNED && kind != ATTN_POSITION_SINUSOIDAL) {
        status = attn_fail(ATTN_ERR_ARGUMENT,
                           "position: %d is not added to embeddings; LEARNED "
                           "and SINUSOIDAL are, ROPE and ALIBI are options of "
                           "attention",
                           (int)kind);
    }
    if (status == ATTN_OK) {
        status = nn_positive("max_len", max_len, "256");
    }
    if (status == ATTN_OK) {
        status = nn_positive("dim", dim, "64");
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_module *m = nn_module_new(NN_POSITION);
    if (!m) {
        return ATTN_ERR_NO_MEMORY;
    }
    nn_position *p = &m->as.position;
    *p = (nn_position){.max_len = max_len, .dim = dim};
    int64_t shape[2] = {max_len, dim};
    if (kind == ATTN_POSITION_LEARNED) {
        status = nn_matrix(m, "weight", &full, shape, 1.0, &p->table);
    } else {
        status = attn_tensor_create(full.dtype, 2, shape, &p->own_table);
        p->table = p->own_table;
    }
    if (status == ATTN_OK && p->own_table) {
        attn_view view = attn_tensor_write(p->own_table);
        sinusoids(&view);
    }
    return nn_finish(status, m, module);
}

attn_tensor *attn_nn_position(attn_tape *tape, attn_module *module, attn_tensor *x)
{
    if (!nn_ready(tape, module, NN_POSITION, x) ||
        !nn_last_is(tape, x, "position", "dim", module->as.position.dim)) {
        return NULL;
    }
    const nn_position *p = &module->as.position;
    int64_t len = attn_tensor_ndim(x) > 1 ? attn_tensor_size(x, -2) : 1;
    if (len > p->max_len) {
        return nn_fail(tape, ATTN_ERR_SHAPE,
                       "x: has %lld positions, the table %lld; shorten the sequence or create the "
                       "layer with a larger max_len",
                       (long long)len, (long long)p->max_len);
    }
    return attn_tensor_add(tape, x, attn_tensor_slice(tape, p->table, 0, 0, len));
}
