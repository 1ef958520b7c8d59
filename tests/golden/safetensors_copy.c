/* usage: attn_safetensors_copy IN.safetensors OUT.safetensors [BF16|F16]
 *
 * Reads a file and writes its tensors and metadata again; with a dtype, F32 tensors are stored as that. Exit code 0, 1 with one sentence on standard
 * error, or 2 for wrong usage. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attn/safetensors.h>

static attn_status copy(const attn_safetensors *file, const char *out, attn_safetensors_dtype half)
{
    size_t count = (size_t)attn_safetensors_count(file);
    size_t pairs = (size_t)attn_safetensors_metadata_count(file);
    attn_safetensors_item *items = calloc(count + 1, sizeof *items);
    attn_safetensors_pair *metadata = calloc(pairs + 1, sizeof *metadata);
    if (!items || !metadata) {
        free(items);
        free(metadata);
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory");
    }
    for (size_t i = 0; i < count; i++) { /* backwards: the order of items must not matter */
        const attn_safetensor *t = attn_safetensors_at(file, (int64_t)(count - 1 - i));
        items[i].name = t->name;
        items[i].dtype = t->dtype;
        items[i].ndim = t->ndim;
        items[i].data = t->data;
        memcpy(items[i].shape, t->shape, sizeof t->shape);
        if (half && t->dtype == ATTN_ST_F32) {
            items[i].dtype = half;
            items[i].source = ATTN_F32;
        }
    }
    for (size_t i = 0; i < pairs; i++) {
        metadata[i].key = attn_safetensors_metadata_at(file, (int64_t)i, &metadata[i].value);
    }
    attn_status status = attn_safetensors_save(out, items, count, pairs ? metadata : NULL, pairs);
    free(items);
    free(metadata);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: attn_safetensors_copy IN OUT [BF16|F16]\n");
        return 2;
    }
    attn_safetensors_dtype half = argc < 4                       ? ATTN_ST_NONE
                                  : strcmp(argv[3], "BF16") == 0 ? ATTN_ST_BF16
                                                                 : ATTN_ST_F16;
    attn_safetensors *file = NULL;
    attn_status status = attn_safetensors_open(argv[1], &file);
    if (status == ATTN_OK) {
        status = copy(file, argv[2], half);
    }
    if (status != ATTN_OK) {
        fprintf(stderr, "attn_safetensors_copy: %s\n", attn_last_error());
    }
    attn_safetensors_close(file);
    return status == ATTN_OK ? 0 : 1;
}
