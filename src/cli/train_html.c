/**
 * cli/train_html.c: the report of `attn train`: loss curves, settings, samples.
 */
#define _GNU_SOURCE
#include "html.h"
#include "train.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char script[] =
    "new Chart(document.getElementById('loss'), {\n"
    "  type: 'line',\n"
    "  data: { datasets: [\n"
    "    { label: 'training', borderColor: colours[2], backgroundColor: colours[2],\n"
    "      pointRadius: 0, borderWidth: 1.5, data: run.points.map(p => ({ x: p[0], y: p[1] })) },\n"
    "    { label: 'validation', borderColor: colours[0], backgroundColor: colours[0],\n"
    "      data: run.points.filter(p => p[2] !== null).map(p => ({ x: p[0], y: p[2] })) } ] },\n"
    "  options: { animation: false, maintainAspectRatio: false,\n"
    "    plugins: { title: { display: true, text: 'Loss' }, legend: { position: 'bottom' } },\n"
    "    scales: { x: { type: 'linear', title: { display: true, text: 'step' } },\n"
    "              y: { title: { display: true, text: 'nats per token' } } } } });\n";

/* Settings of the other kind of run are none of this one. */
static bool applies(const train_run *run, const char *key, const json_t *value)
{
    if (json_is_string(value) && json_string_length(value) == 0) {
        return false;
    }
    bool tuning = strncmp(key, "lora", 4) == 0 || strcmp(key, "full") == 0;
    return run->settings->base[0] ? json_integer_value(value) != 0 || !json_is_integer(value)
                                  : !tuning;
}

static void write_settings(FILE *page, const train_run *run)
{
    json_t *settings = train_settings_json(run->settings);
    const char *key;
    json_t *value;
    fputs("<h2>Settings</h2>\n<table>\n", page);
    json_object_foreach(settings, key, value)
    {
        if (!applies(run, key, value)) {
            continue;
        }
        char *text = json_is_string(value)
                         ? strdup(json_string_value(value))
                         : json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
        fprintf(page, "<tr><td>%s</td><td>", key);
        html_text(page, text ? text : "", text ? strlen(text) : 0);
        fputs("</td></tr>\n", page);
        free(text);
    }
    fputs("</table>\n", page);
    json_decref(settings);
}

static void write_losses(FILE *page, const train_log *log)
{
    fputs("<h2>Validation</h2>\n<table>\n<tr><th>step</th><th>training loss</th><th>validation "
          "loss</th></tr>\n",
          page);
    for (size_t i = 0; i < log->count; i++) {
        const train_point *p = &log->points[i];
        if (!isnan(p->val)) {
            fprintf(page, "<tr><td>%lld</td><td>%.4f</td><td>%.4f</td></tr>\n", (long long)p->step,
                    p->loss, p->val);
        }
    }
    fputs("</table>\n", page);
}

/* "one.txt, two.txt" */
static void write_names(FILE *page, const train_control *control)
{
    for (size_t i = 0; i < control->data_count; i++) {
        const char *slash = strrchr(control->data[i], '/');
        const char *name = slash ? slash + 1 : control->data[i];
        fputs(i > 0 ? ", " : "", page);
        html_text(page, name, strlen(name));
    }
}

static void write_result(FILE *page, const train_run *run)
{
    double chars = train_nats_per_char(run, run->last_val);
    if (isnan(run->last_val)) {
        return;
    }
    fprintf(page, "<p>Validation loss at the end: <b>%.4f</b> nats per token", run->last_val);
    if (!isnan(chars)) {
        fprintf(page, ", %.4f per character", chars);
    }
    fprintf(page, " (perplexity %.2f", exp(run->last_val));
    if (!isnan(run->val_before)) {
        fprintf(page, "; before training %.2f", exp(run->val_before));
    }
    fputs(").</p>\n", page);
}

static void write_body(FILE *page, const void *user)
{
    const train_run *run = user;
    int64_t held_out = run->text.held_out;
    double seconds = run->earlier_seconds + cli_now() - run->began;
    fprintf(page, "<p>%lld parameters, %lld of them trained, on %lld tokens of ",
            (long long)attn_module_element_count(run->gpt, false),
            (long long)attn_module_element_count(run->gpt, true),
            (long long)(run->text.count - held_out));
    write_names(page, run->control);
    fprintf(page,
            "; %lld more held out for validation. %lld steps in %.0f s on %d threads (%s): %.0f "
            "tokens/s.</p>\n",
            (long long)held_out, (long long)attn_trainer_steps(run->trainer), seconds,
            attn_context_threads(run->context), attn_isa_name(attn_context_isa(run->context)),
            run->train_seconds > 0 ? (double)run->trained_tokens / run->train_seconds : 0.0);
    write_result(page, run);
    fputs("<div class=\"chart\"><canvas id=\"loss\"></canvas></div>\n", page);
    write_losses(page, &run->log);
    write_settings(page, run);
    if (run->log.sample_count > 0) {
        fputs("<h2>Samples</h2>\n", page);
    }
    for (size_t i = 0; i < run->log.sample_count; i++) {
        const train_sample *s = &run->log.samples[i];
        fprintf(page, "<h3>after step %lld</h3>\n<pre>", (long long)s->step);
        html_text(page, s->text, s->size);
        fputs("</pre>\n", page);
    }
}

attn_status train_write_report(const train_run *run, const char *path)
{
    json_t *data = json_pack("{s:o}", "points", train_log_history(&run->log));
    return html_write(path, "attn train", "What was learned", write_body, run, "run", data, script,
                      "--json");
}
