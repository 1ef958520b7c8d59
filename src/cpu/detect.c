/**
 * detect.c: the instruction-set levels of this machine: what CPUID says, what the operating system saves (XGETBV), and what
 * this build has kernels for.
 */
#define _GNU_SOURCE /* syscall */
#include "cpu/cpu.h"

#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

static const struct {
    attn_isa isa;
    const char *name;
} levels[] = {
    {ATTN_ISA_C, "c"},
    {ATTN_ISA_AVX2, "avx2"},
    {ATTN_ISA_AVX512, "avx512"},
    {ATTN_ISA_AVX512VNNI, "avx512vnni"},
    {ATTN_ISA_AVX512BF16, "avx512bf16"},
    {ATTN_ISA_AMX, "amx"},
    {ATTN_ISA_NEON, "neon"},
};

#define LEVELS (sizeof levels / sizeof levels[0])

const char *attn_isa_name(attn_isa isa)
{
    for (size_t i = 0; i < LEVELS; i++) {
        if (levels[i].isa == isa) {
            return levels[i].name;
        }
    }
    return isa == ATTN_ISA_AUTO ? "auto" : "invalid";
}

attn_status attn_isa_parse(const char *word, attn_isa *isa)
{
    if (!word || !isa) {
        return attn_fail(ATTN_ERR_ARGUMENT, "attn_isa_parse: word and isa must not be NULL");
    }
    *isa = ATTN_ISA_AUTO;
    if (word[0] == '\0' || strcmp(word, "auto") == 0) {
        return ATTN_OK;
    }
    for (size_t i = 0; i < LEVELS; i++) {
        if (strcmp(levels[i].name, word) == 0) {
            *isa = levels[i].isa;
            return ATTN_OK;
        }
    }
    return attn_fail(ATTN_ERR_ARGUMENT,
                     "ISA level \"%.32s\" is not known; use one of auto, c, avx2, avx512, "
                     "avx512vnni, avx512bf16, amx, neon",
                     word);
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>

static uint64_t xgetbv0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return ((uint64_t)high << 32) | low;
}

/* AMX state is 8 KiB a thread, and Linux gives it only to processes that ask (arch_prctl 0x1023, feature 18). */
static bool amx_permitted(void)
{
#if defined(__linux__) && defined(SYS_arch_prctl)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
    return false;
#endif
}

static attn_isa detect(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) { /* OSXSAVE */
        return ATTN_ISA_C;
    }
    uint64_t saved = xgetbv0();
    bool fma = c & (1u << 12), f16c = c & (1u << 29);
    unsigned a7, b7, c7, d7;
    if (!__get_cpuid_count(7, 0, &a7, &b7, &c7, &d7)) {
        return ATTN_ISA_C;
    }
    if ((saved & 0x6) != 0x6 || !fma || !f16c || !(b7 & (1u << 5))) {
        return ATTN_ISA_C;
    }
    const unsigned f_dq_bw_vl = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);
    if ((saved & 0xe6) != 0xe6 || (b7 & f_dq_bw_vl) != f_dq_bw_vl) {
        return ATTN_ISA_AVX2;
    }
    if (!(c7 & (1u << 11))) {
        return ATTN_ISA_AVX512;
    }
    unsigned a71 = 0, b71, c71, d71;
    (void)__get_cpuid_count(7, 1, &a71, &b71, &c71, &d71);
    if (!(a71 & (1u << 5))) {
        return ATTN_ISA_AVX512VNNI;
    }
    const unsigned amx_bf16_tile_int8 = (1u << 22) | (1u << 24) | (1u << 25);
    if ((d7 & amx_bf16_tile_int8) != amx_bf16_tile_int8 || (saved & 0x60000) != 0x60000 ||
        !amx_permitted()) {
        return ATTN_ISA_AVX512BF16;
    }
    return ATTN_ISA_AMX;
}

#elif defined(__aarch64__)

static attn_isa detect(void)
{
    return ATTN_ISA_NEON; /* Advanced SIMD is part of AArch64 */
}

#else

static attn_isa detect(void)
{
    return ATTN_ISA_C;
}

#endif

attn_isa attn_isa_detected(void)
{
    /* Threads may race here; all write the same value. */
    static _Atomic int known;
    int isa = known;
    if (isa == ATTN_ISA_AUTO) {
        isa = (int)detect();
        known = isa;
    }
    return (attn_isa)isa;
}

bool attn_cpu_has(attn_isa isa)
{
    attn_isa best = attn_isa_detected();
    if (isa == ATTN_ISA_C) {
        return true;
    }
    if ((best == ATTN_ISA_NEON) != (isa == ATTN_ISA_NEON)) {
        return false;
    }
    return isa <= best && isa != ATTN_ISA_AUTO;
}

/* The best level at most `cap`; a cap of another architecture leaves only C. */
static attn_isa capped(attn_isa best, attn_isa cap)
{
    if (cap == ATTN_ISA_AUTO || best == ATTN_ISA_C) {
        return best;
    }
    if ((best == ATTN_ISA_NEON) != (cap == ATTN_ISA_NEON)) {
        return ATTN_ISA_C;
    }
    return cap < best ? cap : best;
}

attn_status attn_cpu_choose(attn_isa cap, attn_isa *isa)
{
    *isa = ATTN_ISA_C;
    if (cap != ATTN_ISA_AUTO && strcmp(attn_isa_name(cap), "invalid") == 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "isa: %d is no level; use an attn_isa value", (int)cap);
    }
    attn_isa from_environment = ATTN_ISA_AUTO;
    const char *word = getenv("ATTN_ISA");
    if (word && attn_isa_parse(word, &from_environment) != ATTN_OK) {
        return attn_fail(ATTN_ERR_ARGUMENT, "environment variable ATTN_ISA: %s", attn_last_error());
    }
    *isa = capped(capped(attn_isa_detected(), cap), from_environment);
    return ATTN_OK;
}
