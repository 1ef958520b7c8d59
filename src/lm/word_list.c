/* Counting the words of a text. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/bpe_train.h"
#include "lm/tokenizer_split.h"
#include "lm/utf8.h"

/* FNV-1a (Fowler, Noll, Vo), 64 bits. */
static uint64_t hash(const char *bytes, size_t size)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++) {
        h = (h ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    }
    return h ^ h >> 32;
}

/* The slot of a word: its own, or the free one where it belongs. */
static uint32_t *slot_of(const word_list *list, const char *bytes, size_t size)
{
    for (size_t at = (size_t)hash(bytes, size) & (list->slots - 1);;
         at = (at + 1) & (list->slots - 1)) {
        uint32_t *slot = &list->table[at];
        if (*slot == 0) {
            return slot;
        }
        const counted_word *word = &list->words[*slot - 1];
        if (word->size == size && memcmp(word->bytes, bytes, size) == 0) {
            return slot;
        }
    }
}

static bool grow(word_list *list)
{
    size_t room = list->room ? 2 * list->room : 4096, slots = 2 * room;
    counted_word *words = realloc(list->words, room * sizeof *words);
    if (!words) {
        return false;
    }
    list->words = words;
    list->room = room;
    uint32_t *table = calloc(slots, sizeof *table);
    if (!table) {
        return false;
    }
    free(list->table);
    list->table = table;
    list->slots = slots;
    for (size_t i = 0; i < list->count; i++) {
        *slot_of(list, words[i].bytes, words[i].size) = (uint32_t)i + 1;
    }
    return true;
}

static attn_status count_word(void *user, const char *bytes, size_t size)
{
    word_list *list = user;
    if (list->count == list->room && !grow(list)) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for a list of %zu words", list->count);
    }
    uint32_t *slot = slot_of(list, bytes, size);
    if (*slot == 0) {
        list->words[list->count] = (counted_word){bytes, size, 0};
        *slot = (uint32_t)++list->count;
    }
    list->words[*slot - 1].count++;
    return ATTN_OK;
}

attn_status word_list_count(word_list *list, const char *text, size_t size)
{
    *list = (word_list){0};
    splitter *splitter = NULL;
    split_run *run = NULL;
    attn_status status = splitter_create("gpt-2", 5, &splitter);
    if (status == ATTN_OK) {
        status = split_run_create(splitter, &run);
    }
    for (size_t at = 0; at < size && status == ATTN_OK;) {
        size_t valid = utf8_valid_prefix(text + at, size - at);
        status = split_text(run, text + at, valid, count_word, list);
        at += valid + 1; /* the byte that is none of UTF-8 is a token by itself, in no word */
    }
    split_run_destroy(run);
    splitter_destroy(splitter);
    return status;
}

void word_list_free(word_list *list)
{
    free(list->words);
    free(list->table);
    *list = (word_list){0};
}
