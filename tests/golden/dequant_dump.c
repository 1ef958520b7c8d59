/* usage: attn_dequant_dump FILE.gguf TENSOR...
 *
 * Writes the floats of the named tensors to standard output, one after the other, as raw float32. Exit code 0, 1 with one
 * sentence on standard error, or 2 for wrong usage. */
#include <stdio.h>
#include <stdlib.h>

#include <attn/gguf.h>

static attn_status dump(const attn_gguf *file, const char *name)
{
    const attn_gguf_tensor *tensor = attn_gguf_find(file, name);
    if (!tensor) {
        fprintf(stderr, "attn_dequant_dump: no tensor '%s'\n", name);
        return ATTN_ERR_ARGUMENT;
    }
    size_t elements = 1;
    for (int i = 0; i < tensor->ndim; i++) {
        elements *= (size_t)tensor->dims[i]; /* attn_gguf_open checked the product */
    }
    float *values = malloc(elements * sizeof *values);
    if (!values) {
        fprintf(stderr, "attn_dequant_dump: no memory for %zu floats\n", elements);
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status = attn_gguf_dequantize(tensor, values, (int64_t)elements);
    if (status != ATTN_OK) {
        fprintf(stderr, "attn_dequant_dump: %s\n", attn_last_error());
    } else if (fwrite(values, sizeof *values, elements, stdout) != elements) {
        perror("attn_dequant_dump");
        status = ATTN_ERR_IO;
    }
    free(values);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: attn_dequant_dump FILE.gguf TENSOR...\n");
        return 2;
    }
    attn_gguf *file = NULL;
    attn_status status = attn_gguf_open(argv[1], &file);
    if (status != ATTN_OK) {
        fprintf(stderr, "attn_dequant_dump: %s\n", attn_last_error());
    }
    for (int i = 2; status == ATTN_OK && i < argc; i++) {
        status = dump(file, argv[i]);
    }
    attn_gguf_close(file);
    return status == ATTN_OK && fflush(stdout) == 0 ? 0 : 1;
}
