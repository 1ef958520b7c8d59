/**
 * lm/train.h: what the trainer's files share.
 */
#ifndef ATTN_LM_TRAIN_H
#define ATTN_LM_TRAIN_H

#include <attn/train.h>

struct attn_trainer {
    attn_trainer_options options; /* zeros replaced */
    attn_context *context;
    attn_module *gpt;
    const attn_gpt_options *model;
    attn_tape *tape;
    attn_optimizer *optimizer;
    const int32_t *tokens;
    int64_t training, validation; /* tokens; the latter follow the former */
    uint64_t text;                /* hash of all tokens */
    int64_t step;
    int64_t *ids, *targets; /* [batch, context] */
};

/* ---- train_windows.c ---- */

/** 64 bits that depend on every bit of `a` and `b`: one draw of the counter-based generator. */
uint64_t train_mix(uint64_t a, uint64_t b);

/** A hash of tokens, to notice another text. */
uint64_t train_hash(const int32_t *tokens, int64_t count);

/** Fills ids and targets with the windows of a pass of the step that comes next. */
void train_draw(attn_trainer *trainer, int64_t pass);

/** Seed of the dropout masks of that pass. */
uint64_t train_dropout_seed(const attn_trainer *trainer, int64_t pass);

/** ids and targets of one window at tokens[begin …]. */
void train_window(attn_trainer *trainer, int64_t row, int64_t begin, int64_t length);

#endif
