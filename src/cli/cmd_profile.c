/**
 * cmd_profile.c: `attn profile`: how attention's time and memory grow with the length, as a table, CSV, JSON or a page.
 */
#define _GNU_SOURCE
#include "html.h"
#include "profile.h"

#include <math.h>
#include <stdio.h>

enum { KEY_MAX = 0x2300, KEY_HEADS, KEY_DIM, KEY_THREADS, KEY_CSV, KEY_JSON, KEY_HTML, KEY_QUICK };

typedef struct request {
    int64_t max_len, heads, dim, threads;
    bool csv, json, quick;
    const char *html;
} request;

static const struct argp_option option_list[] = {
    {"max", KEY_MAX, "N", 0, "longest length (default 8192; lengths double from 128)", 0},
    {"heads", KEY_HEADS, "N", 0, "heads (default 8)", 0},
    {"dim", KEY_DIM, "N", 0, "head_dim (default 64)", 0},
    {"threads", KEY_THREADS, "N", 0, "default: the processors this process may use", 0},
    {"quick", KEY_QUICK, 0, 0, "do not run a layer of GPT-3 by the formula (1.6 GiB, seconds)", 0},
    {"html", KEY_HTML, "FILE", 0, "write a page with charts that needs no network", 0},
    {"csv", KEY_CSV, 0, 0, "print CSV instead of the table", 0},
    {"json", KEY_JSON, 0, 0, "print JSON instead of the table", 0},
    {0},
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    request *r = state->input;
    switch (key) {
    case KEY_MAX: return cli_int(state, "--max", text, 512, 1 << 20, &r->max_len);
    case KEY_HEADS: return cli_int(state, "--heads", text, 1, 1024, &r->heads);
    case KEY_DIM: return cli_int(state, "--dim", text, 1, 1024, &r->dim);
    case KEY_THREADS: return cli_int(state, "--threads", text, 1, 1024, &r->threads);
    case KEY_QUICK: r->quick = true; return 0;
    case KEY_HTML: r->html = text; return 0;
    case KEY_CSV: r->csv = true; return 0;
    case KEY_JSON: r->json = true; return 0;
    case ARGP_KEY_END:
        return r->csv && r->json ? cli_usage_error(state, "--csv and --json: choose one") : 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static json_t *fit_json(const profile_fit *fit)
{
    return json_pack("{s:o, s:o, s:i}", "exponent", cli_json_number(fit->exponent), "half_width_95",
                     cli_json_number(fit->half_width), "points", fit->points);
}

static json_t *series_json(const profile_series *series)
{
    json_t *points = json_array();
    for (int i = 0; i < series->count; i++) {
        const profile_point *point = &series->points[i];
        json_array_append_new(points, json_pack("{s:I, s:f, s:f}", "len", (json_int_t)point->len,
                                                "ms", point->ms, "bytes", point->bytes));
    }
    return json_pack("{s:s, s:s, s:o, s:o, s:o}", "name", series->name, "title", series->title,
                     "points", points, "time", fit_json(&series->time), "memory",
                     fit_json(&series->memory));
}

json_t *profile_json(const profile *p)
{
    json_t *series = json_array();
    for (int i = 0; i < PROFILE_SERIES; i++) {
        json_array_append_new(series, series_json(&p->series[i]));
    }
    const profile_gpt3 *g = &p->gpt3;
    json_t *gpt3 =
        json_pack("{s:f, s:f, s:f, s:f, s:o, s:o}", "formula_layer_bytes", g->formula_layer_bytes,
                  "formula_all_layers_bytes", g->formula_bytes, "tiled_layer_bytes",
                  g->tiled_layer_bytes, "tiled_layer_ms", g->tiled_layer_ms,
                  "formula_layer_measured_bytes", cli_json_number(g->formula_layer_measured_bytes),
                  "formula_layer_ms", cli_json_number(g->formula_layer_ms));
    return json_pack("{s:I, s:I, s:i, s:s, s:o, s:o}", "heads", (json_int_t)p->heads, "dim",
                     (json_int_t)p->dim, "threads", p->threads, "isa", p->isa, "series", series,
                     "gpt3", gpt3);
}

static void print_csv(const profile *p)
{
    printf("series,len,ms,bytes\n");
    for (int i = 0; i < PROFILE_SERIES; i++) {
        for (int n = 0; n < p->series[i].count; n++) {
            const profile_point *point = &p->series[i].points[n];
            printf("%s,%lld,%.6g,%.0f\n", p->series[i].name, (long long)point->len, point->ms,
                   point->bytes);
        }
    }
}

static void print_cell(const profile_series *series, int64_t len)
{
    char bytes[32];
    for (int n = 0; n < series->count; n++) {
        if (series->points[n].len == len) {
            printf(" %9.3f ms %9s |", series->points[n].ms,
                   cli_bytes(series->points[n].bytes, bytes, sizeof bytes));
            return;
        }
    }
    printf(" %9s    %9s |", "-", "-");
}

static void print_table(const profile *p)
{
    printf("%lld heads, head_dim %lld, f32, %d threads, %s\n\n%7s |", (long long)p->heads,
           (long long)p->dim, p->threads, p->isa, "length");
    for (int i = 0; i < PROFILE_SERIES; i++) {
        printf(" %-22s |", p->series[i].title);
    }
    printf("\n");
    for (int64_t len = 128; len <= p->max_len; len *= 2) {
        printf("%7lld |", (long long)len);
        for (int i = 0; i < PROFILE_SERIES; i++) {
            print_cell(&p->series[i], len);
        }
        printf("\n");
    }
    printf("  power |");
    for (int i = 0; i < PROFILE_SERIES; i++) {
        const profile_fit *t = &p->series[i].time, *m = &p->series[i].memory;
        printf(" %4.2f±%-5.2f %4.2f±%-5.2f |", t->exponent, t->half_width, m->exponent,
               m->half_width);
    }
    const profile_gpt3 *g = &p->gpt3;
    printf(
        "\n(time and memory grow as length to that power, ± 95 %%; memory beyond inputs and "
        "outputs)\n\nGPT-3's attention, 96 layers × 96 heads × 2048 tokens, f32: the formula's "
        "weights are %.2f GiB a layer, %.1f GiB in all;\nattn_sdpa took %.2f MiB and %.0f ms for "
        "a layer",
        g->formula_layer_bytes / 0x1p30, g->formula_bytes / 0x1p30, g->tiled_layer_bytes / 0x1p20,
        g->tiled_layer_ms);
    if (isfinite(g->formula_layer_ms)) {
        printf(", the formula %.2f GiB and %.0f ms", g->formula_layer_measured_bytes / 0x1p30,
               g->formula_layer_ms);
    }
    printf("\n");
}

int cmd_profile(int argc, char **argv)
{
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .doc = "Measures attention for growing lengths: the four-line formula with its weight "
               "matrix, attn_sdpa, and one token on a KV cache; fits the exponents.",
    };
    request r = {.max_len = 8192, .heads = 8, .dim = 64};
    int code = cli_parse(&argp, argc, argv, &r);
    if (code >= 0) {
        return code;
    }
    profile p = {.heads = r.heads, .dim = r.dim, .max_len = r.max_len};
    cli_interrupt_catch();
    if (r.html && html_possible(r.html, "--csv or --json") != ATTN_OK) {
        return cli_fail_attn("--html");
    }
    attn_status status = profile_measure(r.threads, r.quick, &p);
    if (status == ATTN_ERR_CANCELLED) {
        return CLI_INTERRUPTED;
    }
    if (status == ATTN_OK && r.html) {
        status = profile_write_html(&p, r.html);
    }
    if (status != ATTN_OK) {
        return cli_fail_attn(NULL);
    }
    if (r.json) {
        return cli_print_json(profile_json(&p));
    }
    if (r.csv) {
        print_csv(&p);
    } else {
        print_table(&p);
    }
    return CLI_OK;
}
