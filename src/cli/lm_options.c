/**
 * cli/lm_options.c: the options that commands with a language model share, as two argp children.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_MODEL = 0x2000,
    KEY_ADAPTER,
    KEY_WINDOW,
    KEY_CONTEXT,
    KEY_THREADS,
    KEY_KV,
    KEY_ACTIVATIONS,
    KEY_MAX_TOKENS,
    KEY_TEMPERATURE,
    KEY_TOP_K,
    KEY_TOP_P,
    KEY_MIN_P,
    KEY_REPEAT_PENALTY,
    KEY_SEED,
    KEY_STOP,
    KEY_SYSTEM,
    KEY_TEMPLATE,
};

void cli_lm_defaults(cli_lm_options *options)
{
    memset(options, 0, sizeof *options);
    options->max_tokens = 1024;
    options->sampler = attn_sampler_options_init();
}

void cli_lm_options_free(cli_lm_options *options)
{
    free(options->stop);
    options->stop = NULL;
    options->stop_count = 0;
}

error_t cli_kv(struct argp_state *state, const char *text, attn_dtype *kv)
{
    static const char *const words[] = {"f32", "bf16", "f16", NULL};
    static const attn_dtype types[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    int index;
    error_t error = cli_word(state, "--kv", text, words, &index);
    *kv = error ? *kv : types[index];
    return error;
}

error_t cli_activations(struct argp_state *state, const char *text, attn_activations *activations)
{
    static const char *const words[] = {"auto", "f32", "int8", NULL};
    static const attn_activations values[] = {ATTN_ACTIVATIONS_AUTO, ATTN_ACTIVATIONS_F32,
                                              ATTN_ACTIVATIONS_INT8};
    int index;
    error_t error = cli_word(state, "--activations", text, words, &index);
    *activations = error ? *activations : values[index];
    return error;
}

static error_t parse_model(int key, char *text, struct argp_state *state)
{
    cli_lm_options *o = state->input;
    switch (key) {
    case KEY_MODEL: o->model = text; return 0;
    case KEY_ADAPTER: o->adapter = text; return 0;
    case KEY_WINDOW: return cli_int(state, "--window", text, 1, INT32_MAX, &o->window);
    case KEY_CONTEXT: return cli_int(state, "--context", text, 1, INT32_MAX, &o->context);
    case KEY_THREADS: return cli_int(state, "--threads", text, 1, 1024, &o->threads);
    case KEY_KV: return cli_kv(state, text, &o->kv);
    case KEY_ACTIVATIONS: return cli_activations(state, text, &o->activations);
    case ARGP_KEY_END:
        if (o->activations == ATTN_ACTIVATIONS_F32 && o->kv != ATTN_DTYPE_NONE &&
            o->kv != ATTN_F32) {
            return cli_usage_error(state, "--activations f32 implies --kv f32: leave --kv %s out",
                                   attn_dtype_name(o->kv));
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option model_options[] = {
    {"model", KEY_MODEL, "FILE", 0,
     "a GGUF file of the llama family, what `attn train' wrote, or a known model's name (default: "
     "SmolLM2-135M-Instruct)",
     10},
    {"adapter", KEY_ADAPTER, "FILE", 0,
     "an adapter that `attn train --finetune' wrote for the model", 0},
    {"context", KEY_CONTEXT, "N", 0, "tokens of prompt and answer together", 0},
    {"window", KEY_WINDOW, "W", 0,
     "each token sees the last W tokens, itself counted; memory stays bounded", 0},
    {"kv", KEY_KV, "TYPE", 0, "how keys and values are kept: f32, bf16 or f16 (default f16)", 0},
    {"activations", KEY_ACTIVATIONS, "TYPE", 0,
     "auto, int8 (8 bits per block of 32, also for few rows), or f32: exact and slow, implies "
     "--kv f32",
     0},
    {"threads", KEY_THREADS, "N", 0, "default: the processors this process may use", 0},
    {0},
};
const struct argp cli_model_argp = {.options = model_options, .parser = parse_model};

static error_t add_stop(struct argp_state *state, cli_lm_options *o, const char *text)
{
    if (text[0] == '\0') {
        return cli_usage_error(state, "--stop: the string is empty");
    }
    const char **grown = realloc(o->stop, (o->stop_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return ENOMEM;
    }
    o->stop = grown;
    o->stop[o->stop_count++] = text;
    return 0;
}

static error_t parse_sampling(int key, char *text, struct argp_state *state)
{
    cli_lm_options *o = state->input;
    attn_sampler_options *s = &o->sampler;
    switch (key) {
    case KEY_MAX_TOKENS: return cli_int(state, "--max-tokens", text, -1, INT64_MAX, &o->max_tokens);
    case KEY_TEMPERATURE:
        o->has_temperature = true;
        return cli_double(state, "--temperature", text, 0, 1e6, &s->temperature);
    case KEY_TOP_K:
        o->has_filter = true;
        return cli_int(state, "--top-k", text, 0, INT32_MAX, &s->top_k);
    case KEY_TOP_P:
        o->has_filter = true;
        return cli_double(state, "--top-p", text, 0, 1, &s->top_p);
    case KEY_MIN_P:
        o->has_filter = true;
        return cli_double(state, "--min-p", text, 0, 1, &s->min_p);
    case KEY_REPEAT_PENALTY:
        return cli_double(state, "--repeat-penalty", text, 1e-6, 1e6, &s->repeat_penalty);
    case KEY_SEED: o->has_seed = true; return cli_uint64(state, "--seed", text, &s->seed);
    case KEY_STOP: return add_stop(state, o, text);
    case KEY_SYSTEM: o->system = text; return 0;
    case KEY_TEMPLATE: o->template_name = text; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option sampling_options[] = {
    {"max-tokens", KEY_MAX_TOKENS, "N", 0,
     "at most N tokens of answer (default 1024; -1: no limit)", 20},
    {"temperature", KEY_TEMPERATURE, "T", 0,
     "0 (the default) takes the best token; 1 draws from the model's distribution", 0},
    {"top-k", KEY_TOP_K, "K", 0, "draw among the K best tokens (0: all)", 0},
    {"top-p", KEY_TOP_P, "P", 0, "draw among the best tokens that make up probability P", 0},
    {"min-p", KEY_MIN_P, "P", 0, "draw among tokens at least P times as probable as the best", 0},
    {"repeat-penalty", KEY_REPEAT_PENALTY, "R", 0,
     "makes tokens of the recent text less likely (1: off)", 0},
    {"seed", KEY_SEED, "N", 0, "draws are repeatable with a seed (default: another one every time)",
     0},
    {"stop", KEY_STOP, "TEXT", 0, "ends the answer before TEXT; may be given several times", 0},
    {"system", KEY_SYSTEM, "TEXT", 0, "the system message", 0},
    {"template", KEY_TEMPLATE, "NAME", 0, "a chat template by name, instead of the file's own", 0},
    {0},
};
const struct argp cli_sampling_argp = {.options = sampling_options, .parser = parse_sampling};
