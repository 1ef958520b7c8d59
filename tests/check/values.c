/* Random numbers (splitmix64, Steele et al. 2014) and what inputs hold. */
#include "check.h"

#include <math.h>

uint64_t check_next(check *c)
{
    uint64_t z = c->random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t check_range(check *c, int64_t low, int64_t high)
{
    return low + (int64_t)(check_next(c) % (uint64_t)(high - low + 1));
}

double check_uniform(check *c)
{
    return (double)(check_next(c) >> 11) * 0x1p-53;
}

double check_normal(check *c)
{
    double radius = sqrt(-2 * log(1 - check_uniform(c)));
    return radius * cos(6.283185307179586 * check_uniform(c));
}

int64_t check_size(check *c, int64_t tile, int64_t most)
{
    int64_t small = 2 * tile + 1 < most ? 2 * tile + 1 : most;
    return c->index < small ? c->index + 1 : check_range(c, 1, most);
}

const char *check_values_name(check_values kind)
{
    static const char *const names[] = {"normal",     "90..100", "all equal", "one huge", "zeros",
                                        "subnormals", "-inf",    "all -inf",  "one NaN"};
    return kind < CHECK_KINDS ? names[kind] : "?";
}

void check_fill(check *c, float *x, int64_t n, check_values kind)
{
    for (int64_t i = 0; i < n; i++) {
        double normal = check_normal(c);
        switch (kind) {
        case CHECK_HIGH: normal = 90 + 10 * check_uniform(c); break;
        case CHECK_EQUAL: normal = -3.25; break;
        case CHECK_ZEROS: normal = normal > 0 ? 0.0 : -0.0; break;
        case CHECK_TINY: normal = i % 2 ? normal : normal * 1e-40; break;
        case CHECK_SOME_HIDDEN: normal = i % 3 == 1 ? -INFINITY : normal; break;
        case CHECK_ALL_HIDDEN: normal = -INFINITY; break;
        default: break;
        }
        x[i] = (float)normal;
    }
    if (n > 0 && kind == CHECK_HUGE) {
        x[check_range(c, 0, n - 1)] = 1e30F;
    }
    if (n > 0 && kind == CHECK_NAN) {
        x[check_range(c, 0, n - 1)] = NAN;
    }
}
