/* One case, its failure, and a kernel's time beside its C version. */
#include "check.h"

#include "cpu/cpu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void check_fail(check *c, const char *format, ...)
{
    va_list arguments;
    bool first = !c->failed;
    c->failed = true;
    if (c->quiet || !first) {
        return;
    }
    printf("FAILED %s %s case %lld: ", c->kernel, attn_isa_name(c->isa), (long long)c->index);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n  repeat with: build/tests/attn_check --seed %llu --kernel %s --isa %s --case %lld\n",
           (unsigned long long)c->seed, c->kernel, attn_isa_name(c->isa), (long long)c->index);
    fflush(stdout);
}

/* FNV-1a, so that kernels of one seed see different numbers. */
static uint64_t hash_name(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++) {
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    }
    return hash;
}

bool check_case(check *c, const check_kernel *kernel, attn_isa isa, uint64_t seed, int64_t index)
{
    c->isa = isa;
    c->seed = seed;
    c->index = index;
    c->kernel = kernel->name;
    c->failed = false;
    c->random = seed ^ hash_name(kernel->name) ^ (uint64_t)index * 0xd1342543de82ef95u;
    c->placement = 0;
    uint64_t start = c->random;
    for (int placement = 0; placement < 5 && !c->failed; placement++) {
        c->random = start; /* the same values in every place */
        c->placement = placement;
        kernel->run(c);
        check_release(c);
    }
    return !c->failed;
}

/* ---- time -------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Repeats that take about `seconds`. */
static int64_t calibrate(const check_kernel *kernel, attn_isa isa, double seconds)
{
    for (int64_t repeats = 1;; repeats *= 2) {
        double start = now();
        kernel->bench(isa, repeats);
        if (now() - start >= seconds / 2 || repeats > INT64_MAX / 4) {
            return repeats;
        }
    }
}

void check_bench(check *c, const check_kernel *kernel, attn_isa isa, uint64_t seed)
{
    enum { ROUNDS = 9 };
    double speed[2][ROUNDS];
    double ratio[ROUNDS];
    if (!kernel->bench) {
        return;
    }
    for (int64_t n = 0; n < kernel->cases; n += 1 + kernel->cases / 20) {
        if (!check_case(c, kernel, isa, seed, n)) {
            printf("%-24s %-11s no time: it failed its check\n", kernel->name, attn_isa_name(isa));
            return;
        }
    }
    attn_fp_state saved = attn_fp_enter(true);
    const attn_isa isas[2] = {ATTN_ISA_C, isa};
    int64_t repeats[2] = {calibrate(kernel, ATTN_ISA_C, 0.02), calibrate(kernel, isa, 0.02)};
    for (int round = 0; round < ROUNDS;
         round++) { /* alternately, so that both meet the neighbours */
        for (int which = 0; which < 2; which++) {
            double start = now();
            double work = kernel->bench(isas[which], repeats[which]);
            speed[which][round] = work / (now() - start);
        }
        ratio[round] = speed[1][round] / speed[0][round];
    }
    attn_fp_leave(saved);
    for (int which = 0; which < 2; which++) {
        qsort(speed[which], ROUNDS, sizeof(double), by_value);
    }
    qsort(ratio, ROUNDS, sizeof(double), by_value);
    printf("%-24s %-11s %8.3f G%s/s  %6.2f x C (%.2f … %.2f)\n", kernel->name, attn_isa_name(isa),
           speed[1][ROUNDS / 2] * 1e-9, kernel->unit, ratio[ROUNDS / 2], ratio[0],
           ratio[ROUNDS - 1]);
}
