/* usage: attn_tokenizer_train bpe|chars VOCAB MIN_COUNT TEXT OUT.json
 *
 * Trains a tokenizer on a file (VOCAB and MIN_COUNT 0: the defaults), writes it as JSON, reads that back, and writes the file's tokens as int32 to standard
 * output; the tokenizer that was read must give the same ones. Exit code 0, 1 with one sentence on standard error, or 2 for wrong usage. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <attn/tokenizer_train.h>

static char *slurp(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *text = NULL;
    *size = 0;
    for (size_t room = 0, n = 1; file && n > 0; *size += n) {
        if (*size == room) {
            room = 2 * room + 65536;
            char *bigger = realloc(text, room);
            if (!bigger) {
                break;
            }
            text = bigger;
        }
        n = fread(text + *size, 1, room - *size, file);
    }
    if (file) {
        fclose(file);
    }
    return text;
}

static attn_status encode_twice(const attn_tokenizer *a, const attn_tokenizer *b, const char *text,
                                size_t size)
{
    size_t counts[2] = {0, 0};
    int32_t *ids[2] = {malloc((size + 1) * sizeof **ids), malloc((size + 1) * sizeof **ids)};
    attn_status status = ids[0] && ids[1] ? ATTN_OK : ATTN_ERR_NO_MEMORY;
    for (int i = 0; i < 2 && status == ATTN_OK; i++) {
        status = attn_tokenizer_encode(i ? b : a, text, size, true, ids[i], size + 1, &counts[i]);
    }
    if (status == ATTN_OK &&
        (counts[0] != counts[1] || memcmp(ids[0], ids[1], counts[0] * sizeof **ids) != 0 ||
         attn_tokenizer_eos(a) != attn_tokenizer_eos(b))) {
        status = attn_fail(ATTN_ERR_FORMAT, "the tokenizer read from JSON encodes differently");
    }
    if (status == ATTN_OK && fwrite(ids[0], sizeof **ids, counts[0], stdout) != counts[0]) {
        status = attn_fail(ATTN_ERR_IO, "cannot write");
    }
    free(ids[0]);
    free(ids[1]);
    return status;
}

static attn_status run(char **argv, const char *text, size_t size)
{
    attn_tokenizer_train_options options = attn_tokenizer_train_options_init();
    attn_tokenizer *trained = NULL, *read = NULL;
    char *json = NULL;
    options.vocab = atoll(argv[2]);
    options.min_count = atoll(argv[3]);
    attn_status status = strcmp(argv[1], "bpe") == 0
                             ? attn_tokenizer_train_bpe(text, size, &options, &trained)
                             : attn_tokenizer_train_chars(text, size, &options, &trained);
    if (status == ATTN_OK) {
        status = attn_tokenizer_to_json(trained, &json);
    }
    FILE *out = status == ATTN_OK ? fopen(argv[5], "wb") : NULL;
    if (out) {
        fputs(json, out);
        fclose(out);
        status = attn_tokenizer_from_json(json, strlen(json), &read);
    }
    if (status == ATTN_OK) {
        status = encode_twice(trained, read, text, size);
    }
    attn_tokenizer_destroy(trained);
    attn_tokenizer_destroy(read);
    free(json);
    return status;
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        fprintf(stderr, "usage: attn_tokenizer_train bpe|chars VOCAB MIN_COUNT TEXT OUT.json\n");
        return 2;
    }
    size_t size;
    char *text = slurp(argv[4], &size);
    attn_status status = text ? run(argv, text, size) : ATTN_ERR_IO;
    if (status != ATTN_OK) {
        fprintf(stderr, "attn_tokenizer_train: %s\n", attn_last_error());
    }
    free(text);
    return status == ATTN_OK ? 0 : 1;
}
