/*
 * test_gguf.c: reading GGUF files, and refusing what is not one: every way a file can lie that we
 * could think of, each with a part of the text it must fail with.
 *
 * repro: test_gguf [seed] (printed on failure)
 */
#include "gguf_bytes.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static uint64_t seed = 20240611;

static uint32_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

/* Two tensors, every kind of metadata value. */
static bytes good_file(void)
{
    bytes b = {0};
    put_header(&b, 3, 2, 12);
    put_pair(&b, "u8", ATTN_GGUF_U8);
    put_u8(&b, 200);
    put_pair(&b, "i8", ATTN_GGUF_I8);
    put_u8(&b, 0xfe);
    put_pair(&b, "i16", ATTN_GGUF_I16);
    put(&b, "\x00\x80", 2);
    put_pair_u32(&b, "u32", 4000000000u);
    put_pair(&b, "f32", ATTN_GGUF_F32);
    put_u32(&b, 0x3fc00000); /* 1.5 */
    put_pair_bool(&b, "bool", true);
    put_pair_string(&b, "string", "hello");
    put_pair(&b, "u64", ATTN_GGUF_U64);
    put_u64(&b, UINT64_MAX);
    put_pair(&b, "i64", ATTN_GGUF_I64);
    put_u64(&b, (uint64_t)-5);
    put_pair(&b, "f64", ATTN_GGUF_F64);
    put_u64(&b, 0xc000000000000000u); /* -2 */
    const char *const words[] = {"a", "", "longer"};
    put_pair_strings(&b, "words", words, 3);
    const int32_t numbers[] = {1, -2, 3};
    put_pair_i32s(&b, "numbers", numbers, 3);
    const uint64_t dims[] = {4, 2}, q8_dims[] = {32};
    put_tensor(&b, "weights", 2, dims, 0, 0);
    put_tensor(&b, "quantised", 1, q8_dims, 8, 32);
    put_padding(&b, 32);
    for (uint32_t i = 0; i < 8; i++) {
        float value = (float)i;
        uint32_t bits;
        memcpy(&bits, &value, 4);
        put_u32(&b, bits);
    }
    put(&b, "\x00\x38", 2); /* d = 0.5 */
    for (int i = 0; i < 32; i++) {
        put_u8(&b, (uint8_t)(i - 16));
    }
    return b;
}

static void test_reads_metadata(void **state)
{
    (void)state;
    bytes b = good_file();
    attn_gguf *file;
    assert_int_equal(open_bytes(b.data, b.size, &file), ATTN_OK);
    int64_t n;
    double x;
    bool flag;
    attn_gguf_string s;
    assert_true(attn_gguf_get_int(file, "u8", &n) && n == 200);
    assert_true(attn_gguf_get_int(file, "i8", &n) && n == -2);
    assert_true(attn_gguf_get_int(file, "i16", &n) && n == -32768);
    assert_true(attn_gguf_get_int(file, "u32", &n) && n == 4000000000);
    assert_true(attn_gguf_get_int(file, "i64", &n) && n == -5);
    assert_false(attn_gguf_get_int(file, "u64", &n)); /* does not fit */
    assert_int_equal(n, -5);
    assert_false(attn_gguf_get_int(file, "f32", &n));
    assert_false(attn_gguf_get_int(file, "bool", &n));
    assert_false(attn_gguf_get_int(file, "missing", &n));
    assert_true(attn_gguf_get_float(file, "f32", &x) && x == 1.5);
    assert_true(attn_gguf_get_float(file, "f64", &x) && x == -2);
    assert_true(attn_gguf_get_float(file, "u8", &x) && x == 200);
    assert_false(attn_gguf_get_float(file, "string", &x));
    assert_true(attn_gguf_get_bool(file, "bool", &flag) && flag);
    assert_false(attn_gguf_get_bool(file, "u8", &flag));
    assert_true(attn_gguf_get_string(file, "string", &s) && s.size == 5 &&
                memcmp(s.data, "hello", 5) == 0);
    attn_gguf_type element;
    assert_true(attn_gguf_get_array(file, "words", &element, &n));
    assert_true(element == ATTN_GGUF_STRING && n == 3);
    assert_true(attn_gguf_array_string(file, "words", 2, &s) && s.size == 6);
    assert_true(attn_gguf_array_string(file, "words", 1, &s) && s.size == 0);
    assert_false(attn_gguf_array_string(file, "words", 3, &s));
    assert_false(attn_gguf_array_string(file, "words", -1, &s));
    assert_false(attn_gguf_array_string(file, "numbers", 0, &s));
    assert_true(attn_gguf_array_int(file, "numbers", 1, &n) && n == -2);
    assert_false(attn_gguf_array_int(file, "numbers", 3, &n));
    assert_false(attn_gguf_array_int(file, "words", 0, &n));
    assert_true(attn_gguf_array_float(file, "numbers", 2, &x) && x == 3);
    assert_int_equal(attn_gguf_key_count(file), 12);
    attn_gguf_type type;
    assert_string_equal(attn_gguf_key_at(file, 6, &type), "string");
    assert_int_equal(type, ATTN_GGUF_STRING);
    assert_null(attn_gguf_key_at(file, 12, &type));
    assert_int_equal(attn_gguf_file_bytes(file), b.size);
    attn_gguf_close(file);
    bytes_free(&b);
}

static void test_reads_tensors(void **state)
{
    (void)state;
    bytes b = good_file();
    attn_gguf *file;
    assert_int_equal(open_bytes(b.data, b.size, &file), ATTN_OK);
    assert_int_equal(attn_gguf_tensor_count(file), 2);
    assert_null(attn_gguf_tensor_at(file, 2));
    assert_null(attn_gguf_tensor_at(file, -1));
    assert_null(attn_gguf_find(file, "weight"));
    const attn_gguf_tensor *t = attn_gguf_find(file, "weights");
    assert_ptr_equal(t, attn_gguf_tensor_at(file, 0));
    assert_int_equal(t->ndim, 2);
    assert_true(t->dims[0] == 4 && t->dims[1] == 2 && t->dims[2] == 1 && t->dims[3] == 1);
    assert_int_equal(t->bytes, 32);
    float values[32];
    assert_int_equal(attn_gguf_dequantize(t, values, 8), ATTN_OK);
    for (int i = 0; i < 8; i++) {
        assert_true(values[i] == (float)i);
    }
    assert_int_equal(attn_gguf_dequantize(t, values, 7), ATTN_ERR_SHAPE);
    assert_true(error_has("7, but tensor 'weights' has 8"));
    t = attn_gguf_find(file, "quantised");
    assert_int_equal(t->bytes, 34);
    assert_int_equal(attn_gguf_dequantize(t, values, 32), ATTN_OK);
    for (int i = 0; i < 32; i++) {
        assert_true(values[i] == 0.5f * (float)(i - 16));
    }
    assert_int_equal(attn_gguf_dequantize(NULL, values, 1), ATTN_ERR_ARGUMENT);
    attn_gguf_close(file);
    attn_gguf_close(NULL);
    bytes_free(&b);
}

/* A file with one tensor; `data_bytes` of data behind it. */
static bytes one_tensor(uint32_t ndim, const uint64_t *dims, uint32_t type, uint64_t offset,
                        size_t data_bytes)
{
    bytes b = {0};
    put_header(&b, 3, 1, 0);
    put_tensor(&b, "t", ndim, dims, type, offset);
    put_padding(&b, 32);
    put_zeros(&b, data_bytes);
    return b;
}

static void expect_failure(bytes *b, attn_status wanted, const char *part)
{
    attn_gguf *file = (attn_gguf *)8;
    clock_t start = clock();
    attn_status status = open_bytes(b->data, b->size, &file);
    double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
    if (status != wanted) {
        fprintf(stderr, "status %d (%s), wanted %d with \"%s\"\n", status, attn_last_error(),
                wanted, part);
    }
    assert_int_equal(status, wanted);
    assert_null(file);
    assert_true(error_has(part));
    assert_true(seconds < 1);
    bytes_free(b);
}

static void test_refuses_bad_headers(void **state)
{
    (void)state;
    bytes b = {0};
    expect_failure(&b, ATTN_ERR_FORMAT, "0 bytes are too few");
    put(&b, "GGUF", 4);
    expect_failure(&b, ATTN_ERR_FORMAT, "4 bytes are too few");
    put_zeros(&b, 64);
    expect_failure(&b, ATTN_ERR_FORMAT, "not a GGUF file");
    for (uint32_t version = 0; version < 5; version++) {
        if (version != 3) {
            put_header(&b, version, 0, 0);
            expect_failure(&b, ATTN_ERR_UNSUPPORTED, "at byte 4");
        }
    }
    put_header(&b, 0x03000000, 0, 0);
    expect_failure(&b, ATTN_ERR_UNSUPPORTED, "big-endian");
    put_header(&b, 3, (uint64_t)1 << 60, 0);
    put_zeros(&b, 1000);
    expect_failure(&b, ATTN_ERR_FORMAT, "1152921504606846976 tensors");
    put_header(&b, 3, 0, UINT64_MAX);
    put_zeros(&b, 1000);
    expect_failure(&b, ATTN_ERR_FORMAT, "18446744073709551615 metadata pairs");
    put_header(&b, 3, 100, 0);
    put_zeros(&b, 100);
    expect_failure(&b, ATTN_ERR_FORMAT, "100 tensors");

    attn_gguf *file = (attn_gguf *)8;
    assert_int_equal(attn_gguf_open("/nonexistent/x.gguf", &file), ATTN_ERR_IO);
    assert_null(file);
    assert_true(error_has("/nonexistent/x.gguf"));
    assert_int_equal(attn_gguf_open("/", &file), ATTN_ERR_IO);
    assert_int_equal(attn_gguf_open(NULL, &file), ATTN_ERR_ARGUMENT);
    assert_int_equal(attn_gguf_open("x", NULL), ATTN_ERR_ARGUMENT);
}

static void test_refuses_bad_metadata(void **state)
{
    (void)state;
    bytes b = {0};
    put_header(&b, 3, 0, 1);
    put_u64(&b, (uint64_t)1 << 62); /* a key this long */
    put_zeros(&b, 40);
    expect_failure(&b, ATTN_ERR_FORMAT, "a metadata key at byte 32 needs 4611686018427387904");
    put_header(&b, 3, 0, 1);
    put_pair_u32(&b, "", 1);
    expect_failure(&b, ATTN_ERR_FORMAT, "is empty");
    put_header(&b, 3, 0, 1);
    put_u64(&b, 3);
    put(&b, "a\0b", 3);
    put_zeros(&b, 20);
    expect_failure(&b, ATTN_ERR_FORMAT, "NUL");
    put_header(&b, 3, 0, 1);
    put_pair(&b, "strange", (attn_gguf_type)13);
    put_zeros(&b, 20);
    expect_failure(&b, ATTN_ERR_FORMAT, "'strange' at byte 39 has type 13");
    put_header(&b, 3, 0, 1);
    put_pair(&b, "flag", ATTN_GGUF_BOOL);
    put_u8(&b, 2);
    expect_failure(&b, ATTN_ERR_FORMAT, "must be 0 or 1");
    put_header(&b, 3, 0, 1);
    put_pair(&b, "text", ATTN_GGUF_STRING);
    put_u64(&b, UINT64_MAX);
    expect_failure(&b, ATTN_ERR_FORMAT, "needs 18446744073709551615 bytes");
    put_header(&b, 3, 0, 2);
    put_pair_u32(&b, "same", 1);
    put_pair_u32(&b, "same", 1);
    expect_failure(&b, ATTN_ERR_FORMAT, "'same' is there twice");
    put_header(&b, 3, 0, 1);
    put_pair_u32(&b, "\x1b[31mred", 1); /* error texts pass no control characters on */
    b.data[8 + 16 + 8 + 8] = 99;        /* its type */
    expect_failure(&b, ATTN_ERR_FORMAT, "'?[31mred'");
    const uint32_t alignments[] = {0, 3, 4, 33, 0xffffffffu};
    for (int i = 0; i < 5; i++) {
        put_header(&b, 3, 0, 1);
        put_pair_u32(&b, "general.alignment", alignments[i]);
        expect_failure(&b, ATTN_ERR_FORMAT, "power of two");
    }
    put_header(&b, 3, 0, 1);
    put_pair_string(&b, "general.alignment", "32");
    expect_failure(&b, ATTN_ERR_FORMAT, "must be a u32");
}

static void put_array(bytes *b, uint32_t element, uint64_t count)
{
    put_header(b, 3, 0, 1);
    put_pair(b, "array", ATTN_GGUF_ARRAY);
    put_u32(b, element);
    put_u64(b, count);
}

static void test_refuses_bad_arrays(void **state)
{
    (void)state;
    bytes b = {0};
    put_array(&b, ATTN_GGUF_U32, (uint64_t)1 << 62);
    put_zeros(&b, 64);
    expect_failure(&b, ATTN_ERR_FORMAT, "claims 4611686018427387904 elements");
    put_array(&b, ATTN_GGUF_U64, 9);
    put_zeros(&b, 64);
    expect_failure(&b, ATTN_ERR_FORMAT, "only 64 bytes are left");
    put_array(&b, ATTN_GGUF_STRING, (uint64_t)1 << 60);
    put_zeros(&b, 64);
    expect_failure(&b, ATTN_ERR_FORMAT, "claims 1152921504606846976 elements");
    put_array(&b, ATTN_GGUF_STRING, 2);
    put_u64(&b, 100);
    put_zeros(&b, 64);
    expect_failure(&b, ATTN_ERR_FORMAT, "needs 100 bytes");
    put_array(&b, ATTN_GGUF_ARRAY, 1);
    put_u32(&b, ATTN_GGUF_U8);
    put_u64(&b, 1);
    put_u8(&b, 1);
    expect_failure(&b, ATTN_ERR_UNSUPPORTED, "array of arrays");
    put_array(&b, 77, 1);
    put_zeros(&b, 64);
    expect_failure(&b, ATTN_ERR_FORMAT, "array of type 77");
    put_array(&b, ATTN_GGUF_BOOL, 3);
    put(&b, "\0\1\7", 3);
    expect_failure(&b, ATTN_ERR_FORMAT, "is 7; it must be 0 or 1");
}

static void test_refuses_bad_tensors(void **state)
{
    (void)state;
    const uint64_t two[] = {4, 2, 1, 1, 1}, zero[] = {4, 0}, row[] = {33, 2};
    const uint64_t huge[] = {(uint64_t)1 << 40, (uint64_t)1 << 40}, wide[] = {UINT64_MAX};
    const uint64_t large[] = {(uint64_t)1 << 62}, q8[] = {32};
    bytes b = one_tensor(0, two, 0, 0, 32);
    expect_failure(&b, ATTN_ERR_FORMAT, "has 0 dimensions");
    b = one_tensor(5, two, 0, 0, 32);
    expect_failure(&b, ATTN_ERR_FORMAT, "has 5 dimensions");
    b = one_tensor(2, zero, 0, 0, 32);
    expect_failure(&b, ATTN_ERR_FORMAT, "must be at least 1");
    b = one_tensor(2, huge, 0, 0, 32);
    expect_failure(&b, ATTN_ERR_FORMAT, "more elements than 63 bits count");
    b = one_tensor(1, wide, 0, 0, 32);
    expect_failure(&b, ATTN_ERR_FORMAT, "more elements than 63 bits count");
    b = one_tensor(1, large, 28, 0, 32); /* 2^62 f64: the bytes overflow */
    expect_failure(&b, ATTN_ERR_FORMAT, "more bytes than 64 bits count");
    b = one_tensor(2, row, 8, 0, 4096);
    expect_failure(&b, ATTN_ERR_FORMAT, "no multiple of Q8_0's block of 32");
    b = one_tensor(2, two, 0, 8, 64);
    expect_failure(&b, ATTN_ERR_FORMAT, "no multiple of the alignment 32");
    b = one_tensor(2, two, 0, 32, 63);
    expect_failure(&b, ATTN_ERR_FORMAT, "needs 32 bytes from offset 32");
    b = one_tensor(2, two, 0, UINT64_MAX - 31, 64);
    expect_failure(&b, ATTN_ERR_FORMAT, "the file ends at byte");
    b = one_tensor(1, q8, 8, 0, 33);
    expect_failure(&b, ATTN_ERR_FORMAT, "needs 34 bytes");

    put_header(&b, 3, 2, 0);
    put_tensor(&b, "a", 2, two, 0, 0);
    put_tensor(&b, "a", 2, two, 0, 32);
    put_padding(&b, 32);
    put_zeros(&b, 64);
    expect_failure(&b, ATTN_ERR_FORMAT, "tensor 'a' is there twice");
    const uint64_t nine[] = {9};
    put_header(&b, 3, 3, 0);
    put_tensor(&b, "last", 1, nine, 0, 64);
    put_tensor(&b, "first", 1, nine, 0, 0); /* 36 bytes: 4 too many */
    put_tensor(&b, "middle", 1, nine, 0, 32);
    put_padding(&b, 32);
    put_zeros(&b, 128);
    expect_failure(&b, ATTN_ERR_FORMAT, "'first' and 'middle' overlap");
    put_header(&b, 3, 2, 0);
    put_tensor(&b, "one", 2, two, 0, 0);
    put_tensor(&b, "two", 2, two, 0, 0);
    put_padding(&b, 32);
    put_zeros(&b, 128);
    expect_failure(&b, ATTN_ERR_FORMAT, "overlap");
}

static void test_unread_types_are_listed_not_read(void **state)
{
    (void)state;
    const uint64_t dims[] = {256}, odd[] = {5};
    bytes b = one_tensor(1, dims, 12, 0, 144);
    attn_gguf *file;
    assert_int_equal(open_bytes(b.data, b.size, &file), ATTN_OK);
    const attn_gguf_tensor *t = attn_gguf_find(file, "t");
    assert_int_equal(t->bytes, 144);
    float values[256];
    assert_int_equal(attn_gguf_dequantize(t, values, 256), ATTN_ERR_UNSUPPORTED);
    assert_true(error_has("tensor 't' is of type Q4_K"));
    attn_gguf_close(file);
    bytes_free(&b);
    b = one_tensor(1, dims, 12, 0, 143); /* its extent is checked all the same */
    expect_failure(&b, ATTN_ERR_FORMAT, "needs 144 bytes");

    b = one_tensor(1, odd, 99, 0, 64);
    assert_int_equal(open_bytes(b.data, b.size, &file), ATTN_OK);
    t = attn_gguf_find(file, "t");
    assert_null(t->data);
    assert_int_equal(t->bytes, 0);
    assert_int_equal(attn_gguf_dequantize(t, values, 5), ATTN_ERR_UNSUPPORTED);
    assert_true(error_has("type 99"));
    attn_gguf_close(file);
    bytes_free(&b);
    assert_string_equal(attn_gguf_type_name(3), "Q4_1");
    assert_string_equal(attn_gguf_type_name(4), "type 4");
}

static void test_every_truncation_is_an_error(void **state)
{
    (void)state;
    bytes b = good_file();
    for (size_t size = 0; size < b.size; size++) {
        attn_gguf *file;
        attn_status status = open_bytes(b.data, size, &file);
        if (status == ATTN_OK) {
            fprintf(stderr, "cut to %zu of %zu bytes: opened\n", size, b.size);
        }
        assert_int_not_equal(status, ATTN_OK);
        assert_null(file);
    }
    bytes_free(&b);
}

/* Changed bytes either fail or leave a file whose every tensor lies inside it. */
static void test_changed_bytes_never_escape(void **state)
{
    (void)state;
    bytes b = good_file();
    uint8_t *copy = malloc(b.size);
    assert_non_null(copy);
    for (uint64_t round = 0; round < 3000; round++) {
        uint64_t random = seed + round;
        memcpy(copy, b.data, b.size);
        for (uint32_t changes = 1 + next(&random) % 4; changes > 0; changes--) {
            static const uint8_t hostile[] = {0, 1, 0x7f, 0x80, 0xff};
            uint8_t value = next(&random) % 2 ? hostile[next(&random) % 5] : (uint8_t)next(&random);
            copy[next(&random) % b.size] = value;
        }
        attn_gguf *file;
        if (open_bytes(copy, b.size, &file) != ATTN_OK) {
            assert_null(file);
            continue;
        }
        for (int64_t i = 0; i < attn_gguf_tensor_count(file); i++) {
            const attn_gguf_tensor *t = attn_gguf_tensor_at(file, i);
            volatile uint8_t sink = 0;
            for (size_t at = 0; t->data && at < t->bytes; at++) {
                sink ^= ((const uint8_t *)t->data)[at];
            }
            (void)sink;
            if (t->bytes > b.size) {
                fprintf(stderr, "repro: test_gguf %llu\n", (unsigned long long)(seed + round));
            }
            assert_true(t->bytes <= b.size);
        }
        attn_gguf_close(file);
    }
    free(copy);
    bytes_free(&b);
}

/* 60,000 keys with a long common beginning and one duplicate: found without comparing each with
 * each. */
static void test_duplicates_are_found_fast(void **state)
{
    (void)state;
    bytes b = {0};
    const uint64_t keys = 60000;
    put_header(&b, 3, 0, keys);
    for (uint64_t i = 0; i < keys; i++) {
        char key[64];
        snprintf(key, sizeof key, "general.some.long.beginning.of.a.key.%llu",
                 (unsigned long long)(i == keys - 1 ? 17 : i));
        put_pair_u32(&b, key, 1);
    }
    expect_failure(&b, ATTN_ERR_FORMAT, "key.17' is there twice");
}

static void test_default_model(void **state)
{
    (void)state;
    const char *path = default_model();
    if (!path) {
        skip();
    }
    attn_gguf *file;
    assert_int_equal(attn_gguf_open(path, &file), ATTN_OK);
    assert_int_equal(attn_gguf_tensor_count(file), 272);
    const attn_gguf_tensor *t = attn_gguf_find(file, "token_embd.weight");
    assert_non_null(t);
    assert_true(t->type == 8 && t->dims[0] == 576 && t->dims[1] == 49152);
    attn_gguf_string s;
    assert_true(attn_gguf_array_string(file, "tokenizer.ggml.tokens", 2, &s));
    assert_true(s.size == 10 && memcmp(s.data, "<|im_end|>", 10) == 0);
    attn_gguf_close(file);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 0);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_metadata),
        cmocka_unit_test(test_reads_tensors),
        cmocka_unit_test(test_refuses_bad_headers),
        cmocka_unit_test(test_refuses_bad_metadata),
        cmocka_unit_test(test_refuses_bad_arrays),
        cmocka_unit_test(test_refuses_bad_tensors),
        cmocka_unit_test(test_unread_types_are_listed_not_read),
        cmocka_unit_test(test_every_truncation_is_an_error),
        cmocka_unit_test(test_changed_bytes_never_escape),
        cmocka_unit_test(test_duplicates_are_found_fast),
        cmocka_unit_test(test_default_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
