/**
 * nn/optimizer.h: what an optimizer is inside.
 */
#ifndef ATTN_NN_OPTIMIZER_H
#define ATTN_NN_OPTIMIZER_H

#include <attn/optim.h>

enum { SLOTS_MAX = 2 };

typedef struct optimizer_entry {
    char *name;
    attn_tensor *parameter;        /* held */
    attn_tensor *slots[SLOTS_MAX]; /* what is remembered from step to step; held */
    char *slot_names[SLOTS_MAX];
    double lr_scale, weight_decay;
} optimizer_entry;

struct attn_optimizer {
    attn_context *context;
    attn_optimizer_options options;
    int slots; /* of every entry: 2 for AdamW, 1 for SGD with momentum, else 0 */
    optimizer_entry *entries;
    int count, capacity;
    int64_t steps;
};

#endif
