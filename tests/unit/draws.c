/*
 * draws.c: see draws.h.
 */
#include "draws.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

uint64_t draw_state;

uint32_t next(void)
{
    draw_state = draw_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(draw_state >> 33);
}

int64_t between(int64_t low, int64_t high)
{
    return low + (int64_t)(next() % (uint32_t)(high - low + 1));
}

double normal(void)
{
    double sum = -6.0;
    for (int i = 0; i < 12; i++) {
        sum += next() * 0x1p-31;
    }
    return sum;
}

int64_t fraction(int64_t count)
{
    const char *text = getenv("ATTN_TEST_FRACTION");
    long divisor = text ? strtol(text, NULL, 10) : 1;
    return divisor > 1 ? (count + divisor - 1) / divisor : count;
}

const attn_isa levels[LEVELS] = {ATTN_ISA_C, ATTN_ISA_AVX2, ATTN_ISA_AVX512};

attn_context *context_of(attn_isa isa, int threads)
{
    attn_context_options options = attn_context_options_init();
    options.isa = isa;
    options.threads = threads;
    attn_context *context = NULL;
    assert_int_equal(attn_context_create(&options, &context), ATTN_OK);
    if (isa != ATTN_ISA_AUTO && attn_context_isa(context) != isa) {
        attn_context_destroy(context);
        return NULL;
    }
    return context;
}
