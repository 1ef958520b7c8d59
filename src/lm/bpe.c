/* Merging: a linked list of symbols and a heap of candidate merges. A candidate whose symbols have
 * changed since it was pushed is dropped when it comes up, which is cheaper than finding it in the
 * heap. */
#include "lm/bpe.h"

#include <stdlib.h>

/* The rank of the merge of two tokens, or −1. */
static int32_t find_rank(const bpe *b, int32_t left, int32_t right)
{
    int32_t low = b->first[left], high = b->first[left + 1];
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        int32_t there = b->merges[b->by_pair[middle]].right;
        if (there == right) {
            return b->by_pair[middle];
        }
        if (there < right) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return -1;
}

/* Heap entries are rank·2^32 + position, so that the smallest is the merge to do next. */
static void heap_push(bpe_work *work, uint64_t entry)
{
    size_t at = work->heap_size++;
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (work->heap[parent] <= entry) {
            break;
        }
        work->heap[at] = work->heap[parent];
        at = parent;
    }
    work->heap[at] = entry;
}

static uint64_t heap_pop(bpe_work *work)
{
    uint64_t *heap = work->heap;
    uint64_t top = heap[0], last = heap[--work->heap_size];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= work->heap_size) {
            break;
        }
        if (child + 1 < work->heap_size && heap[child + 1] < heap[child]) {
            child++;
        }
        if (heap[child] >= last) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return top;
}

/* Pushes the merge of the symbol at `left` with the one after it, if both and it are there. */
static void offer(const bpe *b, bpe_work *work, int32_t left)
{
    int32_t right = left >= 0 ? work->symbols[left].next : -1;
    if (right < 0) {
        return;
    }
    int32_t rank = find_rank(b, work->symbols[left].id, work->symbols[right].id);
    if (rank >= 0) {
        heap_push(work, (uint64_t)(uint32_t)rank << 32 | (uint32_t)left);
    }
}

static attn_status reserve(bpe_work *work, size_t count)
{
    if (count <= work->capacity) {
        return ATTN_OK;
    }
    size_t capacity = work->capacity ? work->capacity : 64;
    while (capacity < count) {
        capacity *= 2; /* count is at most INT32_MAX */
    }
    bpe_work_free(work);
    /* Candidates: at most count − 1 at first; each of at most count − 1 merges takes one and adds
     * two. */
    work->symbols = malloc(capacity * sizeof *work->symbols);
    work->heap = malloc(2 * capacity * sizeof *work->heap);
    if (!work->symbols || !work->heap) {
        bpe_work_free(work);
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to tokenize a word of %zu bytes", count);
    }
    work->capacity = capacity;
    return ATTN_OK;
}

void bpe_work_free(bpe_work *work)
{
    free(work->symbols);
    free(work->heap);
    *work = (bpe_work){0};
}

attn_status bpe_merge_word(const bpe *b, bpe_work *work, int32_t *ids, size_t *count)
{
    size_t n = *count;
    if (n < 2) {
        return ATTN_OK;
    }
    attn_status status = reserve(work, n);
    if (status != ATTN_OK) {
        return status;
    }
    bpe_symbol *s = work->symbols;
    for (size_t i = 0; i < n; i++) {
        s[i] = (bpe_symbol){
            .id = ids[i], .previous = (int32_t)i - 1, .next = i + 1 < n ? (int32_t)i + 1 : -1};
    }
    work->heap_size = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        offer(b, work, (int32_t)i);
    }
    while (work->heap_size > 0) {
        uint64_t entry = heap_pop(work);
        int32_t left = (int32_t)(entry & 0xffffffffu);
        const bpe_merge *merge = &b->merges[entry >> 32];
        int32_t right = s[left].next;
        if (s[left].id != merge->left || right < 0 || s[right].id != merge->right) {
            continue;
        }
        s[left].id = merge->result;
        s[left].next = s[right].next;
        s[right].id = -1;
        if (s[left].next >= 0) {
            s[s[left].next].previous = left;
        }
        offer(b, work, s[left].previous);
        offer(b, work, left);
    }
    size_t kept = 0;
    for (int32_t i = 0; i >= 0; i = s[i].next) {
        ids[kept++] = s[i].id;
    }
    *count = kept;
    return ATTN_OK;
}
