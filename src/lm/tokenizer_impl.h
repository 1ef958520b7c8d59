/**
 * lm/tokenizer_impl.h: what an attn_tokenizer holds; shared by tokenizer*.c and chat*.c.
 */
#ifndef ATTN_LM_TOKENIZER_IMPL_H
#define ATTN_LM_TOKENIZER_IMPL_H

#include <attn/tokenizer.h>

#include "lm/bpe.h"
#include "lm/tokenizer_split.h"
#include "lm/tokenizer_vocab.h"

struct attn_tokenizer {
    vocab vocab;
    bpe bpe;
    splitter *splitter;
    int32_t bos, eos; /**< −1 where there is none */
    bool add_bos;
    bool *ends;          /**< [vocab.count] tokens that end a turn or text */
    char *chat_template; /**< the file's own, NUL-terminated; NULL where there is none */
};

#endif
