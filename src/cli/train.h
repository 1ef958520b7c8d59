/**
 * train.h: what the files of `attn train` share: a run's settings, its text, its log, its checkpoints and its report.
 */
#ifndef ATTN_CLI_TRAIN_H
#define ATTN_CLI_TRAIN_H

#include "cli.h"
#include <attn/train.h>

/* ---- train_settings.c: what a run is, kept in its checkpoint ---- */

/** Everything that the bits of a run depend on, besides its text. A resumed run has those of its beginning. */
typedef struct train_settings {
    int64_t layers, dim, heads, kv_heads, ffn, context;
    int64_t batch, accumulate, steps, warmup;
    double lr, weight_decay, dropout, clip;
    uint64_t seed;
    bool recompute;
    char tokenizer[32]; /* "char", "bpe:N"; "" with a base */
    char base[4096];    /* model file that is fine-tuned; "": from scratch */
    bool full;          /* all its weights; else LoRA */
    int64_t lora_rank;  /* and these */
    double lora_alpha;
    char lora_targets[256]; /* "q_proj,v_proj"; "": every linear layer of the blocks */
} train_settings;

/** argp's options for them, grouped; to be put before a command's own. Keys are TRAIN_SETTING + index. */
enum { TRAIN_SETTING = 0x4000 };
extern const struct argp train_settings_argp; /* input: a train_settings_input */

typedef struct train_settings_input {
    train_settings values;
    uint64_t given; /* bit i: option i was on the command line */
    const char *preset;
} train_settings_input;

/** Puts the preset's and the defaults' values where none were given. A sentence when they do not fit together. */
int train_settings_complete(train_settings_input *input);
/** Was an option, "steps", on the command line? */
bool train_settings_given(const train_settings_input *input, const char *name);
/** As a JSON object; NULL without memory. */
json_t *train_settings_json(const train_settings *settings);
/** A resumed run: takes the checkpoint's values, refuses others on the command line (but --steps). */
int train_settings_resume(train_settings_input *input, const json_t *stored, const char *path);

/* ---- train_text.c: files → tokens ---- */

/** A text: `size` bytes, of which the last ones from `split` are held out. */
typedef struct train_text {
    char *text;
    size_t size, split;
    int64_t held_out_chars; /* UTF-8 characters of the held-out part */
    int32_t *tokens;        /* training, then held out */
    int64_t count, held_out;
} train_text;

/** Reads files[count] one after the other. `chapter`: hold out the last chapter or so, else the last tenth. */
int train_text_read(const char *const *files, size_t count, bool chapter, train_text *text);
/** Makes the tokens of both parts. */
int train_text_encode(const attn_tokenizer *tokenizer, train_text *text);
void train_text_free(train_text *text);

/* ---- train_log.c: what a run says ---- */

/** A point of the loss curves; val is NaN where it was not measured. */
typedef struct train_point {
    int64_t step;
    double loss, val;
} train_point;

typedef struct train_sample {
    int64_t step;
    char *text;
    size_t size;
} train_sample;

typedef struct train_log {
    bool json, bar; /* a JSON object a line; a progress bar on the terminal */
    bool bar_shown;
    double bar_time;
    train_point *points;
    size_t count, room;
    train_sample *samples;
    size_t sample_count;
} train_log;

typedef struct train_progress {
    int64_t step, steps;
    double loss, val; /* val NaN: not measured now */
    double lr, grad_norm, tokens_per_s, ceiling_share, eta_s;
} train_progress;

void train_log_open(train_log *log, bool json);
void train_log_free(train_log *log);
/** A line, and a point of the curves. */
void train_log_step(train_log *log, const train_progress *progress);
/** Redraws the bar at most ten times a second. */
void train_log_bar(train_log *log, const train_progress *progress);
/** Keeps and shows a sample. */
void train_log_sample(train_log *log, int64_t step, const char *text, size_t size);
/** An object in JSON mode (taken over), else the sentence. */
void train_log_event(train_log *log, json_t *object, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/** The curves as [[step, loss, val or null], …], and back. */
json_t *train_log_history(const train_log *log);
void train_log_take_history(train_log *log, const json_t *history);

/* ---- train_run.c: the loop ---- */

typedef struct train_control {
    const char *out;     /* file that is written */
    double save_seconds; /* > 0 */
    int64_t save_steps;  /* > 0: instead */
    int64_t eval_every, sample_every, log_every, sample_tokens, eval_windows;
    double max_minutes; /* 0: none */
    bool fit_steps,
        fit_warmup; /* choose the number of steps that fits max_minutes; and of warm-up */
    const char *prompt, *report; /* may be NULL */
    bool resume, json, plan, adapter;
    int64_t threads;
    char **data; /* names of files, malloc'd */
    size_t data_count;
} train_control;

/** Adds a name to control->data; false without memory. */
bool train_add_file(train_control *control, const char *name);
void train_free_files(train_control *control);

/** A run in memory. */
typedef struct train_run {
    const train_control *control;
    train_settings *settings;
    train_text text;
    train_log log;
    attn_context *context;
    attn_tokenizer *tokenizer;
    attn_module *gpt;
    attn_trainer *trainer;
    const char *checkpoint; /* file of the training state */
    char *config_json, *tokenizer_json;
    double ceiling; /* FMA Gflops/s, the best seen */
    double began, earlier_seconds, last_val;
    double val_before;    /* fine-tuning: of the base; NaN: not known */
    double train_seconds; /* in steps */
    int64_t trained_tokens;
    bool stopped; /* by Ctrl-C or the time limit before the last step */
} train_run;

/** Samples' prompt, looked at before the first step: one without a token is said. */
int train_check_prompt(const train_run *run);
/** Trains to the end, an interrupt or the time limit, and saves. */
int train_loop(train_run *run);
/** Validation loss over everything held out. NaN and CLI_OK when interrupted. */
int train_evaluate_all(train_run *run, double *loss);

/* ---- train_save.c ---- */

/** Writes the checkpoint. A sentence when it fails; the run can go on. */
int train_save(train_run *run);
/** "attn.run" of a checkpoint as JSON; NULL with the sentence said. */
json_t *train_load_run(const char *path);

/* ---- train_session.c: what both kinds of run share ---- */

/** --resume: settings, files and curves from a checkpoint. */
int train_resume_settings(train_settings_input *input, train_control *control,
                          const char *checkpoint, train_run *run);
/** The text of --data, or the novels. */
int train_read_text(train_run *run, train_control *control, bool chapter);
/** Whether its tokens are enough for one window, and know the prompt. */
int train_check_text(const train_run *run);
/** The trainer, resumed where that was asked. */
int train_make_trainer(train_run *run);
void train_say_start(train_run *run);
/** The closing line; the run's exit code. val: over everything held out. */
int train_say_end(train_run *run, double val);
int train_report(const train_run *run);
/** Of the held-out text, from nats a token; NaN where it has no characters. */
double train_nats_per_char(const train_run *run, double loss);
void train_run_free(train_run *run);

/* ---- the two kinds of run ---- */

int train_from_scratch(train_settings_input *input, train_control *control);
int train_finetune(train_settings_input *input, train_control *control);
/** LoRA adapters as the settings want them. */
attn_status train_add_adapters(const train_settings *settings, attn_module *gpt);

/* ---- train_plan.c ---- */

typedef struct train_plan {
    double bytes;        /* resident at the peak */
    double step_seconds; /* of one step */
    double seconds;      /* of the run, validation included */
} train_plan;

/**
 * Predicts from two small models of the same width, one and a few layers deep, which take some steps each: time and memory grow linearly with layers.
 * `base_bytes`: what else will be in memory, besides the text.
 */
attn_status train_plan_make(const train_run *run, const attn_gpt_options *model, double base_bytes,
                            train_plan *plan);
/** Memory, time. `real`: what it was, or NULL. */
void train_plan_say(train_log *log, const train_plan *plan, const train_plan *real);

/* ---- train_html.c ---- */

attn_status train_write_report(const train_run *run, const char *path);

#endif
