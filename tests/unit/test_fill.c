/**
 * test_fill.c: streams of random numbers: the same whatever they are written into, and distributed as they should be.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <attn/context.h>
#include <attn/ops.h>

#include <math.h>
#include <string.h>

enum { COUNT = 40000 };

static double numbers[COUNT];

static attn_view dense(void *data, attn_dtype dtype, int64_t rows, int64_t cols)
{
    return attn_view_dense(data, dtype, 2, (int64_t[]){rows, cols});
}

/* Mean, variance and the share below one standard deviation, against what they must be within 5 deviations of their own. */
static void test_moments(void **unused)
{
    (void)unused;
    attn_view x = dense(numbers, ATTN_F64, 200, COUNT / 200);
    for (int normal = 0; normal < 2; normal++) {
        attn_status status = normal ? attn_fill_normal(NULL, 7, 3, 2.0, 0.5, &x)
                                    : attn_fill_uniform(NULL, 7, 3, -1.0, 3.0, &x);
        assert_int_equal(status, ATTN_OK);
        double mean = normal ? 2.0 : 1.0, std = normal ? 0.5 : 4.0 / sqrt(12.0);
        double sum = 0.0, squares = 0.0, inside = 0.0;
        for (int i = 0; i < COUNT; i++) {
            double d = (numbers[i] - mean) / std;
            sum += d;
            squares += d * d;
            inside += fabs(d) < 1.0;
            assert_true(normal || (numbers[i] >= -1.0 && numbers[i] < 3.0));
        }
        double share = normal ? 0.682689492 : 1.0 / sqrt(3.0);
        assert_true(fabs(sum / COUNT) < 5.0 / sqrt(COUNT));
        assert_true(fabs(squares / COUNT - 1.0) < 5.0 * sqrt(2.0 / COUNT));
        assert_true(fabs(inside / COUNT - share) < 5.0 * sqrt(share * (1 - share) / COUNT));
    }
}

/* high is never reached, not where numbers are so coarse that every second one rounds to it either; low may be. */
static void test_open_end(void **unused)
{
    (void)unused;
    enum { FEW = 4000 };
    static float few[FEW];
    attn_view x = dense(few, ATTN_F32, 4, FEW / 4), y = dense(numbers, ATTN_F64, 4, FEW / 4);
    assert_int_equal(attn_fill_uniform(NULL, 1, 0, 1e8, 1e8 + 16, &x), ATTN_OK);
    assert_int_equal(attn_fill_uniform(NULL, 1, 0, 0x1p53, 0x1p53 + 4, &y), ATTN_OK);
    for (int i = 0; i < FEW; i++) {
        assert_true(few[i] >= 1e8f && few[i] < 1e8f + 16);
        assert_true(numbers[i] >= 0x1p53 && numbers[i] < 0x1p53 + 4);
    }
    assert_int_equal(attn_fill_uniform(NULL, 1, 0, 3.0, 3.0, &x), ATTN_OK);
    assert_true(few[0] == 3.0f && few[FEW - 1] == 3.0f);
}

/* f32 is f64 rounded, rows with gaps hold what dense rows hold, and gaps are not written. */
static void test_layouts(void **unused)
{
    (void)unused;
    double wide[7 * 5] = {0};
    float gaps[7 * 9];
    memset(gaps, 0xff, sizeof gaps);
    attn_view x = dense(wide, ATTN_F64, 7, 5), y = attn_view_matrix(gaps, ATTN_F32, 7, 5, 9);
    assert_int_equal(attn_fill_normal(NULL, 1, 2, 0.0, 1.0, &x), ATTN_OK);
    assert_int_equal(attn_fill_normal(NULL, 1, 2, 0.0, 1.0, &y), ATTN_OK);
    for (int r = 0; r < 7; r++) {
        for (int c = 0; c < 5; c++) {
            assert_true(gaps[r * 9 + c] == (float)wide[r * 5 + c]);
        }
        assert_true(isnan(gaps[r * 9 + 5]));
    }
    double other[7 * 5] = {0};
    attn_view z = dense(other, ATTN_F64, 5, 7);
    assert_int_equal(attn_fill_normal(NULL, 1, 2, 0.0, 1.0, &z), ATTN_OK);
    assert_memory_equal(wide, other, sizeof wide);
    assert_int_equal(attn_fill_normal(NULL, 1, 3, 0.0, 1.0, &z), ATTN_OK);
    assert_true(wide[0] != other[0]);
}

static void test_errors(void **unused)
{
    (void)unused;
    attn_view x = dense(numbers, ATTN_F64, 2, 2), half = dense(numbers, ATTN_F16, 2, 2);
    attn_view column = x;
    column.stride[1] = 2;
    assert_int_equal(attn_fill_uniform(NULL, 1, 0, 1.0, 0.0, &x), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_fill_normal(NULL, 1, 0, 0.0, -1.0, &x), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_fill_normal(NULL, 1, 0, NAN, 1.0, &x), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_fill_normal(NULL, 1, 0, 0.0, 1.0, &half), ATTN_ERR_DTYPE);
    assert_int_equal(attn_fill_normal(NULL, 1, 0, 0.0, 1.0, &column), ATTN_ERR_SHAPE);
    assert_int_equal(attn_fill_normal(NULL, 1, 0, 0.0, 1.0, NULL), ATTN_ERR_ARGUMENT);
}

/* Threads change no bit, wherever rows and pieces end. */
static void test_threads(void **unused)
{
    (void)unused;
    enum { LARGE = 70000 };
    static const int64_t columns[] = {1, 7, 333, 17500, LARGE};
    static float alone[LARGE], together[LARGE];
    for (int threads = 1; threads <= 7; threads += 3) {
        attn_context_options options = attn_context_options_init();
        options.threads = threads;
        attn_context *context;
        assert_int_equal(attn_context_create(&options, &context), ATTN_OK);
        for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
            attn_view x = dense(alone, ATTN_F32, LARGE / columns[i], columns[i]), y = x;
            y.data = together;
            memset(together, 0, sizeof together);
            assert_int_equal(attn_fill_normal(NULL, 5, i, 0, 1, &x), ATTN_OK);
            assert_int_equal(attn_fill_normal(context, 5, i, 0, 1, &y), ATTN_OK);
            size_t bytes = sizeof(float) * (size_t)(LARGE / columns[i] * columns[i]);
            assert_memory_equal(alone, together, bytes);
            assert_int_equal(attn_fill_uniform(NULL, 5, i, -1, 1, &x), ATTN_OK);
            assert_int_equal(attn_fill_uniform(context, 5, i, -1, 1, &y), ATTN_OK);
            assert_memory_equal(alone, together, bytes);
        }
        attn_context_destroy(context);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_moments), cmocka_unit_test(test_open_end),
        cmocka_unit_test(test_layouts), cmocka_unit_test(test_threads),
        cmocka_unit_test(test_errors),
    };
    return cmocka_run_group_tests_name("fill", tests, NULL, NULL);
}
