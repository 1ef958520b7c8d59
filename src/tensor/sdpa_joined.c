/**
 * sdpa_joined.c: self-attention on q, k and v that lie side by side, as one product of a layer leaves them. Heads are views of its rows, rotation
 * happens where they are, and backward writes the three gradients side by side again: nothing is copied on either way.
 */
#include "tensor/tensor.h"

#include <string.h>

enum { HEADS, HEADS_KV, DIM, ROTATED, PAIRING }; /* params.integer; ROTATED: 0 for no rotation */
enum { QKV, LSE };                               /* params.tensor */

/* What backward needs of the call. */
typedef struct kept {
    attn_sdpa_options *options;
    int64_t *positions;
} kept;

/* `heads` heads from number `first` on, of rows [batch·len, heads·dim] → [batch, heads, len, dim] */
static attn_view heads_of(const attn_view *rows, int64_t batch, int64_t first, int64_t heads,
                          int64_t dim)
{
    int64_t len = rows->shape[0] / (batch > 0 ? batch : 1), row = rows->stride[0];
    attn_view v = {.dtype = rows->dtype,
                   .ndim = 4,
                   .shape = {batch, heads, len, dim},
                   .stride = {len * row, dim, row, 1}};
    v.data = (char *)rows->data + first * dim * (int64_t)attn_dtype_size(rows->dtype);
    return v;
}

static void split(const attn_view *rows, int64_t batch, const attn_params *p, attn_view view[3])
{
    const int64_t *n = p->integer;
    view[0] = heads_of(rows, batch, 0, n[HEADS], n[DIM]);
    view[1] = heads_of(rows, batch, n[HEADS], n[HEADS_KV], n[DIM]);
    view[2] = heads_of(rows, batch, n[HEADS] + n[HEADS_KV], n[HEADS_KV], n[DIM]);
}

/* The heads of q and k, which are neighbours, at once. */
static attn_status rotate(attn_tape *tape, const attn_view *rows, int64_t batch,
                          const attn_params *p, bool back)
{
    const int64_t *n = p->integer;
    const kept *k = p->data;
    if (n[ROTATED] == 0) {
        return ATTN_OK;
    }
    attn_view x = heads_of(rows, batch, 0, n[HEADS] + n[HEADS_KV], n[DIM]);
    attn_rope_pairing pairing = (attn_rope_pairing)n[PAIRING];
    return (back ? attn_rope_inverse : attn_rope)(tape->context, &x, k->positions, p->number[0],
                                                  n[ROTATED], pairing);
}

/* ---- backward ---- */

static attn_status run_backward(attn_tape *tape, const attn_node *node, const attn_view *dy,
                                const attn_view *dqkv)
{
    const attn_params *p = &node->params;
    const kept *k = p->data;
    int64_t batch = node->out->view.shape[0];
    attn_view rows, out_rows, in[3];
    attn_sdpa_gradients g = attn_sdpa_gradients_init();
    attn_view_rows(&p->tensor[QKV]->view, &rows);
    attn_view_rows(&node->out->view, &out_rows);
    split(&rows, batch, p, in);
    attn_view d[3], out = heads_of(&out_rows, batch, 0, p->integer[HEADS], p->integer[DIM]);
    attn_view dout = heads_of(dy, batch, 0, p->integer[HEADS], p->integer[DIM]);
    split(dqkv, batch, p, d);
    g.dq = d[0];
    g.dk = d[1];
    g.dv = d[2];
    attn_sdpa_options o = *k->options;
    o.weights = NULL;
    attn_status status = attn_sdpa_backward(tape->context, &o, &in[0], &in[1], &in[2], &out,
                                            &p->tensor[LSE]->view, &dout, &g);
    return status == ATTN_OK ? rotate(tape, dqkv, batch, p, true) : status;
}

static attn_status sdpa_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_view rows_dy;
    attn_grad_target dqkv = {.owner = node->in[0]};
    attn_tensor *held = attn_tensor_rows(tape, dy, &rows_dy);
    attn_status status = held ? attn_grad_fresh(tape, node->in[0], &dqkv) : ATTN_ERR_NO_MEMORY;
    if (status == ATTN_OK) {
        status = run_backward(tape, node, &rows_dy, &dqkv.rows);
    }
    status = attn_grad_done(tape, &dqkv, status);
    attn_tensor_release(held);
    return status;
}

static const attn_op sdpa_op = {"sdpa_joined", sdpa_backward};

/* ---- forward ---- */

static bool check(attn_tape *tape, const attn_sdpa_options *options,
                  const attn_tensor_rotation *rotation, attn_tensor *qkv, int64_t heads,
                  int64_t heads_kv)
{
    char text[ATTN_SHAPE_TEXT];
    if (!attn_op_begin(tape, &sdpa_op, 1, &qkv)) {
        return false;
    }
    const attn_view *v = &qkv->view;
    if (heads < 1 || heads_kv < 1 || v->ndim != 3 || v->shape[2] % (heads + 2 * heads_kv) != 0 ||
        v->shape[2] == 0) {
        attn_op_fail(tape, ATTN_ERR_SHAPE,
                     "sdpa_joined: qkv is %s and must be [batch, len, (heads + 2·heads_kv)·dim] "
                     "with heads %lld and heads_kv %lld, each at least 1",
                     attn_shape_text(v->ndim, v->shape, text), (long long)heads,
                     (long long)heads_kv);
        return false;
    }
    int64_t dim = v->shape[2] / (heads + 2 * heads_kv);
    if (rotation && (rotation->dims < 0 || rotation->dims > dim || rotation->dims % 2 != 0 ||
                     (rotation->dims == 0 && dim % 2 != 0) || !(rotation->theta > 0))) {
        attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                     "sdpa_joined: rotation.dims = %lld must be even and at most a head's %lld (0: "
                     "all of it, even too), and theta = %g more than 0",
                     (long long)rotation->dims, (long long)dim, rotation->theta);
        return false;
    }
    if (options && (options->lse || options->scratch)) {
        attn_op_fail(tape, ATTN_ERR_ARGUMENT,
                     "sdpa_joined: lse and scratch of the options are the tape's own and must be "
                     "NULL");
        return false;
    }
    return true;
}

static bool keep(attn_tape *tape, const attn_sdpa_options *options,
                 const attn_tensor_rotation *rotation, const attn_view *qkv, attn_params *p)
{
    kept *k = attn_op_memory(tape, sizeof *k);
    if (!k) {
        return false;
    }
    *k = (kept){.options = attn_op_keep_options(tape, options, qkv->shape[0])};
    p->data = k;
    if (!k->options || !rotation) {
        return k->options != NULL;
    }
    p->number[0] = rotation->theta;
    p->integer[ROTATED] = rotation->dims ? rotation->dims : p->integer[DIM];
    p->integer[PAIRING] = (int64_t)rotation->pairing;
    k->positions = attn_op_positions(tape, rotation->positions, qkv->shape[0], qkv->shape[1]);
    return k->positions != NULL;
}

/* Whether nobody will miss the numbers as they were: a result that only the tape holds, and that its own way back does not read. */
static bool can_take(const attn_tape *tape, const attn_tensor *t)
{
    bool read_again = t->tape && (attn_tape_node(tape, t->node)->saved & ATTN_SAVED_OUT) != 0;
    return attn_tensor_exclusive(t) && t->storage->pool && !read_again &&
           attn_view_is_dense(&t->view);
}

/* qkv itself, or a copy of it that may be rotated. */
static attn_tensor *own_rows(attn_tape *tape, attn_tensor *qkv, bool rotated)
{
    if (rotated ? can_take(tape, qkv) : attn_view_is_dense(&qkv->view)) {
        qkv->taken = rotated;
        qkv->storage->version += rotated;
        return qkv;
    }
    attn_tensor *copy = attn_op_result(tape, qkv->view.dtype, 3, qkv->view.shape, NULL);
    return copy && attn_op_ok(tape,
                              attn_loop_copy(tape->context, &qkv->view, &copy->view, 1.0, false))
               ? copy
               : NULL;
}

static attn_status run_forward(attn_tape *tape, const attn_params *p, attn_tensor *out)
{
    attn_view rows, out_rows, in[3];
    const kept *k = p->data;
    int64_t batch = out->view.shape[0];
    attn_view_rows(&p->tensor[QKV]->view, &rows);
    attn_view_rows(&out->view, &out_rows);
    attn_view to = heads_of(&out_rows, batch, 0, p->integer[HEADS], p->integer[DIM]);
    split(&rows, batch, p, in);
    attn_status status = rotate(tape, &rows, batch, p, false);
    attn_sdpa_options o = *k->options;
    o.lse = &p->tensor[LSE]->view;
    return status == ATTN_OK ? attn_sdpa(tape->context, &o, &in[0], &in[1], &in[2], &to) : status;
}

attn_tensor *attn_tensor_sdpa_joined(attn_tape *tape, const attn_sdpa_options *options,
                                     const attn_tensor_rotation *rotation, attn_tensor *qkv,
                                     int64_t heads, int64_t heads_kv)
{
    if (!check(tape, options, rotation, qkv, heads, heads_kv)) {
        return NULL;
    }
    const attn_view *v = &qkv->view;
    int64_t dim = v->shape[2] / (heads + 2 * heads_kv);
    attn_params p = {.integer = {heads, heads_kv, dim}};
    int64_t shape[3] = {v->shape[0], v->shape[1], heads * dim};
    int64_t lse[3] = {v->shape[0], heads, v->shape[1]};
    if (!keep(tape, options, rotation, v, &p)) {
        return NULL;
    }
    attn_tensor *out = attn_op_result(tape, v->dtype, 3, shape, NULL);
    p.tensor[LSE] = out ? attn_op_result(tape, v->dtype, 3, lse, NULL) : NULL;
    p.tensor[QKV] = p.tensor[LSE] ? own_rows(tape, qkv, p.integer[ROTATED] != 0) : NULL;
    if (!p.tensor[QKV] || !attn_op_ok(tape, run_forward(tape, &p, out))) {
        return NULL;
    }
    int saved = p.tensor[QKV] == qkv ? 1 | ATTN_SAVED_OUT : ATTN_SAVED_OUT;
    return attn_op_record(tape, &sdpa_op, out, 1, &qkv, saved, &p);
}
