/**
 * fuzz_tokenizer_train.c: any bytes as a text that tokenizers are made from. The pieces of the text's tokens joined are the text, for
 * BPE and for characters, and so they are after a way through JSON. The first byte picks the options. Run: ./dev fuzz
 */
#include "round_trip.h"

#include <attn/lm.h>
#include <attn/tokenizer_train.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_both(attn_tokenizer *tokenizer, const char *text, size_t size)
{
    attn_tokenizer *again = NULL;
    char *json = NULL;
    check_round_trip(tokenizer, text, size, false);
    if (attn_tokenizer_to_json(tokenizer, &json) != ATTN_OK ||
        attn_tokenizer_from_json(json, strlen(json), &again) != ATTN_OK) {
        abort();
    }
    check_round_trip(again, text, size, false);
    free(json);
    attn_tokenizer_destroy(again);
    attn_tokenizer_destroy(tokenizer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    attn_tokenizer_train_options options = attn_tokenizer_train_options_init();
    attn_tokenizer *tokenizer;
    if (size < 2) {
        return 0;
    }
    const char *text = (const char *)data + 1;
    options.end_text = data[0] & 1 ? NULL : data[0] & 2 ? "a" : "<|endoftext|>";
    options.vocab = 257 + (data[0] >> 4) * 20;
    options.min_count = 1 + (data[0] >> 2 & 3);
    for (int characters = 0; characters < 2; characters++) {
        attn_status status = (characters ? attn_tokenizer_train_chars : attn_tokenizer_train_bpe)(
            text, size - 1, &options, &tokenizer);
        if (status == ATTN_OK) {
            check_both(tokenizer, text, size - 1);
        } else if (status != ATTN_ERR_ARGUMENT || tokenizer ||
                   !strstr(attn_last_error(), "end_text")) {
            abort(); /* but for an end of text that a token of the text is written as too */
        }
    }
    return 0;
}
