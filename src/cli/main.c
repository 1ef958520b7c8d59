/**
 * attn: the program. This file knows the commands; each is a cmd_<name>.c.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const cli_command commands[] = {
    {"generate", "continue a prompt with a language model", cmd_generate},
    {"chat", "talk with a language model", cmd_chat},
    {"train", "train a small language model, or fine-tune one", cmd_train},
    {"fetch", "list known models and fetch one", cmd_fetch},
    {"sdpa", "attention on NumPy arrays", cmd_sdpa},
    {"info", "what this machine, or a model file, is made of", cmd_info},
    {"profile", "how time and memory grow with the length", cmd_profile},
    {"bench", "speed of attention and of language models", cmd_bench},
};

static const cli_command *find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

/* The list of commands, put below the options of `attn --help`. */
static char *help_filter(int key, const char *text, void *input)
{
    (void)input;
    if (key != ARGP_KEY_HELP_POST_DOC) {
        return (char *)(uintptr_t)text;
    }
    char *list = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&list, &size);
    if (stream == NULL) {
        return NULL;
    }
    fputs("Commands:\n", stream);
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        fprintf(stream, "  %-12s %s\n", commands[i].name, commands[i].summary);
    }
    fputs("\n`attn COMMAND --help' tells a command's options.", stream);
    fclose(stream);
    return list;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    (void)text;
    (void)state;
    return key == ARGP_KEY_INIT ? 0 : ARGP_ERR_UNKNOWN;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse,
        .args_doc = "COMMAND [OPTION...]",
        .doc = "Exact attention for CPUs, and language models that run on it.\v-",
        .help_filter = help_filter,
    };
    static char name[] = "attn";
    static char *empty[] = {name, NULL};
    char **words = argc > 0 ? argv : empty;
    int count = argc > 0 ? argc : 1;
    words[0] = name;

    int next = count;
    int code = cli_parse_front(&argp, count, words, NULL, &next);
    if (code >= 0) {
        return cli_finish(code);
    }
    if (next < count && strcmp(words[next], "help") == 0) { /* `attn help generate` */
        static char help[] = "--help";
        if (next + 1 == count) {
            char *again[] = {name, help, NULL};
            return cli_finish(cli_parse_front(&argp, 2, again, NULL, &next));
        }
        words[next] = words[next + 1];
        words[next + 1] = help;
        count = next + 2;
    }
    if (next >= count) {
        fputs("attn: a command is missing; `attn --help' lists them\n", stderr);
        return CLI_USAGE;
    }
    const cli_command *command = find_command(words[next]);
    if (command == NULL) {
        fprintf(stderr, "attn: there is no command '%s'; `attn --help' lists them\n", words[next]);
        return CLI_USAGE;
    }
    char title[64];
    snprintf(title, sizeof title, "attn %s", command->name);
    words[next] = title;
    return cli_finish(command->run(count - next, words + next));
}
