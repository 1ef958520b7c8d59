/* usage: attn_tokenize_lines MODEL.gguf [--special]
 *
 * Reads lines from standard input (any bytes; a line feed ends one) and prints for each one line: its ids, separated by
 * spaces, then a tab, then the hexadecimal bytes that the ids stand for. --special: special tokens in the text become
 * their tokens. Exit code 0, 1 with one sentence, or 2 for wrong usage. */
#define _POSIX_C_SOURCE 200809L /* getline */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <attn/tokenizer.h>

/* The ids of one line and what they stand for. */
static attn_status print_line(const attn_tokenizer *tokenizer, const char *line, size_t size,
                              bool special)
{
    size_t count = 0;
    int32_t *ids = malloc((size + 1) * sizeof *ids);
    if (!ids) {
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status =
        attn_tokenizer_encode(tokenizer, line, size, special, ids, size + 1, &count);
    for (size_t i = 0; status == ATTN_OK && i < count; i++) {
        printf("%s%d", i ? " " : "", ids[i]);
    }
    if (status == ATTN_OK) {
        putchar('\t');
    }
    for (size_t i = 0; status == ATTN_OK && i < count; i++) {
        size_t bytes = 0;
        const char *piece = attn_tokenizer_piece(tokenizer, ids[i], true, &bytes);
        for (size_t j = 0; piece && j < bytes; j++) {
            printf("%02x", (unsigned)(unsigned char)piece[j]);
        }
    }
    if (status == ATTN_OK) {
        putchar('\n');
    }
    free(ids);
    return status;
}

static attn_status print_lines(const attn_tokenizer *tokenizer, bool special)
{
    attn_status status = ATTN_OK;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    while (status == ATTN_OK && (size = getline(&line, &capacity, stdin)) >= 0) {
        if (size > 0 && line[size - 1] == '\n') {
            size--;
        }
        status = print_line(tokenizer, line, (size_t)size, special);
    }
    free(line);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3 || (argc == 3 && strcmp(argv[2], "--special") != 0)) {
        fprintf(stderr, "usage: attn_tokenize_lines MODEL.gguf [--special] < lines\n");
        return 2;
    }
    attn_gguf *file = NULL;
    attn_tokenizer *tokenizer = NULL;
    attn_status status = attn_gguf_open(argv[1], &file);
    if (status == ATTN_OK) {
        status = attn_tokenizer_create(file, &tokenizer);
    }
    if (status == ATTN_OK) {
        status = print_lines(tokenizer, argc == 3);
    }
    if (status != ATTN_OK) {
        fprintf(stderr, "attn_tokenize_lines: %s: %s\n", attn_status_string(status),
                attn_last_error());
    }
    attn_tokenizer_destroy(tokenizer);
    attn_gguf_close(file);
    if (status == ATTN_OK && (fflush(stdout) != 0 || ferror(stdin))) {
        perror("attn_tokenize_lines");
        return 1;
    }
    return status == ATTN_OK ? 0 : 1;
}
