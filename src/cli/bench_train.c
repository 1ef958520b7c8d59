/**
 * bench_train.c: `attn bench train`: what a training step of a small decoder takes: forward, loss, backward, clipping, AdamW.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <attn/nn.h>
#include <attn/optim.h>
#include <attn/tensor.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    KEY_LAYERS = 0x2400,
    KEY_DIM,
    KEY_HEADS,
    KEY_FFN,
    KEY_LEN,
    KEY_BATCH,
    KEY_VOCAB,
    KEY_THREADS,
    KEY_STEPS,
    KEY_JSON
};

enum { MAX_STEPS = 1000, WARM_UP = 2 };

typedef struct request {
    int64_t layers, dim, heads, ffn, len, batch, vocab, threads, steps;
    bool json;
} request;

static const struct argp_option option_list[] = {
    {"layers", KEY_LAYERS, "N", 0, "transformer blocks (default 4)", 0},
    {"dim", KEY_DIM, "N", 0, "width (default 128)", 0},
    {"heads", KEY_HEADS, "N", 0, "attention heads (default 4)", 0},
    {"ffn", KEY_FFN, "N", 0, "width inside the MLP (default 344)", 0},
    {"len", KEY_LEN, "N", 0, "tokens of a sequence (default 256)", 0},
    {"batch", KEY_BATCH, "N", 0, "sequences (default 16)", 0},
    {"vocab", KEY_VOCAB, "N", 0, "tokens there are (default 96)", 0},
    {"threads", KEY_THREADS, "N", 0, "default: the processors this process may use", 0},
    {"steps", KEY_STEPS, "N", 0, "measurements (default 15)", 0},
    {"json", KEY_JSON, 0, 0, "a JSON object", 0},
    {0},
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    request *r = state->input;
    switch (key) {
    case KEY_LAYERS: return cli_int(state, "--layers", text, 1, 1000, &r->layers);
    case KEY_DIM: return cli_int(state, "--dim", text, 2, 1 << 16, &r->dim);
    case KEY_HEADS: return cli_int(state, "--heads", text, 1, 4096, &r->heads);
    case KEY_FFN: return cli_int(state, "--ffn", text, 1, 1 << 20, &r->ffn);
    case KEY_LEN: return cli_int(state, "--len", text, 1, 1 << 20, &r->len);
    case KEY_BATCH: return cli_int(state, "--batch", text, 1, 1 << 16, &r->batch);
    case KEY_VOCAB: return cli_int(state, "--vocab", text, 2, 1 << 20, &r->vocab);
    case KEY_THREADS: return cli_int(state, "--threads", text, 1, 1024, &r->threads);
    case KEY_STEPS: return cli_int(state, "--steps", text, 1, MAX_STEPS, &r->steps);
    case KEY_JSON: r->json = true; return 0;
    case ARGP_KEY_ARG:
        return cli_usage_error(state, "'%s' is no option; `attn bench train --help' lists them",
                               text);
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Milliseconds of the parts of a step. */
typedef struct parts {
    double forward, backward, update;
} parts;

typedef struct bench {
    attn_context *context;
    attn_module *gpt;
    attn_optimizer *optimizer;
    attn_tape *tape;
    int64_t *ids; /* [batch·(len + 1)]: inputs, then targets */
    double loss;
} bench;

static attn_status make(const request *r, bench *b)
{
    attn_gpt_options o = attn_gpt_options_init();
    o.vocab = r->vocab;
    o.layers = r->layers;
    o.dim = r->dim;
    o.heads = r->heads;
    o.ffn = r->ffn;
    o.context = r->len;
    o.init = ATTN_INIT_NORMAL;
    o.seed = 1;
    o.init_context = b->context;
    int64_t count = r->batch * r->len;
    attn_status s = attn_gpt_create(&o, &b->gpt);
    s = s ? s : attn_optimizer_create(b->context, NULL, &b->optimizer);
    s = s ? s : attn_optimizer_add_module(b->optimizer, b->gpt);
    s = s ? s : attn_tape_create(b->context, &b->tape);
    b->ids = malloc((size_t)count * 2 * sizeof *b->ids);
    if (s == ATTN_OK && b->ids == NULL) {
        s = attn_fail(ATTN_ERR_NO_MEMORY, "no memory for the tokens");
    }
    uint64_t state = 1;
    for (int64_t i = 0; s == ATTN_OK && i < 2 * count; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        b->ids[i] = (int64_t)((state >> 33) % (uint64_t)r->vocab);
    }
    return s;
}

static void unmake(bench *b)
{
    attn_tape_destroy(b->tape);
    attn_optimizer_destroy(b->optimizer);
    attn_module_destroy(b->gpt);
    attn_context_destroy(b->context);
    free(b->ids);
}

static attn_status step(bench *b, const request *r, parts *p)
{
    attn_step_options o = attn_step_options_init();
    o.lr = 1e-3;
    o.clip = 1;
    double start = cli_now();
    attn_optimizer_zero_grad(b->optimizer);
    attn_tensor *loss =
        attn_gpt_loss(b->tape, b->gpt, b->ids, b->ids + r->batch * r->len, r->batch, r->len);
    b->loss = attn_tensor_item(loss);
    double forward = cli_now();
    attn_status s = attn_tape_backward(b->tape, loss, NULL);
    double backward = cli_now();
    s = s ? s : attn_optimizer_step(b->optimizer, &o, NULL);
    attn_tape_clear(b->tape);
    double end = cli_now();
    *p = (parts){1e3 * (forward - start), 1e3 * (backward - forward), 1e3 * (end - backward)};
    if (s == ATTN_OK && !isfinite(b->loss)) {
        s = attn_fail(ATTN_ERR_ARGUMENT, "the loss is no finite number");
    }
    return s;
}

/* As attn_trainer_step_flops: 6 a weight and token, and causal attention. */
static double flops(const request *r, const bench *b)
{
    double tokens = (double)(r->batch * r->len);
    double weights =
        (double)(attn_module_element_count(b->gpt, true) - (2 * r->layers + 1) * r->dim);
    return tokens * (6 * weights + 7.0 * (double)(r->len * r->dim * r->layers));
}

static int print(const request *r, const bench *b, bench_stats all, const parts *median,
                 double ceiling)
{
    double tokens = (double)(r->batch * r->len);
    double share = flops(r, b) / (all.median * 1e-3) / (1e9 * ceiling);
    double best = flops(r, b) / (all.min * 1e-3) / (1e9 * ceiling);
    int threads = attn_context_threads(b->context);
    const char *isa = attn_isa_name(attn_context_isa(b->context));
    json_int_t parameters = attn_module_element_count(b->gpt, true);
    if (r->json) {
        return cli_print_json(json_pack(
            "{s:s, s:i, s:s, s:I, s:f, s:{s:f, s:f}, s:f, s:f, s:f, s:f, s:{s:f, s:f, s:f}, s:I, "
            "s:I}",
            "program", "attn", "threads", threads, "isa", isa, "parameters", parameters, "loss",
            b->loss, "ms", "min", all.min, "median", all.median, "tokens_per_s",
            tokens / (all.median * 1e-3), "fma_gflops", ceiling, "ceiling_percent", 100 * share,
            "ceiling_percent_best", 100 * best, "parts_ms", "forward", median->forward, "backward",
            median->backward, "update", median->update, "tape_bytes",
            (json_int_t)attn_tape_bytes(b->tape), "peak_rss_bytes", (json_int_t)cli_peak_rss()));
    }
    printf("%lld parameters, %lld x %lld tokens, %d threads, %s\n", (long long)parameters,
           (long long)r->batch, (long long)r->len, threads, isa);
    printf("a step  %8.1f ms median, %.1f best  %8.0f tokens/s  %.0f %% of the FMA ceiling, best "
           "%.0f %%\n",
           all.median, all.min, tokens / (all.median * 1e-3), 100 * share, 100 * best);
    printf("forward %8.1f ms\nbackward%8.1f ms\nupdate  %8.1f ms\n", median->forward,
           median->backward, median->update);
    return CLI_OK;
}

static int run(const request *r, bench *b)
{
    static double all[MAX_STEPS], forward[MAX_STEPS], backward[MAX_STEPS], update[MAX_STEPS];
    double ceiling = 0;
    attn_status s = make(r, b);
    for (int64_t i = -WARM_UP; i < r->steps && s == ATTN_OK; i++) {
        parts p;
        s = step(b, r, &p);
        if (i >= 0) {
            all[i] = p.forward + p.backward + p.update;
            forward[i] = p.forward;
            backward[i] = p.backward;
            update[i] = p.update;
            ceiling = fmax(ceiling, attn_measure_fma(b->context));
        }
    }
    if (s != ATTN_OK) {
        return cli_fail_attn(NULL);
    }
    int count = (int)r->steps;
    parts median = {bench_statistics(forward, count).median,
                    bench_statistics(backward, count).median,
                    bench_statistics(update, count).median};
    return print(r, b, bench_statistics(all, count), &median, ceiling);
}

int bench_train(int argc, char **argv)
{
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .doc = "Times a training step of a decoder on random tokens: forward, cross-entropy, "
               "backward, clipping, AdamW. The share of the ceiling counts 6 operations a weight "
               "and token and causal attention, against the multiply-adds measured beside it.",
    };
    request r = {.layers = 4,
                 .dim = 128,
                 .heads = 4,
                 .ffn = 344,
                 .len = 256,
                 .batch = 16,
                 .vocab = 96,
                 .steps = 15};
    int code = cli_parse(&argp, argc, argv, &r);
    if (code >= 0) {
        return code;
    }
    bench b = {.context = cli_context(r.threads)};
    code = b.context ? run(&r, &b) : CLI_FAILED;
    unmake(&b);
    return code;
}
