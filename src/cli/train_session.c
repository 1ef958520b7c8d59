/**
 * cli/train_session.c: what both kinds of run do before the first step and after the last one.
 */
#define _GNU_SOURCE
#include "train.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool train_add_file(train_control *control, const char *name)
{
    char **grown = realloc(control->data, (control->data_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return false;
    }
    control->data = grown;
    grown[control->data_count] = strdup(name);
    return grown[control->data_count] && ++control->data_count;
}

void train_free_files(train_control *control)
{
    for (size_t i = 0; i < control->data_count; i++) {
        free(control->data[i]);
    }
    free(control->data);
    control->data = NULL;
    control->data_count = 0;
}

/* Files named in a checkpoint, where the command line names none. */
static int take_files(train_control *control, const json_t *stored)
{
    const json_t *files = json_object_get(stored, "data");
    bool none = control->data_count == 0;
    for (size_t i = 0; none && i < json_array_size(files); i++) {
        const char *name = json_string_value(json_array_get(files, i));
        if (name && !train_add_file(control, name)) {
            return cli_fail("not enough memory");
        }
    }
    return CLI_OK;
}

int train_resume_settings(train_settings_input *input, train_control *control,
                          const char *checkpoint, train_run *run)
{
    json_t *stored = train_load_run(checkpoint);
    if (stored == NULL) {
        return CLI_FAILED;
    }
    int code = train_settings_resume(input, json_object_get(stored, "settings"), checkpoint);
    code = code ? code : take_files(control, stored);
    if (code == CLI_OK) {
        control->fit_steps = false;
        run->earlier_seconds = json_number_value(json_object_get(stored, "seconds"));
        const json_t *before = json_object_get(stored, "val_before");
        run->val_before = json_is_number(before) ? json_number_value(before) : (double)NAN;
        train_log_take_history(&run->log, json_object_get(stored, "history"));
    }
    json_decref(stored);
    return code;
}

static const char novels[] = "novels"; /* the text that is known by name */

/* Asks on the terminal; anything but y or yes is no. */
static bool ask(void)
{
    char line[16] = "";
    fprintf(stderr, "The text to train on, %s, is not here yet. Fetch it now (%.0f MB, %s)? [y/N] ",
            novels, (double)cli_novels.bytes / 1e6, cli_novels.licence);
    fflush(stderr);
    return fgets(line, sizeof line, stdin) &&
           (strcasecmp(line, "y\n") == 0 || strcasecmp(line, "yes\n") == 0);
}

/* The novels' file, fetched where a person wants that; NULL with *code set and the sentence said. */
static char *novels_path(int *code)
{
    char *path = cli_novels_path();
    *code = path ? CLI_OK : CLI_FAILED;
    if (path && access(path, F_OK) != 0) {
        if (isatty(STDIN_FILENO) && isatty(STDERR_FILENO) && ask()) {
            *code = cli_novels_fetch(true);
        } else {
            *code =
                cli_interrupted()
                    ? CLI_INTERRUPTED
                    : cli_fail("no text: give --data FILE, or run `attn fetch %s' (%.0f MB, %s)",
                               novels, (double)cli_novels.bytes / 1e6, cli_novels.licence);
        }
    }
    if (*code != CLI_OK) {
        free(path);
        return NULL;
    }
    return path;
}

int train_read_text(train_run *run, train_control *control, bool chapter)
{
    if (control->data_count == 0 && !train_add_file(control, novels)) {
        return cli_fail("not enough memory");
    }
    int code = CLI_OK;
    char **paths = calloc(control->data_count, sizeof *paths);
    if (paths == NULL) {
        return cli_fail("not enough memory");
    }
    for (size_t i = 0; i < control->data_count && code == CLI_OK; i++) {
        const char *name = control->data[i];
        bool known = strcmp(name, novels) == 0 && access(name, F_OK) != 0;
        paths[i] = known ? novels_path(&code) : strdup(name);
        code = paths[i] || code ? code : cli_fail("not enough memory");
    }
    if (code == CLI_OK) {
        code =
            train_text_read((const char *const *)paths, control->data_count, chapter, &run->text);
    }
    for (size_t i = 0; i < control->data_count; i++) {
        free(paths[i]);
    }
    free(paths);
    return code;
}

int train_check_text(const train_run *run)
{
    const train_text *t = &run->text;
    long long window = run->settings->context + 1;
    if (t->count - t->held_out < window) {
        return cli_fail("--data: the text gives %lld tokens to train on, besides %lld held out, "
                        "and a window takes %lld; give more text or a shorter --context",
                        (long long)(t->count - t->held_out), (long long)t->held_out, window);
    }
    return train_check_prompt(run);
}

int train_make_trainer(train_run *run)
{
    const train_settings *s = run->settings;
    attn_trainer_options o = attn_trainer_options_init();
    o.context = s->context;
    o.batch = s->batch;
    o.accumulate = s->accumulate;
    o.steps = s->steps;
    o.lr = s->lr;
    o.warmup = s->warmup;
    o.weight_decay = s->weight_decay;
    o.clip = s->clip;
    o.seed = s->seed;
    o.validation = run->text.held_out;
    o.cancel = cli_cancel;
    attn_status status = attn_trainer_create(run->context, &o, run->gpt, run->text.tokens,
                                             run->text.count, &run->trainer);
    if (status == ATTN_OK && run->control->resume) {
        status = attn_trainer_resume(run->trainer, run->checkpoint);
    }
    return status == ATTN_OK ? CLI_OK : cli_fail_attn(NULL);
}

void train_say_start(train_run *run)
{
    char bytes[32];
    int64_t all = attn_module_element_count(run->gpt, false);
    int64_t trained = attn_module_element_count(run->gpt, true);
    int64_t step = attn_trainer_steps(run->trainer);
    json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:i, s:s, s:o}", "event", "start",
                          "parameters", (json_int_t)all, "trained_parameters", (json_int_t)trained,
                          "tokens", (json_int_t)(run->text.count - run->text.held_out), "step",
                          (json_int_t)step, "threads", attn_context_threads(run->context), "file",
                          run->control->out, "settings", train_settings_json(run->settings));
    json_object_set_new(o, "held_out_tokens", json_integer(run->text.held_out));
    train_log_event(&run->log, o,
                    "%lld parameters, %lld of them trained; %lld tokens of %s, %lld held out; "
                    "%d threads",
                    (long long)all, (long long)trained,
                    (long long)(run->text.count - run->text.held_out),
                    cli_bytes((double)run->text.size, bytes, sizeof bytes),
                    (long long)run->text.held_out, attn_context_threads(run->context));
    if (step > 0) {
        train_log_event(&run->log,
                        json_pack("{s:s, s:I}", "event", "resume", "step", (json_int_t)step),
                        "going on after step %lld", (long long)step);
    }
}

double train_nats_per_char(const train_run *run, double loss)
{
    double chars = (double)run->text.held_out_chars;
    return chars > 0 ? loss * (double)(run->text.held_out - 1) / chars : (double)NAN;
}

int train_say_end(train_run *run, double val)
{
    int64_t step = attn_trainer_steps(run->trainer);
    double seconds = cli_now() - run->began;
    double rate =
        run->train_seconds > 0 ? (double)run->trained_tokens / run->train_seconds : (double)NAN;
    const char *reason = !run->stopped ? "done" : cli_interrupted() ? "interrupted" : "time";
    json_t *o =
        json_pack("{s:s, s:I, s:s, s:s}", "event", "end", "step", (json_int_t)step, "reason",
                  reason, "file", run->stopped ? run->checkpoint : run->control->out);
    bool nothing = run->stopped && access(run->checkpoint, F_OK) != 0;
    if (nothing) {
        json_object_set_new(o, "file", json_null());
    }
    json_object_set_new(o, "val_loss", cli_json_number(val));
    json_object_set_new(o, "val_nats_per_char", cli_json_number(train_nats_per_char(run, val)));
    if (run->settings->base[0]) {
        json_object_set_new(o, "perplexity_before", cli_json_number(exp(run->val_before)));
        json_object_set_new(o, "perplexity", cli_json_number(exp(val)));
    }
    json_object_set_new(o, "seconds", cli_json_number(seconds));
    json_object_set_new(o, "tokens_per_s", cli_json_number(rate));
    json_object_set_new(o, "peak_rss_bytes", json_integer((json_int_t)cli_peak_rss()));
    if (nothing) {
        train_log_event(&run->log, o, "%s before the first step: nothing is saved",
                        cli_interrupted() ? "stopped" : "the time is up");
        return cli_interrupted() ? CLI_INTERRUPTED : CLI_OK;
    }
    if (run->stopped) {
        train_log_event(&run->log, o,
                        "%s after step %lld of %lld: `attn train --resume --out %s' "
                        "goes on from %s",
                        cli_interrupted() ? "stopped" : "the time is up", (long long)step,
                        (long long)run->settings->steps, run->control->out, run->checkpoint);
        return cli_interrupted() ? CLI_INTERRUPTED : CLI_OK;
    }
    char memory[32];
    train_log_event(&run->log, o,
                    "%lld steps in %.0f s; validation loss %.4f nats/token, %.4f nats/character; "
                    "%.0f tokens/s; peak memory %s; %s",
                    (long long)step, seconds, val, train_nats_per_char(run, val), rate,
                    cli_bytes((double)cli_peak_rss(), memory, sizeof memory), run->control->out);
    return CLI_OK;
}

int train_report(const train_run *run)
{
    const char *path = run->control->report;
    return path && train_write_report(run, path) != ATTN_OK ? cli_fail_attn(NULL) : CLI_OK;
}

void train_run_free(train_run *run)
{
    attn_trainer_destroy(run->trainer);
    attn_module_destroy(run->gpt);
    attn_tokenizer_destroy(run->tokenizer);
    attn_context_destroy(run->context);
    train_text_free(&run->text);
    train_log_free(&run->log);
    free(run->config_json);
    free(run->tokenizer_json);
}
