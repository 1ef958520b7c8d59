/**
 * nn/gpt.h: a GPT's options, completed, and what they ask of its attention layers.
 */
#ifndef ATTN_NN_GPT_H
#define ATTN_NN_GPT_H

#include <attn/nn.h>

/* Checks, and replaces zeros by what they stand for. */
attn_status nn_gpt_complete(const attn_gpt_options *options, attn_gpt_options *full);

attn_naming nn_gpt_naming(const attn_gpt_options *options);

attn_nn_attention_options nn_gpt_attention(const attn_gpt_options *options);

/* Checks sizes of attention and replaces its zeros: heads that divide, whole head sizes. */
attn_status nn_attention_sizes(attn_nn_attention_options *options);

#endif
