#include "grad_fixture.h"

#include <string.h>

void grad_fixture_make(grad_fixture *g, const fixture_size *size)
{
    memset(g, 0, sizeof *g);
    g->f = fixture_make(size);
    attn_dtype exact = size->type == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    const int64_t bias[3] = {size->heads_q, size->len_q, size->len_k};
    g->bias = array_dense(exact, 3, bias);
    g->sinks = array_dense(exact, 1, bias);
    g->alibi = array_dense(exact, 1, bias);
    g->dout = array_dense(exact, 4, g->f.out.view.shape);
    g->dlse = array_dense(exact, 3, g->f.lse.view.shape);
    array *filled[] = {&g->bias, &g->sinks, &g->alibi, &g->dout, &g->dlse};
    for (int n = 0; n < 5; n++) {
        array_normal(filled[n], &g->f.random, n == 2 ? 0.1 : 1);
    }
    g->f.o.bias = &g->bias.view;
    g->f.o.sinks = &g->sinks.view;
    g->f.o.alibi = &g->alibi.view;
    g->wanted = attn_sdpa_gradients_init();
    const array *of[GRADS] = {&g->f.q, &g->f.k, &g->f.v, &g->bias, &g->sinks, &g->alibi};
    attn_view *to[GRADS] = {&g->wanted.dq,    &g->wanted.dk,     &g->wanted.dv,
                            &g->wanted.dbias, &g->wanted.dsinks, &g->wanted.dalibi};
    for (int n = 0; n < GRADS; n++) {
        g->gradient[n] = array_dense(exact, of[n]->view.ndim, of[n]->view.shape);
        *to[n] = g->gradient[n].view;
    }
    g->wanted.dlse = g->dlse.view;
    g->o = g->f.o;
}

void grad_fixture_free(grad_fixture *g)
{
    fixture_free(&g->f);
    array *all[] = {&g->bias, &g->sinks, &g->alibi, &g->dout, &g->dlse};
    for (int n = 0; n < 5; n++) {
        array_free(all[n]);
    }
    for (int n = 0; n < GRADS; n++) {
        array_free(&g->gradient[n]);
    }
}

attn_status grad_fixture_backward(grad_fixture *g)
{
    for (int n = 0; n < GRADS; n++) {
        array_wipe(&g->gradient[n]);
    }
    return attn_sdpa_backward(g->f.context, &g->o, &g->f.q.view, &g->f.k.view, &g->f.v.view,
                              &g->f.out.view, &g->f.lse.view, &g->dout.view, &g->wanted);
}

void grad_fixture_run(grad_fixture *g)
{
    fixture_run(&g->f);
    g->o = g->f.o;
    g->o.lse = g->o.weights = NULL;
    if (grad_fixture_backward(g) != ATTN_OK) {
        fail_msg("%s", attn_last_error());
    }
}

void grad_fixture_fails(grad_fixture *g, attn_status status, const char *word)
{
    attn_status got = grad_fixture_backward(g);
    if (got != status) {
        fail_msg("status %s (%s), must be %s", attn_status_string(got), attn_last_error(),
                 attn_status_string(status));
    }
    assert_true(error_has(word));
    for (int n = 0; n < GRADS; n++) {
        for (size_t byte = 0; byte < g->gradient[n].memory.bytes; byte++) {
            assert_int_equal(g->gradient[n].memory.data[byte], 0xff);
        }
    }
}
