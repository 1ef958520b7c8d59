#define _GNU_SOURCE
#include "support.h"

#include "draws.h"

#include "oracle.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- random numbers ---------------------------------------------------------------------------- */

uint64_t rng_next(rng *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

rng rng_seed(uint64_t seed, uint64_t stream)
{
    rng r = {seed};
    r.state = rng_next(&r) ^ (stream * 0xd1342543de82ef95u);
    rng_next(&r);
    return r;
}

int64_t rng_below(rng *r, int64_t n)
{
    return (int64_t)(rng_next(r) % (uint64_t)n);
}

int64_t rng_range(rng *r, int64_t low, int64_t high)
{
    return low + rng_below(r, high - low + 1);
}

bool rng_chance(rng *r, int percent)
{
    return rng_below(r, 100) < percent;
}

double rng_uniform(rng *r)
{
    return (double)(rng_next(r) >> 11) * 0x1p-53;
}

double rng_normal(rng *r)
{
    double radius = sqrt(-2 * log(1 - rng_uniform(r)));
    return radius * cos(6.283185307179586 * rng_uniform(r));
}

/* ---- environment ------------------------------------------------------------------------------- */

int64_t test_env(const char *name, int64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoll(text, NULL, 0) : otherwise;
}

uint64_t test_seed(void)
{
    return (uint64_t)test_env("ATTN_TEST_SEED", 20260);
}

int64_t test_count(int64_t count)
{
    return fraction(count);
}

attn_context *test_context(int threads)
{
    attn_context_options options = attn_context_options_init();
    attn_context *context = NULL;
    options.threads = threads;
    if (attn_context_create(&options, &context) != ATTN_OK) {
        fprintf(stderr, "no context: %s\n", attn_last_error());
        exit(1);
    }
    return context;
}

int test_cases(int64_t count, bool (*one)(uint64_t seed, int64_t index))
{
    uint64_t seed = test_seed();
    int64_t only = test_env("ATTN_TEST_CASE", -1);
    if (only >= 0) {
        return !one(seed, only);
    }
    int failures = 0;
    count = test_count(count);
    printf("%lld cases, seed %llu\n", (long long)count, (unsigned long long)seed);
    for (int64_t index = 0; index < count && failures < 10; index++) {
        failures += !one(seed, index);
    }
    return failures;
}

attn_context *test_contexts[TEST_CONTEXTS];

int test_contexts_make(void **state)
{
    (void)state;
    for (int n = 0; n < TEST_CONTEXTS; n++) {
        test_contexts[n] = test_context(n + 1);
    }
    return 0;
}

int test_contexts_free(void **state)
{
    (void)state;
    for (int n = 0; n < TEST_CONTEXTS; n++) {
        attn_context_destroy(test_contexts[n]);
    }
    return 0;
}

static char repro[300];

static void crashed(int signal_number)
{
    static const char text[] = "\ncrashed; repeat with: ";
    ssize_t ignored = write(2, text, sizeof text - 1);
    ignored += write(2, repro, strlen(repro));
    ignored += write(2, "\n", 1);
    (void)ignored;
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

void test_running(const char *program, uint64_t seed, int64_t index)
{
    static bool installed;
    const char *isa = getenv("ATTN_ISA");
    snprintf(repro, sizeof repro, "%s%s%sATTN_TEST_SEED=%llu ATTN_TEST_CASE=%lld build/tests/%s",
             isa ? "ATTN_ISA=" : "", isa ? isa : "", isa ? " " : "", (unsigned long long)seed,
             (long long)index, program);
    if (!installed) {
        installed = true;
        signal(SIGSEGV, crashed);
        signal(SIGBUS, crashed);
        signal(SIGILL, crashed);
        signal(SIGFPE, crashed);
        signal(SIGABRT, crashed);
    }
}

const char *test_repro(void)
{
    return repro;
}

/* ---- memory ------------------------------------------------------------------------------------ */

static void give_up(const char *what)
{
    perror(what);
    exit(1);
}

block block_take(size_t bytes, bool right, size_t align)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t inside = (bytes + page - 1) / page * page;
    block b = {.bytes = bytes, .map_bytes = inside + 2 * page};
    b.map = mmap(NULL, b.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b.map == MAP_FAILED) {
        give_up("mmap");
    }
    unsigned char *start = (unsigned char *)b.map + page;
    memset(start, 0xff, inside);
    if (mprotect(b.map, page, PROT_NONE) || mprotect(start + inside, page, PROT_NONE)) {
        give_up("mprotect");
    }
    b.data = start;
    if (right) {
        b.data = start + ((inside - bytes) & ~(align - 1));
    }
    return b;
}

void block_read_only(const block *memory)
{
    if (mprotect(memory->map, memory->map_bytes, PROT_READ)) {
        give_up("mprotect");
    }
}

void block_free(block *memory)
{
    if (memory->map) {
        munmap(memory->map, memory->map_bytes);
    }
    *memory = (block){0};
}

/* ---- arrays ------------------------------------------------------------------------------------ */

/* Takes the memory that the view's shape and strides span, and points the view into it. */
static void array_place(array *a, bool right)
{
    int64_t span = 1;
    for (int d = 0; d < a->view.ndim; d++) {
        int64_t stride = a->view.stride[d];
        if (a->view.shape[d] == 0) {
            span = 0;
            a->origin = 0;
            break;
        }
        span += (a->view.shape[d] - 1) * llabs(stride);
        a->origin += stride < 0 ? (a->view.shape[d] - 1) * -stride : 0;
    }
    size_t size = attn_dtype_size(a->view.dtype);
    a->elements = span;
    a->memory = block_take((size_t)span * size, right, size);
    a->view.data = a->memory.data + (size_t)a->origin * size;
}

array array_dense(attn_dtype dtype, int ndim, const int64_t *shape)
{
    array a = {.view = {.dtype = dtype, .ndim = ndim}};
    int64_t stride = 1;
    for (int d = ndim - 1; d >= 0; d--) {
        a.view.shape[d] = shape[d];
        a.view.stride[d] = stride;
        stride *= shape[d] > 0 ? shape[d] : 1;
    }
    array_place(&a, true);
    return a;
}

array array_random(rng *r, attn_dtype dtype, int ndim, const int64_t *shape, bool input)
{
    if (rng_chance(r, 25)) {
        return array_dense(dtype, ndim, shape);
    }
    array a = {.view = {.dtype = dtype, .ndim = ndim}};
    int order[4] = {0, 1, 2, 3}; /* outermost first; the last dimension stays innermost */
    int64_t extent = shape[ndim - 1] + (rng_chance(r, 50) ? rng_below(r, 10) : 0);
    for (int d = 0; d < ndim; d++) {
        a.view.shape[d] = shape[d];
    }
    a.view.stride[ndim - 1] = shape[ndim - 1] == 1 && rng_chance(r, 50) ? rng_range(r, -9, 9) : 1;
    if (shape[ndim - 1] == 1) {
        extent += 10;
    }
    for (int d = 0; ndim > 2 && d < ndim - 1; d++) { /* [batch, len, heads, dim] and worse */
        int other = (int)rng_below(r, ndim - 1);
        int swap = order[d];
        order[d] = order[other];
        order[other] = swap;
    }
    for (int d = ndim - 2; d >= 0; d--) {
        int dim = order[d];
        if (input && rng_chance(r, 8)) {
            a.view.stride[dim] = 0;
            continue;
        }
        a.view.stride[dim] = input && rng_chance(r, 10) ? -extent : extent;
        extent =
            extent * (shape[dim] > 0 ? shape[dim] : 1) + (rng_chance(r, 30) ? rng_below(r, 7) : 0);
    }
    array_place(&a, rng_chance(r, 70));
    return a;
}

void array_free(array *a)
{
    block_free(&a->memory);
    *a = (array){0};
}

double view_get(const attn_view *v, int64_t i0, int64_t i1, int64_t i2, int64_t i3)
{
    return oracle_load(v, oracle_at(v, i0, i1, i2, i3));
}

void view_set(const attn_view *v, int64_t i0, int64_t i1, int64_t i2, int64_t i3, double value)
{
    oracle_store(v, oracle_at(v, i0, i1, i2, i3), value);
}

/* Size of dimension d, 1 beyond the last. */
static int64_t size_of(const attn_view *v, int d)
{
    return d < v->ndim ? v->shape[d] : 1;
}

void array_normal(array *a, rng *r, double sigma)
{
    const attn_view *v = &a->view;
    for (int64_t i = 0; i < size_of(v, 0); i++) {
        for (int64_t j = 0; j < size_of(v, 1); j++) {
            for (int64_t k = 0; k < size_of(v, 2); k++) {
                for (int64_t l = 0; l < size_of(v, 3); l++) {
                    view_set(v, i, j, k, l, sigma * rng_normal(r));
                }
            }
        }
    }
}

bool array_gaps_intact(const array *a)
{
    const attn_view *v = &a->view;
    size_t size = attn_dtype_size(v->dtype);
    unsigned char *covered = calloc((size_t)a->elements + 1, 1);
    bool intact = true;
    if (!covered) {
        give_up("calloc");
    }
    for (int64_t i = 0; a->elements > 0 && i < size_of(v, 0); i++) {
        for (int64_t j = 0; j < size_of(v, 1); j++) {
            for (int64_t k = 0; k < size_of(v, 2); k++) {
                for (int64_t l = 0; l < size_of(v, 3); l++) {
                    covered[a->origin + oracle_at(v, i, j, k, l)] = 1;
                }
            }
        }
    }
    for (size_t n = 0; n < a->memory.bytes; n++) {
        intact = intact && (covered[n / size] || a->memory.data[n] == 0xff);
    }
    free(covered);
    return intact;
}

void array_wipe(array *a)
{
    memset(a->memory.data, 0xff, a->memory.bytes);
}

uint64_t array_hash(const array *a)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t n = 0; n < a->memory.bytes; n++) {
        hash = (hash ^ a->memory.data[n]) * 0x100000001b3u;
    }
    return hash;
}
