/* Look-ups in an opened GGUF file, tensor types, and dequantisation. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>

#include <attn/linear.h>

#include "lm/gguf_cursor.h"
#include "lm/name_index.h"

/* Block sizes of the types whose layout is settled; `weight` is 0 for those that cannot be
 * dequantised here. */
typedef struct tensor_type {
    const char *name;
    uint16_t elements, bytes;
    uint16_t weight;
} tensor_type;

static const tensor_type tensor_types[] = {
    [0] = {"F32", 1, 4, ATTN_WEIGHT_F32},
    [1] = {"F16", 1, 2, ATTN_WEIGHT_F16},
    [2] = {"Q4_0", 32, 18, ATTN_WEIGHT_Q4_0},
    [3] = {"Q4_1", 32, 20, ATTN_WEIGHT_Q4_1},
    [6] = {"Q5_0", 32, 22, 0},
    [7] = {"Q5_1", 32, 24, 0},
    [8] = {"Q8_0", 32, 34, ATTN_WEIGHT_Q8_0},
    [10] = {"Q2_K", 256, 84, 0},
    [11] = {"Q3_K", 256, 110, 0},
    [12] = {"Q4_K", 256, 144, 0},
    [13] = {"Q5_K", 256, 176, 0},
    [14] = {"Q6_K", 256, 210, 0},
    [15] = {"Q8_K", 256, 292, 0},
    [16] = {"IQ2_XXS", 256, 66, 0},
    [17] = {"IQ2_XS", 256, 74, 0},
    [18] = {"IQ3_XXS", 256, 98, 0},
    [19] = {"IQ1_S", 256, 50, 0},
    [20] = {"IQ4_NL", 32, 18, 0},
    [21] = {"IQ3_S", 256, 110, 0},
    [22] = {"IQ2_S", 256, 82, 0},
    [23] = {"IQ4_XS", 256, 136, 0},
    [24] = {"I8", 1, 1, 0},
    [25] = {"I16", 1, 2, 0},
    [26] = {"I32", 1, 4, 0},
    [27] = {"I64", 1, 8, 0},
    [28] = {"F64", 1, 8, 0},
    [29] = {"IQ1_M", 256, 56, 0},
    [30] = {"BF16", 1, 2, ATTN_WEIGHT_BF16},
    [34] = {"TQ1_0", 256, 54, 0},
    [35] = {"TQ2_0", 256, 66, 0},
    [39] = {"MXFP4", 32, 17, 0},
};

static const tensor_type *type_of(uint32_t number)
{
    if (number >= sizeof tensor_types / sizeof *tensor_types || !tensor_types[number].name) {
        return NULL;
    }
    return &tensor_types[number];
}

bool gguf_type_block(uint32_t tensor_type_number, int64_t *elements, size_t *bytes)
{
    const tensor_type *type = type_of(tensor_type_number);
    if (!type) {
        return false;
    }
    *elements = type->elements;
    *bytes = type->bytes;
    return true;
}

const char *attn_gguf_type_name(uint32_t number)
{
    static _Thread_local char unknown[24];
    const tensor_type *type = type_of(number);
    if (type) {
        return type->name;
    }
    snprintf(unknown, sizeof unknown, "type %u", number);
    return unknown;
}

size_t gguf_scalar_bytes(uint32_t type)
{
    switch (type) {
    case ATTN_GGUF_U8:
    case ATTN_GGUF_I8:
    case ATTN_GGUF_BOOL: return 1;
    case ATTN_GGUF_U16:
    case ATTN_GGUF_I16: return 2;
    case ATTN_GGUF_U32:
    case ATTN_GGUF_I32:
    case ATTN_GGUF_F32: return 4;
    case ATTN_GGUF_U64:
    case ATTN_GGUF_I64:
    case ATTN_GGUF_F64: return 8;
    default: return 0;
    }
}

int64_t attn_gguf_tensor_count(const attn_gguf *file)
{
    return file ? (int64_t)file->tensor_count : 0;
}

const attn_gguf_tensor *attn_gguf_tensor_at(const attn_gguf *file, int64_t index)
{
    return index >= 0 && index < attn_gguf_tensor_count(file) ? &file->tensors[index] : NULL;
}

static const char *tensor_name(const void *file, uint32_t index)
{
    return ((const attn_gguf *)file)->tensors[index].name;
}

const attn_gguf_tensor *attn_gguf_find(const attn_gguf *file, const char *name)
{
    int64_t index = file && name ? name_index_find(file->tensor_order, file->tensor_count,
                                                   tensor_name, file, name)
                                 : -1;
    return index < 0 ? NULL : &file->tensors[index];
}

int64_t attn_gguf_key_count(const attn_gguf *file)
{
    return file ? (int64_t)file->pair_count : 0;
}

const char *attn_gguf_key_at(const attn_gguf *file, int64_t index, attn_gguf_type *type)
{
    if (index < 0 || index >= attn_gguf_key_count(file)) {
        return NULL;
    }
    if (type) {
        *type = file->pairs[index].type;
    }
    return file->pairs[index].key;
}

static const char *pair_key(const void *file, uint32_t index)
{
    return ((const attn_gguf *)file)->pairs[index].key;
}

const gguf_pair *gguf_pair_find(const attn_gguf *file, const char *key)
{
    int64_t index =
        file && key ? name_index_find(file->pair_order, file->pair_count, pair_key, file, key) : -1;
    return index < 0 ? NULL : &file->pairs[index];
}

/* The integer of type `type` at p, where an int64_t holds it. */
static bool read_int(attn_gguf_type type, const uint8_t *p, int64_t *value)
{
    switch (type) {
    case ATTN_GGUF_U8: *value = p[0]; return true;
    case ATTN_GGUF_I8: *value = (int8_t)p[0]; return true;
    case ATTN_GGUF_U16: *value = (uint16_t)(p[0] | p[1] << 8); return true;
    case ATTN_GGUF_I16: *value = (int16_t)(p[0] | p[1] << 8); return true;
    case ATTN_GGUF_U32: *value = gguf_u32(p); return true;
    case ATTN_GGUF_I32: *value = (int32_t)gguf_u32(p); return true;
    case ATTN_GGUF_I64: *value = (int64_t)gguf_u64(p); return true;
    case ATTN_GGUF_U64: *value = (int64_t)gguf_u64(p); return *value >= 0;
    default: return false;
    }
}

/* The number of type `type` at p, where a double holds it exactly. */
static bool read_float(attn_gguf_type type, const uint8_t *p, double *value)
{
    if (type == ATTN_GGUF_F32) {
        uint32_t bits = gguf_u32(p);
        float f;
        memcpy(&f, &bits, sizeof f);
        *value = f;
        return true;
    }
    if (type == ATTN_GGUF_F64) {
        uint64_t bits = gguf_u64(p);
        memcpy(value, &bits, sizeof *value);
        return true;
    }
    int64_t integer;
    const int64_t exact = (int64_t)1 << 53;
    if (!read_int(type, p, &integer) || integer > exact || integer < -exact) {
        return false;
    }
    *value = (double)integer;
    return true;
}

static attn_gguf_string read_string(const uint8_t *p)
{
    return (attn_gguf_string){.data = (const char *)p + 8, .size = (size_t)gguf_u64(p)};
}

bool attn_gguf_get_int(const attn_gguf *file, const char *key, int64_t *value)
{
    const gguf_pair *pair = gguf_pair_find(file, key);
    int64_t read;
    if (!pair || !value || !read_int(pair->type, pair->value, &read)) {
        return false;
    }
    *value = read;
    return true;
}

bool attn_gguf_get_float(const attn_gguf *file, const char *key, double *value)
{
    const gguf_pair *pair = gguf_pair_find(file, key);
    return pair && value && read_float(pair->type, pair->value, value);
}

bool attn_gguf_get_bool(const attn_gguf *file, const char *key, bool *value)
{
    const gguf_pair *pair = gguf_pair_find(file, key);
    if (!pair || !value || pair->type != ATTN_GGUF_BOOL) {
        return false;
    }
    *value = pair->value[0] != 0;
    return true;
}

bool attn_gguf_get_string(const attn_gguf *file, const char *key, attn_gguf_string *value)
{
    const gguf_pair *pair = gguf_pair_find(file, key);
    if (!pair || !value || pair->type != ATTN_GGUF_STRING) {
        return false;
    }
    *value = read_string(pair->value);
    return true;
}

bool attn_gguf_get_array(const attn_gguf *file, const char *key, attn_gguf_type *element,
                         int64_t *count)
{
    const gguf_pair *pair = gguf_pair_find(file, key);
    if (!pair || pair->type != ATTN_GGUF_ARRAY) {
        return false;
    }
    if (element) {
        *element = pair->element;
    }
    if (count) {
        *count = pair->count;
    }
    return true;
}

/* The array of a key, when it has an element `index`. */
static const gguf_pair *array_with(const attn_gguf *file, const char *key, int64_t index)
{
    const gguf_pair *pair = gguf_pair_find(file, key);
    bool there = pair && pair->type == ATTN_GGUF_ARRAY && index >= 0 && index < pair->count;
    return there ? pair : NULL;
}

bool attn_gguf_array_string(const attn_gguf *file, const char *key, int64_t index,
                            attn_gguf_string *value)
{
    const gguf_pair *pair = array_with(file, key, index);
    if (!pair || !value || !pair->strings) {
        return false;
    }
    *value = read_string(file->map + pair->strings[index]);
    return true;
}

bool attn_gguf_array_int(const attn_gguf *file, const char *key, int64_t index, int64_t *value)
{
    const gguf_pair *pair = array_with(file, key, index);
    int64_t read;
    if (!pair || !value ||
        !read_int(pair->element, pair->value + (size_t)index * gguf_scalar_bytes(pair->element),
                  &read)) {
        return false;
    }
    *value = read;
    return true;
}

bool attn_gguf_array_float(const attn_gguf *file, const char *key, int64_t index, double *value)
{
    const gguf_pair *pair = array_with(file, key, index);
    return pair && value &&
           read_float(pair->element, pair->value + (size_t)index * gguf_scalar_bytes(pair->element),
                      value);
}

attn_status attn_gguf_dequantize(const attn_gguf_tensor *tensor, float *dst, int64_t elements)
{
    if (!tensor || !dst) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL; give %s", tensor ? "dst" : "tensor",
                         tensor ? "room for the tensor's elements"
                                : "what attn_gguf_find or attn_gguf_tensor_at returned");
    }
    const tensor_type *type = type_of(tensor->type);
    if (!type || !type->weight || !tensor->data) {
        return attn_fail(
            ATTN_ERR_UNSUPPORTED,
            "tensor '%s' is of type %s, which cannot be read yet; convert the model to "
            "F32, F16, BF16, Q8_0, Q4_0 or Q4_1",
            gguf_show(tensor->name).text, attn_gguf_type_name(tensor->type));
    }
    int64_t count = tensor->dims[0] * tensor->dims[1] * tensor->dims[2] * tensor->dims[3];
    if (elements != count) {
        return attn_fail(ATTN_ERR_SHAPE, "elements: %lld, but tensor '%s' has %lld",
                         (long long)elements, gguf_show(tensor->name).text, (long long)count);
    }
    return attn_weight_dequantize((attn_weight_type)type->weight, tensor->data, count, dst);
}
