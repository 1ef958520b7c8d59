/*
 * test_safetensors.c: safetensors files written byte for byte as the package writes them, read back, and replaced
 * whole or not at all.
 *
 * repro: test_safetensors [seed] (printed on failure)
 */
#define _GNU_SOURCE
#include "draws.h"
#include "expect.h"
#include "folder.h"

#include <attn/lm.h>

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t seed = 20240611;

/* All of a file; NULL when it is not there. */
static char *slurp(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        return NULL;
    }
    static char buffer[1 << 16];
    *size = fread(buffer, 1, sizeof buffer, file);
    fclose(file);
    return buffer;
}

/* ---- what is written ---- */

static const float weights[6] = {0.5f, -1, 2.25f, 3, 1e-3f, -7};
static const int64_t steps[1] = {12345};
static const uint8_t flags[3] = {1, 0, 1};

static attn_status save_three(const char *path)
{
    const attn_safetensors_item items[] = {
        {.name = "flags", .dtype = ATTN_ST_BOOL, .ndim = 1, .shape = {3}, .data = flags},
        {.name = "b", .dtype = ATTN_ST_F32, .ndim = 2, .shape = {2, 3}, .data = weights},
        {.name = "step", .dtype = ATTN_ST_I64, .data = steps},
        {.name = "a", .dtype = ATTN_ST_F32, .ndim = 2, .shape = {0, 3}},
    };
    const attn_safetensors_pair metadata[] = {{"k\"\n", "v\\\x1f\xc3\xa9"}};
    return attn_safetensors_save(path, items, 4, metadata, 1);
}

static void test_bytes_are_the_packages(void **state)
{
    (void)state;
    const char *path = in_folder("three.safetensors");
    assert_int_equal(save_three(path), ATTN_OK);
    static const char header[] =
        "{\"__metadata__\":{\"k\\\"\\n\":\"v\\\\\\u001f\xc3\xa9\"},"
        "\"step\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[8,8]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},"
        "\"flags\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[32,35]}}";
    size_t size = 0, length = (sizeof header - 1 + 7) / 8 * 8;
    const char *bytes = slurp(path, &size);
    assert_int_equal(size, 8 + length + 35);
    assert_int_equal((unsigned char)bytes[0] | (unsigned char)bytes[1] << 8, length);
    assert_memory_equal(bytes + 8, header, sizeof header - 1);
    for (size_t i = sizeof header - 1; i < length; i++) {
        assert_int_equal(bytes[8 + i], ' ');
    }
    assert_memory_equal(bytes + 8 + length, steps, 8);
    assert_memory_equal(bytes + 8 + length + 8, weights, 24);
    assert_memory_equal(bytes + 8 + length + 32, flags, 3);
}

static void test_reads_what_it_wrote(void **state)
{
    (void)state;
    const char *path = in_folder("again.safetensors");
    attn_safetensors *file;
    assert_int_equal(save_three(path), ATTN_OK);
    assert_int_equal(attn_safetensors_open(path, &file), ATTN_OK);
    assert_int_equal(attn_safetensors_count(file), 4);
    assert_string_equal(attn_safetensors_at(file, 0)->name, "step");
    assert_null(attn_safetensors_at(file, 4));
    assert_null(attn_safetensors_at(file, -1));
    assert_null(attn_safetensors_find(file, "c"));
    const attn_safetensor *b = attn_safetensors_find(file, "b"),
                          *a = attn_safetensors_find(file, "a");
    assert_true(b->dtype == ATTN_ST_F32 && b->ndim == 2 && b->shape[0] == 2 && b->shape[1] == 3);
    assert_true(b->shape[2] == 1 && b->elements == 6 && b->bytes == 24);
    assert_true(a->elements == 0 && a->data == NULL);
    float back[6];
    double wide[6];
    int64_t step;
    assert_int_equal(attn_safetensors_read(b, ATTN_F32, back, 6), ATTN_OK);
    assert_memory_equal(back, weights, sizeof back);
    assert_int_equal(attn_safetensors_read(b, ATTN_F64, wide, 6), ATTN_OK);
    assert_true(wide[4] == (double)weights[4]);
    assert_int_equal(
        attn_safetensors_read(attn_safetensors_find(file, "step"), ATTN_DTYPE_NONE, &step, 1),
        ATTN_OK);
    assert_int_equal(step, 12345);
    assert_int_equal(attn_safetensors_read(a, ATTN_F32, NULL, 0), ATTN_OK);
    assert_int_equal(attn_safetensors_read(b, ATTN_F32, back, 5), ATTN_ERR_SHAPE);
    assert_true(error_has("'b' has 6"));
    assert_int_equal(attn_safetensors_read(attn_safetensors_find(file, "step"), ATTN_F32, back, 1),
                     ATTN_ERR_DTYPE);
    assert_true(error_has("'step' is I64"));
    const char *value = NULL;
    assert_int_equal(attn_safetensors_metadata_count(file), 1);
    assert_string_equal(attn_safetensors_metadata_at(file, 0, &value), "k\"\n");
    assert_string_equal(value, "v\\\x1f\xc3\xa9");
    assert_string_equal(attn_safetensors_metadata(file, "k\"\n"), "v\\\x1f\xc3\xa9");
    assert_null(attn_safetensors_metadata(file, "other"));
    attn_safetensors_close(file);
}

/* f32 stored as BF16 and F16, and read back as floats: rounded once, to nearest even. */
static void test_halves(void **state)
{
    (void)state;
    enum { N = 70000 }; /* more than one piece of the writer's and the reader's conversion */
    float *values = malloc(N * sizeof *values), *back = malloc(N * sizeof *back);
    assert_true(values && back);
    for (int i = 0; i < N; i++) {
        values[i] = (float)(i - N / 2) * 0.37f;
    }
    values[0] = 1.00390625f; /* halfway between two bf16: to the even one, 1 */
    const int64_t n = N;
    attn_view view = attn_view_dense(values, ATTN_F32, 1, &n);
    const char *path = in_folder("halves.safetensors");
    attn_safetensors_item items[2] = {attn_safetensors_item_from("b", &view, ATTN_ST_BF16),
                                      attn_safetensors_item_from("h", &view, ATTN_ST_F16)};
    assert_int_equal(attn_safetensors_save(path, items, 2, NULL, 0), ATTN_OK);
    attn_safetensors *file;
    assert_int_equal(attn_safetensors_open(path, &file), ATTN_OK);
    for (int which = 0; which < 2; which++) {
        const attn_safetensor *t = attn_safetensors_find(file, which ? "h" : "b");
        assert_int_equal(t->bytes, 2 * N);
        assert_int_equal(attn_safetensors_read(t, ATTN_F32, back, N), ATTN_OK);
        for (int i = 1; i < N; i++) {
            float error = back[i] - values[i], most = values[i] * (which ? 0x1p-11f : 0x1p-8f);
            if (!(error * error <= most * most)) {
                fail_msg("value %d of %s: %g became %g", i, t->name, (double)values[i],
                         (double)back[i]);
            }
        }
        assert_true(back[0] == (which ? 1.00390625f : 1.0f));
    }
    attn_safetensors_close(file);
    free(values);
    free(back);
}

static void test_items_from_views(void **state)
{
    (void)state;
    float data[12] = {0};
    const int64_t shape[2] = {3, 4};
    attn_view view = attn_view_dense(data, ATTN_F32, 2, shape);
    attn_safetensors_item item = attn_safetensors_item_from("x", &view, ATTN_ST_NONE);
    assert_true(item.dtype == ATTN_ST_F32 && item.ndim == 2 && item.shape[1] == 4);
    assert_int_equal(item.source, ATTN_DTYPE_NONE);
    view.stride[0] = 8;
    item = attn_safetensors_item_from("x", &view, ATTN_ST_NONE);
    assert_int_equal(item.dtype, ATTN_ST_NONE);
    assert_int_equal(attn_safetensors_save(in_folder("x"), &item, 1, NULL, 0), ATTN_ERR_ARGUMENT);
    assert_true(error_has("'x' cannot be stored"));
}

static void refuse_save(const attn_safetensors_item *items, size_t count,
                        const attn_safetensors_pair *pairs, size_t pair_count, attn_status status,
                        const char *part)
{
    assert_int_equal(attn_safetensors_save(in_folder("no"), items, count, pairs, pair_count),
                     status);
    assert_true(error_has(part));
    assert_int_equal(access(in_folder("no"), F_OK), -1);
}

static void test_refuses_bad_items(void **state)
{
    (void)state;
    attn_safetensors_item good = {
        .name = "x", .dtype = ATTN_ST_F32, .ndim = 1, .shape = {2}, .data = weights};
    attn_safetensors_item item = good, two[2] = {good, good};
    refuse_save(two, 2, NULL, 0, ATTN_ERR_ARGUMENT, "'x' is there twice");
    item.name = "__metadata__";
    refuse_save(&item, 1, NULL, 0, ATTN_ERR_ARGUMENT, "__metadata__");
    item.name = "\xff";
    refuse_save(&item, 1, NULL, 0, ATTN_ERR_ARGUMENT, "UTF-8");
    item.name = NULL;
    refuse_save(&item, 1, NULL, 0, ATTN_ERR_ARGUMENT, "NULL");
    item = good;
    item.data = NULL;
    refuse_save(&item, 1, NULL, 0, ATTN_ERR_ARGUMENT, "data of 'x' is NULL");
    item = good;
    item.ndim = 9;
    refuse_save(&item, 1, NULL, 0, ATTN_ERR_SHAPE, "9 dimensions");
    item = good;
    item.shape[0] = -1;
    refuse_save(&item, 1, NULL, 0, ATTN_ERR_SHAPE, "size 0 is -1");
    item = good;
    item.ndim = 3;
    item.shape[0] = item.shape[1] = item.shape[2] = INT64_MAX / 2;
    refuse_save(&item, 1, NULL, 0, ATTN_ERR_SHAPE, "'x'");
    item.shape[0] = 0; /* no reader would take it */
    refuse_save(&item, 1, NULL, 0, ATTN_ERR_SHAPE, "size 2");
    item = good;
    item.dtype = ATTN_ST_I32;
    item.source = ATTN_F32;
    refuse_save(&item, 1, NULL, 0, ATTN_ERR_ARGUMENT, "cannot be stored as I32 from f32");
    const attn_safetensors_pair twice[2] = {{"k", "1"}, {"k", "2"}}, none = {"k", NULL};
    refuse_save(&good, 1, twice, 2, ATTN_ERR_ARGUMENT, "'k' is there twice");
    refuse_save(&good, 1, &none, 1, ATTN_ERR_ARGUMENT, "NULL");
    assert_int_equal(attn_safetensors_save(NULL, &good, 1, NULL, 0), ATTN_ERR_ARGUMENT);
}

/* ---- replaced whole or not at all ---- */

static void test_full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    const char *path = strdup(in_folder("kept"));
    assert_int_equal(save_three(path), ATTN_OK);
    size_t size = 0, now = 0;
    char *old = malloc(1 << 16);
    assert_non_null(old);
    memcpy(old, slurp(path, &size), 1 << 16);
    struct rlimit limit, small;
    getrlimit(RLIMIT_FSIZE, &limit);
    small = limit;
    small.rlim_cur =
        300; /* a limit on files is the nearest thing to a full disk that anyone may make */
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    attn_status status = save_three(path);
    setrlimit(RLIMIT_FSIZE, &limit);
    assert_int_equal(status, ATTN_ERR_IO);
    assert_true(error_has("kept: cannot write it: File too large"));
    assert_memory_equal(slurp(path, &now), old, size);
    assert_int_equal(now, size);
    assert_int_equal(access(in_folder("kept.part"), F_OK), -1);
    assert_int_equal(save_three("/dev/full"), ATTN_ERR_IO);
    assert_true(error_has("No space left"));
    assert_int_equal(save_three("/dev/null"), ATTN_OK);
    assert_int_equal(access("/dev/null.part", F_OK), -1);
    assert_int_equal(save_three("/nowhere/x"), ATTN_ERR_IO);
    assert_int_equal(save_three(in_folder("")), ATTN_ERR_IO);
    assert_true(error_has("is a folder"));
    free(old);
    free((void *)(uintptr_t)path);
}

static void test_parts(void **state)
{
    (void)state;
    /* A part that was left is taken over; one that is being written is not. */
    int fd = open(in_folder("p.part"), O_RDWR | O_CREAT, 0600);
    assert_int_equal(write(fd, "left", 4), 4);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    assert_int_equal(save_three(in_folder("p")), ATTN_ERR_IO);
    assert_true(error_has("another process"));
    assert_int_equal(access(in_folder("p"), F_OK), -1);
    close(fd);
    assert_int_equal(save_three(in_folder("p")), ATTN_OK);
    assert_int_equal(access(in_folder("p.part"), F_OK), -1);
    /* Through a symbolic link, keeping the rights of what was there. */
    assert_int_equal(symlink("p", in_folder("link")), 0);
    assert_int_equal(chmod(in_folder("p"), 0600), 0);
    assert_int_equal(save_three(in_folder("link")), ATTN_OK);
    struct stat info;
    assert_int_equal(lstat(in_folder("link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(stat(in_folder("p"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0600);
}

/* All values the same, another in every file. */
static void save_for_ever(const char *path, float *values, int64_t n)
{
    const attn_safetensors_item item = {
        .name = "v", .dtype = ATTN_ST_F32, .ndim = 1, .shape = {n}, .data = values};
    for (float number = 0;; number++) {
        for (int64_t k = 0; k < n; k++) {
            values[k] = number;
        }
        if (attn_safetensors_save(path, &item, 1, NULL, 0) != ATTN_OK) {
            _exit(1);
        }
    }
}

/* Killed at any moment: what is there always opens, and says one of the two texts whole. */
static void test_kill(void **state)
{
    (void)state;
    const char *path = strdup(in_folder("killed"));
    enum { N = 100000 };
    float *values = calloc(N, sizeof *values);
    assert_non_null(values);
    draw_state = seed;
    int cases = (int)fraction(20);
    assert_int_equal(save_three(path), ATTN_OK);
    for (int i = 0; i < cases; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            save_for_ever(path, values, N);
        }
        usleep(1000 + next() % 20000);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        attn_safetensors *file;
        assert_int_equal(attn_safetensors_open(path, &file), ATTN_OK);
        const attn_safetensor *v = attn_safetensors_find(file, "v");
        if (v) {
            assert_int_equal(attn_safetensors_read(v, ATTN_F32, values, N), ATTN_OK);
            for (int k = 1; k < N; k++) {
                assert_true(values[k] == values[0]);
            }
        }
        attn_safetensors_close(file);
    }
    free(values);
    free((void *)(uintptr_t)path);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 0);
    }
    printf("repeat with: test_safetensors %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_are_the_packages),
        cmocka_unit_test(test_reads_what_it_wrote),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_items_from_views),
        cmocka_unit_test(test_refuses_bad_items),
        cmocka_unit_test(test_full_disk_keeps_the_old_file),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_kill),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
