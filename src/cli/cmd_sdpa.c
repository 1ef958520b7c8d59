/**
 * cmd_sdpa.c: `attn sdpa`: attention on anyone's arrays: .npy files in, .npy files out, every option of
 * attn_sdpa as a flag.
 */
#define _GNU_SOURCE
#include "cli.h"
#include "sdpa.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_K = 0x2000,
    KEY_V,
    KEY_OUT,
    KEY_CAUSAL,
    KEY_WINDOW,
    KEY_MASK,
    KEY_BIAS,
    KEY_LENGTHS,
    KEY_LENGTHS_Q,
    KEY_SCALE,
    KEY_SOFTCAP,
    KEY_SINKS,
    KEY_ALIBI,
    KEY_Q_OFFSET,
    KEY_LSE,
    KEY_WEIGHTS,
    KEY_THREADS,
    KEY_EXPLAIN,
    KEY_Q,
    KEY_DROPOUT,
    KEY_SEED,
    KEY_DOUT,
    KEY_DQ, /* in the order of sdpa.h */
    KEY_DK,
    KEY_DV,
    KEY_DBIAS,
    KEY_DSINKS,
    KEY_DALIBI
};

static const struct argp_option option_list[] = {
    {0, 0, 0, 0, "Arrays (.npy, 2 to 4 dimensions: [batch, heads, len, dim] from the right):", 1},
    {"q", KEY_Q, "FILE", 0, "queries, f32, f64 or f16", 1},
    {"k", KEY_K, "FILE", 0, "keys", 1},
    {"v", KEY_V, "FILE", 0, "values, of the keys' type", 1},
    {"out", KEY_OUT, "FILE", 0,
     "where the result goes, in q's shape and type; may be left out beside gradients", 1},
    {"lse", KEY_LSE, "FILE", 0, "also write the natural log of each row's sum", 1},
    {"weights", KEY_WEIGHTS, "FILE", 0, "also write the weights (len_q × len_k a head)", 1},
    {0, 0, 0, 0, "What each query may see:", 2},
    {"causal", KEY_CAUSAL, "WORD", 0, "none (default), top-left or bottom-right", 2},
    {"window", KEY_WINDOW, "L,R", 0, "L keys before and R after its own position; -1: unlimited",
     2},
    {"mask", KEY_MASK, "FILE", 0, "bool, 1 = attend, broadcast from the right", 2},
    {"lengths", KEY_LENGTHS, "N,...", 0, "valid keys of each sequence, or a .npy", 2},
    {"lengths-q", KEY_LENGTHS_Q, "N,...", 0, "valid queries of each sequence, or a .npy", 2},
    {"q-offset", KEY_Q_OFFSET, "N,...", 0,
     "position of query 0: one number, one a sequence, or a "
     ".npy",
     2},
    {0, 0, 0, 0, "Scores:", 3},
    {"scale", KEY_SCALE, "X", 0, "default 1/sqrt(dim)", 3},
    {"softcap", KEY_SOFTCAP, "X", 0, "X·tanh(s/X), X > 0", 3},
    {"bias", KEY_BIAS, "FILE", 0, "added to the scores; -inf masks", 3},
    {"sinks", KEY_SINKS, "X,...", 0, "a logit a head in the denominator, or a .npy", 3},
    {"alibi", KEY_ALIBI, "X,...", 0, "a slope a head, or a .npy", 3},
    {"dropout", KEY_DROPOUT, "P", 0,
     "drops weights with 0 <= P < 1; the others count 1/(1-P) times", 3},
    {"seed", KEY_SEED, "N", 0, "which weights dropout drops; default 0", 3},
    {0, 0, 0, 0, "Gradients (each in the shape of what it is the gradient of, f32 or f64):", 4},
    {"dout", KEY_DOUT, "FILE", 0, "gradient with respect to the result, in its shape", 4},
    {"dq", KEY_DQ, "FILE", 0, "write the gradient with respect to q", 4},
    {"dk", KEY_DK, "FILE", 0, "with respect to k", 4},
    {"dv", KEY_DV, "FILE", 0, "with respect to v", 4},
    {"dbias", KEY_DBIAS, "FILE", 0, "with respect to the bias", 4},
    {"dsinks", KEY_DSINKS, "FILE", 0, "with respect to the sinks", 4},
    {"dalibi", KEY_DALIBI, "FILE", 0, "with respect to the slopes", 4},
    {0, 0, 0, 0, "Running:", 5},
    {"threads", KEY_THREADS, "N", 0, "default: the processors this process may use", 5},
    {"explain", KEY_EXPLAIN, 0, 0, "say which kernel runs and why", 5},
    {0},
};

static error_t parse_window(struct argp_state *state, const char *text, attn_sdpa_options *options)
{
    char *comma = strchr(text, ',');
    if (comma == NULL) {
        return cli_usage_error(state, "--window: '%s' must be two numbers, L,R (as in 128,0)",
                               text);
    }
    char left[32];
    size_t size = (size_t)(comma - text);
    if (size >= sizeof left) {
        return cli_usage_error(state, "--window: '%s' must be two numbers, L,R", text);
    }
    memcpy(left, text, size);
    left[size] = '\0';
    error_t error = cli_int(state, "--window", left, -1, INT64_MAX, &options->window_left);
    options->has_window = true;
    return error ? error
                 : cli_int(state, "--window", comma + 1, -1, INT64_MAX, &options->window_right);
}

static error_t parse_score(int key, const char *text, struct argp_state *state, sdpa_request *r)
{
    static const char *const words[] = {"none", "top-left", "bottom-right", NULL};
    int word = 0;
    error_t error = 0;
    switch (key) {
    case KEY_CAUSAL:
        error = cli_word(state, "--causal", text, words, &word);
        r->options.causal = (attn_causal)word;
        return error;
    case KEY_WINDOW: return parse_window(state, text, &r->options);
    case KEY_SCALE:
        r->options.has_scale = true;
        return cli_double(state, "--scale", text, -HUGE_VAL, HUGE_VAL, &r->options.scale);
    case KEY_SOFTCAP:
        error = cli_double(state, "--softcap", text, 0, HUGE_VAL, &r->options.softcap);
        return error == 0 && r->options.softcap <= 0
                   ? cli_usage_error(state, "--softcap: must be > 0; leave it out for none")
                   : error;
    case KEY_DROPOUT:
        error = cli_double(state, "--dropout", text, 0, 1, &r->options.dropout);
        return error == 0 && r->options.dropout >= 1
                   ? cli_usage_error(state, "--dropout: must be below 1")
                   : error;
    case KEY_SEED: return cli_uint64(state, "--seed", text, &r->options.dropout_seed);
    case KEY_THREADS: return cli_int(state, "--threads", text, 1, 1024, &r->threads);
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Two results in one file would be one result. */
static error_t check_outputs(struct argp_state *state, const sdpa_request *r)
{
    enum { OTHERS = 3, COUNT = OTHERS + SDPA_GRADIENTS };
    const char *files[COUNT] = {r->out, r->lse, r->weights};
    memcpy(files + OTHERS, r->gradient, sizeof r->gradient);
    for (int i = 0; i < COUNT; i++) {
        for (int n = 0; n < i; n++) {
            bool same = files[i] && files[n] && strcmp(files[i], files[n]) == 0;
            if (same && strncmp(files[i], "/dev/", 5) != 0) {
                return cli_usage_error(state, "%s: is given for two results; give each a file",
                                       files[i]);
            }
        }
    }
    return 0;
}

/* What must be there, and what goes with what. */
static error_t check_complete(struct argp_state *state, const sdpa_request *r)
{
    static const char *const names[SDPA_GRADIENTS] = {"dq",    "dk",     "dv",
                                                      "dbias", "dsinks", "dalibi"};
    const char *of[SDPA_GRADIENTS] = {r->q, r->k, r->v, r->bias, r->sinks, r->alibi};
    bool gradients = sdpa_wants_gradients(r);
    if (!r->q || !r->k || !r->v || (!r->out && !gradients && !r->dout)) {
        return cli_usage_error(state, "--%s FILE is missing; --q, --k, --v and --out are needed",
                               !r->q   ? "q"
                               : !r->k ? "k"
                               : !r->v ? "v"
                                       : "out");
    }
    if ((r->dout != NULL) != gradients) {
        return cli_usage_error(state, r->dout
                                          ? "--dout: no gradient is asked for; give --dq, --dk, "
                                            "--dv, --dbias, --dsinks or --dalibi"
                                          : "--dout FILE is missing; gradients need it");
    }
    for (int n = 0; n < SDPA_GRADIENTS; n++) {
        if (r->gradient[n] && !of[n]) {
            return cli_usage_error(state, "--%s: needs --%s", names[n], names[n] + 1);
        }
    }
    return check_outputs(state, r);
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    sdpa_request *r = state->input;
    switch (key) {
    case KEY_Q: r->q = text; return 0;
    case KEY_K: r->k = text; return 0;
    case KEY_V: r->v = text; return 0;
    case KEY_OUT: r->out = text; return 0;
    case KEY_LSE: r->lse = text; return 0;
    case KEY_WEIGHTS: r->weights = text; return 0;
    case KEY_MASK: r->mask = text; return 0;
    case KEY_BIAS: r->bias = text; return 0;
    case KEY_LENGTHS: r->lengths = text; return 0;
    case KEY_LENGTHS_Q: r->lengths_q = text; return 0;
    case KEY_SINKS: r->sinks = text; return 0;
    case KEY_ALIBI: r->alibi = text; return 0;
    case KEY_Q_OFFSET: r->q_offset = text; return 0;
    case KEY_EXPLAIN: r->explain = true; return 0;
    case KEY_DOUT: r->dout = text; return 0;
    case KEY_DQ:
    case KEY_DK:
    case KEY_DV:
    case KEY_DBIAS:
    case KEY_DSINKS:
    case KEY_DALIBI: r->gradient[key - KEY_DQ] = text; return 0;
    case ARGP_KEY_END: return check_complete(state, r);
    default: return parse_score(key, text, state, r);
    }
}

static attn_status make_outputs(sdpa_request *r, sdpa_job *j)
{
    const int64_t *q = j->q_view.shape;
    const int64_t out[4] = {q[0], q[1], q[2], j->v_view.shape[3]};
    const int64_t weights[4] = {q[0], q[1], q[2], j->k_view.shape[2]};
    attn_dtype sums = j->f64 ? ATTN_F64 : ATTN_F32;
    bool gradients = sdpa_wants_gradients(r);
    /* gradients start from an out that has not been rounded to 16 bits */
    attn_dtype type = gradients ? sums : j->q_view.dtype;
    attn_status status =
        sdpa_make_output(r->out ? r->out : "out", type, 4, out, &j->out, &j->out_view);
    if (!status && (r->lse || gradients)) {
        status = sdpa_make_output(r->lse ? r->lse : "lse", sums, 3, q, &j->lse, &j->lse_view);
        r->options.lse = &j->lse_view;
    }
    if (!status && r->weights) {
        status = sdpa_make_output(r->weights, sums, 4, weights, &j->weights, &j->weights_view);
        r->options.weights = &j->weights_view;
    }
    return status;
}

/* The result in q's type: rounded here where gradients needed it unrounded. */
static attn_status write_out(const sdpa_request *r, const sdpa_job *j)
{
    attn_view rounded = {0};
    void *data = NULL;
    if (j->out_view.dtype == j->q_view.dtype) {
        return sdpa_write_result(r->out, &j->out_view, j->q.ndim);
    }
    attn_status status =
        sdpa_make_output(r->out, j->q_view.dtype, 4, j->out_view.shape, &data, &rounded);
    status = status ? status : attn_convert(j->context, &j->out_view, &rounded);
    status = status ? status : sdpa_write_result(r->out, &rounded, j->q.ndim);
    free(data);
    return status;
}

static attn_status write_results(const sdpa_request *r, const sdpa_job *j)
{
    attn_status status = r->out ? write_out(r, j) : ATTN_OK;
    if (!status && r->lse) {
        status = sdpa_write_result(r->lse, &j->lse_view, j->q.ndim - 1);
    }
    if (!status && r->weights) {
        status = sdpa_write_result(r->weights, &j->weights_view, j->q.ndim);
    }
    return status;
}

static attn_status compute(sdpa_request *r, sdpa_job *j)
{
    attn_status status = sdpa_read_inputs(r, j);
    status = status ? status : make_outputs(r, j);
    if (!status && sdpa_wants_gradients(r)) {
        status = sdpa_prepare_backward(r, j);
    }
    if (status != ATTN_OK) {
        return status;
    }
    if (r->explain) {
        char text[2048];
        attn_kv_view kv = attn_kv_view_init(j->k_view, j->v_view);
        status = attn_sdpa_explain(j->context, &r->options, &j->q_view, &kv, &j->out_view, text,
                                   sizeof text);
        if (status == ATTN_OK) {
            cli_note("%s", text);
        }
    }
    status = status ? status
                    : attn_sdpa(j->context, &r->options, &j->q_view, &j->k_view, &j->v_view,
                                &j->out_view);
    if (!status && r->dout) {
        status = sdpa_run_backward(r, j);
    }
    status = status ? status : write_results(r, j);
    return status ? status : sdpa_write_gradients(r, j);
}

static void release(sdpa_job *j)
{
    npy_array *arrays[] = {&j->q, &j->k, &j->v, &j->mask, &j->bias, &j->dout};
    for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++) {
        npy_free(arrays[i]);
    }
    void *blocks[] = {j->lengths, j->lengths_q, j->q_offset, j->sinks,
                      j->alibi,   j->out,       j->lse,      j->weights};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) {
        free(blocks[i]);
    }
    for (int n = 0; n < SDPA_GRADIENTS; n++) {
        free(j->gradient[n].data);
    }
    attn_context_destroy(j->context);
}

int cmd_sdpa(int argc, char **argv)
{
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .doc = "Scaled dot-product attention on NumPy arrays: softmax(scale·Q·Kᵀ + bias)·V, "
               "and its gradients.",
    };
    sdpa_request r = {.options = attn_sdpa_options_init()};
    int code = cli_parse(&argp, argc, argv, &r);
    if (code >= 0) {
        return code;
    }
    sdpa_job j = {.context = cli_context(r.threads)};
    if (!j.context) {
        return CLI_FAILED;
    }
    attn_status status = compute(&r, &j);
    release(&j);
    return status == ATTN_OK ? CLI_OK : cli_fail_attn(NULL);
}
