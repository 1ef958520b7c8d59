/*
 * attn_check: checks every kernel at every level, or times them.
 *
 *   attn_check [--kernel NAME] [--isa LEVEL] [--seed S] [--case N] [--bench] [--self-test] [--list]
 *
 * NAME is a family ("gemm") or one kernel of it ("gemm/tile"). ATTN_ISA caps the levels, ATTN_TEST_FRACTION=N
 * runs one N-th of the cases. Exit status 0: all passed.
 */
#include "check.h"

#include "cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const check_family *const families[] = {
    &check_convert,    &check_norm,    &check_rope,  &check_swiglu,  &check_gemm,
    &check_quant,      &check_decode,  &check_flash, &check_dropout, &check_dropout_span,
    &check_activation, &check_softmax, &check_adamw, &check_vector,  &check_flash_backward,
};

static const attn_isa levels[] = {ATTN_ISA_C,          ATTN_ISA_AVX2,       ATTN_ISA_AVX512,
                                  ATTN_ISA_AVX512VNNI, ATTN_ISA_AVX512BF16, ATTN_ISA_AMX,
                                  ATTN_ISA_NEON};
enum { LEVELS = sizeof levels / sizeof *levels };

typedef struct arguments {
    const char *kernel;
    attn_isa isa; /* AUTO: all */
    uint64_t seed;
    int64_t index; /* −1: all */
    int64_t fraction;
    bool bench, self_test, list;
} arguments;

/* "gemm" names all of the family, "gemm/tile" one kernel. */
static bool wanted(const arguments *a, const char *name)
{
    size_t length = a->kernel ? strlen(a->kernel) : 0;
    return length == 0 || strcmp(a->kernel, name) == 0 ||
           (strncmp(a->kernel, name, length) == 0 && name[length] == '/');
}

static int run_kernel(check *c, const arguments *a, const check_kernel *kernel, attn_isa isa)
{
    int failures = 0;
    int64_t count = kernel->cases / a->fraction;
    count = count > 0 ? count : 1;
    if (a->bench) {
        check_bench(c, kernel, isa, a->seed);
        return c->failed;
    }
    for (int64_t n = 0; n < count && failures < 3; n++) {
        /* a fraction takes cases from all of the range: small sizes first, then random ones */
        int64_t index = a->index >= 0 ? a->index : n * a->fraction;
        failures += !check_case(c, kernel, isa, a->seed, index);
        if (a->index >= 0) {
            break;
        }
    }
    if (failures == 0) {
        printf("%-24s %-11s %6lld cases passed\n", kernel->name, attn_isa_name(isa),
               (long long)(a->index >= 0 ? 1 : count));
    }
    return failures;
}

/* All levels up to the cap that have a version of their own. */
static int run_levels(check *c, const arguments *a, const check_kernel *kernel)
{
    attn_isa cap = ATTN_ISA_AUTO;
    const void *last = NULL;
    int failures = 0;
    if (attn_cpu_choose(ATTN_ISA_AUTO, &cap) != ATTN_OK) {
        fprintf(stderr, "attn_check: %s\n", attn_last_error());
        return 1;
    }
    for (int n = 0; n < LEVELS; n++) {
        if (!attn_cpu_has(levels[n]) || levels[n] > cap) {
            continue;
        }
        const void *table = kernel->table(levels[n]);
        if (table == last) {
            continue;
        }
        last = table;
        if (a->isa == ATTN_ISA_AUTO || a->isa == levels[n]) {
            failures += run_kernel(c, a, kernel, levels[n]);
        }
    }
    return failures;
}

static int usage(void)
{
    fprintf(stderr,
            "usage: attn_check [--kernel FAMILY[/NAME]] [--isa LEVEL] [--seed S] [--case N] "
            "[--bench] [--self-test] [--list]\n");
    return 2;
}

static bool parse(int argc, char **argv, arguments *a)
{
    const char *fraction = getenv("ATTN_TEST_FRACTION");
    const char *seed = getenv("ATTN_TEST_SEED");
    *a = (arguments){.seed = seed ? strtoull(seed, NULL, 0) : 1, .index = -1, .fraction = 1};
    if (fraction && atoll(fraction) > 0) {
        a->fraction = atoll(fraction);
    }
    for (int n = 1; n < argc; n++) {
        const char *value = n + 1 < argc ? argv[n + 1] : NULL;
        if (strcmp(argv[n], "--bench") == 0) {
            a->bench = true;
        } else if (strcmp(argv[n], "--self-test") == 0) {
            a->self_test = true;
        } else if (strcmp(argv[n], "--list") == 0) {
            a->list = true;
        } else if (value && strcmp(argv[n], "--kernel") == 0) {
            a->kernel = argv[++n];
        } else if (value && strcmp(argv[n], "--seed") == 0) {
            a->seed = strtoull(argv[++n], NULL, 0);
        } else if (value && strcmp(argv[n], "--case") == 0) {
            a->index = strtoll(argv[++n], NULL, 0);
        } else if (value && strcmp(argv[n], "--isa") == 0) {
            if (attn_isa_parse(argv[++n], &a->isa) != ATTN_OK) {
                return false;
            }
        } else {
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    static check c;
    arguments a;
    int failures = 0;
    int found = 0;
    if (!parse(argc, argv, &a)) {
        return usage();
    }
    check_catch_faults(&c);
    if (a.self_test) {
        return check_self_test(&c) == 0 ? 0 : 1;
    }
    printf("seed %llu\n", (unsigned long long)a.seed);
    for (size_t f = 0; f < sizeof families / sizeof *families; f++) {
        for (int k = 0; k < families[f]->count; k++) {
            const check_kernel *kernel = &families[f]->kernels[k];
            if (!wanted(&a, kernel->name)) {
                continue;
            }
            found++;
            if (a.list) {
                printf("%s\n", kernel->name);
            } else {
                failures += run_levels(&c, &a, kernel);
            }
        }
    }
    if (found == 0) {
        fprintf(stderr, "attn_check: no kernel is called \"%s\"; --list names them\n", a.kernel);
        return 2;
    }
    if (failures > 0) {
        printf("%d cases FAILED\n", failures);
    }
    return failures == 0 ? 0 : 1;
}
