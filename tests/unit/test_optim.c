/**
 * test_optim.c: optimizers against steps worked out by hand, schedules, state that goes out and comes back.
 */
#include "nn_check.h"

#include <attn/optim.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

static attn_tape *tape;

static void near(double got, double wanted, double tolerance, const char *what)
{
    if (!(fabs(got - wanted) <= tolerance * fmax(1.0, fabs(wanted)))) {
        fail_msg("%s: %.17g, wanted %.17g", what, got, wanted);
    }
}

static attn_tensor *number(attn_dtype dtype, double value)
{
    attn_tensor *p = nn_random(dtype, 1, 1, (int64_t[]){1});
    attn_view view = attn_tensor_write(p);
    nn_ok(attn_fill_uniform(NULL, 0, 0, value, value, &view), "fill");
    attn_tensor_require_grad(p, true);
    return p;
}

/* Adds `gradient` to p's gradient: d(gradient·p)/dp. */
static void give_gradient(attn_tensor *p, double gradient)
{
    attn_tape_clear(tape);
    attn_tensor *loss = attn_tensor_sum_all(tape, attn_tensor_scale(tape, p, gradient));
    nn_ok(attn_tape_backward(tape, loss, NULL), "backward");
}

static attn_optimizer *optimizer_of(attn_optimizer_options options)
{
    attn_optimizer *optimizer;
    nn_ok(attn_optimizer_create(context, &options, &optimizer), "optimizer");
    return optimizer;
}

static attn_step_options step_of(double lr)
{
    attn_step_options step = attn_step_options_init();
    step.lr = lr;
    return step;
}

/* Three steps of AdamW on one number, the formula written out. */
static void test_adamw(void **unused)
{
    (void)unused;
    attn_optimizer *optimizer = optimizer_of(attn_optimizer_options_init());
    attn_tensor *p = number(ATTN_F64, 2.0);
    nn_ok(attn_optimizer_add(optimizer, "p", p, 2.0, 0.3), "add");
    const double grads[3] = {0.5, -1.5, 0.25}, lr = 0.02; /* 0.01 times lr_scale 2 */
    double x = 2.0, m = 0.0, v = 0.0;
    for (int t = 1; t <= 3; t++) {
        attn_optimizer_zero_grad(optimizer);
        give_gradient(p, grads[t - 1]);
        attn_step_options step = step_of(0.01);
        double norm;
        nn_ok(attn_optimizer_step(optimizer, &step, &norm), "step");
        near(norm, fabs(grads[t - 1]), 1e-15, "norm");
        m = 0.9 * m + 0.1 * grads[t - 1];
        v = 0.95 * v + 0.05 * grads[t - 1] * grads[t - 1];
        double mh = m / (1 - pow(0.9, t)), vh = v / (1 - pow(0.95, t));
        x -= lr * (mh / (sqrt(vh) + 1e-8) + 0.3 * x);
        near(attn_tensor_item(p), x, 1e-13, "p");
    }
    assert_int_equal(attn_optimizer_steps(optimizer), 3);
    near(*(double *)attn_optimizer_state(optimizer, 0).data, m, 1e-14, "m");
    near(*(double *)attn_optimizer_state(optimizer, 1).data, v, 1e-14, "v");
    attn_optimizer_destroy(optimizer);
    attn_tensor_release(p);
}

/* (x − 3)² under SGD with momentum: a linear recurrence, iterated beside it; without decay it ends at 3. */
static void test_sgd(void **unused)
{
    (void)unused;
    for (int variant = 0; variant < 4; variant++) {
        attn_optimizer_options options = attn_optimizer_options_init();
        options.kind = ATTN_OPTIMIZER_SGD;
        options.momentum = variant & 1 ? 0.8 : 0.0;
        double decay = variant & 2 ? 0.5 : 0.0, x = -1.0, m = 0.0;
        attn_optimizer *optimizer = optimizer_of(options);
        attn_tensor *p = number(ATTN_F32, x);
        nn_ok(attn_optimizer_add(optimizer, "p", p, 1.0, decay), "add");
        assert_int_equal(attn_optimizer_state_count(optimizer), variant & 1);
        for (int t = 0; t < 100; t++) {
            attn_optimizer_zero_grad(optimizer);
            give_gradient(p, 2.0 * (attn_tensor_item(p) - 3.0));
            attn_step_options step = step_of(0.1);
            nn_ok(attn_optimizer_step(optimizer, &step, NULL), "step");
            m = options.momentum * m + 2.0 * (x - 3.0) + decay * x;
            x -= 0.1 * m;
            near(attn_tensor_item(p), x, 1e-4, "p");
        }
        near(attn_tensor_item(p), 6.0 / (2.0 + decay), 1e-3, "the minimum");
        attn_optimizer_destroy(optimizer);
        attn_tensor_release(p);
    }
}

/* Gradients of n backward passes, scaled by 1/n, clipped by the norm over all parameters. */
static void test_accumulate_and_clip(void **unused)
{
    (void)unused;
    attn_optimizer_options options = attn_optimizer_options_init();
    options.kind = ATTN_OPTIMIZER_SGD;
    attn_optimizer *optimizer = optimizer_of(options);
    attn_tensor *a = number(ATTN_F64, 1.0), *b = number(ATTN_F64, 1.0), *idle = number(ATTN_F64, 5);
    nn_ok(attn_optimizer_add(optimizer, "a", a, 1.0, 0.0), "add");
    nn_ok(attn_optimizer_add(optimizer, "b", b, 1.0, 0.0), "add");
    nn_ok(attn_optimizer_add(optimizer, "idle", idle, 1.0, 0.9), "add");
    give_gradient(a, 4.0);
    give_gradient(a, 8.0);
    give_gradient(b, 16.0);
    attn_step_options step = step_of(1.0);
    step.grad_scale = 0.5;
    double norm;
    nn_ok(attn_optimizer_step(optimizer, &step, &norm), "step");
    near(norm, 10.0, 1e-15, "norm");
    near(attn_tensor_item(a), 1.0 - 6.0, 1e-15, "a");
    near(attn_tensor_item(b), 1.0 - 8.0, 1e-15, "b");
    step.clip = 1.0;
    nn_ok(attn_optimizer_step(optimizer, &step, &norm), "step");
    near(norm, 10.0, 1e-15, "norm before clipping");
    near(attn_tensor_item(a), -5.0 - 0.6, 1e-15, "a");
    near(attn_tensor_item(b), -7.0 - 0.8, 1e-15, "b");
    assert_true(attn_tensor_item(idle) == 5.0); /* no gradient, no step, no decay */
    step.clip = 100.0;
    attn_optimizer_zero_grad(optimizer);
    give_gradient(a, 1.0);
    nn_ok(attn_optimizer_step(optimizer, &step, &norm), "step");
    near(attn_tensor_item(a), -5.6 - 0.5, 1e-15, "a, below the limit");
    give_gradient(a, INFINITY);
    int64_t steps = attn_optimizer_steps(optimizer);
    assert_int_equal(attn_optimizer_step(optimizer, &step, &norm), ATTN_ERR_ARGUMENT);
    assert_true(isinf(norm));
    near(attn_tensor_item(a), -6.1, 1e-15, "a, left alone");
    assert_int_equal(attn_optimizer_steps(optimizer), steps);
    attn_optimizer_destroy(optimizer);
    attn_tensor_release(a);
    attn_tensor_release(b);
    attn_tensor_release(idle);
}

/* Matrices decay; norms and biases do not; frozen parameters are not there. */
static void test_groups(void **unused)
{
    (void)unused;
    attn_gpt_options gpt_options = attn_gpt_options_init();
    gpt_options.vocab = 20;
    gpt_options.layers = 1;
    gpt_options.dim = 16;
    gpt_options.heads = 2;
    attn_module *gpt;
    nn_ok(attn_gpt_create(&gpt_options, &gpt), "gpt");
    attn_tensor_require_grad(attn_module_find_parameter(gpt, "model.embed_tokens.weight"), false);
    attn_optimizer_options options = attn_optimizer_options_init();
    options.kind = ATTN_OPTIMIZER_SGD;
    options.weight_decay = 0.5;
    attn_optimizer *optimizer = optimizer_of(options);
    nn_ok(attn_optimizer_add_module(optimizer, gpt), "add");
    attn_tape_clear(tape);
    attn_tensor *sum = NULL;
    for (int i = 0; i < attn_module_parameter_count(gpt); i++) { /* gradients of 0 everywhere */
        attn_tensor *part =
            attn_tensor_scale(tape, attn_tensor_sum_all(tape, attn_module_parameter(gpt, i)), 0.0);
        sum = sum ? attn_tensor_add(tape, sum, part) : part;
    }
    nn_ok(attn_tape_backward(tape, sum, NULL), "backward");
    attn_tensor *norm = attn_module_find_parameter(gpt, "model.norm.weight");
    attn_tensor *q = attn_module_find_parameter(gpt, "model.layers.0.self_attn.q_proj.weight");
    float q0 = *(float *)attn_tensor_view(q).data;
    attn_step_options step = step_of(0.1);
    nn_ok(attn_optimizer_step(optimizer, &step, NULL), "step");
    assert_true(*(float *)attn_tensor_view(norm).data == 1.0f);
    near(*(float *)attn_tensor_view(q).data, 0.95f * q0, 1e-7, "q");
    assert_int_equal(attn_optimizer_add(optimizer, "again", q, 1.0, 0.0), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_optimizer_add_module(optimizer, gpt), ATTN_ERR_ARGUMENT);
    attn_optimizer_destroy(optimizer);
    attn_module_destroy(gpt);
}

/* Two steps, state out, two more; from the state in a fresh optimizer the same bits. */
static void test_state(void **unused)
{
    (void)unused;
    attn_optimizer *first = optimizer_of(attn_optimizer_options_init());
    attn_tensor *p = nn_random(ATTN_F32, 5, 2, (int64_t[]){3, 4});
    attn_tensor_require_grad(p, true);
    nn_ok(attn_optimizer_add(first, "w", p, 1.0, 0.1), "add");
    attn_step_options step = step_of(0.01);
    for (int t = 0; t < 2; t++) {
        give_gradient(p, 1.0 + t);
        nn_ok(attn_optimizer_step(first, &step, NULL), "step");
    }
    attn_view now = attn_tensor_view(p);
    attn_tensor *copy;
    nn_ok(attn_tensor_from(&now, &copy), "copy");
    attn_tensor_require_grad(copy, true);
    attn_optimizer *second = optimizer_of(attn_optimizer_options_init());
    nn_ok(attn_optimizer_add(second, "w", copy, 1.0, 0.1), "add");
    assert_int_equal(attn_optimizer_state_count(first), 2);
    assert_int_equal(attn_optimizer_state_bytes(first), 2 * 12 * sizeof(float));
    assert_string_equal(attn_optimizer_state_name(first, 0), "exp_avg.w");
    assert_string_equal(attn_optimizer_state_name(first, 1), "exp_avg_sq.w");
    assert_null(attn_optimizer_state_name(first, 2));
    for (int i = 0; i < 2; i++) {
        attn_view state = attn_optimizer_state(first, i);
        nn_ok(attn_optimizer_set_state(second, attn_optimizer_state_name(first, i), &state), "set");
    }
    nn_ok(attn_optimizer_set_steps(second, attn_optimizer_steps(first)), "steps");
    attn_optimizer_zero_grad(first);
    for (int t = 0; t < 2; t++) {
        give_gradient(p, 0.5);
        give_gradient(copy, 0.5);
        nn_ok(attn_optimizer_step(first, &step, NULL), "step");
        nn_ok(attn_optimizer_step(second, &step, NULL), "step");
    }
    assert_memory_equal(attn_tensor_view(p).data, attn_tensor_view(copy).data, 12 * sizeof(float));
    assert_int_equal(attn_optimizer_set_state(second, "exp_avg.v", &now), ATTN_ERR_ARGUMENT);
    now.shape[0] = 2;
    assert_int_equal(attn_optimizer_set_state(second, "exp_avg.w", &now), ATTN_ERR_SHAPE);
    attn_optimizer_destroy(first);
    attn_optimizer_destroy(second);
    attn_tensor_release(p);
    attn_tensor_release(copy);
}

static void test_schedule(void **unused)
{
    (void)unused;
    near(attn_lr_cosine(0, 10, 110, 2.0, 0.2), 0.2, 1e-15, "first");
    near(attn_lr_cosine(4, 10, 110, 2.0, 0.2), 1.0, 1e-15, "half of the warm-up");
    near(attn_lr_cosine(9, 10, 110, 2.0, 0.2), 2.0, 1e-15, "peak");
    near(attn_lr_cosine(59, 10, 110, 2.0, 0.2), 1.1, 1e-14, "half of the way down");
    near(attn_lr_cosine(109, 10, 110, 2.0, 0.2), 0.2, 1e-15, "last");
    near(attn_lr_cosine(1000, 10, 110, 2.0, 0.2), 0.2, 1e-15, "beyond");
    near(attn_lr_cosine(0, 0, 1, 2.0, 0.2), 0.2, 1e-15, "one step");
    for (int64_t s = 10; s < 110; s++) {
        assert_true(attn_lr_cosine(s, 10, 110, 2.0, 0.2) <
                    attn_lr_cosine(s - 1, 10, 110, 2.0, 0.2));
    }
}

static void test_errors(void **unused)
{
    (void)unused;
    attn_optimizer *optimizer;
    attn_optimizer_options options = attn_optimizer_options_init();
    options.beta1 = 1.0;
    assert_int_equal(attn_optimizer_create(context, &options, &optimizer), ATTN_ERR_ARGUMENT);
    assert_null(optimizer);
    assert_int_equal(attn_optimizer_create(NULL, NULL, &optimizer), ATTN_ERR_ARGUMENT);
    optimizer = optimizer_of(attn_optimizer_options_init());
    attn_step_options step = step_of(-1.0);
    assert_int_equal(attn_optimizer_step(optimizer, &step, NULL), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_optimizer_set_steps(optimizer, -1), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_optimizer_add(optimizer, "p", NULL, 1.0, 0.0), ATTN_ERR_ARGUMENT);
    attn_optimizer_destroy(optimizer);
    attn_optimizer_destroy(NULL);
}

static int setup(void **unused)
{
    (void)unused;
    nn_start(unused);
    nn_ok(attn_tape_create(context, &tape), "tape");
    return 0;
}

static int teardown(void **unused)
{
    (void)unused;
    attn_tape_destroy(tape);
    attn_context_destroy(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_accumulate_and_clip),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_schedule),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests_name("optimizers", tests, setup, teardown);
}
