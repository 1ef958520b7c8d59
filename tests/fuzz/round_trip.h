/*
 * round_trip.h: a tokenizer and a text: the pieces of the text's tokens, joined, are the text again.
 */
#ifndef ATTN_FUZZ_ROUND_TRIP_H
#define ATTN_FUZZ_ROUND_TRIP_H

#include <attn/tokenizer.h>

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static inline void check_round_trip(const attn_tokenizer *tokenizer, const char *text, size_t size,
                                    bool special)
{
    int32_t *ids = malloc((size + 1) * sizeof *ids);
    size_t count, at = 0;
    if (!ids ||
        attn_tokenizer_encode(tokenizer, text, size, special, ids, size, &count) != ATTN_OK) {
        abort();
    }
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        const char *piece = attn_tokenizer_piece(tokenizer, ids[i], special, &bytes);
        if (!piece || bytes == 0 || bytes > size - at || memcmp(piece, text + at, bytes) != 0) {
            abort();
        }
        at += bytes;
    }
    if (at != size) {
        abort();
    }
    free(ids);
}

#endif
