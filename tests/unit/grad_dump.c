/*
 * The cases of test_grad_finite with the gradients that the library gives, one JSON object a line:
 * for tests/golden/test_gradients.py, which has PyTorch work them out.
 *
 *   attn_grad_dump SEED COUNT
 */
#include "grad_case.h"
#include "oracle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void print_number(double x)
{
    if (isfinite(x)) {
        printf("%.17g", x);
    } else {
        printf("%s", isnan(x) ? "NaN" : x < 0 ? "-Infinity" : "Infinity");
    }
}

static void print_view(const char *name, const attn_view *view)
{
    if (view->dtype == ATTN_DTYPE_NONE) {
        return;
    }
    int64_t count = 1;
    printf(",\"%s\":{\"shape\":[", name);
    for (int d = 0; d < view->ndim; d++) {
        count *= view->shape[d];
        printf("%s%lld", d ? "," : "", (long long)view->shape[d]);
    }
    printf("],\"data\":[");
    for (int64_t n = 0; n < count; n++) {
        int64_t at[4] = {0};
        for (int64_t d = view->ndim - 1, rest = n; d >= 0; d--) {
            at[d] = rest % view->shape[d];
            rest /= view->shape[d];
        }
        printf(n ? "," : "");
        print_number(view_get(view, at[0], at[1], at[2], at[3]));
    }
    printf("]}");
}

static void print_integers(const char *name, const int64_t *values, int64_t count)
{
    if (values) {
        printf(",\"%s\":[", name);
        for (int64_t n = 0; n < count; n++) {
            printf("%s%lld", n ? "," : "", (long long)values[n]);
        }
        printf("]");
    }
}

static void print_case(grad_case *c, int64_t index)
{
    const sdpa_case *f = &c->forward;
    const attn_sdpa_options *o = &f->options;
    printf("{\"case\":%lld,\"causal\":%d,\"softcap\":%.17g,\"dropout\":%.17g,\"seed\":%llu",
           (long long)index, (int)o->causal, o->softcap, o->dropout,
           (unsigned long long)o->dropout_seed);
    printf(",\"scale\":%.17g", o->has_scale ? o->scale : 1 / sqrt((double)f->dim_qk));
    print_integers("window", o->has_window ? (int64_t[]){o->window_left, o->window_right} : NULL,
                   2);
    print_integers("lengths_q", o->lengths_q, f->batch);
    print_integers("lengths_k", o->lengths_k, f->batch);
    print_integers("q_offset", o->q_offset, o->q_offset_count);
    print_view("q", &f->q.view);
    print_view("k", &f->k.view);
    print_view("v", &f->v.view);
    print_view("mask", &f->mask.view);
    print_view("bias", &f->bias.view);
    print_view("sinks", &f->sinks.view);
    print_view("alibi", &f->alibi.view);
    print_view("dout", &c->dout.view);
    print_view("dlse", &c->wanted.dlse);
    for (int n = 0; n < GRADS; n++) {
        print_view(grad_names[n], grad_case_view(c, n));
    }
    printf("}\n");
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    int64_t count = argc > 2 ? strtoll(argv[2], NULL, 10) : 1;
    attn_context *context = test_context(1);
    for (int64_t index = 0; index < count; index++) {
        grad_case c;
        grad_case_make(&c, CASE_SMOOTH, seed, index, -1);
        if (grad_case_run(&c, context) != ATTN_OK) {
            fprintf(stderr, "case %lld: %s\n", (long long)index, attn_last_error());
            return EXIT_FAILURE;
        }
        print_case(&c, index);
        grad_case_free(&c);
    }
    attn_context_destroy(context);
    return EXIT_SUCCESS;
}
