/**
 * cli/train_text.c: from files to tokens: what is trained on, and what is held out at the end.
 */
#define _GNU_SOURCE
#include "train.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Appends a file to text. */
static int read_file(const char *path, train_text *text)
{
    struct stat info;
    FILE *file = fopen(path, "rbe");
    if (file == NULL || fstat(fileno(file), &info) != 0) {
        int code = cli_fail("%s: %s", path, strerror(errno));
        if (file) {
            fclose(file);
        }
        return code;
    }
    int code = CLI_OK;
    size_t room = text->size;
    for (;;) {
        if (text->size == room) {
            room = room + room / 2 + (S_ISREG(info.st_mode) ? (size_t)info.st_size : 0) + 4096;
            char *grown = realloc(text->text, room + 1);
            if (grown == NULL) {
                code = cli_fail("%s: not enough memory for the text", path);
                break;
            }
            text->text = grown;
        }
        size_t n = fread(text->text + text->size, 1, room - text->size, file);
        text->size += n;
        if (n == 0) {
            if (ferror(file)) {
                code = cli_fail("%s: cannot be read: %s", path, strerror(errno));
            }
            break;
        }
        if (cli_interrupted()) {
            code = CLI_INTERRUPTED;
            break;
        }
    }
    fclose(file);
    return code;
}

static bool is_heading(const char *line, size_t size)
{
    static const char word[] = "chapter";
    size_t n = sizeof word - 1;
    return size > n && strncasecmp(line, word, n) == 0 && (line[n] == ' ' || line[n] == '\t');
}

/* Where the last chapter of at least a thirtieth of the text begins, if it is at most a quarter; else `size`. */
static size_t last_chapter(const char *text, size_t size)
{
    for (size_t at = size - size / 30; at > 0; at--) {
        if ((at == 1 || text[at - 1] == '\n') && is_heading(text + at, size - at)) {
            return size - at <= size / 4 ? at : size;
        }
    }
    return size;
}

static size_t split_at(const train_text *text, bool chapter)
{
    size_t at = chapter ? last_chapter(text->text, text->size) : text->size;
    if (at == text->size) {
        at = text->size - text->size / 10;
        while (at < text->size && ((unsigned char)text->text[at] & 0xc0) == 0x80) {
            at++; /* not inside a UTF-8 character */
        }
    }
    return at;
}

int train_text_read(const char *const *files, size_t count, bool chapter, train_text *text)
{
    memset(text, 0, sizeof *text);
    for (size_t i = 0; i < count; i++) {
        size_t before = text->size;
        int code = read_file(files[i], text);
        if (code != CLI_OK) {
            return code;
        }
        if (text->size == before) {
            return cli_fail("%s: is empty; give a text to train on", files[i]);
        }
    }
    text->text[text->size] = '\0';
    text->split = split_at(text, chapter);
    for (size_t i = text->split; i < text->size; i++) {
        text->held_out_chars += ((unsigned char)text->text[i] & 0xc0) != 0x80;
    }
    return CLI_OK;
}

int train_text_encode(const attn_tokenizer *tokenizer, train_text *text)
{
    size_t first = 0, second = 0;
    if (text->size > SIZE_MAX / sizeof(int32_t) - 2) {
        return cli_fail("the text is too long");
    }
    free(text->tokens);
    text->tokens = malloc((text->size + 2) * sizeof(int32_t));
    if (text->tokens == NULL) {
        return cli_fail("not enough memory for the tokens of %zu bytes of text", text->size);
    }
    attn_status s = attn_tokenizer_encode(tokenizer, text->text, text->split, false, text->tokens,
                                          text->size + 2, &first);
    s = s ? s
          : attn_tokenizer_encode(tokenizer, text->text + text->split, text->size - text->split,
                                  false, text->tokens + first, text->size + 2 - first, &second);
    if (s != ATTN_OK) {
        return cli_fail_attn("the text");
    }
    text->count = (int64_t)(first + second);
    text->held_out = (int64_t)second;
    int32_t *fit = realloc(text->tokens, (first + second + 1) * sizeof(int32_t));
    if (fit) {
        text->tokens = fit;
    }
    return CLI_OK;
}

void train_text_free(train_text *text)
{
    free(text->text);
    free(text->tokens);
    memset(text, 0, sizeof *text);
}
