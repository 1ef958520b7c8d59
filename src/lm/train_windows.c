/**
 * lm/train_windows.c: which windows of the text a pass sees: a function of seed, step, pass and row, so that a run that is resumed sees what
 * an uninterrupted one would have.
 */
#include "lm/train.h"

/* The finaliser of SplitMix64 (Steele, Lea & Flood 2014): a bijection in which every bit of the input moves about half of the output's. */
static uint64_t scramble(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t train_mix(uint64_t a, uint64_t b)
{
    return scramble(scramble(a + 0x9e3779b97f4a7c15u) ^ (b + 0x9e3779b97f4a7c15u));
}

uint64_t train_hash(const int32_t *tokens, int64_t count)
{
    uint64_t hash = (uint64_t)count;
    for (int64_t i = 0; i < count; i++) {
        hash = scramble(hash ^ (uint32_t)tokens[i]) + 0x9e3779b97f4a7c15u;
    }
    return hash;
}

void train_window(attn_trainer *trainer, int64_t row, int64_t begin, int64_t length)
{
    int64_t *ids = trainer->ids + row * length, *targets = trainer->targets + row * length;
    const int32_t *tokens = trainer->tokens + begin;
    for (int64_t i = 0; i < length; i++) {
        ids[i] = tokens[i];
        targets[i] = tokens[i + 1];
    }
}

static uint64_t pass_seed(const attn_trainer *trainer, int64_t pass, uint64_t purpose)
{
    uint64_t number =
        (uint64_t)trainer->step * (uint64_t)trainer->options.accumulate + (uint64_t)pass;
    return train_mix(train_mix(trainer->options.seed, purpose), number);
}

/* A number in 0 … range−1: the upper half of a 128-bit product, whose bias is below range/2^64. */
static int64_t draw_below(uint64_t bits, int64_t range)
{
    __extension__ typedef unsigned __int128 wide;
    return (int64_t)(((wide)bits * (uint64_t)range) >> 64);
}

void train_draw(attn_trainer *trainer, int64_t pass)
{
    int64_t length = trainer->options.context;
    uint64_t seed = pass_seed(trainer, pass, 1);
    for (int64_t row = 0; row < trainer->options.batch; row++) {
        uint64_t bits = train_mix(seed, (uint64_t)row);
        train_window(trainer, row, draw_below(bits, trainer->training - length), length);
    }
}

uint64_t train_dropout_seed(const attn_trainer *trainer, int64_t pass)
{
    return pass_seed(trainer, pass, 2);
}
