/*
 * test_failing_train.c: the n-th allocation fails: a trainer's steps, validation, checkpoints and resuming, and a model that comes from a file
 * and goes to one, whole or as an adapter. repro: test_failing_train tests/golden/tiny.gguf
 */
#define _GNU_SOURCE
#include "failing_alloc.h"

#include <attn/lm.h>
#include <attn/train.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define PROGRAM "test_failing_train"

enum { VOCAB = 5, TOKENS = 60 };

static const char *base_path;

/* A path of this process's own. */
static const char *file(int number)
{
    static char path[2][64];
    snprintf(path[number], sizeof path[number], "/tmp/attn-failing-train-%ld-%d", (long)getpid(),
             number);
    return path[number];
}

static attn_status use(attn_trainer *trainer, const char *path)
{
    static const int32_t start[2] = {1, 2};
    const attn_safetensors_pair pair = {"attn.run", "{}"};
    float logits[VOCAB];
    double loss;
    attn_status status = attn_trainer_step(trainer, NULL);
    if (status != ATTN_OK) { /* nothing was done */
        assert_int_equal(attn_trainer_steps(trainer), 0);
        return status;
    }
    status = attn_trainer_evaluate(trainer, 0, &loss);
    if (status == ATTN_OK) {
        status = attn_trainer_next(trainer, start, 2, logits);
    }
    if (status == ATTN_OK) {
        status = attn_trainer_save(trainer, path, &pair, 1);
    }
    if (status == ATTN_OK) {
        status = attn_trainer_resume(trainer, path);
    }
    return status;
}

static attn_status trainer(void)
{
    static int32_t tokens[TOKENS];
    attn_context_options one = attn_context_options_init();
    attn_gpt_options model = attn_gpt_options_init();
    attn_trainer_options options = attn_trainer_options_init();
    attn_context *context = NULL;
    attn_module *gpt = NULL;
    attn_trainer *made = NULL;
    one.threads = 1;
    model.vocab = VOCAB;
    model.layers = 1;
    model.dim = 8;
    model.heads = 2;
    model.context = 6;
    options.batch = 2;
    for (int i = 0; i < TOKENS; i++) {
        tokens[i] = i % VOCAB;
    }
    attn_status status = attn_context_create(&one, &context);
    if (status == ATTN_OK) {
        status = attn_gpt_create(&model, &gpt);
    }
    if (status == ATTN_OK) {
        status = attn_trainer_create(context, &options, gpt, tokens, TOKENS, &made);
        assert_true((status == ATTN_OK) == (made != NULL));
    }
    if (status == ATTN_OK) {
        status = use(made, file(0));
    }
    attn_trainer_destroy(made);
    attn_module_destroy(gpt);
    attn_context_destroy(context);
    unlink(file(0));
    return status;
}

/* Tuned: an adapter, then merged into a whole file. */
static attn_status write_both(attn_context *context, attn_module *gpt, const attn_gguf *base)
{
    attn_status status = attn_lora_apply(gpt, NULL, NULL);
    if (status == ATTN_OK) {
        status = attn_gpt_save_adapter(gpt, base, 16.0, file(0));
    }
    return status == ATTN_OK ? attn_gpt_save_gguf(context, gpt, base, file(1)) : status;
}

static attn_status base(void)
{
    attn_context_options one = attn_context_options_init();
    attn_gpt_options options;
    attn_context *context = NULL;
    attn_gguf *gguf = NULL;
    attn_module *gpt = NULL;
    one.threads = 1;
    attn_status status = attn_context_create(&one, &context);
    if (status == ATTN_OK) {
        status = attn_gguf_open(base_path, &gguf);
    }
    if (status == ATTN_OK) {
        status = attn_gpt_options_from_gguf(gguf, 0, &options);
    }
    if (status == ATTN_OK) {
        status = attn_gpt_from_gguf(context, gguf, &options, &gpt);
        assert_true((status == ATTN_OK) == (gpt != NULL));
    }
    if (status == ATTN_OK) {
        status = write_both(context, gpt, gguf);
    }
    attn_module_destroy(gpt);
    attn_gguf_close(gguf);
    attn_context_destroy(context);
    unlink(file(0));
    unlink(file(1));
    return status;
}

static void trainer_survives(void **state)
{
    (void)state;
    fail_every_allocation(PROGRAM, "trainer", trainer);
}

static void base_survives(void **state)
{
    (void)state;
    fail_every_allocation(PROGRAM, "base", base);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trainer_survives),
        cmocka_unit_test(base_survives),
    };
    if (argc != 2) {
        fprintf(stderr, "usage: %s MODEL.gguf\n", argv[0]);
        return 2;
    }
    base_path = argv[1];
    return cmocka_run_group_tests_name("failing training", tests, NULL, NULL);
}
