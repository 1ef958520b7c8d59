/**
 * attn/tokenizer.h: text ↔ token ids (byte-level BPE from GGUF metadata; Sennrich et al. 2016, Radford et al. 2019), and
 * chat templates.
 */
#ifndef ATTN_TOKENIZER_H
#define ATTN_TOKENIZER_H

#include <attn/gguf.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attn_tokenizer attn_tokenizer;

/** Copies what it needs: `file` may be closed afterwards. Errors: UNSUPPORTED (names the model or pre-split), FORMAT, NO_MEMORY. */
ATTN_API attn_status attn_tokenizer_create(const attn_gguf *file, attn_tokenizer **tokenizer);
ATTN_API void attn_tokenizer_destroy(attn_tokenizer *tokenizer);

/**
 * ids = tokens of text[0 … size). Any bytes: invalid UTF-8 becomes byte tokens and round-trips; NUL bytes too. `special`: text such as
 * "<|im_end|>" becomes its token; else it is ordinary text. *count is set to the number needed, also when `capacity` is too small
 * (then CAPACITY and nothing written). size ids are always enough (+1 where the file asks for a BOS). Adds BOS only where the file's add_bos_token says so and
 * `special` is set; llama-bpe files that do not say mean it; text that begins with the BOS already gets no second one. A byte that the
 * vocabulary has no token for is left out (SmolLM2 lacks 21, such as 0x04 and 0xff). Text of 2^31 − 1 bytes or more is UNSUPPORTED.
 */
ATTN_API attn_status attn_tokenizer_encode(const attn_tokenizer *tokenizer, const char *text,
                                           size_t size, bool special, int32_t *ids, size_t capacity,
                                           size_t *count);

/**
 * The bytes of one token (not NUL-terminated, may be part of a UTF-8 character; may be empty). Special tokens give their text
 * when `special`, nothing otherwise. NULL for an id out of range. Lives as long as the tokenizer.
 */
ATTN_API const char *attn_tokenizer_piece(const attn_tokenizer *tokenizer, int32_t id, bool special,
                                          size_t *size);

ATTN_API int64_t attn_tokenizer_vocab_size(const attn_tokenizer *tokenizer);
/** −1 where there is none. */
ATTN_API int32_t attn_tokenizer_bos(const attn_tokenizer *tokenizer);
ATTN_API int32_t attn_tokenizer_eos(const attn_tokenizer *tokenizer);
/** True for every token that ends a turn or text (eos, end-of-turn, end-of-text). */
ATTN_API bool attn_tokenizer_is_end(const attn_tokenizer *tokenizer, int32_t id);
/** Whether the file had a chat template: without one, a prompt is best continued as it is. */
ATTN_API bool attn_tokenizer_has_chat_template(const attn_tokenizer *tokenizer);
/** The id of a special token's text, or −1. */
ATTN_API int32_t attn_tokenizer_special(const attn_tokenizer *tokenizer, const char *text);

/** One message of a chat. */
typedef struct attn_chat_message {
    const char *role; /**< "system", "user", "assistant" */
    const char *content;
} attn_chat_message;

/**
 * Renders a chat into *text (malloc'd, NUL-terminated; caller frees with free()). `name`: a built-in template ("chatml", "llama2", "llama3", "zephyr"…), or
 * NULL for the one the file's own template is recognised as. The default system message of the file's template is added where the template does so
 * and the first message is no system message. `open` leaves the assistant's turn open for generation.
 * Errors: UNSUPPORTED lists the built-in names.
 */
ATTN_API attn_status attn_chat_render(const attn_tokenizer *tokenizer, const char *name,
                                      const attn_chat_message *messages, size_t count, bool open,
                                      char **text);
/** "chatml, llama2, …": the built-in names. */
ATTN_API const char *attn_chat_template_names(void);

#ifdef __cplusplus
}
#endif
#endif
