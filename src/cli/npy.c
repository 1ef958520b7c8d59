/**
 * npy.c: reading and writing .npy files.
 */
#define _GNU_SOURCE
#include "npy.h"
#include "write_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_HEADER 65536 /* ours are 128 bytes; NumPy's own grow only with structured types */

static const struct {
    const char *descr;
    size_t size;
} types[] = {
    [NPY_F16] = {"<f2", 2}, [NPY_F32] = {"<f4", 4}, [NPY_F64] = {"<f8", 8}, [NPY_BOOL] = {"|b1", 1},
    [NPY_U8] = {"|u1", 1},  [NPY_I32] = {"<i4", 4}, [NPY_I64] = {"<i8", 8},
};

#define TYPES (sizeof types / sizeof types[0])

size_t npy_type_size(npy_type type)
{
    return types[type].size;
}

const char *npy_type_name(npy_type type)
{
    return types[type].descr;
}

/* The header is a Python dictionary literal; this reads the little of Python that one may hold. */
typedef struct scanner {
    const char *path, *at, *end;
} scanner;

static void skip_space(scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t')) {
        s->at++;
    }
}

static bool take(scanner *s, const char *word)
{
    skip_space(s);
    size_t size = strlen(word);
    if ((size_t)(s->end - s->at) < size || memcmp(s->at, word, size) != 0) {
        return false;
    }
    s->at += size;
    return true;
}

static attn_status bad_header(const scanner *s, const char *what)
{
    return attn_fail(ATTN_ERR_FORMAT,
                     "%s: its .npy header is damaged (%s); save the array again with numpy.save",
                     s->path, what);
}

static attn_status read_string(scanner *s, char *text, size_t size)
{
    skip_space(s);
    if (s->at == s->end || (*s->at != '\'' && *s->at != '"')) {
        return bad_header(s, "a string is missing");
    }
    char quote = *s->at++;
    size_t used = 0;
    while (s->at < s->end && *s->at != quote) {
        if (used + 1 >= size) {
            return bad_header(s, "a string is too long");
        }
        text[used++] = *s->at++;
    }
    text[used] = '\0';
    if (s->at == s->end) {
        return bad_header(s, "a string has no end");
    }
    s->at++;
    return ATTN_OK;
}

static attn_status read_descr(scanner *s, npy_array *array)
{
    char text[32];
    skip_space(s);
    if (s->at < s->end && *s->at == '[') {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: holds records; save one plain array of numbers, such as a['field']",
                         s->path);
    }
    attn_status status = read_string(s, text, sizeof text);
    if (status != ATTN_OK) {
        return status;
    }
    for (size_t i = 0; i < TYPES; i++) {
        if (strcmp(text, types[i].descr) == 0) {
            array->type = (npy_type)i;
            return ATTN_OK;
        }
    }
    if (text[0] == '>') {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: is big-endian (%s); save it as little-endian: "
                         "numpy.save(path, a.astype('<%s'))",
                         s->path, text, text + 1);
    }
    return attn_fail(ATTN_ERR_FORMAT,
                     "%s: element type '%s' is not one of <f2 <f4 <f8 |b1 |u1 <i4 <i8; save "
                     "a.astype('float32'), or 'bool' for masks",
                     s->path, text);
}

static attn_status read_shape(scanner *s, npy_array *array)
{
    if (!take(s, "(")) {
        return bad_header(s, "shape is no tuple");
    }
    array->ndim = 0;
    while (!take(s, ")")) {
        skip_space(s);
        int64_t size = 0;
        int digits = 0;
        for (; s->at < s->end && *s->at >= '0' && *s->at <= '9'; s->at++, digits++) {
            if (__builtin_mul_overflow(size, (int64_t)10, &size) ||
                __builtin_add_overflow(size, (int64_t)(*s->at - '0'), &size)) {
                return bad_header(s, "a size does not fit 63 bits");
            }
        }
        if (digits == 0) {
            return bad_header(s, "a size is no number");
        }
        if (array->ndim == 4) {
            return attn_fail(ATTN_ERR_FORMAT,
                             "%s: has more than 4 dimensions; reshape it to [batch, heads, len, "
                             "dim]",
                             s->path);
        }
        array->shape[array->ndim++] = size;
        if (!take(s, ",")) {
            if (!take(s, ")")) {
                return bad_header(s, "shape has no end");
            }
            return ATTN_OK;
        }
    }
    return ATTN_OK;
}

static attn_status read_order(scanner *s)
{
    if (take(s, "False")) {
        return ATTN_OK;
    }
    if (take(s, "True")) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: is in Fortran order; save it in C order: numpy.save(path, "
                         "numpy.ascontiguousarray(a))",
                         s->path);
    }
    return bad_header(s, "fortran_order is neither True nor False");
}

static attn_status parse_header(scanner *s, npy_array *array)
{
    bool seen[3] = {false, false, false};
    if (!take(s, "{")) {
        return bad_header(s, "it is no dictionary");
    }
    while (!take(s, "}")) {
        char key[32];
        attn_status status = read_string(s, key, sizeof key);
        if (status == ATTN_OK && !take(s, ":")) {
            status = bad_header(s, "a key has no value");
        }
        if (status != ATTN_OK) {
            return status;
        }
        int which = strcmp(key, "descr") == 0           ? 0
                    : strcmp(key, "fortran_order") == 0 ? 1
                    : strcmp(key, "shape") == 0         ? 2
                                                        : -1;
        if (which < 0 || seen[which]) {
            return bad_header(s, "a key is unknown or there twice");
        }
        seen[which] = true;
        status = which == 0   ? read_descr(s, array)
                 : which == 1 ? read_order(s)
                              : read_shape(s, array);
        if (status != ATTN_OK) {
            return status;
        }
        if (!take(s, ",") && !(s->at < s->end && *s->at == '}')) {
            return bad_header(s, "a comma is missing");
        }
    }
    skip_space(s);
    if (!seen[0] || !seen[1] || !seen[2]) {
        return bad_header(s, "descr, fortran_order or shape is missing");
    }
    return s->at == s->end ? ATTN_OK : bad_header(s, "text follows the dictionary");
}

/* Bytes that the array's shape stands for, against what the file has left. */
static attn_status check_size(const char *path, npy_array *array, int64_t left)
{
    int64_t bytes = (int64_t)npy_type_size(array->type);
    array->count = 1;
    for (int i = 0; i < array->ndim; i++) {
        if (__builtin_mul_overflow(array->count, array->shape[i], &array->count)) {
            return attn_fail(ATTN_ERR_FORMAT,
                             "%s: its header's sizes overflow; the file is damaged", path);
        }
    }
    if (__builtin_mul_overflow(bytes, array->count, &bytes) || bytes != left) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: its header promises %lld elements of %zu bytes, the file holds %lld "
                         "bytes of data; it was cut short or damaged, save it again",
                         path, (long long)array->count, npy_type_size(array->type),
                         (long long)left);
    }
    return ATTN_OK;
}

static attn_status read_all(const char *path, int fd, void *data, size_t size)
{
    char *at = data;
    while (size > 0) {
        ssize_t got = read(fd, at, size < (1u << 30) ? size : (1u << 30));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            return attn_fail(ATTN_ERR_IO, "%s: cannot read: %s", path,
                             got < 0 ? strerror(errno) : "the file ends too early");
        }
        at += got;
        size -= (size_t)got;
    }
    return ATTN_OK;
}

static attn_status read_open(const char *path, int fd, npy_array *array)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        return attn_fail(ATTN_ERR_IO, "%s: is no regular file; give a .npy file", path);
    }
    unsigned char head[12] = {0};
    if (info.st_size < 10 || read_all(path, fd, head, 10) != ATTN_OK ||
        memcmp(head, "\x93NUMPY", 6) != 0) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: is no .npy file; make one with numpy.save", path);
    }
    size_t prefix = 10, header = (size_t)head[8] | (size_t)head[9] << 8;
    if (head[6] == 2 || head[6] == 3) {
        attn_status status = read_all(path, fd, head + 10, 2);
        if (status != ATTN_OK) {
            return status;
        }
        prefix = 12;
        header |= (size_t)head[10] << 16 | (size_t)head[11] << 24;
    } else if (head[6] != 1) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: .npy version %d.%d is not 1, 2 or 3; save it again",
                         path, head[6], head[7]);
    }
    if (header > MAX_HEADER || (int64_t)(prefix + header) > (int64_t)info.st_size) {
        return attn_fail(ATTN_ERR_FORMAT,
                         "%s: a header of %zu bytes does not fit the file; it was cut short or "
                         "damaged",
                         path, header);
    }
    char *text = malloc(header + 1);
    if (!text) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for its header", path);
    }
    attn_status status = read_all(path, fd, text, header);
    scanner s = {.path = path, .at = text, .end = text + header};
    if (status == ATTN_OK) {
        status = parse_header(&s, array);
    }
    free(text);
    if (status == ATTN_OK) {
        status = check_size(path, array, (int64_t)info.st_size - (int64_t)(prefix + header));
    }
    if (status != ATTN_OK) {
        return status;
    }
    size_t bytes = (size_t)array->count * npy_type_size(array->type);
    array->data = malloc(bytes ? bytes : 1);
    if (!array->data) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "%s: no memory for its %zu bytes", path, bytes);
    }
    return read_all(path, fd, array->data, bytes);
}

attn_status npy_read(const char *path, npy_array *array)
{
    *array = (npy_array){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return attn_fail(ATTN_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    attn_status status = read_open(path, fd, array);
    close(fd);
    if (status != ATTN_OK) {
        npy_free(array);
    }
    return status;
}

void npy_free(npy_array *array)
{
    free(array->data);
    *array = (npy_array){0};
}

double npy_number(const npy_array *array, int64_t i)
{
    switch (array->type) {
    case NPY_F32: return (double)((const float *)array->data)[i];
    case NPY_F64: return ((const double *)array->data)[i];
    case NPY_I32: return (double)((const int32_t *)array->data)[i];
    case NPY_I64: return (double)((const int64_t *)array->data)[i];
    case NPY_BOOL:
    case NPY_U8: return (double)((const uint8_t *)array->data)[i];
    case NPY_F16: break;
    }
    uint16_t half = ((const uint16_t *)array->data)[i];
    int exponent = (half >> 10) & 31, mantissa = half & 1023;
    double magnitude = exponent == 31  ? (mantissa ? __builtin_nan("") : __builtin_inf())
                       : exponent == 0 ? mantissa * 0x1p-24
                                       : __builtin_ldexp(1024 + mantissa, exponent - 25);
    return half & 0x8000 ? -magnitude : magnitude;
}

bool npy_integer(const npy_array *array, int64_t i, int64_t *value)
{
    switch (array->type) {
    case NPY_I32: *value = ((const int32_t *)array->data)[i]; return true;
    case NPY_I64: *value = ((const int64_t *)array->data)[i]; return true;
    case NPY_BOOL:
    case NPY_U8: *value = ((const uint8_t *)array->data)[i]; return true;
    case NPY_F16:
    case NPY_F32:
    case NPY_F64: break;
    }
    return false;
}

attn_status npy_write(const char *path, npy_type type, int ndim, const int64_t *shape,
                      const void *data)
{
    char header[256];
    int used = snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (",
                        types[type].descr);
    size_t bytes = npy_type_size(type);
    for (int i = 0; i < ndim; i++) {
        bytes *= (size_t)shape[i];
        used += snprintf(header + used, sizeof header - (size_t)used, "%lld,%s",
                         (long long)shape[i], i + 1 < ndim ? " " : "");
    }
    used += snprintf(header + used, sizeof header - (size_t)used, "), }");
    while ((used + 11) % 64 != 0) { /* data starts on a multiple of 64, after a newline */
        header[used++] = ' ';
    }
    header[used++] = '\n';
    unsigned char prefix[10] = "\x93NUMPY\x01";
    prefix[8] = (unsigned char)(used & 255);
    prefix[9] = (unsigned char)(used >> 8);

    return write_file(path, (const void *[]){prefix, header, data},
                      (size_t[]){sizeof prefix, (size_t)used, bytes}, 3);
}
