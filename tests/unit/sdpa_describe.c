/* What a random case is, in one line. */
#include "sdpa_case.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void append(char *text, size_t size, const char *word)
{
    size_t used = strlen(text);
    snprintf(text + used, size - used, "%s", word);
}

static void append_view(char *text, size_t size, const char *name, const attn_view *v)
{
    char word[160];
    snprintf(word, sizeof word, " %s[", name);
    append(text, size, word);
    for (int d = 0; d < v->ndim; d++) {
        snprintf(word, sizeof word, "%s%lld:%lld", d ? "," : "", (long long)v->shape[d],
                 (long long)v->stride[d]);
        append(text, size, word);
    }
    append(text, size, "]");
}

void sdpa_case_describe(const sdpa_case *c, char *text, size_t size)
{
    static const char *const names[CASE_OPTIONS] = {
        "scale",     "softcap",   "causal", "offset",  "window", "mask", "bias",  "alibi",  "sinks",
        "lengths_q", "lengths_k", "lse",    "weights", "cached", "ring", "first", "dropout"};
    const attn_sdpa_options *o = &c->options;
    snprintf(text, size,
             "q %s, kv %s, out %s, batch %lld, heads %lld/%lld, len %lld,%lld, "
             "dims %lld,%lld; size:stride",
             attn_dtype_name(c->q_type), attn_dtype_name(c->kv_type), attn_dtype_name(c->out_type),
             (long long)c->batch, (long long)c->heads_q, (long long)c->heads_kv,
             (long long)c->len_q, (long long)c->len_k, (long long)c->dim_qk, (long long)c->dim_v);
    append_view(text, size, "q", &c->q.view);
    append_view(text, size, "k", &c->k.view);
    append_view(text, size, "v", &c->v.view);
    append_view(text, size, "out", &c->out.view);
    append(text, size, ";");
    for (int bit = 0; bit < CASE_OPTIONS; bit++) {
        if (c->have & 1 << bit) {
            append(text, size, " ");
            append(text, size, names[bit]);
        }
    }
    char word[160];
    snprintf(word, sizeof word, "; causal %d, window %lld,%lld, scale %g, softcap %g",
             (int)o->causal, o->has_window ? (long long)o->window_left : -1,
             o->has_window ? (long long)o->window_right : -1, o->has_scale ? o->scale : -1,
             o->softcap);
    append(text, size, word);
}

void sdpa_case_report(const sdpa_case *c, int64_t index, const char *text)
{
    char what[1024] = "";
    sdpa_case_describe(c, what, sizeof what);
    print_message("case %lld: %s\n  %s\n  repeat with: %s\n", (long long)index, text, what,
                  test_repro());
}
