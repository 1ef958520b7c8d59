/**
 * profile_html.c: the report of `attn profile`: its tables tell everything the charts do.
 */
#define _GNU_SOURCE
#include "html.h"
#include "profile.h"

#include <math.h>
#include <stdio.h>

static const char script[] =
    "function label(value) {\n"
    "  const power = Math.log10(value);\n"
    "  return Math.abs(power - Math.round(power)) < 1e-9 ? value.toLocaleString() : '';\n"
    "}\n"
    "function chart(id, title, field, unit) {\n"
    "  new Chart(document.getElementById(id), {\n"
    "    type: 'line',\n"
    "    data: { datasets: profile.series.map((s, i) => ({\n"
    "      label: s.title, borderColor: colours[i], backgroundColor: colours[i],\n"
    "      borderDash: s.name.endsWith('causal') ? [6, 4] : [],\n"
    "      data: s.points.map(p => ({ x: p.len, y: p[field] })) })) },\n"
    "    options: {\n"
    "      animation: false, maintainAspectRatio: false,\n"
    "      plugins: { title: { display: true, text: title },\n"
    "                 legend: { position: 'bottom' } },\n"
    "      scales: {\n"
    "        x: { type: 'logarithmic', title: { display: true, text: 'length (tokens)' },\n"
    "             min: profile.series[2].points[0].len,\n"
    "             max: profile.series[2].points.at(-1).len,\n"
    "             afterBuildTicks: axis => { axis.ticks = profile.series[2].points.map(p =>\n"
    "               ({ value: p.len })); },\n"
    "             ticks: { callback: value => value, autoSkip: false } },\n"
    "        y: { type: 'logarithmic', title: { display: true, text: unit },\n"
    "             ticks: { callback: label } } } } });\n"
    "}\n"
    "chart('time', 'Time', 'ms', 'milliseconds');\n"
    "chart('memory', 'Memory beyond inputs and outputs', 'bytes', 'bytes');\n";

static void write_number(FILE *page, double value, int digits)
{
    if (isfinite(value)) {
        fprintf(page, "<td>%.*f</td>", digits, value);
    } else {
        fputs("<td>–</td>", page);
    }
}

static const profile_point *find(const profile_series *series, int64_t len)
{
    for (int i = 0; i < series->count; i++) {
        if (series->points[i].len == len) {
            return &series->points[i];
        }
    }
    return NULL;
}

static void write_table(FILE *page, const profile *p, const char *title, bool memory)
{
    fprintf(page, "<h2>%s</h2>\n<div class=\"wide\"><table>\n<tr><th>length</th>", title);
    for (int i = 0; i < PROFILE_SERIES; i++) {
        fprintf(page, "<th>%s</th>", p->series[i].title);
    }
    fputs("</tr>\n", page);
    for (int64_t len = 128; len <= p->max_len; len *= 2) {
        fprintf(page, "<tr><td>%lld</td>", (long long)len);
        for (int i = 0; i < PROFILE_SERIES; i++) {
            const profile_point *point = find(&p->series[i], len);
            double value = !point ? (double)NAN : memory ? point->bytes / 1024 : point->ms;
            write_number(page, value, memory ? 0 : 3);
        }
        fputs("</tr>\n", page);
    }
    fputs("<tr><td>grows as length to the power</td>", page);
    for (int i = 0; i < PROFILE_SERIES; i++) {
        const profile_fit *fit = memory ? &p->series[i].memory : &p->series[i].time;
        fprintf(page, "<td>%.2f ± %.2f</td>", fit->exponent, fit->half_width);
    }
    fputs("</tr>\n</table></div>\n", page);
}

static void write_gpt3(FILE *page, const profile_gpt3 *g)
{
    fprintf(page,
            "<h2>GPT-3's attention</h2>\n<p>96 layers of 96 heads of 128, 2048 tokens, f32, "
            "causal. The weight matrices of the formula are 96 × 2048 × 2048 × 4 bytes a "
            "layer.</p>\n<table>\n<tr><th></th><th>GiB a layer</th><th>GiB, all layers "
            "kept</th><th>measured: GiB a layer</th><th>ms a layer</th></tr>\n"
            "<tr><td>four lines</td><td>%.3f</td><td>%.1f</td>",
            g->formula_layer_bytes / 0x1p30, g->formula_bytes / 0x1p30);
    write_number(page, g->formula_layer_measured_bytes / 0x1p30, 3);
    write_number(page, g->formula_layer_ms, 0);
    fputs("</tr>\n<tr><td>attn_sdpa</td><td>–</td><td>–</td>", page);
    write_number(page, g->tiled_layer_bytes / 0x1p30, 5);
    write_number(page, g->tiled_layer_ms, 0);
    fputs("</tr>\n</table>\n", page);
}

static void write_body(FILE *page, const void *user)
{
    const profile *p = user;
    fprintf(page,
            "<p>%lld heads, head_dim %lld, f32, %d threads, %s. Solid: every word sees all; "
            "dashed: only those before it. The last series is one new token that attends from a "
            "cache.</p>\n<div class=\"charts\">\n<div class=\"chart\"><canvas "
            "id=\"time\"></canvas></div>\n<div class=\"chart\"><canvas "
            "id=\"memory\"></canvas></div>\n</div>\n",
            (long long)p->heads, (long long)p->dim, p->threads, p->isa);
    write_table(page, p, "Time, milliseconds (median)", false);
    write_table(page, p, "Memory beyond inputs and outputs, KiB (counted at the allocator)", true);
    fputs("<p>Exponents are least-squares slopes on logarithms over the longer lengths, ± the 95 % "
          "confidence interval. The last column's memory is the cache itself.</p>\n",
          page);
    write_gpt3(page, &p->gpt3);
}

attn_status profile_write_html(const profile *p, const char *path)
{
    return html_write(path, "attn profile", "How attention grows", write_body, p, "profile",
                      profile_json(p), script, "--csv or --json");
}
