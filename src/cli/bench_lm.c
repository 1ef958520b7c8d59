/**
 * bench_lm.c: `attn bench lm FILE`: tokens a second of prefill and decode, at a depth of tokens already held.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    KEY_PROMPT = 0x2200,
    KEY_GENERATE,
    KEY_DEPTH,
    KEY_THREADS,
    KEY_REPEAT,
    KEY_JSON,
    KEY_KV,
    KEY_ACTIVATIONS
};

typedef struct request {
    const char *file;
    int64_t prompt, generate, depth, threads, repeat;
    attn_dtype kv;
    attn_activations activations;
    bool json;
} request;

static const struct argp_option option_list[] = {
    {"prompt", KEY_PROMPT, "N", 0, "tokens of prefill (default 512; 0: leave it out)", 0},
    {"generate", KEY_GENERATE, "N", 0, "tokens of decode (default 128; 0: leave it out)", 0},
    {"depth", KEY_DEPTH, "N", 0, "tokens in the cache before each (default 0)", 0},
    {"threads", KEY_THREADS, "N", 0, "default: the processors this process may use", 0},
    {"repeat", KEY_REPEAT, "N", 0, "measurements of each (default 3)", 0},
    {"kv", KEY_KV, "TYPE", 0, "f16 (default), bf16 or f32 keys and values", 0},
    {"activations", KEY_ACTIVATIONS, "TYPE", 0, "auto (default), f32 or int8", 0},
    {"json", KEY_JSON, 0, 0, "a JSON object", 0},
    {0},
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    request *r = state->input;
    switch (key) {
    case KEY_PROMPT: return cli_int(state, "--prompt", text, 0, 1 << 20, &r->prompt);
    case KEY_GENERATE: return cli_int(state, "--generate", text, 0, 1 << 20, &r->generate);
    case KEY_DEPTH: return cli_int(state, "--depth", text, 0, 1 << 24, &r->depth);
    case KEY_THREADS: return cli_int(state, "--threads", text, 1, 1024, &r->threads);
    case KEY_REPEAT: return cli_int(state, "--repeat", text, 1, 100, &r->repeat);
    case KEY_JSON: r->json = true; return 0;
    case KEY_KV: return cli_kv(state, text, &r->kv);
    case KEY_ACTIVATIONS: return cli_activations(state, text, &r->activations);
    case ARGP_KEY_ARG:
        if (r->file) {
            return cli_usage_error(state, "one model at a time; '%s' is a second one", text);
        }
        r->file = text;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

typedef struct bench {
    attn_session *session;
    int64_t vocab;
    float *logits;
    int32_t *tokens;
} bench;

static int32_t largest(const float *logits, int64_t vocab)
{
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return (int32_t)best;
}

/* Tokens/s of `prompt` tokens after `depth`. */
static attn_status prefill(const bench *b, const request *r, double *rate)
{
    attn_status status = attn_session_truncate(b->session, r->depth);
    double start = cli_now();
    if (status == ATTN_OK) {
        status = attn_session_eval(b->session, b->tokens, r->prompt, false, b->logits);
    }
    *rate = (double)r->prompt / (cli_now() - start);
    return status;
}

/* Tokens/s of `generate` greedy steps after `depth`; the first token's logits are there before the clock starts. */
static attn_status decode(const bench *b, const request *r, double *rate)
{
    attn_status status = attn_session_truncate(b->session, r->depth);
    int32_t token = b->tokens[0];
    double start = cli_now();
    for (int64_t i = 0; i < r->generate && status == ATTN_OK; i++) {
        status = attn_session_eval(b->session, &token, 1, false, b->logits);
        token = largest(b->logits, b->vocab);
    }
    *rate = (double)r->generate / (cli_now() - start);
    return status;
}

static attn_status measure(const bench *b, const request *r, bench_stats *prompt,
                           bench_stats *generation)
{
    double prompts[100], generations[100];
    attn_status status = ATTN_OK;
    for (int64_t at = 0; at < r->depth && status == ATTN_OK; at += 512) {
        int64_t count = r->depth - at < 512 ? r->depth - at : 512;
        status = attn_session_eval(b->session, b->tokens, count, false, NULL);
    }
    for (int64_t n = 0; n < r->repeat && status == ATTN_OK; n++) {
        if (r->prompt > 0) {
            status = prefill(b, r, &prompts[n]);
        }
        if (status == ATTN_OK && r->generate > 0) {
            status = decode(b, r, &generations[n]);
        }
    }
    if (status == ATTN_OK && r->prompt > 0) {
        *prompt = bench_statistics(prompts, (int)r->repeat);
    }
    if (status == ATTN_OK && r->generate > 0) {
        *generation = bench_statistics(generations, (int)r->repeat);
    }
    return status;
}

static int print(const request *r, const char *path, const cli_lm *lm, bench_stats prompt,
                 bench_stats generation)
{
    int threads = attn_context_threads(lm->context);
    const char *isa = attn_isa_name(attn_context_isa(lm->context));
    if (r->json) {
        return cli_print_json(
            json_pack("{s:s, s:s, s:i, s:I, s:I, s:I, s:f, s:f, s:f, s:f, s:I}", "model", path,
                      "isa", isa, "threads", threads, "prompt", (json_int_t)r->prompt, "generate",
                      (json_int_t)r->generate, "depth", (json_int_t)r->depth, "prompt_tokens_per_s",
                      prompt.median, "prompt_best", prompt.max, "generation_tokens_per_s",
                      generation.median, "generation_best", generation.max, "kv_cache_bytes",
                      (json_int_t)attn_session_kv_bytes(lm->session)));
    }
    printf("%s, %d threads, %s, depth %lld\n", path, threads, isa, (long long)r->depth);
    if (r->prompt > 0) {
        printf("prefill %5lld tokens  %8.1f tokens/s  (%.1f .. %.1f)\n", (long long)r->prompt,
               prompt.median, prompt.min, prompt.max);
    }
    if (r->generate > 0) {
        printf("decode  %5lld tokens  %8.1f tokens/s  (%.1f .. %.1f)\n", (long long)r->generate,
               generation.median, generation.min, generation.max);
    }
    return CLI_OK;
}

static int run(const request *r, const char *path)
{
    cli_lm_options options;
    cli_lm_defaults(&options);
    options.model = path;
    options.threads = r->threads;
    options.kv = r->kv;
    options.activations = r->activations;
    cli_lm lm = {0};
    int64_t longest = r->prompt > r->generate ? r->prompt : r->generate;
    int code = cli_lm_open(&options, &lm);
    if (code == CLI_OK) {
        code = cli_lm_session(&options, r->depth + longest + 1, &lm);
    }
    bench b = {.session = lm.session};
    bench_stats prompt = {0}, generation = {0};
    if (code == CLI_OK) {
        b.vocab = attn_model_get_config(lm.model)->vocab;
        int64_t tokens = r->prompt > 512 ? r->prompt : 512;
        b.logits = malloc(sizeof(float) * (size_t)b.vocab);
        b.tokens = malloc(sizeof(int32_t) * (size_t)tokens);
        if (!b.logits || !b.tokens) {
            (void)cli_fail("not enough memory");
            code = CLI_FAILED;
        } else {
            for (int64_t i = 0; i < tokens; i++) {
                b.tokens[i] = (int32_t)((i * 7919 + 17) % b.vocab);
            }
        }
    }
    if (code == CLI_OK && measure(&b, r, &prompt, &generation) != ATTN_OK) {
        code = cli_fail_attn(path);
    }
    if (code == CLI_OK) {
        code = print(r, path, &lm, prompt, generation);
    }
    free(b.logits);
    free(b.tokens);
    cli_lm_close(&lm);
    cli_lm_options_free(&options);
    return code;
}

int bench_lm(int argc, char **argv)
{
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "[FILE]",
        .doc = "Times a language model: prefill of a prompt and greedy decode, each after --depth "
               "tokens. FILE defaults to the default model.",
    };
    request r = {.prompt = 512, .generate = 128, .repeat = 3};
    int code = cli_parse(&argp, argc, argv, &r);
    if (code >= 0) {
        return code;
    }
    char *path = cli_model_resolve(r.file, &code);
    if (!path) {
        return code;
    }
    code = run(&r, path);
    free(path);
    return code;
}
