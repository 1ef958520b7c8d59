/* attn_sdpa_explain: in words, which kernel a call would run and why. */
#include "attention/plan.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct words {
    char *text;
    size_t size, used;
} words;

__attribute__((format(printf, 2, 3))) static void say(words *w, const char *format, ...)
{
    if (w->used + 1 >= w->size) {
        return;
    }
    va_list arguments;
    va_start(arguments, format);
    int wrote = vsnprintf(w->text + w->used, w->size - w->used, format, arguments);
    va_end(arguments);
    w->used += wrote > 0 ? (size_t)wrote : 0;
    w->used = w->used < w->size ? w->used : w->size - 1;
}

static void say_path(words *w, const sdpa_call *call, const sdpa_plan *plan)
{
    long long rows = (long long)(call->len_q * call->group);
    switch (plan->path) {
    case SDPA_NOTHING:
        say(w, "nothing to compute: %s is 0.",
            call->batch == 0 ? "the batch" : "the number of query rows");
        return;
    case SDPA_F64:
        say(w, "path: exact, %s, row by row in double, because the arrays are f64.",
            plan->needs.kernel);
        break;
    case SDPA_DECODE:
        say(w,
            "path: decode, %s, because only %lld query rows share each key head; keys are split in "
            "pieces of %lld, whose results are merged in order.",
            plan->needs.kernel, rows, (long long)plan->needs.split);
        break;
    case SDPA_FLASH:
        say(w, "path: flash, %s, in blocks of 64 query rows, because ", plan->needs.kernel);
        if (call->weights.dtype != ATTN_DTYPE_NONE) {
            say(w, "weights are wanted (they cost len_q x len_k memory and a second pass).");
        } else if (call->dropout > 0.0 && sdpa_decode_fits(call)) {
            say(w, "the decode path has no dropout.");
        } else {
            say(w, "%lld query rows share each key head.", rows);
        }
        break;
    }
}

static void say_level(words *w, const sdpa_call *call, const sdpa_plan *plan)
{
    attn_isa isa = attn_context_isa(call->context), best = attn_isa_detected();
    const char *suffix = strrchr(plan->needs.kernel, '_');
    say(w, " Level: %s", attn_isa_name(isa));
    if (isa != best) {
        say(w, ", capped by the context or ATTN_ISA (this machine has %s)", attn_isa_name(best));
    }
    if (plan->path == SDPA_F64) {
        say(w, "; double runs portable C at every level");
    } else if (suffix && strcmp(suffix + 1, attn_isa_name(isa)) != 0) {
        say(w, "; this path has no kernel of its own above %s", suffix + 1);
    }
    say(w, ".");
}

static void say_types(words *w, const sdpa_call *call)
{
    const attn_dtype types[] = {call->q.dtype, call->kv.k.dtype, call->out.dtype};
    const char *names[] = {"q is", "k and v are", "out is"};
    for (int n = 0; n < 3; n++) {
        if (types[n] == ATTN_BF16 || types[n] == ATTN_F16) {
            say(w, " %s %s, %s f32.", names[n], attn_dtype_name(types[n]),
                n == 2 ? "rounded once from" : "converted block by block to");
        }
    }
}

static void say_range(words *w, const sdpa_call *call)
{
    static const char *const causal[] = {"none", "top-left", "bottom-right"};
    if (call->causal != ATTN_CAUSAL_NONE) {
        say(w, " Causal: %s; keys after a row's position are skipped, not computed and hidden.",
            causal[call->causal]);
    }
    if (call->left >= 0 || call->right >= 0) {
        say(w, " Window: (%lld, %lld); keys outside it are skipped.", (long long)call->left,
            (long long)call->right);
    }
    if (call->lengths_q || call->lengths_k) {
        say(w, " Lengths: rows and keys beyond them are not read.");
    }
    if (call->cached) {
        say(w, " Keys come from a cache%s, with absolute positions.",
            call->kv.ring > 0 ? " that is a ring" : "");
    }
}

static void say_scores(words *w, const sdpa_call *call)
{
    if (call->softcap > 0.0) {
        say(w, " Softcap: %g, on every score.", call->softcap);
    }
    if (call->mask.dtype != ATTN_DTYPE_NONE) {
        say(w, " Mask: boolean, selected per score; its zeros are computed and dropped.");
    }
    if (call->bias.dtype != ATTN_DTYPE_NONE) {
        say(w, " Bias: %s, added to every score.", attn_dtype_name(call->bias.dtype));
    }
    if (call->alibi.dtype != ATTN_DTYPE_NONE) {
        say(w, " ALiBi: computed from positions.");
    }
    if (call->sinks.dtype != ATTN_DTYPE_NONE) {
        say(w, " Sinks: added to the denominator at the end.");
    }
    if (call->dropout > 0.0) {
        say(w,
            " Dropout: %g of the weights, by Philox of seed, sequence, head, row and column; LSE "
            "and "
            "weights out are without it.",
            call->dropout);
    }
}

attn_status attn_sdpa_explain(attn_context *context, const attn_sdpa_options *options,
                              const attn_view *q, const attn_kv_view *kv, const attn_view *out,
                              char *text, size_t size)
{
    sdpa_call call;
    sdpa_plan plan;
    if (!text || size == 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "text: must have room for at least one byte");
    }
    text[0] = '\0';
    attn_status status = sdpa_validate(context, options, q, kv, out, sdpa_is_cache(kv), &call);
    if (status == ATTN_OK) {
        status = sdpa_make_plan(&call, &plan);
    }
    if (status != ATTN_OK) {
        return status;
    }
    words w = {text, size, 0};
    say_path(&w, &call, &plan);
    if (plan.path == SDPA_NOTHING) {
        return ATTN_OK;
    }
    say_level(&w, &call, &plan);
    say_types(&w, &call);
    say_range(&w, &call);
    say_scores(&w, &call);
    say(&w, " Tasks: %lld on %d threads, the same bits for any number; scratch: %zu bytes.",
        (long long)plan.needs.tasks, attn_context_threads(context), plan.scratch);
    return ATTN_OK;
}
