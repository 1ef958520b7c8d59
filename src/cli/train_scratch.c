/**
 * cli/train_scratch.c: a new model on a text: its tokenizer, its shape, and the file that `attn generate` loads.
 */
#define _GNU_SOURCE
#include "train.h"
#include <attn/model_file.h>
#include <attn/safetensors.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- tokenizer ---- */

static attn_status train_tokenizer(const train_run *run, attn_tokenizer **tokenizer)
{
    const train_text *t = &run->text;
    attn_tokenizer_train_options options = attn_tokenizer_train_options_init();
    options.cancel = cli_cancel;
    if (strcmp(run->settings->tokenizer, "char") == 0) {
        options.end_text = NULL;
        options.min_count = 1; /* a character that is only in the held-out part needs a token too */
        return attn_tokenizer_train_chars(t->text, t->size, &options, tokenizer);
    }
    options.vocab = strtoll(run->settings->tokenizer + 4, NULL, 10);
    return attn_tokenizer_train_bpe(t->text, t->split, &options, tokenizer);
}

static attn_status stored_tokenizer(const char *path, attn_tokenizer **tokenizer)
{
    attn_safetensors *file = NULL;
    attn_status s = attn_safetensors_open(path, &file);
    const char *json = s ? NULL : attn_safetensors_metadata(file, "attn.tokenizer");
    if (s == ATTN_OK) {
        s = json ? attn_tokenizer_from_json(json, strlen(json), tokenizer)
                 : attn_fail(ATTN_ERR_FORMAT, "%s: holds no tokenizer", path);
    }
    attn_safetensors_close(file);
    return s;
}

static int make_tokens(train_run *run)
{
    attn_status s = run->control->resume ? stored_tokenizer(run->checkpoint, &run->tokenizer)
                                         : train_tokenizer(run, &run->tokenizer);
    s = s ? s : attn_tokenizer_to_json(run->tokenizer, &run->tokenizer_json);
    if (s != ATTN_OK) {
        return s == ATTN_ERR_CANCELLED ? CLI_INTERRUPTED : cli_fail_attn(NULL);
    }
    return train_text_encode(run->tokenizer, &run->text);
}

/* ---- model ---- */

static attn_gpt_options model_options(const train_run *run)
{
    const train_settings *s = run->settings;
    attn_gpt_options o = attn_gpt_options_init();
    o.vocab = attn_tokenizer_vocab_size(run->tokenizer);
    o.layers = s->layers;
    o.dim = s->dim;
    o.heads = s->heads;
    o.heads_kv = s->kv_heads;
    o.ffn = s->ffn;
    o.context = s->context;
    o.dropout = s->dropout;
    o.checkpoint = s->recompute;
    o.init = ATTN_INIT_NORMAL;
    o.seed = s->seed;
    return o;
}

/* The configuration that goes into the file. */
static attn_status describe(train_run *run)
{
    const attn_gpt_options *m = attn_gpt_get_options(run->gpt);
    attn_model_config c;
    memset(&c, 0, sizeof c);
    strcpy(c.architecture, "llama");
    c.layers = m->layers;
    c.dim = m->dim;
    c.heads_q = m->heads;
    c.heads_kv = m->heads_kv;
    c.head_dim = m->head_dim;
    c.ffn_dim = m->ffn;
    c.vocab = m->vocab;
    c.context = m->context;
    c.rope_theta = m->rope_theta;
    c.norm_eps = m->norm_eps;
    c.rope_dims = m->head_dim;
    c.tied_output = !m->untied;
    c.rope_pairing = ATTN_ROPE_HALVES;
    c.parameters = attn_module_element_count(run->gpt, false);
    return attn_model_config_json(&c, attn_tokenizer_bos(run->tokenizer),
                                  attn_tokenizer_eos(run->tokenizer), &run->config_json);
}

static int make_model(train_run *run)
{
    attn_gpt_options o = model_options(run);
    o.init_context = run->context;
    attn_status s = attn_gpt_create(&o, &run->gpt);
    s = s ? s : describe(run);
    return s == ATTN_OK ? CLI_OK : cli_fail_attn(NULL);
}

/* ---- the run ---- */

static int prepare(train_run *run, train_settings_input *input, train_control *control)
{
    int code = control->resume ? train_resume_settings(input, control, control->out, run)
                               : train_settings_complete(input);
    if (code == CLI_OK && input->values.base[0]) {
        code = cli_fail("%s: is a fine-tuning run; resume it with the --out it was begun with",
                        control->out);
    }
    if (code == CLI_OK && (run->context = cli_context(control->threads)) == NULL) {
        code = CLI_FAILED;
    }
    code = code ? code : train_read_text(run, control, false);
    code = code ? code : make_tokens(run);
    code = code ? code : train_check_text(run);
    return code;
}

static int plan(train_run *run)
{
    train_plan predicted;
    attn_gpt_options o = model_options(run);
    if (train_plan_make(run, &o, 0, &predicted) != ATTN_OK) {
        return cli_fail_attn(NULL);
    }
    train_plan_say(&run->log, &predicted, NULL);
    return CLI_OK;
}

static int train(train_run *run)
{
    double val = (double)NAN;
    int code = make_model(run);
    code = code ? code : train_make_trainer(run);
    if (code != CLI_OK) {
        return code;
    }
    train_say_start(run);
    code = train_loop(run);
    if (code == CLI_OK && !run->stopped) {
        code = train_evaluate_all(run, &val);
        run->stopped = cli_interrupted();
        run->last_val = run->stopped ? run->last_val : val;
    }
    if (code == CLI_OK) {
        int report = train_report(run);
        code = train_say_end(run, val);
        code = code ? code : report;
    }
    return code;
}

int train_from_scratch(train_settings_input *input, train_control *control)
{
    train_run run = {.control = control,
                     .settings = &input->values,
                     .checkpoint = control->out,
                     .last_val = (double)NAN,
                     .val_before = (double)NAN,
                     .began = cli_now()};
    train_log_open(&run.log, control->json);
    int code = prepare(&run, input, control);
    if (code == CLI_OK) {
        code = control->plan ? plan(&run) : train(&run);
    }
    train_run_free(&run);
    return code == CLI_FAILED && cli_interrupted() ? CLI_INTERRUPTED : code;
}
