/* Comparing arrays: float classes first, then norms and the worst element. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static int class_of(double x)
{
    return isnan(x) ? 3 : isinf(x) ? (x > 0 ? 2 : 1) : 0;
}

check_diff check_compare(const float *got, const double *want, const double *allowed, int64_t n)
{
    check_diff d = {.first_class = -1, .worst = -1};
    double square = 0;
    double norm = 0;
    for (int64_t i = 0; i < n; i++) {
        if (class_of((double)got[i]) != class_of(want[i])) {
            d.first_class = d.classes++ == 0 ? i : d.first_class;
            continue;
        }
        if (class_of(want[i]) != 0) {
            continue;
        }
        double error = fabs((double)got[i] - want[i]);
        double limit = allowed ? allowed[i] : 0;
        double excess = error == 0 ? 0 : limit > 0 ? error / limit : INFINITY;
        d.absolute = fmax(d.absolute, error);
        d.relative = want[i] != 0 ? fmax(d.relative, error / fabs(want[i])) : d.relative;
        square += error * error;
        norm += want[i] * want[i];
        if (excess > d.excess) {
            d.excess = excess;
            d.worst = i;
            d.got = (double)got[i];
            d.want = want[i];
            d.allowed = limit;
        }
    }
    d.l2 = norm > 0 ? sqrt(square / norm) : sqrt(square);
    return d;
}

bool check_close(check *c, const char *what, const float *got, const double *want,
                 const double *allowed, int64_t n)
{
    check_diff d = check_compare(got, want, allowed, n);
    if (d.classes > 0) {
        check_fail(c, "%s[%lld of %lld] is %g, must be %g (%lld elements of another class)", what,
                   (long long)d.first_class, (long long)n, (double)got[d.first_class],
                   want[d.first_class], (long long)d.classes);
        return false;
    }
    if (d.excess > 1) {
        check_fail(c,
                   "%s[%lld of %lld] is %.9g, must be %.9g ± %.3g; norms: absolute %.3g, relative "
                   "%.3g, l2 %.3g",
                   what, (long long)d.worst, (long long)n, d.got, d.want, d.allowed, d.absolute,
                   d.relative, d.l2);
        return false;
    }
    return true;
}

bool check_same(check *c, const char *what, const float *got, const float *want, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        bool nan = isnan(got[i]) && isnan(want[i]);
        if (!nan && memcmp(&got[i], &want[i], sizeof *got) != 0) {
            check_fail(c, "%s[%lld of %lld] is %.9g, must be %.9g to the bit", what, (long long)i,
                       (long long)n, (double)got[i], (double)want[i]);
            return false;
        }
    }
    return true;
}

bool check_bytes(check *c, const char *what, const void *got, const void *want, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        unsigned a = ((const unsigned char *)got)[i];
        unsigned b = ((const unsigned char *)want)[i];
        if (a != b) {
            check_fail(c, "%s: byte %zu of %zu is %02x, must be %02x", what, i, bytes, a, b);
            return false;
        }
    }
    return true;
}
