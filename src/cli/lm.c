/**
 * cli/lm.c: from options to a model that can be asked, and what is said about a generation.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* What a session is given when nobody says: a whole model's context may be gigabytes. */
#define DEFAULT_CONTEXT 4096

attn_context *cli_context(int64_t threads)
{
    attn_context_options options = attn_context_options_init();
    attn_context *context = NULL;
    options.threads = (int)threads;
    if (attn_context_create(&options, &context) != ATTN_OK) {
        cli_fail_attn(NULL);
    }
    return context;
}

attn_status cli_model_open(const char *path, const char *adapter, attn_gguf **file)
{
    attn_model_open_options options = attn_model_open_options_init();
    const char *const cache = cli_cache_folder();
    options.adapter = adapter;
    options.folders = &cache;
    options.folder_count = cache ? 1 : 0;
    options.cancel = cli_cancel;
    attn_status status = attn_model_open(path, &options, file);
    free((void *)(uintptr_t)cache);
    return status;
}

static attn_status open_file(const cli_lm_options *options, const attn_gguf *file, cli_lm *lm)
{
    attn_model_options model = attn_model_options_init();
    model.activations = options->activations;
    model.cancel = cli_cancel;
    attn_model_config
        config; /* what is wrong with a file is said before loading it takes its time */
    attn_status s = attn_model_config_read(file, &config);
    if (s == ATTN_OK) {
        s = attn_tokenizer_create(file, &lm->tokenizer);
    }
    if (s == ATTN_OK) {
        s = attn_model_load(lm->context, file, &model, &lm->model);
    }
    if (s == ATTN_OK) {
        attn_sampler_options sampler = options->sampler;
        if (options->has_filter && !options->has_temperature) {
            sampler.temperature = 1; /* filters mean that drawing is wanted */
        }
        if (!options->has_seed && getrandom(&sampler.seed, sizeof sampler.seed, 0) < 0) {
            sampler.seed = 0;
        }
        s = attn_sampler_create(&sampler, attn_model_get_config(lm->model)->vocab, &lm->sampler);
    }
    return s;
}

int cli_lm_open(const cli_lm_options *options, cli_lm *lm)
{
    memset(lm, 0, sizeof *lm);
    int code = CLI_FAILED;
    char *path = cli_model_resolve(options->model, &code);
    if (path == NULL) {
        return code;
    }
    lm->context = cli_context(options->threads);
    attn_gguf *file = NULL;
    attn_status s = lm->context ? cli_model_open(path, options->adapter, &file) : ATTN_ERR_ARGUMENT;
    if (s == ATTN_OK) {
        s = open_file(options, file, lm);
    }
    attn_gguf_close(file);
    free(path);
    code = CLI_OK;
    if (s == ATTN_ERR_CANCELLED) {
        code = CLI_INTERRUPTED;
    } else if (lm->context == NULL) {
        code = CLI_FAILED; /* cli_context said why */
    } else if (s != ATTN_OK) {
        code = cli_fail_attn(NULL);
    }
    if (code != CLI_OK) {
        cli_lm_close(lm);
    }
    return code;
}

int cli_lm_session(const cli_lm_options *options, int64_t tokens, cli_lm *lm)
{
    int64_t most = attn_model_get_config(lm->model)->context;
    attn_session_options session = attn_session_options_init();
    session.kv = options->kv;
    session.window = options->window;
    if (options->context > most) {
        return cli_fail("--context: %lld is more than the model's %lld",
                        (long long)options->context, (long long)most);
    }
    if (options->context > 0) {
        session.context = options->context;
    } else if (options->window == 0) { /* a window alone makes the text endless */
        tokens = tokens > 0 ? tokens : DEFAULT_CONTEXT;
        session.context = tokens < most ? tokens : most;
    }
    if (attn_session_create(lm->context, lm->model, &session, &lm->session) != ATTN_OK) {
        return cli_fail_attn(NULL);
    }
    return CLI_OK;
}

void cli_lm_close(cli_lm *lm)
{
    attn_session_destroy(lm->session);
    attn_sampler_destroy(lm->sampler);
    attn_model_destroy(lm->model);
    attn_tokenizer_destroy(lm->tokenizer);
    attn_context_destroy(lm->context);
    memset(lm, 0, sizeof *lm);
}

int32_t *cli_encode(const cli_lm *lm, const char *text, size_t size, bool special, int64_t *count)
{
    size_t n = 0, room = size + 2;
    int32_t *ids = malloc(room * sizeof *ids);
    if (ids == NULL) {
        cli_fail("not enough memory for a prompt of %zu bytes", size);
        return NULL;
    }
    if (attn_tokenizer_encode(lm->tokenizer, text, size, special, ids, room, &n) != ATTN_OK) {
        cli_fail_attn("prompt");
        free(ids);
        return NULL;
    }
    *count = (int64_t)n;
    return ids;
}

double cli_prompt_rate(const attn_generation *g)
{
    return g->prompt_seconds > 0 ? (double)g->prompt_tokens / g->prompt_seconds : 0;
}

double cli_generation_rate(const attn_generation *g)
{
    return g->count > 1 && g->generation_seconds > 0
               ? (double)(g->count - 1) / g->generation_seconds
               : 0;
}

void cli_lm_summary(const cli_lm *lm, const attn_generation *g)
{
    char cache[32], peak[32];
    cli_note("prompt: %lld tokens, %.1f tokens/s; generation: %lld tokens, %.1f tokens/s (%s); "
             "cache: %s; peak memory: %s",
             (long long)g->prompt_tokens, cli_prompt_rate(g), (long long)g->count,
             cli_generation_rate(g), attn_stop_reason_name(g->reason),
             cli_bytes((double)attn_session_kv_bytes(lm->session), cache, sizeof cache),
             cli_bytes((double)cli_peak_rss(), peak, sizeof peak));
}
