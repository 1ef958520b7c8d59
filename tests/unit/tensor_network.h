/**
 * tensor_network.h: transformer blocks from plain operations, for tests of the tape.
 */
#ifndef TESTS_TENSOR_NETWORK_H
#define TESTS_TENSOR_NETWORK_H

#include <attn/tensor.h>

enum { PARAMETERS = 6 };

typedef struct network {
    attn_tensor *p[PARAMETERS]; /* norm weight, norm bias, qkv, projection, up, down */
    bool checkpointed;
    uint64_t seed;
} network;

/** All or nothing: what was made is freed when an allocation fails. Width a multiple of 16. */
attn_status network_make(network *n, int64_t width);
void network_free(network *n);

/** Mean square of x after `blocks` blocks, and, nested, two more as a checkpoint of checkpoints. */
attn_tensor *network_loss(attn_tape *t, network *n, attn_tensor *x, int blocks, bool nested);

#endif
