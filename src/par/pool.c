/**
 * pool.c: a pool of threads. A run publishes one job, bumps a generation and wakes the workers; all, the caller
 * included, take indices from an atomic counter. Between jobs a worker spins for a short while (decode issues a
 * job every few tens of microseconds, and a sleep costs as much), then sleeps on a condition variable.
 */
#define _GNU_SOURCE
#include "par/pool.h"

#include "base/alloc.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define SPIN_NANOSECONDS \
    200000 /* 0.2 ms: longer than the gaps inside one token, shorter than anyone notices */

typedef struct worker {
    attn_pool *pool;
    pthread_t thread;
    int index;
} worker;

struct attn_pool {
    attn_allocator allocator;
    int threads;
    int started; /* threads running besides the caller; -1 before the first run */
    worker *workers;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    _Atomic int sleeping;

    /* The job: written by the caller before the generation is bumped, read by workers after they see it. */
    void (*task)(void *argument, int64_t index, int worker);
    void *argument;
    int64_t count;
    bool stop;
    _Alignas(64) _Atomic unsigned generation;
    _Alignas(64) _Atomic int64_t next;
    _Alignas(64) _Atomic int busy; /* workers that have not finished the job yet */
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void take_tasks(attn_pool *pool, int index)
{
    for (;;) {
        int64_t i = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (i >= pool->count) {
            return;
        }
        pool->task(pool->argument, i, index);
    }
}

/* Spins, then sleeps, until the generation differs from `seen`. */
static unsigned wait_for_job(attn_pool *pool, unsigned seen)
{
    int64_t deadline = 0;
    for (unsigned spins = 0;; spins++) {
        unsigned now = atomic_load_explicit(&pool->generation, memory_order_acquire);
        if (now != seen) {
            return now;
        }
        relax();
        if (spins % 256 == 255) {
            int64_t time = nanoseconds();
            if (deadline == 0) {
                deadline = time + SPIN_NANOSECONDS;
            } else if (time > deadline) {
                break;
            }
            sched_yield(); /* with more threads than processors somebody else has the work */
        }
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1);
    while (atomic_load(&pool->generation) == seen) {
        pthread_cond_wait(&pool->wake, &pool->mutex);
    }
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
    return atomic_load(&pool->generation);
}

static void *worker_main(void *argument)
{
    worker *self = argument;
    attn_pool *pool = self->pool;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_job(pool, seen);
        if (pool->stop) {
            return NULL;
        }
        take_tasks(pool, self->index);
        atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_release);
    }
}

static void publish(attn_pool *pool)
{
    atomic_fetch_add(&pool->generation, 1); /* sequentially consistent with `sleeping` below */
    if (atomic_load(&pool->sleeping) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
}

/* Signals go to the program's own threads. */
static void start_threads(attn_pool *pool)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pool->started = 0;
    for (int i = 0; i < pool->threads - 1; i++) {
        worker *next = &pool->workers[i];
        *next = (worker){.pool = pool, .index = i + 1};
        if (pthread_create(&next->thread, NULL, worker_main, next) != 0) {
            break;
        }
        pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

attn_status attn_pool_create(const attn_allocator *allocator, int threads, attn_pool **out)
{
    *out = NULL;
    attn_pool *pool = attn_alloc(allocator, sizeof *pool, "thread pool");
    if (!pool) {
        return ATTN_ERR_NO_MEMORY;
    }
    *pool = (attn_pool){.allocator = *allocator, .threads = threads, .started = -1};
    pool->workers = attn_alloc(allocator, sizeof(worker) * (size_t)threads, "thread pool");
    if (!pool->workers) {
        attn_free(allocator, pool, sizeof *pool);
        return ATTN_ERR_NO_MEMORY;
    }
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    *out = pool;
    return ATTN_OK;
}

void attn_pool_destroy(attn_pool *pool)
{
    if (!pool) {
        return;
    }
    pool->stop = true;
    if (pool->started > 0) {
        publish(pool);
    }
    for (int i = 0; i < pool->started; i++) {
        pthread_join(pool->workers[i].thread, NULL);
    }
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    attn_allocator allocator = pool->allocator;
    attn_free(&allocator, pool->workers, sizeof(worker) * (size_t)pool->threads);
    attn_free(&allocator, pool, sizeof *pool);
}

void attn_pool_run(attn_pool *pool, int64_t count,
                   void (*task)(void *argument, int64_t index, int worker), void *argument)
{
    if (count > 1 && pool->started < 0) {
        start_threads(pool);
    }
    if (count <= 1 || pool->started < 1) {
        for (int64_t i = 0; i < count; i++) {
            task(argument, i, 0);
        }
        return;
    }
    pool->task = task;
    pool->argument = argument;
    pool->count = count;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->busy, pool->started, memory_order_relaxed);
    publish(pool);
    take_tasks(pool, 0);
    for (unsigned spins = 0; atomic_load_explicit(&pool->busy, memory_order_acquire) > 0; spins++) {
        relax();
        if (spins % 1024 == 1023) {
            sched_yield();
        }
    }
}
