/**
 * attn/generate.h: the loop: prompt in, text out, token by token.
 */
#ifndef ATTN_GENERATE_H
#define ATTN_GENERATE_H

#include <attn/model.h>
#include <attn/sampler.h>
#include <attn/tokenizer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum attn_stop_reason {
    ATTN_STOP_EOS = 1,
    ATTN_STOP_STRING = 2,
    ATTN_STOP_LENGTH = 3,     /**< max_tokens */
    ATTN_STOP_CONTEXT = 4,    /**< the session is full */
    ATTN_STOP_INTERRUPTED = 5 /**< the cancel callback */
} attn_stop_reason;

/** "eos", "stop", "length", "context", "interrupted". */
ATTN_API const char *attn_stop_reason_name(attn_stop_reason reason);

typedef struct attn_generate_options {
    size_t struct_size;
    int64_t max_tokens;      /**< −1: until something else stops it */
    const char *const *stop; /**< strings that end the text; they are not part of it */
    size_t stop_count;
    int64_t logprobs; /**< K: keep the K best log-probabilities of every generated token */
    /** Called with text as it becomes final: whole UTF-8 characters, never part of a stop string. NULL: none. false stops (interrupted). */
    bool (*on_text)(void *user, const char *text, size_t size);
    bool (*cancel)(void *user); /**< true stops soon, during prefill too */
    void *user;
} attn_generate_options;

ATTN_API attn_generate_options attn_generate_options_init(void);

/** Results; free with attn_generation_free. */
typedef struct attn_generation {
    char *text; /**< NUL-terminated, valid UTF-8 (invalid sequences as U+FFFD) */
    size_t text_size;
    int32_t *ids; /**< generated tokens; an ending token that stopped it is the last one */
    int64_t count;
    attn_token_logprob *logprobs; /**< [count·logprobs] or NULL */
    attn_stop_reason reason;
    int64_t prompt_tokens;
    double prompt_seconds, generation_seconds;
} attn_generation;

/**
 * Evaluates prompt[count] on top of what the session holds, then generates. A prompt that does not fit the session is CAPACITY
 * (both numbers). Cancelling is no error: reason INTERRUPTED.
 */
ATTN_API attn_status attn_generate(attn_session *session, const attn_tokenizer *tokenizer,
                                   attn_sampler *sampler, const attn_generate_options *options,
                                   const int32_t *prompt, int64_t count,
                                   attn_generation *generation);
ATTN_API void attn_generation_free(attn_generation *generation);

#ifdef __cplusplus
}
#endif
#endif
