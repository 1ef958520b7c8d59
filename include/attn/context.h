/**
 * attn/context.h: threads (the built-in pool or your own executor), the ISA level, scratch memory.
 */
#ifndef ATTN_CONTEXT_H
#define ATTN_CONTEXT_H

#include <attn/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Instruction-set levels, each including the one before it on its architecture. */
typedef enum attn_isa {
    ATTN_ISA_AUTO =
        0,          /**< the best this machine has, below the ATTN_ISA environment variable's cap */
    ATTN_ISA_C = 1, /**< portable C, the readable reference */
    ATTN_ISA_AVX2 = 10,   /**< AVX2, FMA, F16C */
    ATTN_ISA_AVX512 = 20, /**< AVX-512 F BW DQ VL */
    ATTN_ISA_AVX512VNNI = 21,
    ATTN_ISA_AVX512BF16 = 22,
    ATTN_ISA_AMX = 23, /**< AMX tile, bf16, int8 */
    ATTN_ISA_NEON = 40
} attn_isa;

/** "c", "avx2", "avx512", "avx512vnni", … : the words that ATTN_ISA takes. Static storage. */
ATTN_API const char *attn_isa_name(attn_isa isa);

/** The level of a word, ATTN_ISA_AUTO for "" or "auto"; ATTN_ERR_ARGUMENT lists the words. */
ATTN_API attn_status attn_isa_parse(const char *word, attn_isa *isa);

/** The best level of this machine and build, without any cap. */
ATTN_API attn_isa attn_isa_detected(void);

/** Processors this process may use: affinity mask and cgroup quota (rounded up), at least 1. */
ATTN_API int attn_available_processors(void);

/**
 * Bring your own threads. `run` calls task(argument, i, worker) once for every i in 0 … count−1,
 * in any order, on any threads, and returns when all have returned. `worker` is in 0 … threads−1 and no two
 * tasks run with the same worker at the same time. `run` may be called from one thread at a time per context.
 * A task never calls back into the executor.
 */
typedef struct attn_executor {
    int threads; /**< workers that run() may use, ≥ 1, ≤ 1024 */
    void (*run)(void *user, int64_t count, void (*task)(void *argument, int64_t index, int worker),
                void *argument);
    void *user;
} attn_executor;

typedef struct attn_context attn_context;

typedef struct attn_context_options {
    size_t struct_size;
    int threads;                   /**< 0: attn_available_processors(); ignored with an executor */
    attn_isa isa;                  /**< a cap; AUTO: ATTN_ISA's, else none */
    const attn_executor *executor; /**< NULL: the built-in pool; copied */
    const attn_allocator *allocator; /**< NULL: the C library's; copied */
} attn_context_options;

ATTN_API attn_context_options attn_context_options_init(void);

/**
 * Creates a context: a pool of threads (started at the first call that needs them), an ISA level, and scratch memory that grows to
 * what calls need and is kept. `options` may be NULL. *context is NULL on failure; the caller destroys it.
 * One call at a time per context; several contexts may run at the same time and share an executor.
 * Errors: ARGUMENT (threads, isa, an ATTN_ISA that is no level), NO_MEMORY.
 */
ATTN_API attn_status attn_context_create(const attn_context_options *options,
                                         attn_context **context);

/** NULL is allowed. */
ATTN_API void attn_context_destroy(attn_context *context);

ATTN_API int attn_context_threads(const attn_context *context);
ATTN_API attn_isa attn_context_isa(const attn_context *context);

/** Bytes of scratch the context holds now. */
ATTN_API size_t attn_context_scratch_bytes(const attn_context *context);

/** Gives the scratch back to the allocator; the next call takes what it needs again. */
ATTN_API void attn_context_trim(attn_context *context);

/** What this machine can do at most, measured: the yardsticks that speeds are given beside. */
typedef struct attn_ceilings {
    double
        fma_gflops; /**< f32 multiply-adds on registers, at the context's ISA level, 10⁹ flops/s */
    double read_gbytes_per_s; /**< reading memory larger than the caches, 10⁹ bytes/s */
    int threads;              /**< threads both were measured with: the context's */
} attn_ceilings;

/**
 * Measures both in about half a second, with all of the context's threads; the best of several rounds, since neighbours only ever
 * slow a machine down. Takes 256 MiB for the time being. Errors: ARGUMENT, NO_MEMORY.
 */
ATTN_API attn_status attn_measure_ceilings(attn_context *context, attn_ceilings *ceilings);

/** Gflops/s of the FMA ceiling alone, about 20 ms: to be alternated with what is measured beside it. */
ATTN_API double attn_measure_fma(attn_context *context);

/**
 * Seconds that one plain read of `count` buffers takes with all of the context's threads, each reading pieces of 256 KiB in order: the ceiling of work that is bound by memory,
 * decode above all.
 */
ATTN_API double attn_measure_read(attn_context *context, const void *const *buffers,
                                  const size_t *bytes, int count);

#ifdef __cplusplus
}
#endif
#endif
