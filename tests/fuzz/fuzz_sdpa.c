/**
 * fuzz_sdpa.c: any bytes as an attention call. Shapes, types, masks and options come from the input, right and wrong ones
 * alike; arrays are exactly as large as their views say, so that the address sanitizer sees every step outside. A call that
 * succeeds on finite inputs must give finite outputs. Run: ./dev fuzz
 */
#include <attn/attn.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DIM 40

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct bytes {
    const uint8_t *data;
    size_t size;
} bytes;

static uint8_t take(bytes *in)
{
    if (in->size == 0) {
        return 0;
    }
    in->size--;
    return *in->data++;
}

/* Mostly the size that fits, now and then another one. */
static int64_t near_to(bytes *in, int64_t wanted)
{
    const uint8_t b = take(in);
    return b < 250 ? wanted : b - 252;
}

/* A dense array of small numbers, or of truth values, with the view on it. */
static attn_view array(bytes *in, attn_dtype dtype, int ndim, const int64_t *shape)
{
    int64_t count = 1;
    for (int d = 0; d < ndim; d++) {
        count *= shape[d] > 0 ? shape[d] : 0;
    }
    void *memory = malloc((size_t)count * attn_dtype_size(dtype) + (count == 0));
    if (memory == NULL) {
        abort();
    }
    for (int64_t i = 0; i < count; i++) {
        const uint8_t b = take(in);
        const float value = ((float)b - 128) / 16;
        switch (dtype) {
        case ATTN_F64: ((double *)memory)[i] = value; break;
        case ATTN_F32: ((float *)memory)[i] = value; break;
        case ATTN_BF16: ((uint16_t *)memory)[i] = (uint16_t)(0x3f00 + b); break;
        case ATTN_F16: ((uint16_t *)memory)[i] = (uint16_t)(0x3800 + b); break;
        default: ((uint8_t *)memory)[i] = b & 1; break;
        }
    }
    return attn_view_dense(memory, dtype, ndim, shape);
}

static attn_dtype a_type(bytes *in)
{
    static const attn_dtype types[] = {ATTN_F32, ATTN_F32, ATTN_F32, ATTN_F64, ATTN_BF16, ATTN_F16};
    return types[take(in) % 6];
}

/* A mask or bias that broadcasts to [b, h, q, k], or nearly. */
static attn_view broadcast(bytes *in, attn_dtype dtype, const int64_t *full)
{
    const int ndim = 2 + take(in) % 3;
    int64_t shape[4];
    for (int d = 0; d < ndim; d++) {
        const int64_t whole = full[4 - ndim + d];
        shape[d] = near_to(in, take(in) % 3 == 0 ? 1 : whole);
    }
    return array(in, dtype, ndim, shape);
}

static void check_finite(const attn_view *out)
{
    const int64_t count = out->shape[0] * out->shape[1] * out->shape[2] * out->shape[3];
    for (int64_t i = 0; i < count; i++) {
        const bool ok = out->dtype == ATTN_F64   ? isfinite(((const double *)out->data)[i]) != 0
                        : out->dtype == ATTN_F32 ? isfinite(((const float *)out->data)[i]) != 0
                                                 : true;
        if (!ok) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static attn_context *context;
    if (context == NULL) {
        attn_context_options options = attn_context_options_init();
        options.threads = 1;
        if (attn_context_create(&options, &context) != ATTN_OK) {
            abort();
        }
    }
    bytes in = {data, size};
    const int64_t batch = take(&in) % 3, kv_heads = take(&in) % 3, group = 1 + take(&in) % 3;
    const int64_t len_q = take(&in) % MAX_DIM, len_k = take(&in) % MAX_DIM;
    const int64_t dim_qk = take(&in) % MAX_DIM, dim_v = take(&in) % MAX_DIM;
    const int64_t heads = kv_heads * group;
    const attn_dtype type = a_type(&in), stored = take(&in) % 4 == 0 ? a_type(&in) : type;
    const attn_dtype wide = type == ATTN_F64 ? ATTN_F64 : ATTN_F32;

    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = (attn_causal)(take(&in) % 3);
    options.has_scale = take(&in) % 2;
    options.scale = take(&in) / 64.0;
    options.has_window = take(&in) % 2;
    options.window_left = (int64_t)(take(&in) % 44) - 2;
    options.window_right = (int64_t)(take(&in) % 44) - 2;
    options.softcap = take(&in) % 2 ? take(&in) : 0;
    const uint8_t parts = take(&in);

    attn_view views[10];
    int used = 0;
    const int64_t full[4] = {batch, heads, len_q, len_k};
    attn_view *q = &views[used++], *k = &views[used++], *v = &views[used++], *out = &views[used++];
    *q = array(&in, type, 4, (int64_t[]){batch, heads, len_q, dim_qk});
    *k = array(&in, stored, 4, (int64_t[]){batch, kv_heads, len_k, near_to(&in, dim_qk)});
    *v = array(&in, stored, 4, (int64_t[]){batch, near_to(&in, kv_heads), len_k, dim_v});
    *out = array(&in, type, 4, (int64_t[]){batch, heads, near_to(&in, len_q), dim_v});
    if (parts & 1) {
        options.mask = &views[used];
        views[used++] = broadcast(&in, ATTN_BOOL, full);
    }
    if (parts & 2) {
        options.bias = &views[used];
        views[used++] = broadcast(&in, wide, full);
    }
    if (parts & 4) {
        options.alibi = &views[used];
        views[used++] = array(&in, wide, 1, (int64_t[]){near_to(&in, heads)});
    }
    if (parts & 8) {
        options.sinks = &views[used];
        views[used++] = array(&in, wide, 1, (int64_t[]){near_to(&in, heads)});
    }
    if (parts & 16) {
        options.lse = &views[used];
        views[used++] = array(&in, wide, 3, full);
    }
    if (parts & 32) {
        options.weights = &views[used];
        views[used++] = array(&in, wide, 4, full);
    }
    int64_t lengths[3], offset[3];
    for (int i = 0; i < 3; i++) {
        lengths[i] = near_to(&in, take(&in) % (len_k + 1));
        offset[i] = take(&in);
    }
    options.lengths_k = parts & 64 ? lengths : NULL;
    options.q_offset = parts & 128 ? offset : NULL;
    options.q_offset_count = parts & 128 ? take(&in) % 4 : 0;

    if (attn_sdpa(context, &options, q, k, v, out) == ATTN_OK) {
        check_finite(out);
    } else if (attn_last_error()[0] == '\0') {
        abort();
    }
    for (int i = 0; i < used; i++) {
        free(views[i].data);
    }
    return 0;
}
