/**
 * attn train: a model learns from a text: a new one, or one that is fine-tuned.
 */
#define _GNU_SOURCE
#include "html.h"
#include "train.h"
#include "write_file.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    KEY_DATA = 0x5000,
    KEY_OUT,
    KEY_RESUME,
    KEY_THREADS,
    KEY_SAVE_EVERY,
    KEY_EVAL_EVERY,
    KEY_SAMPLE_EVERY,
    KEY_SAMPLE_TOKENS,
    KEY_LOG_EVERY,
    KEY_PROMPT,
    KEY_MAX_MINUTES,
    KEY_REPORT,
    KEY_JSON,
    KEY_PLAN,
    KEY_ADAPTER
};

typedef struct request {
    train_settings_input settings;
    train_control control;
} request;

/* "60s": seconds; "500": steps. */
static error_t parse_save_every(struct argp_state *state, const char *text, train_control *c)
{
    size_t size = strlen(text);
    char number[32];
    if (size < 2 || text[size - 1] != 's' || size >= sizeof number) {
        return cli_int(state, "--save-every", text, 1, INT64_MAX, &c->save_steps);
    }
    memcpy(number, text, size - 1);
    number[size - 1] = '\0';
    c->save_steps = 0;
    return cli_double(state, "--save-every", number, 0.01, 1e9, &c->save_seconds);
}

static error_t add_file(struct argp_state *state, request *r, const char *name)
{
    if (name[0] == '\0') {
        return cli_usage_error(state, "--data: the name of a file is empty");
    }
    return train_add_file(&r->control, name) ? 0 : ENOMEM;
}

static error_t parse_end(struct argp_state *state, const request *r)
{
    const train_control *c = &r->control;
    if (c->adapter && r->settings.values.full) {
        return cli_usage_error(state, "--adapter is for LoRA, and --full has none; leave one of "
                                      "them out");
    }
    if (c->adapter && r->settings.values.base[0] == '\0' && !c->resume) {
        return cli_usage_error(state, "--adapter goes with --finetune");
    }
    if (c->plan && c->resume) {
        return cli_usage_error(state, "--plan is for a run that has not begun; leave out --resume");
    }
    return 0;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    request *r = state->input;
    train_control *c = &r->control;
    const int64_t most = INT64_MAX;
    switch (key) {
    case ARGP_KEY_INIT: state->child_inputs[0] = &r->settings; return 0;
    case KEY_DATA: return add_file(state, r, text);
    case KEY_OUT: c->out = text; return 0;
    case KEY_RESUME: c->resume = true; return 0;
    case KEY_THREADS: return cli_int(state, "--threads", text, 1, 1024, &c->threads);
    case KEY_SAVE_EVERY: return parse_save_every(state, text, c);
    case KEY_EVAL_EVERY: return cli_int(state, "--eval-every", text, 0, most, &c->eval_every);
    case KEY_SAMPLE_EVERY: return cli_int(state, "--sample-every", text, 0, most, &c->sample_every);
    case KEY_SAMPLE_TOKENS:
        return cli_int(state, "--sample-tokens", text, 1, 1 << 20, &c->sample_tokens);
    case KEY_LOG_EVERY: return cli_int(state, "--log-every", text, 1, most, &c->log_every);
    case KEY_PROMPT: c->prompt = text; return 0;
    case KEY_MAX_MINUTES:
        return cli_double(state, "--max-minutes", text, 0.001, 1e7, &c->max_minutes);
    case KEY_REPORT: c->report = text; return 0;
    case KEY_JSON: c->json = true; return 0;
    case KEY_PLAN: c->plan = true; return 0;
    case KEY_ADAPTER: c->adapter = true; return 0;
    case ARGP_KEY_ARG:
        return cli_usage_error(state, "'%s' is no option; a text is given as --data '%s'", text,
                               text);
    case ARGP_KEY_END: return parse_end(state, r);
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* --out as a file: in a folder it has a name of its own. malloc'd. */
static char *output_path(const char *out, bool finetune, bool adapter)
{
    const char *name = finetune && !adapter ? "model.gguf" : "model.safetensors";
    struct stat info;
    char *path = NULL;
    if (out == NULL) {
        return strdup(name);
    }
    size_t size = strlen(out);
    bool folder = (stat(out, &info) == 0 && S_ISDIR(info.st_mode)) || out[size - 1] == '/';
    if (asprintf(&path, "%s%s%s", out, folder && out[size - 1] != '/' ? "/" : "",
                 folder ? name : "") < 0) {
        path = NULL;
    }
    return path;
}

/* What would fail at the end fails now, before hours of training. */
static int check_output(const train_control *c)
{
    struct stat info;
    if (!c->plan && write_file_possible(c->out) != ATTN_OK) {
        return cli_fail_attn("--out");
    }
    if (!c->plan && c->report && html_possible(c->report, "--json") != ATTN_OK) {
        return cli_fail_attn("--report");
    }
    if (!c->resume && !c->plan && stat(c->out, &info) == 0 && S_ISREG(info.st_mode)) {
        return cli_fail("%s is there already: go on with --resume, or give another --out", c->out);
    }
    return CLI_OK;
}

static int run(request *r)
{
    train_control *c = &r->control;
    const char *given = c->out;
    bool finetune = r->settings.values.base[0] != '\0';
    char *out = given && given[0] ? output_path(given, finetune, c->adapter)
                                  : output_path(NULL, finetune, c->adapter);
    if (out == NULL) {
        return cli_fail("not enough memory");
    }
    c->out = out;
    int code = check_output(c);
    if (code == CLI_OK) {
        /* A fine-tuning run keeps its state beside its result. */
        char *state = NULL;
        if (asprintf(&state, "%s.checkpoint", out) < 0) {
            state = NULL;
        }
        finetune = finetune || (c->resume && state && access(state, F_OK) == 0);
        free(state);
        c->eval_every = c->eval_every >= 0 ? c->eval_every : finetune ? 25 : 250;
        c->sample_every = c->sample_every >= 0 ? c->sample_every : finetune ? 0 : 500;
        c->eval_windows = finetune ? 16 : 64;
        c->log_every = c->log_every > 0 ? c->log_every : finetune ? 5 : 25;
        c->fit_steps = c->max_minutes > 0 && !train_settings_given(&r->settings, "steps");
        c->fit_warmup = !train_settings_given(&r->settings, "warmup");
        cli_interrupt_catch();
        code = finetune ? train_finetune(&r->settings, c) : train_from_scratch(&r->settings, c);
    }
    free(out);
    return code;
}

static const struct argp_option option_list[] = {
    {"data", KEY_DATA, "FILE", 0, "text to learn from; may be repeated (default: the novels)", 10},
    {"out", KEY_OUT, "FILE", 0, "file or folder of the result (default model.safetensors)", 10},
    {"resume", KEY_RESUME, NULL, 0, "go on with the run of --out", 10},
    {"max-minutes", KEY_MAX_MINUTES, "X", 0,
     "stop and save after so long; without --steps the learning rate falls by then", 10},
    {"plan", KEY_PLAN, NULL, 0, "only predict memory and time", 10},
    {"threads", KEY_THREADS, "N", 0, "default: the processors this process may use", 10},
    {"save-every", KEY_SAVE_EVERY, "Ns|N", 0, "checkpoint every N seconds or steps (default 60s)",
     50},
    {"eval-every", KEY_EVAL_EVERY, "N", 0,
     "validation every N steps, 0: at the end (default 250; fine-tuning 25)", 50},
    {"log-every", KEY_LOG_EVERY, "N", 0, "a line every N steps (default 25; fine-tuning 5)", 50},
    {"sample-every", KEY_SAMPLE_EVERY, "N", 0,
     "show a text it writes every N steps, 0: never (default 500; fine-tuning 0)", 50},
    {"sample-tokens", KEY_SAMPLE_TOKENS, "N", 0, "how long (default 200)", 50},
    {"prompt", KEY_PROMPT, "TEXT", 0, "how samples begin (default: with a new line)", 50},
    {"report", KEY_REPORT, "FILE", 0, "a page with the loss curves at the end", 50},
    {"json", KEY_JSON, NULL, 0, "a JSON object a line", 50},
    {"adapter", KEY_ADAPTER, NULL, 0, "write only the adapters, which name their base", 40},
    {0},
};

int cmd_train(int argc, char **argv)
{
    static const struct argp_child children[] = {{&train_settings_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .children = children,
        .doc =
            "Trains a small language model on a text, or fine-tunes one. The text's last tenth is "
            "held out for validation."
            "\vThe file of --out is a checkpoint all the while and a model at the end: `attn "
            "generate --model FILE --temperature 0.8'. Ctrl-C saves and leaves; --resume goes on "
            "with the same "
            "settings, to the bits of a run that was never interrupted. A loss is in nats a token. "
            "The ceiling is what the processor's multiply-add units can do, measured beside the "
            "run. Fine-tuning writes a merged BF16 GGUF, or with --adapter the adapters.",
    };
    request r;
    memset(&r, 0, sizeof r);
    r.control.save_seconds = 60;
    r.control.eval_every = r.control.sample_every = -1;
    r.control.sample_tokens = 200;
    int code = cli_parse(&argp, argc, argv, &r);
    if (code < 0) {
        code = run(&r);
    }
    train_free_files(&r.control);
    return code;
}
