/**
 * fp_state.c: subnormals flushed inside kernels, the caller's state restored after. With peaked softmax scores most weights
 * are subnormal or zero, and subnormal arithmetic is microcoded on x86: without this f32 forward fell to a twentieth.
 */
#include "cpu/cpu.h"

#if defined(__x86_64__) || defined(__i386__)

#define FTZ_DAZ 0x8040u

attn_fp_state attn_fp_enter(bool flush)
{
    uint32_t state;
    __asm__ volatile("stmxcsr %0" : "=m"(state));
    /* Default rounding and masked exceptions inside, whatever the caller has set. */
    uint32_t inside = 0x1f80u | (flush ? FTZ_DAZ : 0u);
    if (inside != state) {
        __asm__ volatile("ldmxcsr %0" : : "m"(inside));
    }
    return state;
}

void attn_fp_leave(attn_fp_state saved)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(saved));
}

#elif defined(__aarch64__)

#define FPCR_FZ (1u << 24)

attn_fp_state attn_fp_enter(bool flush)
{
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    uint64_t inside = flush ? FPCR_FZ : 0u;
    __asm__ volatile("msr fpcr, %0" : : "r"(inside));
    return (attn_fp_state)state;
}

void attn_fp_leave(attn_fp_state saved)
{
    uint64_t state = saved;
    __asm__ volatile("msr fpcr, %0" : : "r"(state));
}

#else

attn_fp_state attn_fp_enter(bool flush)
{
    (void)flush;
    return 0;
}

void attn_fp_leave(attn_fp_state saved)
{
    (void)saved;
}

#endif
