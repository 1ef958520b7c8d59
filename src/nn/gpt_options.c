/**
 * gpt_options.c: what a GPT is made of: defaults, checks, and how many parameters that makes.
 */
#include "nn/gpt.h"
#include "nn/layers.h"

#include <math.h>

attn_gpt_options attn_gpt_options_init(void)
{
    return (attn_gpt_options){.struct_size = sizeof(attn_gpt_options),
                              .dtype = ATTN_F32,
                              .layers = 4,
                              .dim = 128,
                              .heads = 4,
                              .context = 256,
                              .position = ATTN_POSITION_ROPE};
}

attn_naming nn_gpt_naming(const attn_gpt_options *o)
{
    return o->norm == ATTN_NORM_LAYER ? ATTN_NAMES_GPT2 : ATTN_NAMES_LLAMA;
}

static attn_status check_kinds(const attn_gpt_options *o)
{
    if ((unsigned)o->norm > ATTN_NORM_LAYER || (unsigned)o->mlp > ATTN_MLP_RELU ||
        (unsigned)o->position > ATTN_POSITION_ALIBI || (unsigned)o->init > ATTN_INIT_ZERO) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "norm, mlp, position, init: %d, %d, %d, %d; one of them is no value of "
                         "its enum",
                         (int)o->norm, (int)o->mlp, (int)o->position, (int)o->init);
    }
    if (o->dtype != ATTN_F32 && o->dtype != ATTN_F64) {
        return attn_fail(ATTN_ERR_DTYPE, "dtype: is %s, a GPT trains in f32 (or f64, for tests)",
                         attn_dtype_name(o->dtype));
    }
    if (!(o->norm_eps >= 0.0 && isfinite(o->norm_eps)) ||
        !(o->rope_theta >= 0.0 && isfinite(o->rope_theta)) || o->window < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "norm_eps, rope_theta, window: %g, %g, %lld; none may be negative or "
                         "infinite",
                         o->norm_eps, o->rope_theta, (long long)o->window);
    }
    return nn_check_dropout(o->dropout);
}

attn_status nn_gpt_complete(const attn_gpt_options *options, attn_gpt_options *full)
{
    if (!options) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "options: NULL; start from attn_gpt_options_init() and set vocab");
    }
    attn_gpt_options o = attn_gpt_options_init();
    attn_status status =
        attn_take_struct("options", "attn_gpt_options_init", options, &o, sizeof o);
    if (status != ATTN_OK) {
        return status;
    }
    o.dtype = o.dtype == ATTN_DTYPE_NONE ? ATTN_F32 : o.dtype;
    attn_nn_attention_options a = nn_gpt_attention(&o);
    status = check_kinds(&o);
    if (status == ATTN_OK) {
        status = nn_positive("vocab", o.vocab, "256 for bytes");
    }
    if (status == ATTN_OK) {
        status = nn_positive("layers", o.layers, "4");
    }
    if (status == ATTN_OK) {
        status = nn_positive("context", o.context, "256");
    }
    if (status == ATTN_OK) {
        status = nn_attention_sizes(&a);
    }
    if (status == ATTN_OK && o.ffn == 0) {
        bool gated = o.mlp == ATTN_MLP_SWIGLU;
        o.ffn = gated ? (8 * o.dim / 3 + 31) / 32 * 32 : 4 * o.dim;
    }
    if (status == ATTN_OK) {
        status = nn_positive("ffn", o.ffn, "512");
    }
    o.heads_kv = a.heads_kv;
    o.head_dim = a.head_dim;
    o.norm_eps = o.norm_eps > 0.0 ? o.norm_eps : 1e-5;
    o.rope_theta = o.rope_theta > 0.0 ? o.rope_theta : 10000.0;
    *full = o;
    return status;
}

attn_nn_attention_options nn_gpt_attention(const attn_gpt_options *o)
{
    bool inside = o->position == ATTN_POSITION_ROPE || o->position == ATTN_POSITION_ALIBI;
    attn_nn_attention_options a = attn_nn_attention_options_init();
    a.dim = o->dim;
    a.heads = o->heads;
    a.heads_kv = o->heads_kv;
    a.head_dim = o->head_dim;
    a.bias = o->bias;
    a.out_bias = o->bias;
    a.position = inside ? o->position : ATTN_POSITION_NONE;
    a.rope_theta = o->rope_theta;
    a.dropout = o->dropout;
    a.out_gain = o->layers > 0 ? 1.0 / sqrt(2.0 * (double)o->layers) : 1.0;
    a.naming = nn_gpt_naming(o);
    return a;
}

/* *sum += a·b·c; false where it does not fit. */
static bool add_product(int64_t *sum, int64_t a, int64_t b, int64_t c)
{
    int64_t product;
    return !__builtin_mul_overflow(a, b, &product) &&
           !__builtin_mul_overflow(product, c, &product) &&
           !__builtin_add_overflow(*sum, product, sum);
}

int64_t attn_gpt_element_count(const attn_gpt_options *options)
{
    attn_gpt_options o;
    if (nn_gpt_complete(options, &o) != ATTN_OK) {
        return -1;
    }
    int64_t count = 0, matrices = o.mlp == ATTN_MLP_SWIGLU ? 3 : 2;
    int64_t norm = o.norm == ATTN_NORM_LAYER ? 2 : 1, biases = o.bias ? o.layers : 0;
    bool fits = add_product(&count, o.vocab, o.dim, o.untied ? 2 : 1) &&
                add_product(&count, o.context, o.dim, o.position == ATTN_POSITION_LEARNED) &&
                add_product(&count, o.dim, norm, 1) &&
                add_product(&count, o.dim, 2 * norm, o.layers);
    int64_t heads = 0, inner = 0; /* columns of q, k, v and rows of o; of one MLP */
    fits = fits && add_product(&heads, o.heads, o.head_dim, 2) &&
           add_product(&heads, o.heads_kv, o.head_dim, 2) &&
           add_product(&inner, o.ffn, matrices, 1);
    fits = fits && add_product(&count, heads, o.dim, o.layers) &&
           add_product(&count, inner, o.dim, o.layers);
    /* Biases: q, k and v have heads − heads·head_dim outputs, o and down dim, the others ffn. */
    fits = fits && add_product(&count, heads - o.heads * o.head_dim + 2 * o.dim, biases, 1) &&
           add_product(&count, o.ffn, matrices - 1, biases);
    if (!fits) {
        attn_fail(ATTN_ERR_SHAPE, "options: so many parameters cannot be counted in 64 bits");
        return -1;
    }
    return count;
}
