/**
 * cli/train_log.c: what a run says while it goes on: lines or JSON on standard output, a progress bar on a terminal, and the memory of
 * both for the report.
 */
#define _GNU_SOURCE
#include "train.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

void train_log_open(train_log *log, bool json)
{
    memset(log, 0, sizeof *log);
    log->json = json;
    log->bar = isatty(STDERR_FILENO) != 0;
}

void train_log_free(train_log *log)
{
    for (size_t i = 0; i < log->sample_count; i++) {
        free(log->samples[i].text);
    }
    free(log->samples);
    free(log->points);
    memset(log, 0, sizeof *log);
}

/* ---- the bar ---- */

static void hide_bar(train_log *log)
{
    if (log->bar_shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        log->bar_shown = false;
    }
}

/* "1:02:03", "4:05" */
static const char *duration(double seconds, char *text, size_t size)
{
    if (!(seconds >= 0 && seconds < 1e9)) {
        snprintf(text, size, "?");
        return text;
    }
    long total = lround(seconds);
    if (total >= 3600) {
        snprintf(text, size, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60, total % 60);
    } else {
        snprintf(text, size, "%ld:%02ld", total / 60, total % 60);
    }
    return text;
}

static int terminal_columns(void)
{
    struct winsize size;
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
    return known ? size.ws_col : 80;
}

void train_log_bar(train_log *log, const train_progress *p)
{
    enum { WIDEST = 30, NARROWEST = 4 };
    double now = cli_now();
    if (!log->bar || (log->bar_shown && now - log->bar_time < 0.1)) {
        return;
    }
    char eta[32], text[160], bar[WIDEST + 1];
    int size = snprintf(text, sizeof text, "%lld/%lld  loss %.4f  %.0f tokens/s  ETA %s",
                        (long long)p->step, (long long)p->steps, p->loss, p->tokens_per_s,
                        duration(p->eta_s, eta, sizeof eta));
    /* A line that is wider than the terminal cannot be drawn over. */
    int columns = terminal_columns(), width = columns - 1 - size - 3;
    width = width > WIDEST ? WIDEST : width;
    int full = p->steps > 0 && width > 0 ? (int)(width * p->step / p->steps) : 0;
    for (int i = 0; i < width; i++) {
        bar[i] = i < full ? '=' : ' ';
    }
    if (width >= NARROWEST) {
        fprintf(stderr, "\r[%.*s] %s\033[K", width, bar, text);
    } else {
        fprintf(stderr, "\r%.*s\033[K", columns - 1, text);
    }
    fflush(stderr);
    log->bar_shown = true;
    log->bar_time = now;
}

/* ---- lines ---- */

static void write_line(train_log *log, const char *text)
{
    hide_bar(log);
    cli_write(text, strlen(text));
}

static void write_json(train_log *log, json_t *object)
{
    hide_bar(log);
    cli_print_json(object);
}

enum { MOST_POINTS = 4096 };

/* Every second point that has no validation loss goes: curves stay readable, checkpoints small. */
static void thin_out(train_log *log)
{
    size_t kept = 0;
    for (size_t i = 0; i < log->count; i++) {
        if (i % 2 == 0 || !isnan(log->points[i].val)) {
            log->points[kept++] = log->points[i];
        }
    }
    log->count = kept;
}

static void keep_point(train_log *log, const train_progress *p)
{
    if (log->count >= MOST_POINTS && log->count == log->room) {
        thin_out(log);
    }
    if (log->count == log->room) {
        size_t room = 2 * log->room + 64;
        train_point *grown = realloc(log->points, room * sizeof *grown);
        if (grown == NULL) {
            return; /* the report lacks a point */
        }
        log->points = grown;
        log->room = room;
    }
    log->points[log->count++] = (train_point){p->step, p->loss, p->val};
}

void train_log_step(train_log *log, const train_progress *p)
{
    keep_point(log, p);
    if (log->json) {
        json_t *o = json_object();
        json_object_set_new(o, "event", json_string("step"));
        json_object_set_new(o, "step", json_integer(p->step));
        json_object_set_new(o, "loss", cli_json_number(p->loss));
        json_object_set_new(o, "val_loss", cli_json_number(p->val));
        json_object_set_new(o, "lr", cli_json_number(p->lr));
        json_object_set_new(o, "grad_norm", cli_json_number(p->grad_norm));
        json_object_set_new(o, "tokens_per_s", cli_json_number(p->tokens_per_s));
        json_object_set_new(o, "ceiling_percent", cli_json_number(100 * p->ceiling_share));
        json_object_set_new(o, "eta_s", cli_json_number(p->eta_s));
        write_json(log, o);
        return;
    }
    char text[256], val[32] = "             ", eta[32];
    if (!isnan(p->val)) {
        snprintf(val, sizeof val, "  val %.4f", p->val);
    }
    snprintf(text, sizeof text,
             "step %6lld/%lld  loss %.4f%-12s  %7.0f tokens/s  %2.0f %% of ceiling  ETA %s\n",
             (long long)p->step, (long long)p->steps, p->loss, val, p->tokens_per_s,
             100 * p->ceiling_share, duration(p->eta_s, eta, sizeof eta));
    write_line(log, text);
}

/* For the report, which lacks it without memory. */
static void keep_sample(train_log *log, int64_t step, const char *text, size_t size)
{
    train_sample *grown = realloc(log->samples, (log->sample_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return;
    }
    log->samples = grown;
    train_sample *sample = &grown[log->sample_count];
    *sample = (train_sample){.step = step, .text = malloc(size + 1), .size = size};
    if (sample->text) {
        memcpy(sample->text, text, size);
        sample->text[size] = '\0';
        log->sample_count++;
    }
}

void train_log_sample(train_log *log, int64_t step, const char *text, size_t size)
{
    keep_sample(log, step, text, size);
    if (log->json) {
        json_t *o = json_object();
        json_object_set_new(o, "event", json_string("sample"));
        json_object_set_new(o, "step", json_integer(step));
        json_object_set_new(o, "text", cli_json_text(text, size));
        write_json(log, o);
        return;
    }
    char head[64];
    snprintf(head, sizeof head, "---- sample at step %lld ----\n", (long long)step);
    write_line(log, head);
    cli_write(text, size);
    cli_write("\n----\n", 6);
}

void train_log_event(train_log *log, json_t *object, const char *format, ...)
{
    if (log->json) {
        write_json(log, object);
        return;
    }
    json_decref(object);
    char *text = NULL;
    va_list list;
    va_start(list, format);
    int size = vasprintf(&text, format, list);
    va_end(list);
    if (size >= 0) {
        write_line(log, text);
        cli_write("\n", 1);
        free(text);
    }
}

/* ---- memory ---- */

json_t *train_log_history(const train_log *log)
{
    json_t *list = json_array();
    for (size_t i = 0; i < log->count; i++) {
        const train_point *p = &log->points[i];
        json_t *triple = json_array();
        json_array_append_new(triple, json_integer(p->step));
        json_array_append_new(triple, cli_json_number(p->loss));
        json_array_append_new(triple, cli_json_number(p->val));
        json_array_append_new(list, triple);
    }
    return list;
}

void train_log_take_history(train_log *log, const json_t *history)
{
    size_t i;
    json_t *triple;
    json_array_foreach(history, i, triple)
    {
        const json_t *val = json_array_get(triple, 2);
        keep_point(log, &(train_progress){
                            .step = json_integer_value(json_array_get(triple, 0)),
                            .loss = json_number_value(json_array_get(triple, 1)),
                            .val = json_is_number(val) ? json_number_value(val) : (double)NAN,
                        });
    }
}
