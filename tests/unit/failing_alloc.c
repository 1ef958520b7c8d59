#include "failing_alloc.h"

#include "support.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *pointer, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
int __real_posix_memalign(void **pointer, size_t alignment, size_t size);
void __real_free(void *pointer);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *pointer, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
int __wrap_posix_memalign(void **pointer, size_t alignment, size_t size);
void __wrap_free(void *pointer);

enum { SLOTS = 1 << 16 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *live[SLOTS]; /* open addressing; a removed entry is &removed */
static char removed;
static bool watching;
static int64_t calls, fail_at, failed, held;

static size_t slot_of(const void *pointer)
{
    return (size_t)(((uintptr_t)pointer >> 4) * 0x9e3779b97f4a7c15u >> 48);
}

static void remember(void *pointer)
{
    size_t at = slot_of(pointer);
    if (!pointer) {
        return;
    }
    while (live[at % SLOTS] && live[at % SLOTS] != &removed) {
        at++;
    }
    live[at % SLOTS] = pointer;
    held++;
}

/* Pointers from elsewhere (before watching, or from inside the C library) are not counted. */
static void forget(const void *pointer)
{
    for (size_t at = slot_of(pointer); pointer && live[at % SLOTS]; at++) {
        if (live[at % SLOTS] == pointer) {
            live[at % SLOTS] = &removed;
            held--;
            return;
        }
    }
}

/* Counts an allocation; true when it is the one that fails. */
static bool fails(void)
{
    if (watching && ++calls == fail_at) {
        failed++;
        errno = ENOMEM;
        return true;
    }
    return false;
}

static void *taken(void *pointer)
{
    if (watching) {
        remember(pointer);
    }
    return pointer;
}

void *__wrap_malloc(size_t size)
{
    pthread_mutex_lock(&lock);
    void *pointer = fails() ? NULL : taken(__real_malloc(size));
    pthread_mutex_unlock(&lock);
    return pointer;
}

void *__wrap_calloc(size_t count, size_t size)
{
    pthread_mutex_lock(&lock);
    void *pointer = fails() ? NULL : taken(__real_calloc(count, size));
    pthread_mutex_unlock(&lock);
    return pointer;
}

void *__wrap_realloc(void *old, size_t size)
{
    pthread_mutex_lock(&lock);
    void *pointer = NULL;
    if (!fails()) {
        forget(old);
        pointer = __real_realloc(old, size);
        taken(pointer ? pointer : size > 0 ? old : NULL);
    }
    pthread_mutex_unlock(&lock);
    return pointer;
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    pthread_mutex_lock(&lock);
    void *pointer = fails() ? NULL : taken(__real_aligned_alloc(alignment, size));
    pthread_mutex_unlock(&lock);
    return pointer;
}

int __wrap_posix_memalign(void **pointer, size_t alignment, size_t size)
{
    int status = ENOMEM;
    pthread_mutex_lock(&lock);
    if (!fails()) {
        status = __real_posix_memalign(pointer, alignment, size);
        if (status == 0) {
            taken(*pointer);
        }
    }
    pthread_mutex_unlock(&lock);
    return status;
}

void __wrap_free(void *pointer)
{
    pthread_mutex_lock(&lock);
    forget(pointer);
    __real_free(pointer);
    pthread_mutex_unlock(&lock);
}

/* ---- one run ----------------------------------------------------------------------------------- */

static attn_status run_with(scenario *run, int64_t n)
{
    memset(live, 0, sizeof live);
    calls = 0;
    failed = 0;
    held = 0;
    fail_at = n;
    watching = true;
    attn_status status = run();
    watching = false;
    return status;
}

static void one(const char *program, const char *name, scenario *run, int64_t n)
{
    test_running(program, test_seed(), n);
    attn_status status = run_with(run, n);
    const char *text = attn_last_error();
    bool clear = strlen(text) > 10;
    if (failed == 0 && status != ATTN_OK) {
        fail_msg("%s without a failing allocation: %s; %s", name, text, test_repro());
    }
    if (held != 0) {
        fail_msg("%s: %lld allocations leak when number %lld fails (status %s); %s", name,
                 (long long)held, (long long)n, attn_status_string(status), test_repro());
    }
    if (status != ATTN_OK && (status != ATTN_ERR_NO_MEMORY || !clear)) {
        fail_msg("%s: status %s, \"%s\" when allocation %lld fails; %s", name,
                 attn_status_string(status), text, (long long)n, test_repro());
    }
}

void fail_every_allocation(const char *program, const char *name, scenario *run)
{
    rng random = rng_seed(test_seed(), 99);
    int64_t only = test_env("ATTN_TEST_CASE", -1);
    int64_t random_runs = test_count(200);
    if (only >= 0) {
        one(program, name, run, only);
        return;
    }
    one(program, name, run, 0); /* what is made once per process is made here */
    one(program, name, run, 0);
    int64_t all = calls;
    print_message("%s: %lld allocations\n", name, (long long)all);
    assert_true(all > 0);
    for (int64_t n = 1; n <= all && n <= 200; n++) {
        one(program, name, run, n);
    }
    for (int64_t n = 0; n < random_runs; n++) {
        one(program, name, run, rng_range(&random, 1, all));
    }
}
