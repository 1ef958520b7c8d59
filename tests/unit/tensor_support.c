#include "tensor_support.h"

#include "support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

attn_context *context;
attn_tape *tape;

int tape_setup(void **state)
{
    (void)state;
    context = test_context(2);
    return attn_tape_create(context, &tape) == ATTN_OK ? 0 : 1;
}

int tape_teardown(void **state)
{
    (void)state;
    attn_tape_destroy(tape);
    attn_context_destroy(context);
    return 0;
}

attn_tensor *leaf(int ndim, int64_t s0, int64_t s1, int64_t s2, uint64_t seed)
{
    const int64_t shape[3] = {s0, s1, s2};
    attn_tensor *t = NULL;
    assert_int_equal(attn_tensor_create(ATTN_F32, ndim, shape, &t), ATTN_OK);
    float *x = attn_tensor_write(t).data;
    rng r = rng_seed(seed, 3);
    for (int64_t i = 0; i < attn_tensor_count(t); i++) {
        x[i] = (float)rng_normal(&r);
    }
    attn_tensor_require_grad(t, true);
    return t;
}

float at(const attn_tensor *t, int64_t i)
{
    return ((const float *)attn_tensor_view(t).data)[i];
}

void expect_status(attn_status got, attn_status wanted, const char *const *words, int count)
{
    assert_int_equal(got, wanted);
    for (int i = 0; i < count; i++) {
        if (!strstr(attn_last_error(), words[i])) {
            fail_msg("\"%s\" does not say \"%s\"", attn_last_error(), words[i]);
        }
    }
}
