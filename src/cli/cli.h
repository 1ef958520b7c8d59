/**
 * cli/cli.h: what the commands of the attn program share: the table of commands, options and their
 * errors, output that notices a full disk, interruption, and JSON.
 *
 * A command is one file cmd_<name>.c with `int cmd_<name>(int argc, char **argv)`, declared here
 * and listed in main.c. argv[0] is "attn <name>", for argp. It returns an exit code below, and has
 * written at most one sentence to standard error when that is not 0.
 */
#ifndef ATTN_CLI_CLI_H
#define ATTN_CLI_CLI_H

#include <argp.h>
#include <attn/lm.h>
#include <jansson.h>

/** Exit codes. */
enum {
    CLI_OK = 0,
    CLI_FAILED = 1,       /* said why on standard error */
    CLI_USAGE = 2,        /* a command line that cannot be understood */
    CLI_INTERRUPTED = 130 /* Ctrl-C, as shells report it */
};

typedef struct cli_command {
    const char *name;
    const char *summary; /* for `attn --help`: lower case, no full stop */
    int (*run)(int argc, char **argv);
} cli_command;

int cmd_bench(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_fetch(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_profile(int argc, char **argv);
int cmd_sdpa(int argc, char **argv);
int cmd_train(int argc, char **argv);

/* ---- options.c: argp with one-sentence errors ---- */

/**
 * argp_parse with errors of one sentence. Returns −1 when the command shall go on, else its exit
 * code (0 after --help, --usage, --version). Adds those three. `argp` needs no help options of its
 * own; children may be given as usual.
 */
int cli_parse(const struct argp *argp, int argc, char **argv, void *input);

/** The same, but stops at the first argument that is no option; *next is its index. */
int cli_parse_front(const struct argp *argp, int argc, char **argv, void *input, int *next);

/** For argp parsers: says the sentence (after "attn name: ") and gives what the parser returns. */
error_t cli_usage_error(struct argp_state *state, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** The value of an option as a number in min … max, or cli_usage_error. `option` as "--top-k". */
error_t cli_int(struct argp_state *state, const char *option, const char *text, int64_t min,
                int64_t max, int64_t *value);
error_t cli_uint64(struct argp_state *state, const char *option, const char *text, uint64_t *value);
error_t cli_double(struct argp_state *state, const char *option, const char *text, double min,
                   double max, double *value);
/** The index of `text` in words (NULL-terminated) or cli_usage_error that lists them. */
error_t cli_word(struct argp_state *state, const char *option, const char *text,
                 const char *const *words, int *index);

/* ---- output.c: errors and standard output ---- */

/** "attn: <sentence>" on standard error; returns CLI_FAILED. */
int cli_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/** "attn: <what>: <attn_last_error()>", or without `what` where it is NULL; returns CLI_FAILED. */
int cli_fail_attn(const char *what);
/** A line to standard error that is no error (progress, the closing line). */
void cli_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** Writes all of it to standard output and flushes; false once writing failed (cli_finish says
 * why). */
bool cli_write(const char *text, size_t size);
/** Flushes standard output: `code`, or CLI_FAILED with a sentence where something could not be
 * written. */
int cli_finish(int code);

/** Takes the object and prints it on one line; CLI_FAILED with a sentence when that failed. */
int cli_print_json(json_t *object);
/** A JSON number, or null for infinities and NaN. */
json_t *cli_json_number(double value);
/** A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. */
json_t *cli_json_text(const char *text, size_t size);

/** "93.8 MiB", into text of size ≥ 32; returns text. */
const char *cli_bytes(double bytes, char *text, size_t size);
/** Largest resident memory of this process so far, bytes. */
size_t cli_peak_rss(void);
/** Monotonic clock, seconds. */
double cli_now(void);

/* ---- interrupt.c ---- */

/**
 * From now on SIGINT and SIGTERM are remembered instead of killing; system calls that wait return
 * EINTR. A second one before cli_interrupt_clear leaves at once with 130. SIGPIPE and SIGXFSZ become
 * errors of writing.
 */
void cli_interrupt_catch(void);
bool cli_interrupted(void);
/**
 * Waits until standard input can be read without waiting, or has ended; false when interrupted, however shortly before the
 * call. Sees the descriptor, not what stdio has buffered: for a terminal read by lines, or for read().
 */
bool cli_wait_input(void);
void cli_interrupt_clear(void);
/** The same as a cancel callback. */
bool cli_cancel(void *unused);

/* ---- models.c: models known by name, and where they are kept ---- */

typedef struct cli_model {
    const char *name;    /* "smollm2-135m-instruct" */
    const char *title;   /* "SmolLM2-135M-Instruct" */
    const char *file;    /* name in the cache folder */
    const char *package; /* pip requirement */
    const char *member;  /* path inside the wheel */
    const char *licence;
    const char *source;
    int64_t bytes;
    const char *sha256; /* 64 hexadecimal digits */
} cli_model;

/** Known models, the default first; .name is NULL at the end. */
extern const cli_model cli_models[];
/** By name, its beginning up to a hyphen ("smollm2") or file, upper and lower case alike; NULL for an unknown one. */
const cli_model *cli_model_find(const char *name);
/** The cache folder: $ATTN_CACHE, else ~/.cache/attn. malloc'd; NULL with a sentence said. */
char *cli_cache_folder(void);
/** Where a known model is, or would be. malloc'd; NULL with a sentence said. */
char *cli_model_path(const cli_model *model);
/** Makes a known model be there: CLI_OK at once where it is. `quiet`: no word about that. */
int cli_model_fetch(const cli_model *model, bool quiet);

/* ---- fetch_novels.c: the default text to train on ---- */

typedef struct cli_text {
    const char *name, *title, *licence, *source;
    int64_t bytes;
} cli_text;

extern const cli_text cli_novels;
/** Where the novels are, or would be: all six in one file. malloc'd; NULL with a sentence said. */
char *cli_novels_path(void);
/** Makes the novels be there: CLI_OK at once where they are. `quiet`: no word about that. */
int cli_novels_fetch(bool quiet);

/* ---- lm.c: a model from its options to a session ---- */

/** Options that generate and chat share; bench may use parts. Start from cli_lm_defaults(). */
typedef struct cli_lm_options {
    const char *model;   /* file or known name; NULL: the default */
    const char *adapter; /* file; NULL: none */
    int64_t threads;     /* 0: all processors this process may use */
    int64_t context;     /* 0: not given */
    int64_t window;      /* 0: none */
    attn_dtype kv;       /* NONE: not given */
    attn_activations activations;
    const char *template_name;
    const char *system;
    int64_t max_tokens; /* −1: no limit */
    const char **stop;
    size_t stop_count;
    attn_sampler_options sampler;
    bool has_temperature, has_seed, has_filter; /* filter: top-k, top-p or min-p */
} cli_lm_options;

void cli_lm_defaults(cli_lm_options *options);
void cli_lm_options_free(cli_lm_options *options);

/** The values of --kv and --activations. */
error_t cli_kv(struct argp_state *state, const char *text, attn_dtype *kv);
error_t cli_activations(struct argp_state *state, const char *text, attn_activations *activations);

/** argp children; their input (state->child_inputs) is a cli_lm_options. */
extern const struct argp
    cli_model_argp; /* --model --threads --context --window --kv --activations */
extern const struct argp cli_sampling_argp; /* --max-tokens … --template */

/**
 * The file to open for options->model (NULL: the default model). A missing default or known model
 * is a sentence that names `attn fetch`; on a terminal it is offered. malloc'd; NULL with *code set
 * and the sentence said.
 */
char *cli_model_resolve(const char *model, int *code);

/** attn_model_open with an adapter (or NULL); bases are looked for in the cache folder too. */
attn_status cli_model_open(const char *path, const char *adapter, attn_gguf **file);

/** A context with --threads, or NULL with the sentence said. */
attn_context *cli_context(int64_t threads);

/** Everything that generating takes; all NULL where not opened. */
typedef struct cli_lm {
    attn_context *context;
    attn_tokenizer *tokenizer;
    attn_model *model;
    attn_sampler *sampler;
    attn_session *session;
} cli_lm;

/** Opens context, tokenizer, model, sampler (not yet the session). CLI_OK, or a code with the
 * sentence said. */
int cli_lm_open(const cli_lm_options *options, cli_lm *lm);
/** Creates the session for `tokens` tokens of context (0: the model's own). */
int cli_lm_session(const cli_lm_options *options, int64_t tokens, cli_lm *lm);
void cli_lm_close(cli_lm *lm);

/** Tokens of text; malloc'd; NULL with the sentence said. */
int32_t *cli_encode(const cli_lm *lm, const char *text, size_t size, bool special, int64_t *count);
/** A chat as tokens: the template's own special tokens, while the messages' text stays text. */
int32_t *cli_encode_chat(const cli_lm *lm, const char *template_name,
                         const attn_chat_message *messages, size_t count, int64_t *tokens);

/** Tokens a second: of the prompt, and of decode steps (one fewer than the tokens chosen: the first
 * comes from the prompt). */
double cli_prompt_rate(const attn_generation *generation);
double cli_generation_rate(const attn_generation *generation);
/** "prompt 12 tokens, 410.2 tokens/s · …" on standard error. */
void cli_lm_summary(const cli_lm *lm, const attn_generation *generation);

#endif
