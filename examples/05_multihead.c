/**
 * 05_multihead.c: a multi-head attention layer, three ways: self-attention over a sentence, cross-attention to another one, and the first
 * again token by token through a cache.
 *
 *   cc 05_multihead.c $(pkg-config --cflags --libs attn) -lm -o 05_multihead
 */
#include <attn/attn.h>

#include <math.h>
#include <stdio.h>

enum { EMBED = 64, NUM_HEADS = 8, LEN = 6, OTHER = 9 };

static float sentence[LEN * EMBED], other[OTHER * EMBED];

static attn_view view3(const void *data, int64_t len, int64_t dim)
{
    return attn_view_dense(data, ATTN_F32, 3, (int64_t[]){1, len, dim});
}

static attn_status self_attention(attn_context *context, const attn_multihead *layer, float *out)
{
    float weights[LEN * LEN];
    attn_view weights_view = view3(weights, LEN, LEN);
    attn_multihead_forward_options options = attn_multihead_forward_options_init();
    options.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    options.need_weights = ATTN_WEIGHTS_AVERAGED;
    options.weights = &weights_view;
    attn_view query = view3(sentence, LEN, EMBED), result = view3(out, LEN, EMBED);
    attn_status status =
        attn_multihead_forward(context, layer, &options, &query, NULL, NULL, &result);
    if (status == ATTN_OK) {
        printf("self-attention, weights averaged over %d heads:\n", NUM_HEADS);
        for (int i = 0; i < LEN; i++) {
            for (int j = 0; j < LEN; j++) {
                printf(" %6.3f", (double)weights[i * LEN + j]);
            }
            printf("\n");
        }
    }
    return status;
}

static attn_status cross_attention(attn_context *context, const attn_multihead *layer)
{
    float out[LEN * EMBED];
    attn_view query = view3(sentence, LEN, EMBED), key = view3(other, OTHER, EMBED);
    attn_view result = view3(out, LEN, EMBED);
    attn_status status = attn_multihead_forward(context, layer, NULL, &query, &key, NULL, &result);
    if (status == ATTN_OK) {
        printf("cross-attention: %d queries over %d keys, out[0][0] = %.4f\n", LEN, OTHER,
               (double)out[0]);
    }
    return status;
}

/* The sentence again, one token a call; compares with what self-attention gave at once. */
static attn_status cached(attn_context *context, const attn_multihead *layer, const float *whole,
                          double *largest)
{
    attn_kv_cache_options options = attn_kv_cache_options_init();
    options.batch = 1;
    options.heads_kv = NUM_HEADS;
    options.dim_qk = EMBED / NUM_HEADS;
    options.capacity = LEN;
    options.dtype = ATTN_F32;
    attn_kv_cache *cache;
    attn_status status = attn_kv_cache_create(context, &options, &cache);
    if (status != ATTN_OK) {
        return status;
    }
    attn_multihead_forward_options forward = attn_multihead_forward_options_init();
    forward.cache = cache;
    *largest = 0;
    for (int t = 0; t < LEN && status == ATTN_OK; t++) {
        float out[EMBED];
        attn_view query = view3(sentence + t * EMBED, 1, EMBED), result = view3(out, 1, EMBED);
        status = attn_multihead_forward(context, layer, &forward, &query, NULL, NULL, &result);
        for (int d = 0; d < EMBED; d++) {
            *largest = fmax(*largest, fabs((double)out[d] - (double)whole[t * EMBED + d]));
        }
    }
    attn_kv_cache_destroy(cache);
    return status;
}

int main(void)
{
    for (int i = 0; i < LEN * EMBED; i++) {
        sentence[i] = sinf((float)(i * i % 101));
    }
    for (int i = 0; i < OTHER * EMBED; i++) {
        other[i] = cosf((float)(i * i % 89));
    }
    attn_context *context = NULL;
    attn_multihead *layer = NULL;
    float whole[LEN * EMBED];
    double largest = 1;
    attn_status status = attn_context_create(NULL, &context);
    if (status == ATTN_OK) {
        attn_multihead_options options = attn_multihead_options_init();
        options.embed_dim = EMBED;
        options.num_heads = NUM_HEADS;
        options.seed = 42;
        status = attn_multihead_create(context, &options, &layer);
    }
    if (status == ATTN_OK) {
        status = self_attention(context, layer, whole);
    }
    if (status == ATTN_OK) {
        status = cross_attention(context, layer);
    }
    if (status == ATTN_OK) {
        status = cached(context, layer, whole, &largest);
    }
    if (status == ATTN_OK) {
        printf("token by token through a cache: largest difference %.2g\n", largest);
    } else {
        fprintf(stderr, "%s\n", attn_last_error());
    }
    attn_multihead_destroy(layer);
    attn_context_destroy(context);
    return status == ATTN_OK && largest < 1e-5 ? 0 : 1;
}
