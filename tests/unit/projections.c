/*
 * projections.c: see projections.h.
 */
#include "projections.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

const char *const projection_names[PROJECTIONS] = {"q_proj", "k_proj", "v_proj", "out_proj"};

attn_view projection_parameter(const attn_multihead *layer, int which, bool bias, bool gradient)
{
    char name[32];
    attn_view v = {0};
    snprintf(name, sizeof name, "%s.%s", projection_names[which], bias ? "bias" : "weight");
    assert_int_equal(gradient ? attn_multihead_gradient(layer, name, &v)
                              : attn_multihead_parameter(layer, name, &v),
                     ATTN_OK);
    return v;
}
