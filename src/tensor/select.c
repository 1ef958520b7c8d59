/**
 * select.c: masked_fill and where: a mask chooses, forward and back.
 */
#include "tensor/tensor.h"

/* p[1] is the mask; y = mask ? p[2] : p[3], or numbers in their place. */
typedef struct select_call {
    double number;
    bool accumulate;
} select_call;

#define SELECT(S)                                                                             \
    static void fill_where_##S(const void *user, int64_t n, void *const *p, const int64_t *s) \
    {                                                                                         \
        number_##S *y = p[0], value = (number_##S)((const select_call *)user)->number;        \
        const unsigned char *mask = p[1];                                                     \
        const number_##S *x = p[2];                                                           \
        for (int64_t i = 0; i < n; i++) {                                                     \
            y[i * s[0]] = mask[i * s[1]] ? value : x[i * s[2]];                               \
        }                                                                                     \
    }                                                                                         \
    static void choose_##S(const void *user, int64_t n, void *const *p, const int64_t *s)     \
    {                                                                                         \
        number_##S *y = p[0];                                                                 \
        const unsigned char *mask = p[1];                                                     \
        const number_##S *a = p[2], *b = p[3];                                                \
        (void)user;                                                                           \
        for (int64_t i = 0; i < n; i++) {                                                     \
            y[i * s[0]] = mask[i * s[1]] ? a[i * s[2]] : b[i * s[3]];                         \
        }                                                                                     \
    }                                                                                         \
    /* dx (+)= dy where the mask is `number`, else 0 */                                       \
    static void keep_where_##S(const void *user, int64_t n, void *const *p, const int64_t *s) \
    {                                                                                         \
        const select_call *c = user;                                                          \
        number_##S *dx = p[0];                                                                \
        const unsigned char *mask = p[1];                                                     \
        const number_##S *dy = p[2];                                                          \
        bool wanted = c->number != 0.0;                                                       \
        for (int64_t i = 0; i < n; i++) {                                                     \
            number_##S g = (mask[i * s[1]] != 0) == wanted ? dy[i * s[2]] : 0;                \
            dx[i * s[0]] = c->accumulate ? dx[i * s[0]] + g : g;                              \
        }                                                                                     \
    }
SELECT(f32)
SELECT(f64)

#define PICK(view, name) ((view).dtype == ATTN_F32 ? name##_f32 : name##_f64)

/* t's gradient += dy where the mask is `wanted`, summed where t was broadcast. */
static attn_status keep(attn_tape *tape, attn_tensor *t, attn_tensor *dy, const attn_view *mask,
                        bool wanted)
{
    select_call c = {.number = wanted};
    bool same = attn_view_same_shape(&t->view, &dy->view);
    attn_tensor *g =
        same ? attn_grad_open(tape, t, &c.accumulate)
             : attn_grad_scratch(tape, dy->view.dtype, dy->view.ndim, dy->view.shape, NULL);
    if (!g) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_view v[3] = {g->view, *mask, dy->view};
    attn_status status = attn_loop(tape->context, 3, v, PICK(dy->view, keep_where), &c);
    if (!same) {
        status = status == ATTN_OK ? attn_grad_give_reduced(tape, t, g) : status;
        attn_tensor_release(g);
    }
    return status;
}

static attn_status fill_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    return keep(tape, node->in[0], dy, &node->params.mask, false);
}

static attn_status where_backward(attn_tape *tape, const attn_node *node, attn_tensor *dy)
{
    attn_status status = ATTN_OK;
    for (int i = 0; i < 2 && status == ATTN_OK; i++) {
        if (node->in[i]->requires_grad) {
            status = keep(tape, node->in[i], dy, &node->params.mask, i == 0);
        }
    }
    return status;
}

static const attn_op fill_op = {"masked_fill", fill_backward}, where_op = {"where", where_backward};

static bool check_mask(attn_tape *tape, const attn_op *op, const attn_view *mask, int ndim,
                       const int64_t *shape)
{
    attn_view wide = {.ndim = ndim};
    int64_t met[4];
    int met_ndim;
    if (!mask || mask->dtype != ATTN_BOOL || mask->ndim < 1 || mask->ndim > 4) {
        attn_op_fail(tape, ATTN_ERR_DTYPE, "%s: mask must be a view of 1 to 4 dimensions of bool",
                     op->name);
        return false;
    }
    if (!mask->data && attn_view_count(mask) > 0) {
        attn_op_fail(tape, ATTN_ERR_ARGUMENT, "%s: mask: its data must not be NULL", op->name);
        return false;
    }
    for (int i = 0; i < ndim; i++) {
        wide.shape[i] = shape[i];
    }
    bool fits = attn_shapes_meet(mask, &wide, &met_ndim, met) && met_ndim == ndim;
    for (int i = 0; fits && i < ndim; i++) {
        fits = met[i] == shape[i];
    }
    if (!fits) {
        char tm[ATTN_SHAPE_TEXT], tx[ATTN_SHAPE_TEXT];
        attn_op_fail(tape, ATTN_ERR_SHAPE, "%s: mask %s does not broadcast to %s", op->name,
                     attn_shape_text(mask->ndim, mask->shape, tm),
                     attn_shape_text(ndim, shape, tx));
    }
    return fits;
}

attn_tensor *attn_tensor_masked_fill(attn_tape *tape, attn_tensor *a, const attn_view *mask,
                                     double value)
{
    if (!attn_op_begin(tape, &fill_op, 1, &a) ||
        !check_mask(tape, &fill_op, mask, a->view.ndim, a->view.shape)) {
        return NULL;
    }
    attn_tensor *out = attn_op_result(tape, a->view.dtype, a->view.ndim, a->view.shape, &a->view);
    if (!out) {
        return NULL;
    }
    select_call c = {.number = value};
    attn_view v[3] = {out->view, *mask, a->view};
    attn_params params = {.mask = *mask};
    if (!attn_op_ok(tape, attn_loop(tape->context, 3, v, PICK(a->view, fill_where), &c))) {
        return NULL;
    }
    return attn_op_record(tape, &fill_op, out, 1, &a, 0, &params);
}

attn_tensor *attn_tensor_where(attn_tape *tape, const attn_view *mask, attn_tensor *a,
                               attn_tensor *b)
{
    attn_tensor *in[2] = {a, b};
    int64_t shape[4];
    int ndim;
    if (!attn_op_begin(tape, &where_op, 2, in)) {
        return NULL;
    }
    if (!attn_shapes_meet(&a->view, &b->view, &ndim, shape)) {
        char ta[ATTN_SHAPE_TEXT], tb[ATTN_SHAPE_TEXT];
        return attn_op_fail(tape, ATTN_ERR_SHAPE,
                            "where: a is %s and b is %s; sizes, aligned at the right, must be "
                            "equal or 1",
                            attn_shape_text(a->view.ndim, a->view.shape, ta),
                            attn_shape_text(b->view.ndim, b->view.shape, tb));
    }
    attn_tensor *out = check_mask(tape, &where_op, mask, ndim, shape)
                           ? attn_op_result(tape, a->view.dtype, ndim, shape, NULL)
                           : NULL;
    if (!out) {
        return NULL;
    }
    attn_view v[4] = {out->view, *mask, a->view, b->view};
    attn_params params = {.mask = *mask};
    if (!attn_op_ok(tape, attn_loop(tape->context, 4, v, PICK(a->view, choose), NULL))) {
        return NULL;
    }
    return attn_op_record(tape, &where_op, out, 2, in, 0, &params);
}
