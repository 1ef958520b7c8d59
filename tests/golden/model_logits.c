/* usage: attn_model_logits MODEL.gguf [--activations auto|f32|int8] [--kv f32|bf16|f16] [--threads N]
 *
 * Every line of standard input is one text: `K id id id …`. The first K ids are one prefill, the others follow one by one, each
 * through the cache. Standard output gets the raw float32 logits: one row of the vocabulary for each of the last n − K + 1 ids
 * (the one that ends the prefill and each that follows), or, when K is n, for every id. Exit code 0, 1 with one sentence, or 2 for
 * wrong usage. */
#define _POSIX_C_SOURCE 200809L /* getline */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <attn/model.h>

typedef struct setting {
    const char *path;
    attn_activations activations;
    attn_dtype kv;
    int threads;
} setting;

typedef struct text {
    int32_t *ids;
    int64_t count, prefill;
} text;

static attn_status fail(attn_status status, const char *what)
{
    fprintf(stderr, "attn_model_logits: %s: %s\n", what, attn_last_error());
    return status;
}

/* The index of `word` in a list that ends with NULL, or −1. */
static int find(const char *word, const char *const *words)
{
    for (int i = 0; words[i]; i++) {
        if (strcmp(word, words[i]) == 0) {
            return i;
        }
    }
    return -1;
}

static int parse(int argc, char **argv, setting *s)
{
    static const char *const activations[] = {"auto", "f32", "int8", NULL};
    static const attn_activations activation_of[] = {ATTN_ACTIVATIONS_AUTO, ATTN_ACTIVATIONS_F32,
                                                     ATTN_ACTIVATIONS_INT8};
    static const char *const kvs[] = {"f32", "bf16", "f16", NULL};
    static const attn_dtype kv_of[] = {ATTN_F32, ATTN_BF16, ATTN_F16};
    *s = (setting){.path = argc > 1 ? argv[1] : NULL, .kv = ATTN_DTYPE_NONE, .threads = 1};
    bool good = argc > 1 && argc % 2 == 0;
    for (int i = 2; good && i < argc; i += 2) {
        int word = -1;
        if (strcmp(argv[i], "--activations") == 0 && (word = find(argv[i + 1], activations)) >= 0) {
            s->activations = activation_of[word];
        } else if (strcmp(argv[i], "--kv") == 0 && (word = find(argv[i + 1], kvs)) >= 0) {
            s->kv = kv_of[word];
        } else if (strcmp(argv[i], "--threads") == 0 && (word = atoi(argv[i + 1])) >= 1) {
            s->threads = word;
        } else {
            good = false;
        }
    }
    return good ? 0 : 2;
}

/* Reads "K id id …"; false when the line is no such thing. ids has room for one id per byte of the line. */
static bool read_text(char *line, text *t)
{
    char *end = line;
    errno = 0;
    t->prefill = strtoll(line, &end, 10);
    t->count = 0;
    for (char *at = end; errno == 0; at = end) {
        long long id = strtoll(at, &end, 10);
        if (end == at) {
            break;
        }
        t->ids[t->count++] = (int32_t)id;
    }
    return errno == 0 && t->prefill >= 1 && t->prefill <= t->count;
}

static attn_status write_rows(const float *logits, int64_t rows, int64_t vocab)
{
    size_t count = (size_t)rows * (size_t)vocab;
    if (fwrite(logits, sizeof *logits, count, stdout) != count) {
        perror("attn_model_logits");
        return ATTN_ERR_IO;
    }
    return ATTN_OK;
}

static attn_status run_text(attn_session *session, const text *t, int64_t vocab)
{
    bool all = t->prefill == t->count;
    int64_t rows = all ? t->count : 1;
    float *logits = calloc((size_t)rows * (size_t)vocab, sizeof *logits);
    if (!logits) {
        fprintf(stderr, "attn_model_logits: no memory for the logits\n");
        return ATTN_ERR_NO_MEMORY;
    }
    attn_status status = attn_session_truncate(session, 0);
    if (status == ATTN_OK) {
        status = attn_session_eval(session, t->ids, t->prefill, all, logits);
    }
    for (int64_t i = t->prefill; status == ATTN_OK; i++) {
        status = write_rows(logits, rows, vocab);
        if (status != ATTN_OK || i == t->count) {
            break;
        }
        status = attn_session_eval(session, t->ids + i, 1, false, logits);
    }
    free(logits);
    return status == ATTN_OK ? status : fail(status, "eval");
}

static attn_status run_lines(attn_session *session, int64_t vocab)
{
    attn_status status = ATTN_OK;
    char *line = NULL;
    size_t capacity = 0;
    ssize_t size;
    while (status == ATTN_OK && (size = getline(&line, &capacity, stdin)) > 0) {
        text t = {.ids = malloc((size_t)size * sizeof(int32_t))};
        if (!t.ids || !read_text(line, &t)) {
            fprintf(stderr, "attn_model_logits: a line is not `K id id …` with 1 ≤ K ≤ ids\n");
            status = ATTN_ERR_ARGUMENT;
        } else {
            status = run_text(session, &t, vocab);
        }
        free(t.ids);
    }
    free(line);
    return status;
}

static attn_status run_model(attn_context *context, const attn_gguf *file, const setting *s)
{
    attn_model *model = NULL;
    attn_session *session = NULL;
    attn_model_options options = attn_model_options_init();
    options.activations = s->activations;
    attn_status status = attn_model_load(context, file, &options, &model);
    if (status != ATTN_OK) {
        return fail(status, "load");
    }
    const attn_model_config *config = attn_model_get_config(model);
    attn_session_options session_options = attn_session_options_init();
    session_options.kv = s->kv;
    session_options.context = config->context < 2048 ? config->context : 2048;
    status = attn_session_create(context, model, &session_options, &session);
    status = status == ATTN_OK ? run_lines(session, config->vocab) : fail(status, "session");
    attn_session_destroy(session);
    attn_model_destroy(model);
    return status;
}

int main(int argc, char **argv)
{
    setting s;
    if (parse(argc, argv, &s) != 0) {
        fprintf(stderr, "usage: attn_model_logits MODEL.gguf [--activations auto|f32|int8]"
                        " [--kv f32|bf16|f16] [--threads N]\n");
        return 2;
    }
    attn_gguf *file = NULL;
    attn_context *context = NULL;
    attn_context_options options = attn_context_options_init();
    options.threads = s.threads;
    attn_status status = attn_gguf_open(s.path, &file);
    if (status == ATTN_OK) {
        status = attn_context_create(&options, &context);
    }
    status = status == ATTN_OK ? run_model(context, file, &s) : fail(status, "open");
    attn_context_destroy(context);
    attn_gguf_close(file);
    return status == ATTN_OK && fflush(stdout) == 0 ? 0 : 1;
}
