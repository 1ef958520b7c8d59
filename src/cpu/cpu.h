/**
 * cpu/cpu.h: which instruction-set levels this machine has, and the floating-point state around kernels.
 */
#ifndef ATTN_CPU_CPU_H
#define ATTN_CPU_CPU_H

#include <attn/context.h>

/** True when the machine, the operating system and this build all have `isa`. */
bool attn_cpu_has(attn_isa isa);

/**
 * The level to use: the best that attn_cpu_has, at most `cap` (AUTO: no cap) and at most the ATTN_ISA
 * environment variable's. ARGUMENT for an ATTN_ISA that is no word, or a cap for another architecture.
 */
attn_status attn_cpu_choose(attn_isa cap, attn_isa *isa);

/** Cache sizes in bytes of the first processor, 0 where unknown. */
typedef struct attn_cpu_caches {
    size_t l1d, l2, l3;
} attn_cpu_caches;
attn_cpu_caches attn_cpu_cache_sizes(void);

/** Saved floating-point control state of a thread. */
typedef uint32_t attn_fp_state;

/** Enters kernels: flushes subnormals to zero (FTZ|DAZ, or FPCR.FZ) when `flush`; returns what to restore. */
attn_fp_state attn_fp_enter(bool flush);
void attn_fp_leave(attn_fp_state saved);

#endif
