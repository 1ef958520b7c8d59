/**
 * projections.h: the parameters of multi-head attention, by number.
 */
#ifndef TESTS_UNIT_PROJECTIONS_H
#define TESTS_UNIT_PROJECTIONS_H

#include <attn/multihead.h>

enum { PROJECTIONS = 4 };
extern const char *const projection_names[PROJECTIONS];

/** Weight or bias of a projection, or its gradient; fails the test where there is none. */
attn_view projection_parameter(const attn_multihead *layer, int which, bool bias, bool gradient);

#endif
