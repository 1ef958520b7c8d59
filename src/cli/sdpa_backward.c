/* `attn sdpa`: gradients. */
#include "sdpa.h"

#include <stdlib.h>
#include <string.h>

bool sdpa_wants_gradients(const sdpa_request *r)
{
    bool any = false;
    for (int n = 0; n < SDPA_GRADIENTS; n++) {
        any = any || r->gradient[n];
    }
    return any;
}

attn_status sdpa_prepare_backward(const sdpa_request *r, sdpa_job *j)
{
    const attn_view *of[SDPA_GRADIENTS] = {&j->q_view,    &j->k_view,     &j->v_view,
                                           &j->bias_view, &j->sinks_view, &j->alibi_view};
    attn_view ignored;
    attn_status status = sdpa_read_tensor(r->dout, &j->dout, &ignored);
    if (!status && j->dout.ndim != j->q.ndim) {
        status = attn_fail(ATTN_ERR_SHAPE, "%s: has %d dimensions but must have q's %d", r->dout,
                           j->dout.ndim, j->q.ndim);
    }
    for (int n = 0; n < SDPA_GRADIENTS && !status; n++) {
        if (r->gradient[n]) {
            status = sdpa_make_output(r->gradient[n], j->f64 ? ATTN_F64 : ATTN_F32, of[n]->ndim,
                                      of[n]->shape, &j->gradient[n].data, &j->gradient[n].view);
        }
    }
    return status;
}

/* One number was given for all heads: its gradient is the sum of theirs. */
static void sum_heads(attn_view *view)
{
    double sum = 0.0;
    for (int64_t h = 0; h < view->shape[0]; h++) {
        sum += view->dtype == ATTN_F64 ? ((const double *)view->data)[h]
                                       : (double)((const float *)view->data)[h];
    }
    if (view->dtype == ATTN_F64) {
        ((double *)view->data)[0] = sum;
    } else {
        ((float *)view->data)[0] = (float)sum;
    }
    view->shape[0] = 1;
}

attn_status sdpa_run_backward(const sdpa_request *r, sdpa_job *j)
{
    attn_view dout;
    attn_sdpa_options options = r->options;
    attn_sdpa_gradients wanted = attn_sdpa_gradients_init();
    options.lse = NULL;
    options.weights = NULL;
    wanted.dq = j->gradient[SDPA_DQ].view;
    wanted.dk = j->gradient[SDPA_DK].view;
    wanted.dv = j->gradient[SDPA_DV].view;
    wanted.dbias = j->gradient[SDPA_DBIAS].view;
    wanted.dsinks = j->gradient[SDPA_DSINKS].view;
    wanted.dalibi = j->gradient[SDPA_DALIBI].view;
    attn_status status = sdpa_tensor_view(r->dout, &j->dout, &dout);
    status = status ? status
                    : attn_sdpa_backward(j->context, &options, &j->q_view, &j->k_view, &j->v_view,
                                         &j->out_view, &j->lse_view, &dout, &wanted);
    if (!status && r->gradient[SDPA_DSINKS] && j->n_sinks == 1) {
        sum_heads(&j->gradient[SDPA_DSINKS].view);
    }
    if (!status && r->gradient[SDPA_DALIBI] && j->n_alibi == 1) {
        sum_heads(&j->gradient[SDPA_DALIBI].view);
    }
    return status;
}

attn_status sdpa_write_gradients(const sdpa_request *r, const sdpa_job *j)
{
    const int ndims[SDPA_GRADIENTS] = {j->q.ndim, j->k.ndim, j->v.ndim, j->bias.ndim, 1, 1};
    attn_status status = ATTN_OK;
    for (int n = 0; n < SDPA_GRADIENTS && !status; n++) {
        if (r->gradient[n]) {
            status = sdpa_write_result(r->gradient[n], &j->gradient[n].view, ndims[n]);
        }
    }
    return status;
}
