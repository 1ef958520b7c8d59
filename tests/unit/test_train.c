/*
 * test_train.c: the trainer: the same bits for any number of threads and after resuming, what a cancelled or failed step leaves, checkpoints that
 * are none, texts that do not fit, validation, and models that come from files.
 *
 * repro: test_train tests/golden/tiny.gguf
 */
#define _GNU_SOURCE
#include "expect.h"
#include "tiny.h"

#include <attn/train.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { VOCAB = 11, CONTEXT = 24, TOKENS = 700, HELD_OUT = 100 };

/* A text with something to learn: a walk that mostly goes up by one. */
static const int32_t *text(void)
{
    static int32_t tokens[TOKENS];
    uint64_t state = 5;
    for (int i = 1; i < TOKENS; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = (int32_t)((tokens[i - 1] + 1 + (int)(state >> 62 == 0)) % VOCAB);
    }
    return tokens;
}

typedef struct run {
    attn_context *context;
    attn_module *gpt;
    attn_trainer *trainer;
} run;

static attn_trainer_options options_for_test(void)
{
    attn_trainer_options o = attn_trainer_options_init();
    o.batch = 3;
    o.accumulate = 2;
    o.steps = 12;
    o.warmup = 2;
    o.lr = 1e-2;
    o.validation = HELD_OUT;
    o.seed = 7;
    return o;
}

static run run_make(int threads, const attn_trainer_options *o)
{
    run r = {0};
    attn_context_options c = attn_context_options_init();
    c.threads = threads;
    expect_ok(attn_context_create(&c, &r.context));
    attn_gpt_options g = attn_gpt_options_init();
    g.vocab = VOCAB;
    g.layers = 2;
    g.dim = 16;
    g.heads = 4;
    g.heads_kv = 2;
    g.ffn = 40;
    g.context = CONTEXT;
    g.dropout = 0.1;
    g.seed = 3;
    expect_ok(attn_gpt_create(&g, &r.gpt));
    expect_ok(attn_trainer_create(r.context, o, r.gpt, text(), TOKENS, &r.trainer));
    return r;
}

static void run_free(run *r)
{
    attn_trainer_destroy(r->trainer);
    attn_module_destroy(r->gpt);
    attn_context_destroy(r->context);
}

/* A hash of all parameters' bits. */
static uint64_t bits(const run *r)
{
    uint64_t hash = 14695981039346656037u;
    for (int i = 0; i < attn_module_parameter_count(r->gpt); i++) {
        const attn_tensor *p = attn_module_parameter(r->gpt, i);
        attn_view view = attn_tensor_view(p);
        const unsigned char *bytes = view.data;
        for (int64_t k = 0; k < attn_tensor_count(p) * 4; k++) {
            hash = (hash ^ bytes[k]) * 1099511628211u;
        }
    }
    return hash;
}

static void steps(run *r, int count, double *losses)
{
    for (int i = 0; i < count; i++) {
        attn_train_result result;
        expect_ok(attn_trainer_step(r->trainer, &result));
        assert_int_equal(result.step, attn_trainer_steps(r->trainer));
        assert_int_equal(result.tokens, 3 * 2 * CONTEXT);
        losses[i] = result.loss;
    }
}

static char *temporary_file(void)
{
    char *path = strdup("/tmp/attn_test_train_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    return path;
}

/* ---- */

static void threads_do_not_change_bits(void **state)
{
    (void)state;
    double first[6], second[6];
    attn_trainer_options o = options_for_test();
    run one = run_make(1, &o), three = run_make(3, &o);
    steps(&one, 6, first);
    steps(&three, 6, second);
    assert_memory_equal(first, second, sizeof first);
    assert_true(bits(&one) == bits(&three));
    run_free(&one);
    run_free(&three);
}

static void learns_and_validates(void **state)
{
    (void)state;
    double losses[12], before, after, some;
    attn_trainer_options o = options_for_test();
    run r = run_make(2, &o);
    expect_ok(attn_trainer_evaluate(r.trainer, 0, &before));
    assert_true(fabs(before - log(VOCAB)) < 0.2); /* knows nothing yet */
    steps(&r, 12, losses);
    expect_ok(attn_trainer_evaluate(r.trainer, 0, &after));
    expect_ok(attn_trainer_evaluate(r.trainer, 2, &some));
    assert_true(losses[11] < losses[0] && after < before - 0.3 && some < before);
    float logits[VOCAB], again[VOCAB];
    expect_ok(attn_trainer_next(r.trainer, text(), 100, logits)); /* the last CONTEXT count */
    expect_ok(attn_trainer_next(r.trainer, text() + 100 - CONTEXT, CONTEXT, again));
    assert_memory_equal(logits, again, sizeof logits);
    int64_t training, validation;
    attn_trainer_tokens(r.trainer, &training, &validation);
    assert_int_equal(training, TOKENS - HELD_OUT);
    assert_int_equal(validation, HELD_OUT);
    assert_true(attn_trainer_step_flops(r.trainer) > 0);
    run_free(&r);
}

/* The mean over all held-out tokens is that of windows side by side, whatever the batch. */
static void validation_is_the_mean_over_tokens(void **state)
{
    (void)state;
    double whole, other;
    attn_trainer_options o = options_for_test();
    run r = run_make(1, &o);
    expect_ok(attn_trainer_evaluate(r.trainer, 0, &whole));
    run_free(&r);
    o.batch = 1;
    r = run_make(1, &o);
    expect_ok(attn_trainer_evaluate(r.trainer, 0, &other));
    assert_true(fabs(whole - other) < 1e-5);
    run_free(&r);
    o.validation = 0;
    r = run_make(1, &o);
    expect_error(attn_trainer_evaluate(r.trainer, 0, &other), ATTN_ERR_ARGUMENT, "held out");
    assert_true(isnan(other));
    run_free(&r);
}

static void resumes_to_the_same_bits(void **state)
{
    (void)state;
    double whole[9], parts[9];
    attn_trainer_options o = options_for_test();
    run r = run_make(2, &o);
    steps(&r, 9, whole);
    uint64_t end = bits(&r);
    run_free(&r);
    char *path = temporary_file();
    r = run_make(2, &o);
    steps(&r, 4, parts);
    attn_safetensors_pair pair = {"attn.run", "{}"}, own = {"attn.trainer.step", "9"};
    expect_error(attn_trainer_save(r.trainer, path, &own, 1), ATTN_ERR_ARGUMENT, "trainer's own");
    expect_ok(attn_trainer_save(r.trainer, path, &pair, 1));
    run_free(&r);
    r = run_make(1, &o);
    expect_ok(attn_trainer_resume(r.trainer, path));
    assert_int_equal(attn_trainer_steps(r.trainer), 4);
    steps(&r, 5, parts + 4);
    assert_memory_equal(whole, parts, sizeof whole);
    assert_true(bits(&r) == end);
    run_free(&r);
    unlink(path);
    free(path);
}

static void refuses_what_is_no_checkpoint(void **state)
{
    (void)state;
    attn_trainer_options o = options_for_test();
    run r = run_make(1, &o);
    uint64_t before = bits(&r);
    char *path = temporary_file();
    expect_error(attn_trainer_resume(r.trainer, "/nonexistent/file"), ATTN_ERR_IO, "/nonexistent");
    expect_error(attn_trainer_resume(r.trainer, path), ATTN_ERR_FORMAT, path); /* empty */
    expect_ok(attn_safetensors_save(path, NULL, 0, NULL, 0));
    expect_error(attn_trainer_resume(r.trainer, path), ATTN_ERR_FORMAT, "no checkpoint");
    /* another text */
    attn_trainer *other;
    expect_ok(attn_trainer_create(r.context, &o, r.gpt, text(), TOKENS - 1, &other));
    expect_ok(attn_trainer_save(other, path, NULL, 0));
    attn_trainer_destroy(other);
    expect_error(attn_trainer_resume(r.trainer, path), ATTN_ERR_ARGUMENT, "another text");
    /* a model with a tensor less */
    attn_safetensors_pair pairs[3] = {{"attn.trainer.step", "1"}, {"attn.trainer.seed", "7"}, {0}};
    attn_safetensors *file;
    expect_ok(attn_trainer_save(r.trainer, path, NULL, 0));
    expect_ok(attn_safetensors_open(path, &file));
    char hash[32];
    snprintf(hash, sizeof hash, "%s", attn_safetensors_metadata(file, "attn.trainer.text"));
    attn_safetensors_close(file);
    pairs[2] = (attn_safetensors_pair){"attn.trainer.text", hash};
    expect_ok(attn_safetensors_save(path, NULL, 0, pairs, 3));
    expect_error(attn_trainer_resume(r.trainer, path), ATTN_ERR_FORMAT, "embed_tokens");
    assert_true(bits(&r) == before && attn_trainer_steps(r.trainer) == 0);
    run_free(&r);
    unlink(path);
    free(path);
}

/* A file of a larger model has all that this one needs, and more; one that is cut off has not. */
static void refuses_checkpoints_that_do_not_fit(void **state)
{
    (void)state;
    attn_trainer_options o = options_for_test();
    run r = run_make(1, &o), large = {0};
    uint64_t before = bits(&r);
    attn_gpt_options g = *attn_gpt_get_options(r.gpt);
    char *path = temporary_file();
    g.layers++;
    expect_ok(attn_gpt_create(&g, &large.gpt));
    expect_ok(attn_trainer_create(r.context, &o, large.gpt, text(), TOKENS, &large.trainer));
    expect_ok(attn_trainer_save(large.trainer, path, NULL, 0));
    expect_error(attn_trainer_resume(r.trainer, path), ATTN_ERR_ARGUMENT, "layers.2.");
    expect_ok(attn_trainer_save(r.trainer, path, NULL, 0));
    expect_error(attn_trainer_resume(large.trainer, path), ATTN_ERR_FORMAT, "layers.2.");
    assert_int_equal(truncate(path, 20000), 0);
    expect_error(attn_trainer_resume(r.trainer, path), ATTN_ERR_FORMAT, path);
    assert_true(bits(&r) == before && attn_trainer_steps(r.trainer) == 0);
    run_free(&large);
    run_free(&r);
    unlink(path);
    free(path);
}

/* The seed of the run is the file's; a step that no run can have come to is harmless. */
static void resumes_with_the_seed_of_the_file(void **state)
{
    (void)state;
    double whole[4], parts[4];
    attn_trainer_options o = options_for_test();
    char *path = temporary_file();
    run r = run_make(1, &o);
    steps(&r, 2, whole);
    expect_ok(attn_trainer_save(r.trainer, path, NULL, 0));
    steps(&r, 2, whole + 2);
    run_free(&r);
    o.seed = 8;
    r = run_make(1, &o);
    expect_ok(attn_trainer_resume(r.trainer, path));
    steps(&r, 2, parts + 2);
    assert_memory_equal(whole + 2, parts + 2, 2 * sizeof *whole);
    attn_safetensors *file;
    expect_ok(attn_safetensors_open(path, &file));
    attn_safetensors_item items[128];
    size_t count = (size_t)attn_safetensors_count(file);
    assert_true(count <= 128);
    for (size_t i = 0; i < count; i++) {
        const attn_safetensor *t = attn_safetensors_at(file, (int64_t)i);
        items[i] = (attn_safetensors_item){
            .name = t->name, .dtype = t->dtype, .ndim = t->ndim, .data = t->data};
        memcpy(items[i].shape, t->shape, sizeof t->shape);
    }
    const char *hash = attn_safetensors_metadata(file, "attn.trainer.text");
    const attn_safetensors_pair pairs[3] = {{"attn.trainer.step", "4611686018427387903"},
                                            {"attn.trainer.seed", "7"},
                                            {"attn.trainer.text", hash}};
    char *far = temporary_file();
    expect_ok(attn_safetensors_save(far, items, count, pairs, 3));
    expect_ok(attn_trainer_resume(r.trainer, far));
    expect_ok(attn_trainer_step(r.trainer, NULL));
    attn_safetensors_close(file);
    run_free(&r);
    unlink(path);
    unlink(far);
    free(path);
    free(far);
}

/* ---- failures leave it alive ---- */

static bool cancel_after(void *user)
{
    int *left = user;
    return (*left)-- <= 0;
}

static void a_cancelled_step_changes_nothing(void **state)
{
    (void)state;
    double whole[3], parts[3], loss;
    attn_trainer_options o = options_for_test();
    run r = run_make(1, &o);
    steps(&r, 3, whole);
    run_free(&r);
    int left = 3; /* one step, half of the second */
    o.cancel = cancel_after;
    o.cancel_user = &left;
    r = run_make(1, &o);
    steps(&r, 1, parts);
    uint64_t before = bits(&r);
    assert_int_equal(attn_trainer_step(r.trainer, NULL), ATTN_ERR_CANCELLED);
    assert_true(bits(&r) == before && attn_trainer_steps(r.trainer) == 1);
    assert_int_equal(attn_trainer_evaluate(r.trainer, 0, &loss), ATTN_ERR_CANCELLED);
    left = 1000;
    steps(&r, 2, parts + 1);
    assert_memory_equal(whole, parts, sizeof whole);
    run_free(&r);
}

static void a_save_that_fails_leaves_the_file_and_the_run(void **state)
{
    (void)state;
    double losses[2];
    attn_trainer_options o = options_for_test();
    run r = run_make(1, &o);
    expect_error(attn_trainer_save(r.trainer, "/nonexistent/x.safetensors", NULL, 0), ATTN_ERR_IO,
                 "/nonexistent");
    if (access("/dev/full", W_OK) == 0) {
        expect_error(attn_trainer_save(r.trainer, "/dev/full", NULL, 0), ATTN_ERR_IO, "space");
    }
    steps(&r, 2, losses);
    run_free(&r);
}

static void a_loss_that_explodes_is_an_error(void **state)
{
    (void)state;
    attn_trainer_options o = options_for_test();
    o.lr = 1000;
    o.clip = 0;
    o.warmup = 0;
    o.steps = 1000;
    run r = run_make(1, &o);
    attn_status s = ATTN_OK;
    attn_tensor *p = attn_module_parameter(r.gpt, 0);
    attn_view view = attn_tensor_write(p);
    ((float *)view.data)[0] = NAN;
    for (int i = 0; i < 50 && s == ATTN_OK; i++) {
        s = attn_trainer_step(r.trainer, NULL);
    }
    expect_error(s, ATTN_ERR_ARGUMENT, "lower learning rate");
    run_free(&r);
}

static void options_are_checked(void **state)
{
    (void)state;
    attn_trainer_options good = options_for_test();
    run r = run_make(1, &good);
    attn_trainer *t;
#define REFUSED(change, part)                                                       \
    do {                                                                            \
        attn_trainer_options o = good;                                              \
        change;                                                                     \
        expect_error(attn_trainer_create(r.context, &o, r.gpt, text(), TOKENS, &t), \
                     ATTN_ERR_ARGUMENT, part);                                      \
        assert_null(t);                                                             \
    } while (0)
    REFUSED(o.batch = 0, "options.batch");
    REFUSED(o.batch = INT64_MAX, "options.batch");
    REFUSED(o.accumulate = 0, "options.accumulate");
    REFUSED(o.context = CONTEXT + 1, "options.context");
    REFUSED(o.lr = -1, "options.lr");
    REFUSED(o.lr = NAN, "options.lr");
    REFUSED(o.beta2 = 1, "options.beta2");
    REFUSED(o.validation = TOKENS - 5, "held out");
    REFUSED(o.struct_size = 1, "attn_trainer_options_init");
#undef REFUSED
    int32_t wrong[100] = {[50] = VOCAB};
    expect_error(attn_trainer_create(r.context, &good, r.gpt, wrong, 100, &t), ATTN_ERR_ARGUMENT,
                 "number 50");
    expect_error(attn_trainer_create(r.context, &good, NULL, wrong, 100, &t), ATTN_ERR_ARGUMENT,
                 "gpt");
    expect_error(attn_trainer_set_schedule(r.trainer, 0, -1), ATTN_ERR_ARGUMENT, "already done");
    expect_error(attn_trainer_set_schedule(r.trainer, -1, 9), ATTN_ERR_ARGUMENT, "warmup");
    run_free(&r);
}

/* ---- models from files ---- */

static void a_model_file_gives_the_same_logits(void **state)
{
    (void)state;
    enum { LENGTH = 40 };
    tiny t = tiny_open(2, ATTN_ACTIVATIONS_F32);
    attn_gpt_options o;
    attn_module *gpt;
    attn_tape *tape;
    attn_session *session;
    expect_ok(attn_gpt_options_from_gguf(t.file, 64, &o));
    expect_ok(attn_gpt_from_gguf(t.context, t.file, &o, &gpt));
    expect_ok(attn_tape_create(t.context, &tape));
    int64_t ids[LENGTH];
    int32_t tokens[LENGTH];
    for (int i = 0; i < LENGTH; i++) {
        ids[i] = i * 37 % o.vocab;
        tokens[i] = (int32_t)ids[i];
    }
    attn_tape_set_recording(tape, false);
    attn_tensor *logits = attn_gpt_logits(tape, gpt, ids, 1, LENGTH);
    expect_ok(attn_tape_status(tape));
    attn_session_options so = attn_session_options_init();
    so.kv = ATTN_F32;
    float *wanted = malloc(sizeof(float) * (size_t)(LENGTH * o.vocab));
    expect_ok(attn_session_create(t.context, t.model, &so, &session));
    expect_ok(attn_session_eval(session, tokens, LENGTH, true, wanted));
    attn_view view = attn_tensor_view(logits);
    double worst = 0, largest = 0;
    for (int64_t i = 0; i < LENGTH * o.vocab; i++) {
        worst = fmax(worst, fabs((double)((float *)view.data)[i] - (double)wanted[i]));
        largest = fmax(largest, fabs((double)wanted[i]));
    }
    assert_true(largest > 0.1 && worst < 1e-4 * largest);
    expect_error(attn_gpt_options_from_gguf(t.file, 1 << 20, &o), ATTN_ERR_ARGUMENT, "context");
    free(wanted);
    attn_session_destroy(session);
    attn_tape_destroy(tape);
    attn_module_destroy(gpt);
    tiny_close(&t);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        tiny_path = argv[1];
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_change_bits),
        cmocka_unit_test(learns_and_validates),
        cmocka_unit_test(validation_is_the_mean_over_tokens),
        cmocka_unit_test(resumes_to_the_same_bits),
        cmocka_unit_test(refuses_what_is_no_checkpoint),
        cmocka_unit_test(refuses_checkpoints_that_do_not_fit),
        cmocka_unit_test(resumes_with_the_seed_of_the_file),
        cmocka_unit_test(a_cancelled_step_changes_nothing),
        cmocka_unit_test(a_save_that_fails_leaves_the_file_and_the_run),
        cmocka_unit_test(a_loss_that_explodes_is_an_error),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(a_model_file_gives_the_same_logits),
    };
    return cmocka_run_group_tests_name("train", tests, NULL, NULL);
}
