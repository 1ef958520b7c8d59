/**
 * log.c: the sink of ATTN_VERBOSE.
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "base/log.h"

#include <attn/base.h>

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void (*log_sink)(void *user, const char *line);
static void *log_user;

void attn_set_log_sink(void (*sink)(void *user, const char *line), void *user)
{
    log_sink = sink;
    log_user = user;
}

bool attn_verbose(void)
{
    static atomic_int known; /* 0: not asked yet, 1: quiet, 2: verbose */
    int state = atomic_load_explicit(&known, memory_order_relaxed);
    if (state == 0) {
        const char *word = getenv("ATTN_VERBOSE");
        state = word && word[0] != '\0' && strcmp(word, "0") != 0 ? 2 : 1;
        atomic_store_explicit(&known, state, memory_order_relaxed);
    }
    return state == 2;
}

double attn_log_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

void attn_log(const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (log_sink) {
        log_sink(log_user, line);
    } else {
        fprintf(stderr, "%s\n", line);
    }
}
