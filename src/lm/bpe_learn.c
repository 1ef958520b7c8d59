/*
 * Learning merges. Every pair of neighbours has its count and a list of words it was seen in; a heap of counts gives the next
 * merge. Counts that fall leave too large an entry in the heap: it is put back with the count of now when it comes up. Counts
 * only rise for pairs with the token that a merge makes, and those are pushed again.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "lm/bpe_train.h"
#include "lm/tokenizer_vocab.h"

/* Bytes of new tokens are kept in blocks, so that they stay where they are. */
#define BLOCK_BYTES 65536

typedef struct pair {
    int32_t left, right;
    int64_t count;
    uint32_t *where; /* words, perhaps more than once, perhaps without the pair by now */
    uint32_t where_count, where_room;
    bool pushed; /* in this merge's list of pairs to push */
} pair;

typedef struct heap_entry {
    int64_t count;
    uint32_t pair;
} heap_entry;

typedef struct word {
    int32_t *ids;
    uint32_t length;
    uint32_t seen; /* the last merge that looked at it */
} word;

typedef struct learner {
    const word_list *list;
    word *words;
    int32_t *ids; /* of all words */
    pair *pairs;
    size_t pair_count, pair_room;
    uint32_t *table; /* of pairs: index + 1 */
    size_t slots;
    heap_entry *heap;
    size_t heap_count, heap_room;
    uint32_t *fresh; /* pairs to push after a merge */
    size_t fresh_count, fresh_room;
    bool failed; /* without memory */
} learner;

/* *array has room for `count` elements of `size` bytes after it. */
static bool reserve(void *array, size_t size, size_t count, size_t *room)
{
    if (count <= *room) {
        return true;
    }
    void *old, *bigger;
    size_t wanted = 2 * count + 16;
    memcpy(&old, array, sizeof old);
    bigger = realloc(old, wanted * size);
    if (!bigger) {
        return false;
    }
    memcpy(array, &bigger, sizeof bigger);
    *room = wanted;
    return true; /* cppcheck-suppress memleak ; *array has it */
}

/* ---- the table of pairs ---- */

static size_t pair_slot(const learner *l, int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    size_t at = (size_t)(h >> 20) & (l->slots - 1);
    while (l->table[at] != 0) {
        const pair *p = &l->pairs[l->table[at] - 1];
        if (p->left == left && p->right == right) {
            break;
        }
        at = (at + 1) & (l->slots - 1);
    }
    return at;
}

static bool grow_table(learner *l)
{
    size_t slots = l->slots ? 2 * l->slots : 1 << 16;
    uint32_t *table = calloc(slots, sizeof *table);
    if (!table) {
        return false;
    }
    free(l->table);
    l->table = table;
    l->slots = slots;
    for (size_t i = 0; i < l->pair_count; i++) {
        l->table[pair_slot(l, l->pairs[i].left, l->pairs[i].right)] = (uint32_t)i + 1;
    }
    return true;
}

/* The pair, made where it is not there; NULL without memory. */
static pair *pair_of(learner *l, int32_t left, int32_t right)
{
    if (2 * l->pair_count >= l->slots && !grow_table(l)) {
        return NULL;
    }
    uint32_t *slot = &l->table[pair_slot(l, left, right)];
    if (*slot == 0) {
        if (!reserve(&l->pairs, sizeof *l->pairs, l->pair_count + 1, &l->pair_room)) {
            return NULL;
        }
        l->pairs[l->pair_count] = (pair){.left = left, .right = right};
        *slot = (uint32_t)++l->pair_count;
    }
    return &l->pairs[*slot - 1];
}

/* ---- the heap ---- */

/* Whether x is merged before y: more often, then smaller ids. */
static bool before(const learner *l, heap_entry x, heap_entry y)
{
    const pair *p = &l->pairs[x.pair], *q = &l->pairs[y.pair];
    if (x.count != y.count) {
        return x.count > y.count;
    }
    return p->left != q->left ? p->left < q->left : p->right < q->right;
}

static void push(learner *l, uint32_t index)
{
    heap_entry entry = {l->pairs[index].count, index};
    if (entry.count <= 0) {
        return;
    }
    if (!reserve(&l->heap, sizeof *l->heap, l->heap_count + 1, &l->heap_room)) {
        l->failed = true;
        return;
    }
    size_t at = l->heap_count++;
    while (at > 0 && before(l, entry, l->heap[(at - 1) / 2])) {
        l->heap[at] = l->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    l->heap[at] = entry;
}

static heap_entry pop(learner *l)
{
    heap_entry top = l->heap[0], last = l->heap[--l->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= l->heap_count) {
            break;
        }
        if (child + 1 < l->heap_count && before(l, l->heap[child + 1], l->heap[child])) {
            child++;
        }
        if (!before(l, l->heap[child], last)) {
            break;
        }
        l->heap[at] = l->heap[child];
        at = child;
    }
    l->heap[at] = last;
    return top;
}

/* ---- counts ---- */

/* Adds `change` to the count of every pair of a word. Where that raises it, pairs with the token `made` (all,
 * with made < 0) also note the word and are pushed later. */
static void count_pairs(learner *l, uint32_t index, int64_t change, int32_t made)
{
    const word *w = &l->words[index];
    for (uint32_t i = 0; i + 1 < w->length && !l->failed; i++) {
        pair *p = pair_of(l, w->ids[i], w->ids[i + 1]);
        if (!p) {
            l->failed = true;
            return;
        }
        p->count += change;
        if (change < 0 || (made >= 0 && p->left != made && p->right != made)) {
            continue;
        }
        size_t room = p->where_room;
        if (p->where_count == 0 || p->where[p->where_count - 1] != index) {
            if (!reserve(&p->where, sizeof *p->where, p->where_count + 1, &room)) {
                l->failed = true;
                return;
            }
            p->where_room = (uint32_t)room;
            p->where[p->where_count++] = index;
        }
        if (!p->pushed) {
            if (!reserve(&l->fresh, sizeof *l->fresh, l->fresh_count + 1, &l->fresh_room)) {
                l->failed = true;
                return;
            }
            p->pushed = true;
            l->fresh[l->fresh_count++] = (uint32_t)(p - l->pairs);
        }
    }
}

static void push_fresh(learner *l)
{
    for (size_t i = 0; i < l->fresh_count && !l->failed; i++) {
        l->pairs[l->fresh[i]].pushed = false;
        push(l, l->fresh[i]);
    }
    l->fresh_count = 0;
}

/* Every "left right" of a word becomes `made`, from the left; false when it has none. */
static bool merge_word(word *w, int32_t left, int32_t right, int32_t made, bool dry)
{
    uint32_t to = 0;
    bool found = false;
    for (uint32_t i = 0; i < w->length; i++) {
        bool here = i + 1 < w->length && w->ids[i] == left && w->ids[i + 1] == right;
        if (here && dry) {
            return true;
        }
        found = found || here;
        if (!dry) {
            w->ids[to++] = here ? made : w->ids[i];
        }
        i += here;
    }
    if (!dry) {
        w->length = to;
    }
    return found;
}

static void merge_everywhere(learner *l, uint32_t index, int32_t made, uint32_t stamp)
{
    int32_t left = l->pairs[index].left, right = l->pairs[index].right;
    uint32_t *where = l->pairs[index].where, count = l->pairs[index].where_count;
    l->pairs[index].where = NULL; /* the pair may move, and words may be noted again meanwhile */
    l->pairs[index].where_count = l->pairs[index].where_room = 0;
    for (uint32_t i = 0; i < count && !l->failed; i++) {
        word *w = &l->words[where[i]];
        if (w->seen == stamp || !merge_word(w, left, right, made, true)) {
            continue;
        }
        w->seen = stamp;
        int64_t times = l->list->words[where[i]].count;
        count_pairs(l, where[i], -times, made);
        merge_word(w, left, right, made, false);
        count_pairs(l, where[i], times, made);
    }
    free(where);
    push_fresh(l);
}

/* ---- tokens ---- */

/* The bytes of both tokens, put behind what the last block has in use (and not yet counted as used);
 * NULL without memory. */
static char *join(bpe_learned *out, int32_t left, int32_t right, size_t *size)
{
    const token_part *a = &out->tokens[left], *b = &out->tokens[right];
    *size = a->size + b->size;
    if (out->block_count == 0 || out->block_used + *size > BLOCK_BYTES) {
        size_t bytes = *size > BLOCK_BYTES ? *size : BLOCK_BYTES;
        if (!reserve(&out->blocks, sizeof *out->blocks, out->block_count + 1, &out->block_room)) {
            return NULL;
        }
        char *block = malloc(bytes);
        if (!block) {
            return NULL;
        }
        out->blocks[out->block_count++] = block;
        out->block_used = 0;
    }
    char *bytes = out->blocks[out->block_count - 1] + out->block_used;
    memcpy(bytes, a->bytes, a->size);
    memcpy(bytes + a->size, b->bytes, b->size);
    return bytes;
}

static int32_t find_token(const bpe_learned *out, const char *bytes, size_t size)
{
    /* Once a merge: a walk costs less than the merge itself. */
    for (int32_t i = 0; i < out->count; i++) {
        const token_part *t = &out->tokens[i];
        if (t->size == size && t->kind == TOKEN_NORMAL && memcmp(t->bytes, bytes, size) == 0) {
            return i;
        }
    }
    return -1;
}

/* Notes the merge of two tokens; its token, which may be there already by another way; −1 without memory. */
static int32_t add_merge(bpe_learned *out, int32_t left, int32_t right)
{
    size_t size, rooms[2] = {(size_t)out->token_room, (size_t)out->merge_room};
    char *bytes = join(out, left, right, &size);
    if (!bytes || !reserve(&out->tokens, sizeof *out->tokens, (size_t)out->count + 1, &rooms[0]) ||
        !reserve(&out->merges, sizeof *out->merges, (size_t)out->merge_count + 1, &rooms[1])) {
        return -1;
    }
    out->token_room = (int32_t)rooms[0];
    out->merge_room = (int32_t)rooms[1];
    int32_t id = find_token(out, bytes, size);
    if (id < 0) {
        id = out->count++;
        out->tokens[id] = (token_part){bytes, size, TOKEN_NORMAL};
        out->block_used += size;
    }
    out->merges[out->merge_count++] = (merge_part){left, right};
    return id;
}

void bpe_learned_free(bpe_learned *l)
{
    for (size_t i = 0; i < l->block_count; i++) {
        free(l->blocks[i]);
    }
    free(l->blocks);
    free(l->tokens);
    free(l->merges);
    *l = (bpe_learned){0};
}

/* ---- the whole ---- */

static void begin(learner *l, const bpe_training *training)
{
    size_t total = 0, at = 0;
    for (size_t i = 0; i < l->list->count; i++) {
        total += l->list->words[i].size;
    }
    l->words = calloc(l->list->count + 1, sizeof *l->words);
    l->ids = malloc((total + 1) * sizeof *l->ids);
    l->failed = !l->words || !l->ids;
    for (size_t i = 0; i < l->list->count && !l->failed; i++) {
        const counted_word *from = &l->list->words[i];
        l->words[i] = (word){.ids = l->ids + at, .length = (uint32_t)from->size};
        for (size_t k = 0; k < from->size; k++) {
            l->ids[at++] = training->byte[(unsigned char)from->bytes[k]];
        }
        count_pairs(l, (uint32_t)i, from->count, -1);
    }
    push_fresh(l);
}

static attn_status run(learner *l, const bpe_training *training, bpe_learned *out)
{
    begin(l, training);
    uint32_t stamp = 0;
    while (!l->failed && out->count < training->vocab && l->heap_count > 0) {
        heap_entry top = pop(l);
        int64_t count = l->pairs[top.pair].count;
        if (top.count != count) {
            push(l, top.pair);
            continue;
        }
        if (count < training->min_count) {
            break;
        }
        if (training->cancel && training->cancel(training->cancel_user)) {
            return attn_fail(ATTN_ERR_CANCELLED, "training the tokenizer was cancelled");
        }
        int32_t made = add_merge(out, l->pairs[top.pair].left, l->pairs[top.pair].right);
        l->failed = l->failed || made < 0;
        if (!l->failed) {
            merge_everywhere(l, top.pair, made, ++stamp);
        }
    }
    return l->failed ? attn_fail(ATTN_ERR_NO_MEMORY, "no memory to train a tokenizer on %zu words",
                                 l->list->count)
                     : ATTN_OK;
}

attn_status bpe_learn(const word_list *list, const bpe_training *training, bpe_learned *learned)
{
    learner l = {.list = list};
    attn_status status = run(&l, training, learned);
    for (size_t i = 0; i < l.pair_count; i++) {
        free(l.pairs[i].where);
    }
    free(l.words);
    free(l.ids);
    free(l.pairs);
    free(l.table);
    free(l.heap);
    free(l.fresh);
    return status;
}
