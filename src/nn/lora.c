/**
 * lora.c: low-rank adapters beside frozen linear layers (Hu et al. 2021).
 */
#include "nn/init.h"
#include "nn/layers.h"

#include <attn/linear.h>
#include <attn/train_ops.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

attn_lora_options attn_lora_options_init(void)
{
    return (attn_lora_options){.struct_size = sizeof(attn_lora_options), .rank = 8, .alpha = 16.0};
}

static const char *last_word(const attn_module *module)
{
    const char *name = module->name ? module->name : "";
    const char *dot = strrchr(name, '.');
    return dot ? dot + 1 : name;
}

static bool inside_block(const attn_module *module)
{
    for (; module; module = module->parent) {
        if (module->kind == NN_BLOCK) {
            return true;
        }
    }
    return false;
}

static bool targeted(const attn_module *module, const attn_lora_options *o)
{
    if (!o->targets) {
        return inside_block(module);
    }
    for (int i = 0; i < o->target_count; i++) {
        if (strcmp(last_word(module), o->targets[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* What a walk over the linear layers does to each; the first failure ends it. */
typedef attn_status visit(attn_module *linear, void *user);

static attn_status each_linear(attn_module *module, visit *function, void *user)
{
    if (module->kind == NN_LINEAR) {
        return function(module, user);
    }
    attn_status status = ATTN_OK;
    for (int i = 0; i < module->child_count && status == ATTN_OK; i++) {
        status = each_linear(module->children[i], function, user);
    }
    return status;
}

/* ---- applying ---------------------------------------------------------------------------------- */

typedef struct apply_call {
    const attn_lora_options *options;
    int count, busy;
    char words[256]; /* last words of the layers there are */
} apply_call;

static attn_status survey(attn_module *linear, void *user)
{
    apply_call *call = user;
    const char *word = last_word(linear);
    size_t used = strlen(call->words);
    if (!strstr(call->words, word) && used + strlen(word) + 3 < sizeof call->words) {
        snprintf(call->words + used, sizeof call->words - used, "%s%s", used ? ", " : "", word);
    }
    call->count += targeted(linear, call->options);
    call->busy += linear->as.linear.lora_a != NULL;
    return ATTN_OK;
}

static attn_status adapt(attn_module *linear, void *user)
{
    apply_call *call = user;
    nn_linear *l = &linear->as.linear;
    if (!targeted(linear, call->options)) {
        return ATTN_OK;
    }
    attn_nn_options nn = attn_nn_options_init();
    nn.dtype = attn_tensor_dtype(l->weight);
    nn.init = ATTN_INIT_XAVIER;
    nn.seed = nn_mix(call->options->seed, (uint64_t)call->count++);
    int64_t rank = call->options->rank, a[2] = {rank, l->in}, b[2] = {l->out, rank};
    /* Xavier's limit is √(6/(in + rank)); this gain makes it 1/√in. */
    double gain = sqrt((double)(l->in + rank) / (6.0 * (double)l->in));
    attn_status status = nn_matrix(linear, "lora_A.weight", &nn, a, gain, &l->lora_a);
    if (status == ATTN_OK) {
        nn.init = ATTN_INIT_ZERO;
        status = nn_matrix(linear, "lora_B.weight", &nn, b, 1.0, &l->lora_b);
    }
    l->lora_scale = call->options->alpha / (double)rank;
    return status;
}

static attn_status strip(attn_module *linear, void *user)
{
    nn_linear *l = &linear->as.linear;
    (void)user;
    if (l->lora_a) {
        nn_remove_parameter(linear, l->lora_a);
    }
    if (l->lora_b) {
        nn_remove_parameter(linear, l->lora_b);
    }
    l->lora_a = l->lora_b = NULL;
    return ATTN_OK;
}

static attn_status check_apply(const attn_module *module, const attn_lora_options *o)
{
    if (!module) {
        return attn_fail(ATTN_ERR_ARGUMENT, "module: must not be NULL");
    }
    if (o->rank < 1 || !isfinite(o->alpha) || o->target_count < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "rank, alpha: are %lld, %g; rank must be at least 1 and alpha finite, for "
                         "example 8 and 16",
                         (long long)o->rank, o->alpha);
    }
    return ATTN_OK;
}

attn_status attn_lora_apply(attn_module *module, const attn_lora_options *options, int *count)
{
    attn_lora_options o = attn_lora_options_init();
    apply_call call = {.options = &o};
    if (count) {
        *count = 0;
    }
    attn_status status =
        attn_take_struct("options", "attn_lora_options_init", options, &o, sizeof o);
    if (status == ATTN_OK) {
        status = check_apply(module, &o);
    }
    if (status == ATTN_OK) {
        status = each_linear(module, survey, &call);
    }
    if (status == ATTN_OK && (call.count == 0 || call.busy > 0)) {
        status = call.busy ? attn_fail(ATTN_ERR_ARGUMENT, "module: has adapters already; merge "
                                                          "them first with attn_lora_merge")
                           : attn_fail(ATTN_ERR_ARGUMENT,
                                       "targets: no linear layer is called so; there are %s",
                                       call.words[0] ? call.words : "none");
    }
    if (status != ATTN_OK) {
        return status;
    }
    call.count = 0;
    status = each_linear(module, adapt, &call);
    if (status != ATTN_OK) {
        each_linear(module, strip, NULL);
        return status;
    }
    for (int i = 0; i < module->entry_count; i++) {
        const char *name = module->entries[i].name;
        bool adapter = strstr(name, "lora_A.weight") || strstr(name, "lora_B.weight");
        attn_tensor_require_grad(module->entries[i].tensor, adapter);
    }
    if (count) {
        *count = call.count;
    }
    return ATTN_OK;
}

/* ---- merging ----------------------------------------------------------------------------------- */

static attn_view transposed(attn_view view)
{
    attn_view t = view;
    t.shape[0] = view.shape[1];
    t.shape[1] = view.shape[0];
    t.stride[0] = view.stride[1];
    t.stride[1] = view.stride[0];
    return t;
}

/* W += (scale·B)·A; with W [in, out] the whole equation transposed. */
static attn_status merge(attn_module *linear, void *user)
{
    nn_linear *l = &linear->as.linear;
    attn_context *context = user;
    if (!l->lora_a || !l->lora_b) {
        return ATTN_OK;
    }
    attn_view a = attn_tensor_view(l->lora_a), b = attn_tensor_write(l->lora_b);
    attn_view w = attn_tensor_write(l->weight);
    attn_status status = attn_axpby(context, 0.0, &b, l->lora_scale, &b);
    if (status != ATTN_OK) {
        return status;
    }
    l->lora_scale = 1.0; /* B has it now: whoever tries again after a failure scales it once */
    if (l->transposed) {
        attn_view at = transposed(a), bt = transposed(b);
        status = attn_matmul(context, &at, &bt, NULL, true, &w);
    } else {
        status = attn_matmul(context, &b, &a, NULL, true, &w);
    }
    return status == ATTN_OK ? strip(linear, NULL) : status;
}

attn_status attn_lora_merge(attn_context *context, attn_module *module)
{
    if (!context || !module) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be NULL", context ? "module" : "context");
    }
    attn_status status = each_linear(module, merge, context);
    if (status == ATTN_OK) {
        attn_module_require_grad(module, true);
    }
    return status;
}
