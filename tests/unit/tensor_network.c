#include "tensor_network.h"

#include "support.h"

static attn_status parameter(attn_tensor **p, int64_t rows, int64_t columns, uint64_t seed)
{
    const int64_t shape[2] = {rows, columns};
    attn_status status = attn_tensor_create(ATTN_F32, columns > 0 ? 2 : 1, shape, p);
    if (status == ATTN_OK) {
        float *x = attn_tensor_write(*p).data;
        rng r = rng_seed(seed, 3);
        for (int64_t k = 0; k < attn_tensor_count(*p); k++) {
            x[k] = 0.2f * (float)rng_normal(&r);
        }
        attn_tensor_require_grad(*p, true);
    }
    return status;
}

attn_status network_make(network *n, int64_t width)
{
    *n = (network){.seed = 11};
    const int64_t shape[PARAMETERS][2] = {{width, 0},     {width, 0},         {3 * width, width},
                                          {width, width}, {4 * width, width}, {width, 4 * width}};
    for (int i = 0; i < PARAMETERS; i++) {
        attn_status status = parameter(&n->p[i], shape[i][0], shape[i][1], 100 + (uint64_t)i);
        if (status != ATTN_OK) {
            network_free(n);
            return status;
        }
    }
    return ATTN_OK;
}

void network_free(network *n)
{
    for (int i = 0; i < PARAMETERS; i++) {
        attn_tensor_release(n->p[i]);
        n->p[i] = NULL;
    }
}

static attn_tensor *attend(attn_tape *t, const network *n, attn_tensor *x)
{
    int64_t batch = attn_tensor_size(x, 0), len = attn_tensor_size(x, 1);
    int64_t width = attn_tensor_size(x, 2);
    const int64_t split[4] = {batch, len, 12, width / 4}, joined[3] = {batch, len, width};
    attn_sdpa_options options = attn_sdpa_options_init();
    options.causal = ATTN_CAUSAL_TOP_LEFT;
    attn_tensor *h = attn_tensor_layer_norm(t, x, n->p[0], n->p[1], 1e-5);
    h = attn_tensor_reshape(t, attn_tensor_linear(t, h, n->p[2], NULL), 4, split);
    h = attn_tensor_transpose(t, h, 1, 2);
    attn_tensor *q = attn_tensor_slice(t, h, 1, 0, 4), *k = attn_tensor_slice(t, h, 1, 4, 8);
    attn_tensor *v = attn_tensor_slice(t, h, 1, 8, 12);
    attn_tensor *out = attn_tensor_sdpa(t, &options, q, k, v, NULL);
    out = attn_tensor_reshape(t, attn_tensor_transpose(t, out, 1, 2), 3, joined);
    return attn_tensor_add(t, x, attn_tensor_linear(t, out, n->p[3], NULL));
}

static attn_tensor *layer(void *user, attn_tape *t, attn_tensor *const *in, int count)
{
    const network *n = user;
    (void)count;
    attn_tensor *x = attend(t, n, in[0]);
    attn_tensor *h = attn_tensor_gelu(t, attn_tensor_linear(t, x, n->p[4], NULL), true);
    h = attn_tensor_dropout(t, attn_tensor_linear(t, h, n->p[5], NULL), 0.1, n->seed);
    return attn_tensor_add(t, x, h);
}

/* Two blocks as one function: checkpoints inside a checkpoint. */
static attn_tensor *two_blocks(void *user, attn_tape *t, attn_tensor *const *in, int count)
{
    attn_tensor *x = attn_tensor_checkpoint(t, layer, user, in, count);
    return attn_tensor_checkpoint(t, layer, user, &x, 1);
}

attn_tensor *network_loss(attn_tape *t, network *n, attn_tensor *x, int blocks, bool nested)
{
    for (int i = 0; i < blocks; i++) {
        x = !n->checkpointed ? layer(n, t, &x, 1) : attn_tensor_checkpoint(t, layer, n, &x, 1);
    }
    if (nested) {
        x = attn_tensor_checkpoint(t, two_blocks, n, &x, 1);
    }
    return attn_tensor_mean_all(t, attn_tensor_mul(t, x, x));
}
