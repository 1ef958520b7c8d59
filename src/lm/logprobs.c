/* The most probable tokens, and how probable. */
#include <math.h>

#include <attn/sampler.h>

static bool better(const attn_token_logprob *a, const attn_token_logprob *b)
{
    return a->logprob > b->logprob || (a->logprob == b->logprob && a->id < b->id);
}

/* heap[0] is the worst of those kept. */
static void sift_down(attn_token_logprob *heap, int64_t size, int64_t at)
{
    attn_token_logprob moving = heap[at];
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= size) {
            break;
        }
        if (child + 1 < size && better(&heap[child], &heap[child + 1])) {
            child++;
        }
        if (!better(&moving, &heap[child])) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

/* best[k] = the k largest logits with their ids, largest first, by a heap of k: most of the
 * vocabulary costs one comparison. */
static void select_largest(const float *logits, int64_t vocab, int64_t k, attn_token_logprob *best)
{
    for (int64_t i = 0; i < k; i++) {
        best[i] = (attn_token_logprob){.id = (int32_t)i, .logprob = logits[i]};
    }
    for (int64_t at = k / 2 - 1; at >= 0; at--) {
        sift_down(best, k, at);
    }
    for (int64_t i = k; i < vocab; i++) {
        if (logits[i] > best[0].logprob) {
            best[0] = (attn_token_logprob){.id = (int32_t)i, .logprob = logits[i]};
            sift_down(best, k, 0);
        }
    }
    for (int64_t size = k; size > 1; size--) {
        attn_token_logprob worst = best[0];
        best[0] = best[size - 1];
        sift_down(best, size - 1, 0);
        best[size - 1] = worst;
    }
}

attn_status attn_logprobs_top(const float *logits, int64_t vocab, int64_t k,
                              attn_token_logprob *best)
{
    if (!logits || !best) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", logits ? "best" : "logits");
    }
    if (vocab < 1 || vocab > INT32_MAX) {
        return attn_fail(ATTN_ERR_ARGUMENT, "vocab: %lld; it must be from 1 to 2^31 − 1",
                         (long long)vocab);
    }
    if (k < 1 || k > vocab) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "k: %lld; it must be from 1 to the %lld tokens there are", (long long)k,
                         (long long)vocab);
    }
    float largest = -INFINITY;
    for (int64_t i = 0; i < vocab; i++) {
        if (!(logits[i] < INFINITY)) {
            return attn_fail(ATTN_ERR_ARGUMENT, "logits[%lld] is %s; logits must be finite or -inf",
                             (long long)i, isnan(logits[i]) ? "NaN" : "+inf");
        }
        largest = logits[i] > largest ? logits[i] : largest;
    }
    if (isinf(largest)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "logits are all -inf; no token is possible");
    }
    double sum = 0;
    for (int64_t i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - largest);
    }
    double lse = largest + log(fmax(sum, 1)); /* the largest alone adds 1 */
    select_largest(logits, vocab, k, best);
    for (int64_t i = 0; i < k; i++) {
        best[i].logprob = (float)(best[i].logprob - lse);
    }
    return ATTN_OK;
}
