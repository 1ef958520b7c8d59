/*
 * test_safetensors_hostile.c: safetensors files that lie, are cut or damaged: refused in one sentence, quickly and in little memory.
 *
 * repro: test_safetensors_hostile [seed]
 */
#define _GNU_SOURCE
#include "draws.h"
#include "expect.h"

#include <attn/lm.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static uint64_t seed = 20240611;

static attn_status open_bytes(const void *data, size_t size, attn_safetensors **file)
{
    int fd = memfd_create("test.safetensors", 0);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, size), size);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    attn_status status = attn_safetensors_open(path, file);
    close(fd);
    return status;
}

/* A file of this header and so many bytes of data; its size. */
static size_t compose(unsigned char *bytes, size_t room, const char *header, size_t data)
{
    size_t size = strlen(header);
    assert_true(8 + size + data <= room);
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)(size >> (8 * i));
    }
    memcpy(bytes + 8, header, size);
    for (size_t i = 0; i < data; i++) {
        bytes[8 + size + i] = (unsigned char)i;
    }
    return 8 + size + data;
}

static attn_status open_text(const char *header, size_t data, attn_safetensors **file)
{
    static unsigned char bytes[1 << 20];
    return open_bytes(bytes, compose(bytes, sizeof bytes, header, data), file);
}

#define T(dtype, shape, from, to) \
    "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static const struct broken {
    const char *header;
    size_t data;
    attn_status status;
    const char *part;
} broken[] = {
    {"x", 8, ATTN_ERR_FORMAT, "not a safetensors file"},
    {"{", 8, ATTN_ERR_FORMAT, "not the JSON"},
    {"{}x", 0, ATTN_ERR_FORMAT, "not the JSON"},
    {"{}", 4, ATTN_ERR_FORMAT, "4 bytes at the end"},
    {"{\"a\":" T("F32", "[1]", 0, 4) ",}", 4, ATTN_ERR_FORMAT, "not the JSON"},
    {"{\"a\":" T("F32", "[1]", 0, 4) ",\"a\":" T("F32", "[1]", 4, 8) "}", 8, ATTN_ERR_FORMAT,
     "duplicate"},
    {"{\"\xff\":" T("F32", "[1]", 0, 4) "}", 4, ATTN_ERR_FORMAT, "unable to decode"},
    {"{\"\\u0000\":" T("F32", "[1]", 0, 4) "}", 4, ATTN_ERR_FORMAT, "not the JSON"},
    {"{\"a\":1}", 0, ATTN_ERR_FORMAT, "'a' is no object"},
    {"{\"a\":[1]}", 0, ATTN_ERR_FORMAT, "'a' of the header"},
    {"{\"a\":{}}", 0, ATTN_ERR_FORMAT, "'a' has no dtype"},
    {"{\"a\":{\"dtype\":1,\"shape\":[],\"data_offsets\":[0,4]}}", 4, ATTN_ERR_FORMAT, "no dtype"},
    {"{\"a\":" T("F33", "[1]", 0, 4) "}", 4, ATTN_ERR_UNSUPPORTED, "'a' is of dtype 'F33'"},
    {"{\"a\":" T("F4", "[2]", 0, 1) "}", 1, ATTN_ERR_UNSUPPORTED, "'F4'"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, ATTN_ERR_FORMAT, "no shape"},
    {"{\"a\":" T("F32", "4", 0, 4) "}", 4, ATTN_ERR_FORMAT, "no shape"},
    {"{\"a\":" T("F32", "[-1]", 0, 4) "}", 4, ATTN_ERR_FORMAT, "'a' has a size"},
    {"{\"a\":" T("F32", "[1.0]", 0, 4) "}", 4, ATTN_ERR_FORMAT, "'a' has a size"},
    {"{\"a\":" T("F32", "[\"1\"]", 0, 4) "}", 4, ATTN_ERR_FORMAT, "'a' has a size"},
    {"{\"a\":" T("F32", "[2]", 0, 4) "}", 4, ATTN_ERR_FORMAT, "'a' has 4 bytes"},
    {"{\"a\":" T("F32", "[4294967296,4294967296]", 0, 0) "}", 0, ATTN_ERR_FORMAT, "63 bits"},
    {"{\"a\":" T("F32", "[4611686018427387904]", 0, 0) "}", 0, ATTN_ERR_FORMAT, "64 bits"},
    {"{\"a\":" T("F32", "[0,4294967296,4294967296]", 0, 0) "}", 0, ATTN_ERR_FORMAT, "63 bits"},
    {"{\"a\":" T("F32", "[99999999999999999999]", 0, 4) "}", 4, ATTN_ERR_FORMAT, "too big"},
    {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, ATTN_ERR_UNSUPPORTED, "'a'"},
    {"{\"a\":" T("F32", "[[1]]", 0, 4) "}", 4, ATTN_ERR_FORMAT, "'a'"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, ATTN_ERR_FORMAT, "no data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, ATTN_ERR_FORMAT,
     "no data_offsets"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, ATTN_ERR_FORMAT,
     "no data_offsets"},
    {"{\"a\":" T("F32", "[1]", 4, 0) "}", 4, ATTN_ERR_FORMAT, "'a' lies at bytes 4"},
    {"{\"a\":" T("F32", "[1]", -4, 0) "}", 4, ATTN_ERR_FORMAT, "'a' lies at"},
    {"{\"a\":" T("F32", "[1]", 4, 8) "}", 4, ATTN_ERR_FORMAT, "'a' lies at"},
    {"{\"a\":" T("F32", "[1]", 9223372036854775803, 9223372036854775807) "}", 4, ATTN_ERR_FORMAT,
     "'a' lies at"},
    {"{\"a\":" T("F32", "[1]", 4, 8) "}", 8, ATTN_ERR_FORMAT, "'a' begins at byte 4"},
    {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 0, 4) "}", 4, ATTN_ERR_FORMAT,
     "'b' begins at byte 0"},
    {"{\"a\":" T("F32", "[2]", 0, 8) ",\"b\":" T("F32", "[1]", 4, 8) "}", 8, ATTN_ERR_FORMAT,
     "'b' begins at byte 4"},
    {"{\"a\":" T("F32", "[0]", 2, 2) ",\"b\":" T("F32", "[1]", 0, 4) "}", 4, ATTN_ERR_FORMAT,
     "begins at byte 2"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"more\":1}}", 4,
     ATTN_ERR_UNSUPPORTED, "'a' has more than"},
    {"{\"a\":{\"dtype\":{}}}", 0, ATTN_ERR_FORMAT, "'a'"},
    {"{\"__metadata__\":1}", 0, ATTN_ERR_FORMAT, "__metadata__"},
    {"{\"__metadata__\":{\"k\":1}}", 0, ATTN_ERR_FORMAT, "metadata 'k' is no string"},
    {"{\"__metadata__\":{\"k\":{}}}", 0, ATTN_ERR_FORMAT, "__metadata__"},
    {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", 0, ATTN_ERR_FORMAT, "duplicate"},
};

static void test_refuses_every_lie(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        attn_safetensors *file = (attn_safetensors *)&file;
        attn_status status = open_text(broken[i].header, broken[i].data, &file);
        if (status != broken[i].status || file != NULL || !error_has(broken[i].part)) {
            fail_msg("%s: status %d: %s", broken[i].header, status, attn_last_error());
        }
    }
}

static void test_refuses_bad_lengths(void **state)
{
    (void)state;
    attn_safetensors *file;
    unsigned char bytes[16] = {2, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    for (size_t size = 0; size < 10; size++) {
        assert_int_equal(open_bytes(bytes, size, &file), ATTN_ERR_FORMAT);
        assert_true(error_has("too few"));
    }
    assert_int_equal(open_bytes(bytes, 10, &file), ATTN_OK);
    assert_int_equal(attn_safetensors_count(file), 0);
    attn_safetensors_close(file);
    bytes[0] = 3;
    assert_int_equal(open_bytes(bytes, 10, &file), ATTN_ERR_FORMAT);
    assert_true(error_has("header of 3 bytes"));
    memset(bytes, 0xff, 8);
    assert_int_equal(open_bytes(bytes, 10, &file), ATTN_ERR_FORMAT);
    assert_true(error_has("18446744073709551615"));
    assert_int_equal(attn_safetensors_open("/nowhere/at/all", &file), ATTN_ERR_IO);
    assert_int_equal(attn_safetensors_open("/dev/null", &file), ATTN_ERR_IO);
    assert_int_equal(attn_safetensors_open("/tmp", &file), ATTN_ERR_IO);
    assert_int_equal(attn_safetensors_open(NULL, &file), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_safetensors_open("x", NULL), ATTN_ERR_ARGUMENT);
}

static size_t peak_kib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (size_t)usage.ru_maxrss;
}

/* Headers of 64 MB that would become gigabytes as a tree, or overflow a stack. */
static void test_hostile_headers_stay_small(void **state)
{
    (void)state;
    static const char *const units[] = {"[", "{\"a\":", "\"\":[],", "\"a\":{},", "1,", "\"\":1,"};
    const size_t size = (size_t)64 << 20;
    char *bytes = malloc(8 + size);
    assert_non_null(bytes);
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        for (int i = 0; i < 8; i++) {
            bytes[i] = (char)(size >> (8 * i));
        }
        size_t unit = strlen(units[u]);
        bytes[8] = '{';
        for (size_t at = 1; at < size; at++) {
            bytes[8 + at] = units[u][(at - 1) % unit];
        }
        attn_safetensors *file;
        size_t before = peak_kib();
        clock_t start = clock();
        attn_status status = open_bytes(bytes, 8 + size, &file);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        size_t grown = peak_kib() - before;
        if (status == ATTN_OK || seconds > 10 || grown > ((size_t)200 << 10)) {
            fail_msg("64 MB of %s: status %d, %g s, %zu KiB: %s", units[u], status, seconds, grown,
                     attn_last_error());
        }
    }
    free(bytes);
}

/* Cut anywhere, or with any byte changed: an error or a file that can be walked, never a crash. */
static void test_damaged_files(void **state)
{
    (void)state;
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"step\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[8,32]},"
        "\"flags\":{\"dtype\":\"BOOL\",\"shape\":[3],\"data_offsets\":[32,35]}}";
    unsigned char good[1024], bytes[1024];
    size_t size = compose(good, sizeof good, header, 35);
    attn_safetensors *file;
    assert_int_equal(open_bytes(good, size, &file), ATTN_OK);
    attn_safetensors_close(file);
    for (size_t cut = 0; cut < size; cut++) {
        assert_int_not_equal(open_bytes(good, cut, &file), ATTN_OK);
    }
    draw_state = seed;
    int cases = (int)fraction(20000);
    for (int i = 0; i < cases; i++) {
        memcpy(bytes, good, size);
        for (uint32_t n = 1 + next() % 3; n > 0; n--) {
            bytes[next() % size] = (unsigned char)next();
        }
        if (open_bytes(bytes, size, &file) != ATTN_OK) {
            assert_null(file);
            continue;
        }
        for (int64_t t = 0; t < attn_safetensors_count(file); t++) {
            const attn_safetensor *tensor = attn_safetensors_at(file, t);
            unsigned char sink[64];
            assert_ptr_equal(attn_safetensors_find(file, tensor->name), tensor);
            if (tensor->bytes <= sizeof sink) {
                attn_safetensors_read(tensor, ATTN_DTYPE_NONE, sink, tensor->elements);
            }
        }
        attn_safetensors_close(file);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 0);
    }
    printf("repeat with: test_safetensors_hostile %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_every_lie),
        cmocka_unit_test(test_refuses_bad_lengths),
        cmocka_unit_test(test_hostile_headers_stay_small),
        cmocka_unit_test(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
