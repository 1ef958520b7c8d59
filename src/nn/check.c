/**
 * check.c: what layers demand before they run, in one sentence on failure, and dropout.
 */
#include "nn/layers.h"

#include <stdarg.h>
#include <stdio.h>

attn_tensor *nn_fail(attn_tape *tape, attn_status status, const char *format, ...)
{
    if (attn_tape_status(tape) != ATTN_OK) {
        return NULL; /* the first failure's text stays in place */
    }
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return attn_tape_fail(tape, attn_fail(status, "%s", text));
}

bool nn_is(attn_tape *tape, const attn_module *module, nn_kind kind)
{
    if (!module) {
        nn_fail(tape, ATTN_ERR_ARGUMENT, "module: must not be NULL");
    } else if (module->kind != kind) {
        nn_fail(tape, ATTN_ERR_ARGUMENT, "module: %s is %s, this function takes %s",
                module->name && *module->name ? module->name : "it", nn_kind_name(module->kind),
                nn_kind_name(kind));
    }
    return module && module->kind == kind;
}

bool nn_ready(attn_tape *tape, const attn_module *module, nn_kind kind, const attn_tensor *x)
{
    if (!nn_is(tape, module, kind)) {
        return false;
    }
    if (!x) {
        nn_fail(tape, ATTN_ERR_ARGUMENT, "x: must not be NULL");
    }
    return x != NULL;
}

bool nn_last_is(attn_tape *tape, const attn_tensor *x, const char *layer, const char *what,
                int64_t size)
{
    int64_t last = attn_tensor_size(x, -1);
    if (last == size) {
        return true;
    }
    nn_fail(tape, ATTN_ERR_SHAPE,
            "%s: the last size of x is %lld but the layer's %s is %lld; give x [.., %lld], or "
            "create the layer for %lld",
            layer, (long long)last, what, (long long)size, (long long)size, (long long)last);
    return false;
}

attn_status nn_check_dropout(double p)
{
    if (!(p >= 0.0 && p < 1.0)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "dropout: is %g, must be at least 0 and below 1, for example 0.1", p);
    }
    return ATTN_OK;
}

attn_tensor *nn_dropout(attn_tape *tape, const attn_module *module, attn_tensor *x, double p,
                        uint64_t seed)
{
    return module->training && p > 0.0 ? attn_tensor_dropout(tape, x, p, seed) : x;
}
