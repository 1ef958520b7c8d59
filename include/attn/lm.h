/**
 * attn/lm.h: everything of libattn_lm.
 */
#ifndef ATTN_LM_H
#define ATTN_LM_H

#include <attn/attn.h>
#include <attn/generate.h>
#include <attn/gguf.h>
#include <attn/model.h>
#include <attn/model_file.h>
#include <attn/nn.h>
#include <attn/optim.h>
#include <attn/safetensors.h>
#include <attn/sampler.h>
#include <attn/tensor.h>
#include <attn/tokenizer.h>
#include <attn/tokenizer_train.h>
#include <attn/train.h>

#endif
