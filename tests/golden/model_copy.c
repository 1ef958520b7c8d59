/* usage: attn_model_copy BASE.gguf OUT.gguf F32|F16|BF16
 *
 * Writes the base again with every tensor replaced by its own floats, those of q and k with their rows in Hugging Face's order, as a fine-tuned model is
 * written. Exit code 0, 1 with one sentence on standard error, or 2 for wrong usage. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attn/model_file.h>

/* The floats of a tensor; malloc'd; NULL with the error set. */
static float *floats_of(const attn_gguf_tensor *t, const attn_model_config *c)
{
    int64_t n = t->dims[0] * t->dims[1];
    bool q = strstr(t->name, "attn_q.") != NULL, k = strstr(t->name, "attn_k.") != NULL;
    float *values = malloc((size_t)n * sizeof *values), *other = malloc((size_t)n * sizeof *other);
    attn_status status = values && other ? attn_gguf_dequantize(t, values, n)
                                         : attn_fail(ATTN_ERR_NO_MEMORY, "no memory");
    if (status == ATTN_OK && (q || k)) {
        status = attn_rope_reorder(values, q ? c->heads_q : c->heads_kv, c->head_dim, c->rope_dims,
                                   t->dims[0], ATTN_ROPE_INTERLEAVED, other);
        float *swapped = values;
        values = other;
        other = swapped;
    }
    free(other);
    if (status != ATTN_OK) {
        free(values);
        return NULL;
    }
    return values;
}

static attn_status copy(const attn_gguf *base, const char *out, attn_dtype dtype)
{
    attn_model_config config;
    attn_status status = attn_model_config_read(base, &config);
    size_t count = (size_t)attn_gguf_tensor_count(base), made = 0;
    attn_gguf_replacement *all = calloc(count + 1, sizeof *all);
    for (; status == ATTN_OK && made < count; made++) {
        const attn_gguf_tensor *t = attn_gguf_tensor_at(base, (int64_t)made);
        all[made] = (attn_gguf_replacement){.name = t->name,
                                            .data = floats_of(t, &config),
                                            .pairing = ATTN_ROPE_HALVES,
                                            .dtype = dtype};
        if (!all[made].data) {
            break;
        }
    }
    if (status == ATTN_OK) {
        status = attn_gguf_write(out, base, all, made, "a copy");
    }
    for (size_t i = 0; i < count; i++) {
        free((void *)(uintptr_t)all[i].data);
    }
    free(all);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: attn_model_copy BASE.gguf OUT.gguf F32|F16|BF16\n");
        return 2;
    }
    attn_gguf *base = NULL;
    attn_status status = attn_model_open(argv[1], NULL, &base);
    if (status == ATTN_OK) {
        status = copy(base, argv[2],
                      strcmp(argv[3], "F32") == 0   ? ATTN_F32
                      : strcmp(argv[3], "F16") == 0 ? ATTN_F16
                                                    : ATTN_BF16);
    }
    if (status != ATTN_OK) {
        fprintf(stderr, "attn_model_copy: %s\n", attn_last_error());
    }
    attn_gguf_close(base);
    return status == ATTN_OK ? 0 : 1;
}
