/**
 * lm/tokenizer_split.h: cutting text into the words that byte-pair merging works within.
 */
#ifndef ATTN_LM_TOKENIZER_SPLIT_H
#define ATTN_LM_TOKENIZER_SPLIT_H

#include <attn/base.h>

/** The expressions of one tokenizer.ggml.pre, compiled. Read-only once made: threads may share it.
 */
typedef struct splitter splitter;

/** The pre-split of tokenizers with one token per character; not the name of a pre-split of GGUF files elsewhere. */
#define SPLIT_CHARACTERS "attn-characters"

/** The name of a splitter's pre-split, aliases resolved. */
const char *splitter_name(const splitter *s);

/** What a splitter needs during one call: match data and stacks. */
typedef struct split_run split_run;

/** Called with each word in order; anything but ATTN_OK ends the splitting. */
typedef attn_status (*split_word)(void *user, const char *word, size_t size);

/** `pre`: the file's name for its pre-split. UNSUPPORTED names it and lists what is known. */
attn_status splitter_create(const char *pre, size_t pre_size, splitter **made);
void splitter_destroy(splitter *s);

/** Whether a word that is a token as it stands is that token, whatever the merges say. */
bool splitter_whole_words(const splitter *s);

/** Whether files of this kind mean a BOS token where they do not say. */
bool splitter_default_bos(const splitter *s);

attn_status split_run_create(const splitter *s, split_run **run);
void split_run_destroy(split_run *run);

/** Gives every word of text[0 … size), which must be valid UTF-8, to `word`. */
attn_status split_text(split_run *run, const char *text, size_t size, split_word word, void *user);

#endif
