/**
 * cli/train_finetune.c: a model that is there learns a text: LoRA adapters on its frozen layers, or all of its weights; the result is a model
 * file again.
 */
#define _GNU_SOURCE
#include "train.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The base's file, open, and what it is. */
typedef struct base {
    char *path;
    attn_gguf *file;
    attn_gpt_options model;
    double bytes;
} base;

attn_status train_add_adapters(const train_settings *settings, attn_module *gpt)
{
    char words[sizeof settings->lora_targets];
    const char *targets[sizeof settings->lora_targets / 2];
    attn_lora_options o = attn_lora_options_init();
    o.rank = settings->lora_rank;
    o.alpha = settings->lora_alpha;
    o.seed = settings->seed;
    memcpy(words, settings->lora_targets, sizeof words);
    char *rest = words;
    for (char *word; (word = strsep(&rest, ",")) != NULL;) {
        if (word[0]) {
            targets[o.target_count++] = word;
        }
    }
    o.targets = o.target_count > 0 ? targets : NULL;
    return attn_lora_apply(gpt, &o, NULL);
}

/* ---- the base ---- */

static int open_base(train_run *run, base *b)
{
    int code = CLI_FAILED;
    b->path = cli_model_resolve(run->settings->base, &code);
    if (b->path == NULL) {
        return code;
    }
    attn_status s = cli_model_open(b->path, NULL, &b->file);
    s = s ? s : attn_gpt_options_from_gguf(b->file, run->settings->context, &b->model);
    s = s ? s : attn_tokenizer_create(b->file, &run->tokenizer);
    if (s != ATTN_OK) {
        return cli_fail_attn(NULL);
    }
    b->bytes = (double)attn_gguf_file_bytes(b->file);
    b->model.dropout = run->settings->dropout;
    b->model.checkpoint = run->settings->recompute;
    return CLI_OK;
}

static void close_base(base *b)
{
    attn_gguf_close(b->file);
    free(b->path);
    *b = (base){0};
}

static int load(train_run *run, const base *b)
{
    attn_status s = attn_gpt_from_gguf(run->context, b->file, &b->model, &run->gpt);
    if (s == ATTN_OK && !run->settings->full) {
        s = train_add_adapters(run->settings, run->gpt);
    }
    return s == ATTN_OK ? CLI_OK : cli_fail_attn(NULL);
}

/* ---- the result ---- */

static int write_result(train_run *run, const base *b)
{
    const train_control *c = run->control;
    attn_status s;
    if (c->adapter) {
        s = attn_gpt_save_adapter(run->gpt, b->file, run->settings->lora_alpha, c->out);
    } else {
        s = attn_gpt_save_gguf(run->context, run->gpt, b->file, c->out);
    }
    if (s != ATTN_OK) {
        cli_fail_attn("the result was not written");
        cli_note("the training is kept in %s: --resume writes the result again", run->checkpoint);
        return CLI_FAILED;
    }
    unlink(run->checkpoint);
    return CLI_OK;
}

/* ---- the run ---- */

static int measure(train_run *run, const char *when, double *loss)
{
    int code = train_evaluate_all(run, loss);
    if (code == CLI_OK && !isnan(*loss)) {
        json_t *o =
            json_pack("{s:s, s:s, s:f, s:f, s:I}", "event", "perplexity", "when", when, "loss",
                      *loss, "perplexity", exp(*loss), "tokens", (json_int_t)run->text.held_out);
        train_log_event(&run->log, o, "%s training: perplexity %.3f on the %lld held-out tokens",
                        when, exp(*loss), (long long)run->text.held_out);
    }
    return code;
}

static int train(train_run *run, const base *b, const train_plan *planned)
{
    double val = (double)NAN;
    train_say_start(run);
    int code = isnan(run->val_before) ? measure(run, "before", &run->val_before) : CLI_OK;
    code = code ? code : train_loop(run);
    if (code == CLI_OK && !run->stopped) {
        code = measure(run, "after", &val);
        run->stopped = cli_interrupted();
        run->last_val = run->stopped ? run->last_val : val;
    }
    if (code == CLI_OK && !run->stopped) {
        code = write_result(run, b);
    }
    if (code == CLI_OK) {
        int64_t steps = run->trained_tokens /
                        (run->settings->batch * run->settings->accumulate * run->settings->context);
        if (planned && steps > 0) {
            train_plan real = {.bytes = (double)cli_peak_rss(),
                               .step_seconds = run->train_seconds / (double)steps,
                               .seconds = cli_now() - run->began};
            train_plan_say(&run->log, planned, &real);
        }
        int report = train_report(run);
        code = train_say_end(run, val);
        code = code ? code : report;
    }
    return code;
}

static int prepare(train_run *run, train_settings_input *input, train_control *control, base *b)
{
    int code = control->resume ? train_resume_settings(input, control, run->checkpoint, run)
                               : train_settings_complete(input);
    if (code == CLI_OK && control->adapter && input->values.full) {
        code = cli_fail("--adapter: this run trains all weights and has no adapters; leave it out");
    }
    if (code == CLI_OK && (run->context = cli_context(control->threads)) == NULL) {
        code = CLI_FAILED;
    }
    code = code ? code : open_base(run, b);
    code = code ? code : train_read_text(run, control, true);
    code = code ? code : train_text_encode(run->tokenizer, &run->text);
    code = code ? code : train_check_text(run);
    return code;
}

int train_finetune(train_settings_input *input, train_control *control)
{
    base b = {0};
    train_plan planned;
    char *checkpoint = NULL;
    if (asprintf(&checkpoint, "%s.checkpoint", control->out) < 0) {
        return cli_fail("not enough memory");
    }
    train_run run = {.control = control,
                     .settings = &input->values,
                     .checkpoint = checkpoint,
                     .last_val = (double)NAN,
                     .val_before = (double)NAN};
    train_log_open(&run.log, control->json);
    int code = prepare(&run, input, control, &b);
    if (code == CLI_OK) {
        code = train_plan_make(&run, &b.model, b.bytes, &planned) == ATTN_OK ? CLI_OK
                                                                             : cli_fail_attn(NULL);
    }
    if (code == CLI_OK) {
        train_plan_say(&run.log, &planned, NULL);
    }
    run.began = cli_now();
    if (code == CLI_OK && !control->plan) {
        code = load(&run, &b);
        code = code ? code : train_make_trainer(&run);
        code = code ? code : train(&run, &b, &planned);
    }
    close_base(&b);
    train_run_free(&run);
    free(checkpoint);
    return code == CLI_FAILED && cli_interrupted() ? CLI_INTERRUPTED : code;
}
