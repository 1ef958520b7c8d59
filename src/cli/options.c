/**
 * cli/options.c: argp whose errors are one sentence, and numbers read from options.
 *
 * argp by itself says two lines and leaves with its own code, so it runs silently here and this
 * file says what was wrong: it finds the argument that getopt stopped at and looks its name up.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_USAGE   0x1001
#define KEY_VERSION 'V'

/* What one run of the parser leaves behind. The program parses one command line at a time. */
static struct {
    const char *name;
    bool said;  /* a sentence has been said */
    bool ended; /* --help and its like did all there is to do */
    int front;  /* where parse_front stopped, or −1 */
    bool in_front;
    int next; /* where argp was when it failed */
} run;

static error_t parse_common(int key, char *text, struct argp_state *state)
{
    (void)text;
    switch (key) {
    case '?': argp_help(state->root_argp, stdout, ARGP_HELP_STD_HELP & ~0x300u, state->name); break;
    case KEY_USAGE: argp_help(state->root_argp, stdout, ARGP_HELP_USAGE, state->name); break;
    case KEY_VERSION: printf("attn %s\n", attn_version()); break;
    case ARGP_KEY_ERROR: run.next = state->next; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
    run.ended = true;
    run.said = true;
    return ECANCELED;
}

static const struct argp_option common_options[] = {
    {"help", '?', NULL, 0, "print this help and leave", -1},
    {"usage", KEY_USAGE, NULL, 0, "print a short usage message and leave", 0},
    {"version", KEY_VERSION, NULL, 0, "print the version and leave", 0},
    {0},
};
static const struct argp common = {.options = common_options, .parser = parse_common};

/* Takes the first argument away from `attn` itself: it and what follows belong to the command. */
static error_t parse_first(int key, char *text, struct argp_state *state)
{
    (void)text;
    if (key != ARGP_KEY_ARG || !run.in_front) {
        return ARGP_ERR_UNKNOWN;
    }
    run.front = state->next - 1;
    state->next = state->argc;
    return 0;
}
static const struct argp first = {.parser = parse_first};

error_t cli_usage_error(struct argp_state *state, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(stderr, "%s: ", state->name);
    vfprintf(stderr, format, list);
    fputc('\n', stderr);
    va_end(list);
    run.said = true;
    return EINVAL;
}

/* Counts options whose name begins with name[0 … size); *found is the exact or the only one. */
static int lookup(const struct argp *argp, const char *name, size_t size,
                  const struct argp_option **found)
{
    int matches = 0;
    for (const struct argp_option *o = argp->options; o && (o->name || o->key || o->doc); o++) {
        if (o->name && strncmp(o->name, name, size) == 0) {
            *found = o;
            if (o->name[size] == '\0') {
                return 1;
            }
            matches++;
        }
    }
    for (const struct argp_child *c = argp->children; c && c->argp; c++) {
        const struct argp_option *below = NULL;
        int count = lookup(c->argp, name, size, &below);
        if (count == 1 && below->name[size] == '\0') {
            *found = below;
            return 1;
        }
        if (count > 0) {
            *found = below;
            matches += count;
        }
    }
    return matches;
}

/* The sentence for what getopt refused at argv[run.next − 1]. */
static void explain(const struct argp *argp, int argc, char **argv)
{
    const char *word = run.next > 0 && run.next <= argc ? argv[run.next - 1] : NULL;
    if (word == NULL) {
        fprintf(stderr, "%s: the options cannot be understood; try `%s --help'\n", run.name,
                run.name);
        return;
    }
    if (strncmp(word, "--", 2) != 0) {
        if (word[0] != '-' && run.next < argc) { /* getopt had not moved past "-x" yet */
            word = argv[run.next];
        }
        fprintf(stderr, "%s: there is no argument or option '%s' here; try `%s --help'\n", run.name,
                word, run.name);
        return;
    }
    size_t size = strcspn(word + 2, "=");
    const struct argp_option *option = NULL;
    int matches = lookup(argp, word + 2, size, &option);
    if (matches == 0) {
        fprintf(stderr, "%s: there is no option '%.*s'; try `%s --help'\n", run.name, (int)size + 2,
                word, run.name);
    } else if (matches > 1) {
        fprintf(stderr, "%s: option '%.*s' could be several; write it in full\n", run.name,
                (int)size + 2, word);
    } else if (word[2 + size] == '=' && option->arg == NULL) {
        fprintf(stderr, "%s: option '--%s' takes no value\n", run.name, option->name);
    } else {
        fprintf(stderr, "%s: option '--%s' needs a value, %s\n", run.name, option->name,
                option->arg ? option->arg : "none");
    }
}

/* The command's argp becomes the first child of one that adds --help and its like and keeps the
 * texts. */
static int parse(const struct argp *argp, int argc, char **argv, void *input, bool in_front,
                 int *next)
{
    struct argp inner = *argp;
    inner.args_doc = NULL;
    inner.doc = NULL;
    inner.help_filter = NULL;
    const struct argp_child children[] = {
        {&inner, 0, NULL, 0}, {&common, 0, NULL, 0}, {in_front ? &first : NULL, 0, NULL, 0}, {0}};
    const struct argp root = {
        /* without a parser, its input goes to its first child */
        .args_doc = argp->args_doc,
        .doc = argp->doc,
        .children = children,
        .help_filter = argp->help_filter,
    };
    unsigned flags = ARGP_NO_ERRS | ARGP_NO_EXIT | ARGP_NO_HELP | (in_front ? ARGP_IN_ORDER : 0u);

    memset(&run, 0, sizeof run);
    run.name = argv[0];
    run.front = -1;
    run.in_front = in_front;
    error_t error = argp_parse(&root, argc, argv, flags, NULL, input);
    if (run.ended) {
        return CLI_OK;
    }
    if (error == ENOMEM) {
        return cli_fail("not enough memory to read the command line");
    }
    if (error != 0) {
        if (!run.said) {
            explain(&root, argc, argv);
        }
        return CLI_USAGE;
    }
    if (next) {
        *next = run.front < 0 ? argc : run.front;
    }
    return -1;
}

int cli_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    return parse(argp, argc, argv, input, false, NULL);
}

int cli_parse_front(const struct argp *argp, int argc, char **argv, void *input, int *next)
{
    return parse(argp, argc, argv, input, true, next);
}

error_t cli_int(struct argp_state *state, const char *option, const char *text, int64_t min,
                int64_t max, int64_t *value)
{
    char *end = NULL;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (end == text || *end != '\0') {
        return cli_usage_error(state, "%s: '%s' is no whole number", option, text);
    }
    if (errno == ERANGE || number < min || number > max) {
        if (max == INT64_MAX) {
            return cli_usage_error(state, "%s: %s is out of range, it must be at least %lld",
                                   option, text, (long long)min);
        }
        return cli_usage_error(state, "%s: %s is out of range, it must be %lld to %lld", option,
                               text, (long long)min, (long long)max);
    }
    *value = number;
    return 0;
}

error_t cli_uint64(struct argp_state *state, const char *option, const char *text, uint64_t *value)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 0);
    if (end == text || *end != '\0' || errno == ERANGE || strchr(text, '-') != NULL) {
        return cli_usage_error(state, "%s: '%s' is no whole number from 0 to 2^64-1", option, text);
    }
    *value = number;
    return 0;
}

error_t cli_double(struct argp_state *state, const char *option, const char *text, double min,
                   double max, double *value)
{
    char *end = NULL;
    double number = strtod(text, &end);
    if (end == text || *end != '\0' || isnan(number)) {
        return cli_usage_error(state, "%s: '%s' is no number", option, text);
    }
    if (!(number >= min && number <= max)) {
        if (isinf(max)) {
            return cli_usage_error(state, "%s: %s is out of range, it must be at least %g", option,
                                   text, min);
        }
        return cli_usage_error(state, "%s: %s is out of range, it must be %g to %g", option, text,
                               min, max);
    }
    *value = number;
    return 0;
}

error_t cli_word(struct argp_state *state, const char *option, const char *text,
                 const char *const *words, int *index)
{
    char list[256] = "";
    size_t used = 0;
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], text) == 0) {
            *index = i;
            return 0;
        }
        int n = snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", words[i]);
        used += n > 0 && (size_t)n < sizeof list - used ? (size_t)n : 0;
    }
    return cli_usage_error(state, "%s: '%s' is none of %s", option, text, list);
}
