/**
 * cmd_bench.c: `attn bench`: which benchmark.
 */
#define _GNU_SOURCE
#include "bench.h"

#include <stdio.h>
#include <string.h>

static error_t parse(int key, char *text, struct argp_state *state)
{
    (void)text;
    (void)state;
    return key == ARGP_KEY_INIT ? 0 : ARGP_ERR_UNKNOWN;
}

int cmd_bench(int argc, char **argv)
{
    static const struct argp argp = {
        .parser = parse,
        .args_doc = "sdpa|lm|train [OPTION...]",
        .doc = "Benchmarks.\vattn bench sdpa  attention on shapes, beside the machine's ceilings\n"
               "attn bench lm    prefill and decode of a language model\n"
               "attn bench train a training step of a small decoder\n\n"
               "`attn bench sdpa --help' tells the options.",
    };
    int next = argc;
    int code = cli_parse_front(&argp, argc, argv, NULL, &next);
    if (code >= 0) {
        return code;
    }
    const char *what = next < argc ? argv[next] : "";
    static char sdpa[] = "attn bench sdpa", lm[] = "attn bench lm", train[] = "attn bench train";
    if (strcmp(what, "sdpa") == 0) {
        argv[next] = sdpa;
        return bench_sdpa(argc - next, argv + next);
    }
    if (strcmp(what, "lm") == 0) {
        argv[next] = lm;
        return bench_lm(argc - next, argv + next);
    }
    if (strcmp(what, "train") == 0) {
        argv[next] = train;
        return bench_train(argc - next, argv + next);
    }
    fprintf(stderr, "attn bench: '%s' is no benchmark; say sdpa, lm or train\n", what);
    return CLI_USAGE;
}
