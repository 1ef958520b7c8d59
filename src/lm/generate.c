/**
 * lm/generate.c: the loop: evaluate the prompt, then choose, emit, evaluate, until something stops
 * it.
 */
#define _POSIX_C_SOURCE 200809L
#include "lm/generate_text.h"
#include "lm/model.h"
#include <attn/generate.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

const char *attn_stop_reason_name(attn_stop_reason reason)
{
    switch (reason) {
    case ATTN_STOP_EOS: return "eos";
    case ATTN_STOP_STRING: return "stop";
    case ATTN_STOP_LENGTH: return "length";
    case ATTN_STOP_CONTEXT: return "context";
    case ATTN_STOP_INTERRUPTED: return "interrupted";
    }
    return "invalid";
}

attn_generate_options attn_generate_options_init(void)
{
    attn_generate_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.max_tokens = -1;
    return options;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* One run: what attn_generate was given, and what it has made so far. */
typedef struct run {
    attn_session *session;
    const attn_tokenizer *tokenizer;
    attn_sampler *sampler;
    const attn_generate_options *options;
    lm_text text;
    float *logits; /* [vocab] of the last token evaluated */
    int64_t capacity;
    attn_generation *generation;
} run;

static bool interrupted(const run *r)
{
    return r->options->cancel && r->options->cancel(r->options->user);
}

/* Hands out what is final; false when the reader has had enough. */
static bool emit(run *r, bool all)
{
    const char *piece;
    size_t size = lm_text_take(&r->text, all, &piece);
    return size == 0 || r->options->on_text == NULL ||
           r->options->on_text(r->options->user, piece, size);
}

static attn_status grow(run *r)
{
    attn_generation *g = r->generation;
    if (g->count < r->capacity) {
        return ATTN_OK;
    }
    int64_t capacity = r->capacity ? 2 * r->capacity : 64;
    size_t k = (size_t)r->options->logprobs, n = (size_t)capacity, bytes;
    int32_t *ids = realloc(g->ids, n * sizeof *ids);
    if (ids) {
        g->ids = ids;
    }
    attn_token_logprob *logprobs = NULL;
    if (ids && k > 0 && !__builtin_mul_overflow(n * sizeof *logprobs, k, &bytes)) {
        logprobs = realloc(g->logprobs, bytes);
        if (logprobs) {
            g->logprobs = logprobs;
        }
    }
    if (ids == NULL || (k > 0 && logprobs == NULL)) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for %" PRId64 " tokens", capacity);
    }
    r->capacity = capacity;
    return ATTN_OK;
}

/* Chooses the next token from the logits and takes it into ids and text. */
static attn_status choose(run *r, int32_t *id)
{
    attn_generation *g = r->generation;
    attn_status s = grow(r);
    if (s == ATTN_OK && r->options->logprobs > 0) {
        s = attn_logprobs_top(r->logits, r->session->model->config.vocab, r->options->logprobs,
                              g->logprobs + g->count * r->options->logprobs);
    }
    if (s == ATTN_OK) {
        s = attn_sampler_sample(r->sampler, r->logits, id);
    }
    if (s != ATTN_OK) {
        return s;
    }
    g->ids[g->count++] = *id;
    if (attn_tokenizer_is_end(r->tokenizer, *id)) {
        return ATTN_OK;
    }
    size_t size = 0;
    const char *piece = attn_tokenizer_piece(r->tokenizer, *id, false, &size);
    return piece ? lm_text_add(&r->text, piece, size) : ATTN_OK;
}

/* Why generation ends after the token `id`, or 0 to go on. */
static attn_stop_reason stop_after(run *r, int32_t id)
{
    const attn_session *s = r->session;
    if (attn_tokenizer_is_end(r->tokenizer, id)) {
        return ATTN_STOP_EOS;
    }
    if (r->text.stopped) {
        return ATTN_STOP_STRING;
    }
    if (!emit(r, false) || interrupted(r)) {
        return ATTN_STOP_INTERRUPTED;
    }
    if (r->options->max_tokens >= 0 && r->generation->count >= r->options->max_tokens) {
        return ATTN_STOP_LENGTH;
    }
    return s->limit > 0 && s->position >= s->limit ? ATTN_STOP_CONTEXT : (attn_stop_reason)0;
}

static attn_status loop(run *r)
{
    attn_generation *g = r->generation;
    while (g->reason == 0) {
        int32_t id;
        attn_status s = choose(r, &id);
        if (s != ATTN_OK) {
            return s;
        }
        g->reason = stop_after(r, id);
        if (g->reason == 0) {
            s = attn_session_eval(r->session, &id, 1, false, r->logits);
            if (s == ATTN_ERR_CANCELLED) {
                g->reason = ATTN_STOP_INTERRUPTED;
            } else if (s != ATTN_OK) {
                return s;
            }
        }
    }
    return ATTN_OK;
}

static attn_status generate(run *r, const int32_t *prompt, int64_t count)
{
    attn_generation *g = r->generation;
    double start = now();
    g->prompt_tokens = count;
    attn_status s = interrupted(r) ? ATTN_ERR_CANCELLED
                                   : attn_session_eval(r->session, prompt, count, false, r->logits);
    double middle = now();
    g->prompt_seconds = middle - start;
    if (s == ATTN_ERR_CANCELLED) {
        g->reason = ATTN_STOP_INTERRUPTED;
        s = ATTN_OK;
    } else if (s == ATTN_OK) {
        for (int64_t i = 0; i < count; i++) {
            attn_sampler_accept(r->sampler, prompt[i]);
        }
        g->reason = r->options->max_tokens == 0 ? ATTN_STOP_LENGTH : (attn_stop_reason)0;
        s = loop(r);
        g->generation_seconds = now() - middle;
    }
    if (s == ATTN_OK) {
        s = lm_text_end(&r->text);
    }
    /* What was held back for a stop string that did not come is text after all. */
    if (s == ATTN_OK && !emit(r, true) && g->reason != ATTN_STOP_INTERRUPTED) {
        g->reason = ATTN_STOP_INTERRUPTED;
    }
    return s;
}

static attn_status check(const attn_session *session, const attn_tokenizer *tokenizer,
                         const attn_sampler *sampler, const attn_generate_options *options,
                         const int32_t *prompt, int64_t count)
{
    if (session == NULL || tokenizer == NULL || sampler == NULL || prompt == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL",
                         session == NULL     ? "session"
                         : tokenizer == NULL ? "tokenizer"
                         : sampler == NULL   ? "sampler"
                                             : "prompt");
    }
    if (count < 1) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "prompt: no tokens; give at least one to continue from");
    }
    int64_t vocab = session->model->config.vocab;
    if (options->max_tokens < -1 || options->logprobs < 0 || options->logprobs > vocab) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: %" PRId64 ", it must be %d to %" PRId64,
                         options->max_tokens < -1 ? "max_tokens" : "logprobs",
                         options->max_tokens < -1 ? options->max_tokens : options->logprobs,
                         options->max_tokens < -1 ? -1 : 0,
                         options->max_tokens < -1 ? INT64_MAX : vocab);
    }
    if (session->limit > 0 && count > session->limit - session->position) {
        return attn_fail(ATTN_ERR_CAPACITY,
                         "prompt: %" PRId64 " tokens do not fit a context of %" PRId64
                         ", of which %" PRId64 " are taken; shorten it or use a larger context",
                         count, session->limit, session->position);
    }
    return ATTN_OK;
}

attn_status attn_generate(attn_session *session, const attn_tokenizer *tokenizer,
                          attn_sampler *sampler, const attn_generate_options *options,
                          const int32_t *prompt, int64_t count, attn_generation *generation)
{
    if (generation == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "generation: NULL; give one to fill");
    }
    memset(generation, 0, sizeof *generation);
    attn_generate_options taken = attn_generate_options_init();
    attn_status s =
        attn_take_struct("options", "attn_generate_options_init", options, &taken, sizeof taken);
    if (s != ATTN_OK) {
        return s;
    }
    options = &taken;
    s = check(session, tokenizer, sampler, options, prompt, count);
    if (s != ATTN_OK) {
        return s;
    }
    run r = {session, tokenizer, sampler, options, .generation = generation};
    s = lm_text_begin(&r.text, options->stop, options->stop_count);
    if (s == ATTN_OK) {
        size_t bytes = (size_t)session->model->config.vocab * sizeof *r.logits;
        r.logits = malloc(bytes);
        if (r.logits == NULL) {
            s = attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for the logits: %zu bytes", bytes);
        }
    }
    if (s == ATTN_OK) {
        bool (*cancel)(void *) = session->cancel;
        void *cancel_user = session->cancel_user;
        if (options->cancel) {
            attn_session_set_cancel(session, options->cancel, options->user);
        }
        s = generate(&r, prompt, count);
        attn_session_set_cancel(session, cancel, cancel_user);
    }
    free(r.logits);
    if (s != ATTN_OK) {
        lm_text_free(&r.text);
        attn_generation_free(generation);
        return s;
    }
    generation->text = r.text.text; /* its owner from here on */
    generation->text_size = r.text.size;
    return ATTN_OK;
}

void attn_generation_free(attn_generation *generation)
{
    if (generation) {
        free(generation->text);
        free(generation->ids);
        free(generation->logprobs);
        memset(generation, 0, sizeof *generation);
    }
}
