/**
 * check.h: the runner of kernels. A kernel of a family is checked at every ISA level that has one of its
 * own: against the C version or a float64 oracle, in memory between inaccessible pages, with inputs that
 * cannot be written, outputs that start as NaN, every small size and hostile values. A family is one
 * file, check_<family>.c, and a row or more in the table of main.c.
 *
 * A check is a function of (seed, kernel, level, case number) alone, so that one line repeats it.
 */
#ifndef TESTS_CHECK_CHECK_H
#define TESTS_CHECK_CHECK_H

#include <attn/context.h>

#include <setjmp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Sanitized code saves registers around its checks as it likes. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CHECK_SANITIZED true
#else
#define CHECK_SANITIZED false
#endif

enum { CHECK_BUFFERS = 16 };

/** Where a buffer lies between its two inaccessible pages. */
typedef struct check_buffer {
    unsigned char *region; /* all that may be accessed */
    size_t region_bytes;
    unsigned char *data; /* what was asked for */
    size_t bytes;
    bool read_only;
    const char *name;
} check_buffer;

typedef struct check {
    /* what is being checked */
    attn_isa isa;
    uint64_t seed;
    int64_t index;
    const char *kernel;
    uint64_t random;
    /* memory */
    check_buffer buffer[CHECK_BUFFERS];
    int buffers;
    int placement; /* 0: flush right; 1 …: flush left, shifted by 0, 4, 16, 60 bytes */
    /* the call */
    sigjmp_buf jump;
    volatile bool armed;
    void *volatile fault;
    /* verdict */
    bool failed;
    bool quiet; /* self-test: failures are expected */
} check;

/** One kernel: `table` gives what a level runs, so that levels without their own are left out. */
typedef struct check_kernel {
    const char *name; /* family/kernel */
    const void *(*table)(attn_isa isa);
    void (*run)(check *c); /* one case: c->index, c->isa */
    int64_t cases;
    /** Runs `repeats` times on fixed data and returns how much that is in `unit`s; NULL: no bench. */
    double (*bench)(attn_isa isa, int64_t repeats);
    const char *unit; /* "elements", "flops" */
} check_kernel;

/* ---- random numbers and values (values.c) ------------------------------------------------------ */

uint64_t check_next(check *c);
/** low … high, both included. */
int64_t check_range(check *c, int64_t low, int64_t high);
double check_uniform(check *c);
double check_normal(check *c);

/** A size: 1 … 2·tile + 1 for the first cases, then random up to `most`. */
int64_t check_size(check *c, int64_t tile, int64_t most);

typedef enum check_values {
    CHECK_NORMAL,
    CHECK_HIGH,  /* 90 … 100: exp overflows unless the maximum is subtracted */
    CHECK_EQUAL, /* all the same */
    CHECK_HUGE,  /* one 1e30 among normal numbers */
    CHECK_ZEROS, /* ±0 */
    CHECK_TINY,  /* subnormal among normal numbers */
    CHECK_FINITE_KINDS,
    CHECK_SOME_HIDDEN = CHECK_FINITE_KINDS, /* a third is −inf */
    CHECK_ALL_HIDDEN,                       /* −inf */
    CHECK_NAN,                              /* one NaN */
    CHECK_KINDS
} check_values;

const char *check_values_name(check_values kind);
void check_fill(check *c, float *x, int64_t n, check_values kind);

/* ---- memory (guard.c) -------------------------------------------------------------------------- */

/** Memory of the next slot, filled with 0xff (NaN), aligned to `align` (the element, or 64). */
void *check_take(check *c, const char *name, size_t bytes, size_t align);
/** The same for floats. */
float *check_floats(check *c, const char *name, int64_t count, size_t align);
/** From now on writing to the buffer that starts at `data` is a fault. */
void check_input(check *c, const void *data);
/** Gives all buffers back; checks that nothing around them was written. */
void check_release(check *c);

/* ---- the call ---------------------------------------------------------------------------------- */

/**
 * Calls a kernel: faults are failures that name the buffer, and the processor's state must be as
 * before: control bits of MXCSR, and no dirty upper halves of vector registers (missing vzeroupper).
 */
#define CHECK_CALL(c, ...)                  \
    do {                                    \
        if (sigsetjmp((c)->jump, 1) == 0) { \
            check_before(c);                \
            __VA_ARGS__;                    \
            check_after(c);                 \
        } else {                            \
            check_faulted(c);               \
        }                                   \
    } while (0)
void check_before(check *c);
void check_after(check *c);
void check_faulted(check *c);
void check_catch_faults(check *c);

/* ---- comparing (diff.c) ------------------------------------------------------------------------ */

/** How two arrays differ: all norms and the worst element, without a judgement. */
typedef struct check_diff {
    int64_t classes;     /* elements of different classes: NaN, +inf, −inf, finite */
    int64_t first_class; /* the first of them */
    double absolute;     /* largest |got − want| */
    double relative;     /* largest |got − want| / |want| */
    double l2;           /* ‖got − want‖ / ‖want‖ */
    double excess;       /* largest |got − want| / allowed */
    int64_t worst;       /* the element of `excess` */
    double got, want, allowed;
} check_diff;

/** allowed(i) = allowed[i], or where `allowed` is NULL, 0. */
check_diff check_compare(const float *got, const double *want, const double *allowed, int64_t n);

/** Fails unless every element is of the right class and within its allowance. */
bool check_close(check *c, const char *what, const float *got, const double *want,
                 const double *allowed, int64_t n);

/** Fails unless the bits are the same; NaN equals NaN. */
bool check_same(check *c, const char *what, const float *got, const float *want, int64_t n);

/** Fails unless the bytes are the same. */
bool check_bytes(check *c, const char *what, const void *got, const void *want, size_t bytes);

/** Records a failure and prints it with its repro line. */
void check_fail(check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- running (run.c) --------------------------------------------------------------------------- */

/** One case of a kernel; true when it passed. Quiet when `quiet`. */
bool check_case(check *c, const check_kernel *kernel, attn_isa isa, uint64_t seed, int64_t index);

/** Deliberately broken kernels, every one of which the runner must catch. 0 when it does. */
int check_self_test(check *c);

/** Times a kernel beside its C version. Refuses when a case fails. */
void check_bench(check *c, const check_kernel *kernel, attn_isa isa, uint64_t seed);

/* ---- families ---------------------------------------------------------------------------------- */

typedef struct check_family {
    const check_kernel *kernels;
    int count;
} check_family;

extern const check_family check_convert, check_norm, check_rope, check_swiglu, check_gemm,
    check_quant, check_flash, check_decode, check_dropout, check_dropout_span, check_activation,
    check_softmax, check_adamw, check_vector, check_flash_backward;

#endif
