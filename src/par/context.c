/**
 * context.c: a context: executor, level, allocator, scratch.
 */
#include "par/context.h"

#include "base/alloc.h"
#include "cpu/cpu.h"
#include "par/pool.h"

#include <attn/ops.h>
#include <string.h>

struct attn_context {
    attn_allocator allocator;
    attn_executor executor;
    attn_pool *pool; /* NULL with the caller's executor */
    attn_isa isa;
    void *scratch;
    size_t scratch_size;
};

attn_context_options attn_context_options_init(void)
{
    return (attn_context_options){.struct_size = sizeof(attn_context_options)};
}

static void run_on_pool(void *user, int64_t count,
                        void (*task)(void *argument, int64_t index, int worker), void *argument)
{
    attn_pool_run(user, count, task, argument);
}

static attn_status check_options(const attn_context_options *options)
{
    if (options->threads < 0 || options->threads > 1024) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "threads: %d is not in 0 … 1024; 0 takes the processors this process may "
                         "use",
                         options->threads);
    }
    const attn_executor *executor = options->executor;
    if (executor && (!executor->run || executor->threads < 1 || executor->threads > 1024)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "executor: needs a run function and 1 … 1024 threads, has %d threads",
                         executor->threads);
    }
    const attn_allocator *allocator = options->allocator;
    if (allocator && (!allocator->alloc || !allocator->free)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "allocator: alloc and free must both be set");
    }
    return ATTN_OK;
}

attn_status attn_context_create(const attn_context_options *given, attn_context **out)
{
    if (!out) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL; pass where to put it");
    }
    *out = NULL;
    attn_context_options options = attn_context_options_init();
    attn_isa isa;
    attn_status status =
        attn_take_struct("options", "attn_context_options_init", given, &options, sizeof options);
    if (status == ATTN_OK) {
        status = check_options(&options);
    }
    if (status == ATTN_OK) {
        status = attn_cpu_choose(options.isa, &isa);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_allocator allocator = options.allocator ? *options.allocator : attn_allocator_default();
    attn_context *context = attn_alloc(&allocator, sizeof *context, "context");
    if (!context) {
        return ATTN_ERR_NO_MEMORY;
    }
    *context = (attn_context){.allocator = allocator, .isa = isa};
    if (options.executor) {
        context->executor = *options.executor;
    } else {
        int threads = options.threads > 0 ? options.threads : attn_available_processors();
        threads = threads > 1024 ? 1024 : threads;
        status = attn_pool_create(&allocator, threads, &context->pool);
        if (status != ATTN_OK) {
            attn_free(&allocator, context, sizeof *context);
            return status;
        }
        context->executor =
            (attn_executor){.threads = threads, .run = run_on_pool, .user = context->pool};
    }
    *out = context;
    return ATTN_OK;
}

void attn_context_destroy(attn_context *context)
{
    if (!context) {
        return;
    }
    attn_pool_destroy(context->pool);
    attn_context_trim(context);
    attn_allocator allocator = context->allocator;
    attn_free(&allocator, context, sizeof *context);
}

int attn_context_threads(const attn_context *context)
{
    return context->executor.threads;
}

attn_isa attn_context_isa(const attn_context *context)
{
    return context->isa;
}

size_t attn_context_scratch_bytes(const attn_context *context)
{
    return context->scratch_size;
}

void attn_context_trim(attn_context *context)
{
    attn_free(&context->allocator, context->scratch, context->scratch_size);
    context->scratch = NULL;
    context->scratch_size = 0;
}

const attn_allocator *attn_context_allocator(const attn_context *context)
{
    return &context->allocator;
}

attn_status attn_context_scratch(attn_context *context, size_t size, void **scratch)
{
    *scratch = NULL;
    if (size > context->scratch_size) {
        /* The old block goes first: its contents are worthless and both at once may not fit. */
        attn_context_trim(context);
        context->scratch = attn_alloc(&context->allocator, size, "scratch");
        if (!context->scratch) {
            return ATTN_ERR_NO_MEMORY;
        }
        context->scratch_size = size;
    }
    *scratch = context->scratch;
    return ATTN_OK;
}

typedef struct wrapped_task {
    attn_task task;
    void *argument;
    bool flush;
} wrapped_task;

/* An executor's threads are not ours: each task enters and leaves the kernels' state by itself. */
static void run_wrapped(void *argument, int64_t index, int worker)
{
    wrapped_task *wrapped = argument;
    attn_fp_state state = attn_fp_enter(wrapped->flush);
    wrapped->task(wrapped->argument, index, worker);
    attn_fp_leave(state);
}

void attn_context_run(attn_context *context, int64_t count, bool flush, attn_task task,
                      void *argument)
{
    wrapped_task wrapped = {.task = task, .argument = argument, .flush = flush};
    if (count == 1 || context->executor.threads == 1) {
        attn_fp_state state = attn_fp_enter(flush);
        for (int64_t i = 0; i < count; i++) {
            task(argument, i, 0);
        }
        attn_fp_leave(state);
    } else if (count > 1) {
        context->executor.run(context->executor.user, count, run_wrapped, &wrapped);
    }
}

attn_status attn_parallel_for(attn_context *context, int64_t count,
                              void (*task)(void *argument, int64_t index, int worker),
                              void *argument)
{
    if (!context || !task) {
        return attn_fail(ATTN_ERR_ARGUMENT, "attn_parallel_for: %s must not be NULL",
                         context ? "task" : "context");
    }
    if (count < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "attn_parallel_for: count is %lld, must be ≥ 0",
                         (long long)count);
    }
    if (count == 1 || context->executor.threads == 1) {
        for (int64_t i = 0; i < count; i++) {
            task(argument, i, 0);
        }
    } else if (count > 1) {
        context->executor.run(context->executor.user, count, task, argument);
    }
    return ATTN_OK;
}
