/**
 * lm/sha256.c: SHA-256 after FIPS 180-4, plain: 100 MB take a third of a second.
 */
#define _GNU_SOURCE
#include "lm/sha256.h"

#include <attn/model_file.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, int by)
{
    return x >> by | x << (32 - by);
}

static void compress(uint32_t state[8], const unsigned char block[64])
{
    uint32_t w[64];
    for (int i = 0; i < 16; i++) {
        const unsigned char *b = block + 4 * i;
        w[i] = (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | (uint32_t)b[3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
        uint32_t choose = (e & f) ^ (~e & g), majority = (a & b) ^ (a & c) ^ (b & c);
        uint32_t t1 =
            h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + choose + constants[i] + w[i];
        uint32_t t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + majority;
        h = g, g = f, f = e, e = d + t1;
        d = c, c = b, b = a, a = t1 + t2;
    }
    const uint32_t sum[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; i++) {
        state[i] += sum[i];
    }
}

void sha256_begin(sha256 *hash)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, start, sizeof start);
    hash->bytes = 0;
}

void sha256_add(sha256 *hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    while (size > 0) {
        size_t used = (size_t)(hash->bytes % 64);
        size_t take = size < 64 - used ? size : 64 - used;
        memcpy(hash->block + used, bytes, take);
        hash->bytes += take;
        bytes += take;
        size -= take;
        if (used + take == 64) {
            compress(hash->state, hash->block);
        }
    }
}

void sha256_end(sha256 *hash, char text[65])
{
    uint64_t bits = 8 * hash->bytes;
    unsigned char tail[72] = {0x80};
    size_t zeros =
        (119 - (size_t)(hash->bytes % 64)) % 64; /* so that 8 bytes of length end a block */
    for (int i = 0; i < 8; i++) {
        tail[1 + zeros + (size_t)i] = (unsigned char)(bits >> (56 - 8 * i));
    }
    sha256_add(hash, tail, zeros + 9);
    for (int i = 0; i < 8; i++) {
        snprintf(text + 8 * i, 9, "%08x", hash->state[i]);
    }
}

attn_status attn_file_sha256(const char *path, char text[65], bool (*cancel)(void *user),
                             void *cancel_user)
{
    if (!path || !text) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", path ? "text" : "path");
    }
    const size_t room = 1 << 20;
    FILE *file = fopen(path, "rbe");
    if (!file) {
        return attn_fail(ATTN_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    unsigned char *buffer = malloc(room);
    attn_status status =
        buffer ? ATTN_OK : attn_fail(ATTN_ERR_NO_MEMORY, "no memory to read %s", path);
    sha256 hash;
    sha256_begin(&hash);
    for (size_t n = 1; status == ATTN_OK && n > 0;) {
        if (cancel && cancel(cancel_user)) {
            status = attn_fail(ATTN_ERR_CANCELLED, "reading %s was cancelled", path);
            break;
        }
        n = fread(buffer, 1, room, file);
        sha256_add(&hash, buffer, n);
    }
    if (status == ATTN_OK && ferror(file)) {
        status = attn_fail(ATTN_ERR_IO, "%s: cannot read: %s", path, strerror(errno));
    }
    sha256_end(&hash, text);
    free(buffer);
    fclose(file);
    return status;
}
