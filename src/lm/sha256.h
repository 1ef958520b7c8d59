/**
 * lm/sha256.h: SHA-256 (FIPS 180-4), for files that were fetched.
 */
#ifndef ATTN_LM_SHA256_H
#define ATTN_LM_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct sha256 {
    uint32_t state[8];
    uint64_t bytes; /* taken so far */
    unsigned char block[64];
} sha256;

void sha256_begin(sha256 *hash);
void sha256_add(sha256 *hash, const void *data, size_t size);
/** 64 hexadecimal digits and a NUL. */
void sha256_end(sha256 *hash, char text[65]);

#endif
