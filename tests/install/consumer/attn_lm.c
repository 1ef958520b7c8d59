/* The same for libattn_lm: a model file that is not there gives an error that says so. */
#include <attn/lm.h>

#include <stdio.h>

int main(void)
{
    attn_gguf *file;
    if (attn_gguf_open("there/is/no/such.gguf", &file) != ATTN_ERR_IO) {
        fprintf(stderr, "a missing file was not an IO error\n");
        return 1;
    }
    printf("attn %s: %s\n", attn_version(), attn_last_error());
    return 0;
}
