/**
 * nn_check.c: see nn_check.h.
 */
#include "nn_check.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>

void nn_ok(attn_status status, const char *what)
{
    if (status != ATTN_OK) {
        fprintf(stderr, "%s: %s\n", what, attn_last_error());
    }
    assert_int_equal(status, ATTN_OK);
}

attn_context *nn_context(int threads)
{
    attn_context_options options = attn_context_options_init();
    options.threads = threads;
    attn_context *context;
    nn_ok(attn_context_create(&options, &context), "context");
    return context;
}

attn_context *context;

int nn_start(void **unused)
{
    (void)unused;
    context = nn_context(2);
    return 0;
}

int nn_stop(void **unused)
{
    (void)unused;
    attn_context_destroy(context);
    return 0;
}

attn_tensor *nn_random(attn_dtype dtype, uint64_t seed, int ndim, const int64_t *shape)
{
    attn_tensor *tensor;
    nn_ok(attn_tensor_create(dtype, ndim, shape, &tensor), "tensor");
    attn_view view = attn_tensor_write(tensor);
    nn_ok(attn_fill_normal(NULL, seed, 0, 0.0, 1.0, &view), "fill");
    return tensor;
}

void nn_shake(attn_module *module, uint64_t seed)
{
    for (int i = 0; i < attn_module_parameter_count(module); i++) {
        attn_view view = attn_tensor_write(attn_module_parameter(module, i));
        double first = view.dtype == ATTN_F64 ? *(double *)view.data : (double)*(float *)view.data;
        nn_ok(attn_fill_normal(NULL, seed, (uint64_t)i, first == 1.0 ? 1.0 : 0.0, 0.3, &view),
              "fill");
    }
}

attn_gpt_options nn_gpt2_options(void)
{
    attn_gpt_options options = attn_gpt_options_init();
    options.norm = ATTN_NORM_LAYER;
    options.mlp = ATTN_MLP_GELU_TANH;
    options.position = ATTN_POSITION_LEARNED;
    options.bias = true;
    return options;
}

attn_module *nn_gpt(attn_gpt_options options, int64_t layers)
{
    options.vocab = 50;
    options.layers = layers;
    options.dim = 32;
    options.context = 16;
    options.seed = 3;
    attn_module *gpt;
    nn_ok(attn_gpt_create(&options, &gpt), "gpt");
    assert_int_equal(attn_gpt_element_count(&options), attn_module_element_count(gpt, false));
    return gpt;
}

attn_tape *nn_tape(attn_context *of)
{
    attn_tape *tape;
    nn_ok(attn_tape_create(of, &tape), "tape");
    return tape;
}

static double loss_of(attn_tape *tape, nn_forward *forward, void *user, bool backward)
{
    attn_tape_clear(tape);
    attn_tape_set_recording(tape, backward);
    attn_tensor *out = forward(tape, user);
    attn_view view = attn_tensor_view(out);
    nn_ok(attn_tape_status(tape), "forward");
    attn_tensor *w = nn_random(ATTN_F64, 99, view.ndim, view.shape);
    attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_mul(tape, out, w));
    attn_tensor_release(w);
    double value = attn_tensor_item(loss);
    if (backward) {
        nn_ok(attn_tape_backward(tape, loss, NULL), "backward");
    }
    return value;
}

enum { SAMPLES = 5 };

/* Of a stencil of four points, whose error is of order STEP⁴. */
#define STEP 1e-4

static void check_one(attn_tape *tape, const char *what, const char *name, nn_forward *forward,
                      void *user, attn_tensor *tensor)
{
    int64_t count = attn_tensor_count(tensor);
    attn_tensor *grad = attn_tensor_grad(tensor);
    if (!grad) {
        fail_msg("%s: %s has no gradient", what, name);
    }
    const double *g = attn_tensor_view(grad).data;
    double largest = 0.0, worst = 0.0, most = 0.0;
    for (int64_t i = 0; i < count; i++) {
        most = fmax(most, fabs(g[i]));
    }
    for (int64_t s = 0; s < SAMPLES && s < count; s++) {
        int64_t i = count <= SAMPLES ? s : (s * 7919 + 13) % count;
        double *x = attn_tensor_write(tensor).data, was = x[i], f[4];
        for (int k = 0; k < 4; k++) {
            const double steps[4] = {-2.0, -1.0, 1.0, 2.0};
            x[i] = was + steps[k] * STEP;
            f[k] = loss_of(tape, forward, user, false);
        }
        x[i] = was;
        double quotient = (f[0] - 8.0 * f[1] + 8.0 * f[2] - f[3]) / (12.0 * STEP);
        largest = fmax(largest, fabs(quotient));
        worst = fmax(worst, fabs(quotient - g[i]));
    }
    if (!(worst <= 1e-7 * fmax(largest, 1e-2))) {
        fail_msg("%s: %s: gradient is %.3g away from difference quotients of up to %.3g", what,
                 name, worst, largest);
    }
    if (!(most > 0.0)) {
        fail_msg("%s: the gradient of %s is 0 everywhere", what, name);
    }
}

void nn_check_gradients(attn_context *context, const char *what, nn_forward *forward, void *user,
                        attn_module *module, int count, attn_tensor *const *inputs)
{
    attn_tape *tape;
    nn_ok(attn_tape_create(context, &tape), "tape");
    for (int i = 0; i < count; i++) {
        attn_tensor_require_grad(inputs[i], true);
        attn_tensor_clear_grad(inputs[i]);
    }
    attn_module_zero_grad(module);
    loss_of(tape, forward, user, true);
    for (int i = 0; i < attn_module_parameter_count(module); i++) {
        attn_tensor *parameter = attn_module_parameter(module, i);
        if (attn_tensor_requires_grad(parameter)) {
            check_one(tape, what, attn_module_parameter_name(module, i), forward, user, parameter);
        }
    }
    for (int i = 0; i < count; i++) {
        check_one(tape, what, "an input", forward, user, inputs[i]);
    }
    attn_tape_destroy(tape);
}
