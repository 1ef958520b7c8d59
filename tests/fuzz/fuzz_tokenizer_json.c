/**
 * fuzz_tokenizer_json.c: any bytes as a tokenizer.json. Reading it either fails with a reason, or gives a tokenizer that encodes
 * any text, whose JSON reads back as one that encodes equally. Run: ./dev fuzz
 */
#include <attn/lm.h>
#include <attn/tokenizer_train.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IDS = 256 };

static const char text[] = "Hello  w\xc3\xb6rld\xff 123 <|endoftext|>\n\n'd";

static size_t encode(const attn_tokenizer *tokenizer, int32_t *ids, bool special)
{
    size_t count = 0;
    if (attn_tokenizer_encode(tokenizer, text, sizeof text - 1, special, ids, IDS, &count) !=
        ATTN_OK) {
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        if (!attn_tokenizer_piece(tokenizer, ids[i], true, &bytes)) {
            abort();
        }
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    attn_tokenizer *tokenizer = NULL, *again = NULL;
    char *json = NULL;
    int32_t ids[IDS], other[IDS];
    if (attn_tokenizer_from_json((const char *)data, size, &tokenizer) != ATTN_OK) {
        if (tokenizer != NULL || attn_last_error()[0] == '\0') {
            abort(); /* a failure leaves NULL and says why */
        }
        return 0;
    }
    size_t count = encode(tokenizer, ids, true);
    encode(tokenizer, other, false);
    if (attn_tokenizer_to_json(tokenizer, &json) != ATTN_OK ||
        attn_tokenizer_from_json(json, strlen(json), &again) != ATTN_OK ||
        encode(again, other, true) != count || memcmp(ids, other, count * sizeof *ids) != 0) {
        abort();
    }
    free(json);
    attn_tokenizer_destroy(again);
    attn_tokenizer_destroy(tokenizer);
    return 0;
}
