/**
 * log.c: the sink of ATTN_VERBOSE.
 */
#include "base/log.h"

#include <attn/base.h>

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
