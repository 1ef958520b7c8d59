#include "tensor_case.h"

#include "support.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* How a leaf reaches the function. */
typedef enum disguise {
    PLAIN,      /* as it is */
    TRANSPOSED, /* kept with its last two dimensions swapped, and swapped back */
    SLICED,     /* a window of a larger one */
    COMPUTED,   /* a result, not a leaf */
    SHARED,     /* computed, and used a second time besides */
    DISGUISES
} disguise;

static const char *const disguise_names[] = {"plain", "transposed", "sliced", "computed", "shared"};

typedef struct values {
    double *leaf[CASE_LEAVES];
    int64_t count[CASE_LEAVES];
} values;

static void fill(const tensor_case *c, values *v, rng *r)
{
    for (int i = 0; i < c->leaves; i++) {
        int64_t n = 1;
        for (int d = 0; d < c->leaf[i].ndim; d++) {
            n *= c->leaf[i].shape[d];
        }
        v->count[i] = n;
        v->leaf[i] = malloc((size_t)n * sizeof(double));
        assert_non_null(v->leaf[i]);
        for (int64_t k = 0; k < n; k++) {
            int kind = c->leaf[i].kind & ~CONSTANT;
            v->leaf[i][k] = kind == NORMAL     ? rng_normal(r)
                            : kind == POSITIVE ? 0.5 + 2.0 * rng_uniform(r)
                                               : 0.1 * (double)(k + 1) * (k % 2 ? 1.0 : -1.0);
        }
        for (int64_t k = n - 1; k > 0 && (c->leaf[i].kind & APART); k--) {
            int64_t other = rng_below(r, k + 1);
            double swap = v->leaf[i][k];
            v->leaf[i][k] = v->leaf[i][other];
            v->leaf[i][other] = swap;
        }
    }
}

static void put(const attn_view *v, int64_t index, double value)
{
    int64_t at = 0;
    for (int d = v->ndim - 1; d >= 0; d--) {
        at += index % v->shape[d] * v->stride[d];
        index /= v->shape[d];
    }
    if (v->dtype == ATTN_F32) {
        ((float *)v->data)[at] = (float)value;
    } else {
        ((double *)v->data)[at] = value;
    }
}

static double get(const attn_view *v, int64_t index)
{
    int64_t at = 0;
    for (int d = v->ndim - 1; d >= 0; d--) {
        at += index % v->shape[d] * v->stride[d];
        index /= v->shape[d];
    }
    return v->dtype == ATTN_F32 ? (double)((float *)v->data)[at] : ((double *)v->data)[at];
}

/* The leaf's window in the tensor that is kept. */
static attn_view window(const attn_view *kept, disguise how)
{
    attn_view v = *kept;
    int last = v.ndim - 1;
    if (how == TRANSPOSED && last > 0) {
        int64_t shape = v.shape[last], stride = v.stride[last];
        v.shape[last] = v.shape[last - 1];
        v.stride[last] = v.stride[last - 1];
        v.shape[last - 1] = shape;
        v.stride[last - 1] = stride;
    } else if (how == SLICED) {
        v.data = (char *)v.data + attn_dtype_size(v.dtype);
        v.shape[last] -= 3;
    }
    return v;
}

static attn_tensor *leaf_of(const tensor_case *c, int i, attn_dtype dtype, disguise how,
                            const double *numbers, int64_t count)
{
    int64_t shape[4];
    int last = c->leaf[i].ndim - 1;
    memcpy(shape, c->leaf[i].shape, sizeof shape);
    if (how == TRANSPOSED && last > 0) {
        shape[last] = c->leaf[i].shape[last - 1];
        shape[last - 1] = c->leaf[i].shape[last];
    } else if (how == SLICED) {
        shape[last] += 3;
    }
    attn_tensor *t = NULL;
    assert_int_equal(attn_tensor_create(dtype, last + 1, shape, &t), ATTN_OK);
    attn_view all = attn_tensor_write(t), v = window(&all, how);
    for (int64_t k = 0; k < count; k++) {
        put(&v, k, numbers[k]);
    }
    attn_tensor_require_grad(t, !(c->leaf[i].kind & CONSTANT));
    return t;
}

static attn_tensor *disguised(attn_tape *tape, attn_tensor *t, disguise how)
{
    int last = attn_tensor_ndim(t) - 1;
    switch (how) {
    case TRANSPOSED: return last > 0 ? attn_tensor_transpose(tape, t, -1, -2) : t;
    case SLICED: return attn_tensor_slice(tape, t, -1, 1, -2);
    case COMPUTED:
    case SHARED: return attn_tensor_scale(tape, t, 1.0);
    default: return t;
    }
}

/* Σ w·f(leaves), w fixed numbers; with SHARED also 0.5·Σ of the inputs, which a second way leads to. */
static attn_tensor *loss_of(const tensor_case *c, attn_tape *tape, attn_tensor *const *leaf,
                            disguise how, attn_tensor **w)
{
    attn_tensor *in[CASE_LEAVES] = {NULL}, *extra = NULL;
    for (int i = 0; i < c->leaves; i++) {
        in[i] = disguised(tape, leaf[i], how);
    }
    for (int i = 0; how == SHARED && i < c->leaves; i++) {
        attn_tensor *sum = attn_tensor_scale(tape, attn_tensor_sum_all(tape, in[i]), 0.5);
        extra = extra ? attn_tensor_add(tape, extra, sum) : sum;
    }
    attn_tensor *out = c->function(tape, in);
    if (!out) {
        return NULL;
    }
    if (!*w) {
        attn_view v = attn_tensor_view(out);
        assert_int_equal(attn_tensor_create(v.dtype, v.ndim, v.shape, w), ATTN_OK);
        rng r = rng_seed(7, 7);
        v = attn_tensor_write(*w);
        for (int64_t k = 0; k < attn_tensor_count(*w); k++) {
            put(&v, k, 0.25 + rng_uniform(&r));
        }
    }
    attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_mul(tape, out, *w));
    return extra ? attn_tensor_add(tape, loss, extra) : loss;
}

typedef struct run {
    attn_context *context;
    attn_tape *tape;
    attn_tensor *leaf[CASE_LEAVES], *w;
    disguise how;
} run;

static void begin(run *r, const tensor_case *c, const values *v, attn_dtype dtype, disguise how,
                  int threads)
{
    *r = (run){.context = test_context(threads), .how = how};
    assert_int_equal(attn_tape_create(r->context, &r->tape), ATTN_OK);
    for (int i = 0; i < c->leaves; i++) {
        r->leaf[i] = leaf_of(c, i, dtype, how, v->leaf[i], v->count[i]);
    }
}

static void end(run *r, const tensor_case *c)
{
    attn_tape_destroy(r->tape);
    for (int i = 0; i < c->leaves; i++) {
        attn_tensor_release(r->leaf[i]);
    }
    attn_tensor_release(r->w);
    attn_context_destroy(r->context);
}

static void backward(run *r, const tensor_case *c)
{
    attn_tensor *loss = loss_of(c, r->tape, r->leaf, r->how, &r->w);
    if (attn_tape_backward(r->tape, loss, NULL) != ATTN_OK) {
        fail_msg("%s (%s): %s; %s", c->name, disguise_names[r->how], attn_last_error(),
                 test_repro());
    }
}

static double value(run *r, const tensor_case *c)
{
    attn_tape_set_recording(r->tape, false);
    double loss = attn_tensor_item(loss_of(c, r->tape, r->leaf, r->how, &r->w));
    attn_tape_set_recording(r->tape, true);
    attn_tape_clear(r->tape);
    return loss;
}

/* max|g − fd| / max|fd| per leaf < 1e-7. */
static void check_differences(const tensor_case *c, const values *v, disguise how)
{
    run r;
    begin(&r, c, v, ATTN_F64, how, 1);
    backward(&r, c);
    attn_tape_clear(r.tape);
    for (int i = 0; i < c->leaves; i++) {
        attn_tensor *g = attn_tensor_grad(r.leaf[i]);
        if (c->leaf[i].kind & CONSTANT) {
            assert_null(g);
            continue;
        }
        if (!g) {
            fail_msg("%s (%s): leaf %d has no gradient; %s", c->name, disguise_names[how], i,
                     test_repro());
        }
        attn_view all = attn_tensor_view(g), got = window(&all, how);
        attn_view kept = attn_tensor_write(r.leaf[i]), leaf = window(&kept, how);
        double worst = 0, largest = 1e-3, outside = 0;
        for (int64_t k = 0; k < v->count[i]; k++) {
            double h = 2e-4, x = v->leaf[i][k], at[4];
            const double step[4] = {-2 * h, -h, h, 2 * h}; /* five-point: error h⁴ */
            for (int s = 0; s < 4; s++) {
                put(&leaf, k, x + step[s]);
                at[s] = value(&r, c);
            }
            put(&leaf, k, x);
            double fd = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * h);
            largest = fmax(largest, fabs(fd));
            worst = fmax(worst, fabs(fd - get(&got, k)));
            outside -= fabs(get(&got, k));
        }
        for (int64_t k = 0; k < attn_tensor_count(g); k++) {
            outside += fabs(get(&all, k));
        }
        if (!(worst / largest < 1e-7) || !(fabs(outside) < 1e-9 * largest * (double)v->count[i])) {
            fail_msg("%s (%s): leaf %d: max|g - fd| / max|fd| = %g, %g outside the slice; %s",
                     c->name, disguise_names[how], i, worst / largest, outside, test_repro());
        }
    }
    end(&r, c);
}

/* f32 with 1, 2 and 5 threads: near f64, and bit for bit the same as each other. */
static void check_f32(const tensor_case *c, const values *v, disguise how)
{
    const int threads[] = {1, 2, 5};
    double bound = c->f32 > 0 ? c->f32 : 2e-5;
    run wide, one;
    begin(&wide, c, v, ATTN_F64, how, 1);
    backward(&wide, c);
    begin(&one, c, v, ATTN_F32, how, 1);
    backward(&one, c);
    for (int n = 0; n < 3; n++) {
        run r;
        begin(&r, c, v, ATTN_F32, how, threads[n]);
        backward(&r, c);
        for (int i = 0; i < c->leaves; i++) {
            attn_tensor *g = attn_tensor_grad(r.leaf[i]);
            if (!g) {
                continue;
            }
            attn_view got = attn_tensor_view(g);
            attn_view exact = attn_tensor_view(attn_tensor_grad(wide.leaf[i]));
            attn_view first = attn_tensor_view(attn_tensor_grad(one.leaf[i]));
            double worst = 0, largest = 1e-3;
            for (int64_t k = 0; k < attn_tensor_count(g); k++) {
                worst = fmax(worst, fabs(get(&got, k) - get(&exact, k)));
                largest = fmax(largest, fabs(get(&exact, k)));
            }
            if (!(worst / largest < bound)) {
                fail_msg("%s (%s): leaf %d: f32 is %g off f64, bound %g; %s", c->name,
                         disguise_names[how], i, worst / largest, bound, test_repro());
            }
            if (memcmp(got.data, first.data, sizeof(float) * (size_t)attn_tensor_count(g)) != 0) {
                fail_msg("%s (%s): leaf %d: bits differ between 1 and %d threads; %s", c->name,
                         disguise_names[how], i, threads[n], test_repro());
            }
        }
        end(&r, c);
    }
    end(&one, c);
    end(&wide, c);
}

void tensor_case_check(const tensor_case *c, uint64_t seed)
{
    values v;
    rng r = rng_seed(seed, 1);
    fill(c, &v, &r);
    for (int how = 0; how < DISGUISES; how++) {
        check_differences(c, &v, (disguise)how);
        if (c->f32 >= 0) {
            check_f32(c, &v, (disguise)how);
        }
    }
    for (int i = 0; i < c->leaves; i++) {
        free(v.leaf[i]);
    }
}
