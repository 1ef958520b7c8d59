/* Choosing the next token. Candidates are kept best first only as far as somebody looks: a heap
 * gives them one by one, so that no option costs a sort of the whole vocabulary. */
#include <attn/sampler.h>

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A candidate's weight e^(score − best score) below this is taken as 0: 2^31 of them do not change
 * a sum that is at least 1. */
#define SCORE_FLOOR (-60.0)

typedef struct candidate {
    double score; /* logit after penalty and temperature, less the best; then its weight */
    int32_t id;
} candidate;

struct attn_sampler {
    attn_sampler_options options;
    int64_t vocab;
    candidate *candidates; /* [vocab] */
    int32_t *recent;       /* ring of the last repeat_window tokens */
    int64_t recent_count, recent_next;
    uint64_t *seen; /* [vocab] the draw in which a token's penalty was last applied */
    uint64_t draws;
};

attn_sampler_options attn_sampler_options_init(void)
{
    return (attn_sampler_options){.struct_size = sizeof(attn_sampler_options),
                                  .top_p = 1,
                                  .repeat_penalty = 1,
                                  .repeat_window = 64};
}

static attn_status check_options(const attn_sampler_options *o)
{
    if (!(o->temperature >= 0) || isinf(o->temperature)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "temperature: %g; it must be at least 0 and finite (0 is greedy)",
                         o->temperature);
    }
    if (o->top_k < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "top_k: %lld; it must be at least 0 (0 keeps all)",
                         (long long)o->top_k);
    }
    if (!(o->top_p >= 0 && o->top_p <= 1)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "top_p: %g; it must be from 0 to 1 (1 keeps all)",
                         o->top_p);
    }
    if (!(o->min_p >= 0 && o->min_p <= 1)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "min_p: %g; it must be from 0 to 1 (0 keeps all)",
                         o->min_p);
    }
    if (!(o->repeat_penalty > 0) || isinf(o->repeat_penalty)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "repeat_penalty: %g; it must be above 0 and finite (1 is off)",
                         o->repeat_penalty);
    }
    if (o->repeat_window < 0 || o->repeat_window > INT32_MAX) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "repeat_window: %lld; it must be from 0 to 2^31 − 1 tokens",
                         (long long)o->repeat_window);
    }
    return ATTN_OK;
}

attn_status attn_sampler_create(const attn_sampler_options *options, int64_t vocab,
                                attn_sampler **sampler)
{
    if (!sampler) {
        return attn_fail(ATTN_ERR_ARGUMENT, "sampler: NULL; give the address of a pointer");
    }
    *sampler = NULL;
    attn_sampler_options o = attn_sampler_options_init();
    attn_status status =
        attn_take_struct("options", "attn_sampler_options_init", options, &o, sizeof o);
    if (status != ATTN_OK) {
        return status;
    }
    if (vocab < 1 || vocab > INT32_MAX) {
        return attn_fail(ATTN_ERR_ARGUMENT, "vocab: %lld; it must be from 1 to 2^31 − 1",
                         (long long)vocab);
    }
    status = check_options(&o);
    if (status != ATTN_OK) {
        return status;
    }
    attn_sampler *s = calloc(1, sizeof *s);
    if (s) {
        s->options = o;
        s->vocab = vocab;
        s->candidates = malloc((size_t)vocab * sizeof *s->candidates);
        s->recent = malloc((size_t)(o.repeat_window + 1) * sizeof *s->recent);
        s->seen = calloc((size_t)vocab, sizeof *s->seen);
    }
    if (!s || !s->candidates || !s->recent || !s->seen) {
        attn_sampler_destroy(s);
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to sample from %lld tokens",
                         (long long)vocab);
    }
    *sampler = s;
    return ATTN_OK;
}

void attn_sampler_destroy(attn_sampler *s)
{
    if (s) {
        free(s->candidates);
        free(s->recent);
        free(s->seen);
        free(s);
    }
}

void attn_sampler_accept(attn_sampler *s, int32_t id)
{
    if (!s || id < 0 || id >= s->vocab || s->options.repeat_window == 0) {
        return;
    }
    s->recent[s->recent_next] = id;
    s->recent_next = (s->recent_next + 1) % s->options.repeat_window;
    if (s->recent_count < s->options.repeat_window) {
        s->recent_count++;
    }
}

/* Uniform in [0, 1): number n of the seed's sequence, by the finaliser of SplitMix64 (Steele, Lea,
 * Flood 2014). */
static double uniform(uint64_t seed, uint64_t n)
{
    uint64_t z = seed + (n + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return (double)(z >> 11) * 0x1p-53;
}

/* Best first; of equals, the smaller id. */
static bool better(const candidate *a, const candidate *b)
{
    return a->score > b->score || (a->score == b->score && a->id < b->id);
}

/* Order of a heap: its top is the best, or (`worst`) the worst of it. */
static bool above(const candidate *a, const candidate *b, bool worst)
{
    return worst ? better(b, a) : better(a, b);
}

static void sift_down(candidate *heap, int64_t size, int64_t at, bool worst)
{
    candidate moving = heap[at];
    for (;;) {
        int64_t child = 2 * at + 1;
        if (child >= size) {
            break;
        }
        if (child + 1 < size && above(&heap[child + 1], &heap[child], worst)) {
            child++;
        }
        if (!above(&heap[child], &moving, worst)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

static void make_heap(candidate *heap, int64_t size, bool worst)
{
    for (int64_t at = size / 2 - 1; at >= 0; at--) {
        sift_down(heap, size, at, worst);
    }
}

/* Fills the candidates with penalised logits. */
static attn_status take_logits(attn_sampler *s, const float *logits)
{
    for (int64_t i = 0; i < s->vocab; i++) {
        if (!(logits[i] < INFINITY)) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "logits[%lld] is %s; logits must be finite or -inf: was the model "
                             "given finite weights?",
                             (long long)i, isnan(logits[i]) ? "NaN" : "+inf");
        }
        s->candidates[i] = (candidate){.score = logits[i], .id = (int32_t)i};
    }
    s->draws++;
    if (s->options.repeat_penalty == 1) {
        return ATTN_OK;
    }
    for (int64_t i = 0; i < s->recent_count; i++) {
        int32_t id = s->recent[i];
        if (s->seen[id] == s->draws) {
            continue;
        }
        s->seen[id] = s->draws;
        double penalty = s->options.repeat_penalty;
        double score = s->candidates[id].score;
        score = score > 0 ? score / penalty : score * penalty;
        s->candidates[id].score = score > DBL_MAX ? DBL_MAX : score;
    }
    return ATTN_OK;
}

static attn_status find_best(const attn_sampler *s, candidate *best)
{
    *best = s->candidates[0];
    for (int64_t i = 1; i < s->vocab; i++) {
        if (better(&s->candidates[i], best)) {
            *best = s->candidates[i];
        }
    }
    if (isinf(best->score)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "logits are all -inf; no token can be chosen");
    }
    return ATTN_OK;
}

/* Keeps the k best of c[0 … count), in front; how many those are. Most candidates cost one
 * comparison with the worst kept. */
static int64_t keep_top_k(candidate *c, int64_t count, int64_t k)
{
    if (k == 0 || k >= count) {
        return count;
    }
    make_heap(c, k, true);
    for (int64_t i = k; i < count; i++) {
        if (better(&c[i], &c[0])) {
            c[0] = c[i];
            sift_down(c, k, 0, true);
        }
    }
    return k;
}

/* Scores become weights e^(score − best); their sum. */
static double weigh(candidate *c, int64_t count, double best, double temperature)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double score = (c[i].score - best) / temperature;
        c[i].score = score < SCORE_FLOOR ? 0 : exp(score);
        sum += c[i].score;
    }
    return sum;
}

/*
 * Keeps the fewest best of c[0 … *count) whose weights reach p·sum; gives back where they start.
 * All weights below (1 − p)·sum/count together miss p·sum by too little to be needed; half of that
 * is on the safe side of rounding. What is left is few, and taken best first from a heap, whose end
 * the taken ones fill.
 */
static candidate *keep_top_p(candidate *c, int64_t *count, double p, double *sum)
{
    if (p >= 1) {
        return c;
    }
    double cutoff = (1 - p) * *sum / (double)*count / 2;
    int64_t likely = 0;
    for (int64_t i = 0; i < *count; i++) {
        if (c[i].score >= cutoff) {
            c[likely++] = c[i];
        }
    }
    int64_t size = likely;
    double kept = 0;
    make_heap(c, size, false);
    do {
        candidate best = c[0];
        c[0] = c[--size];
        sift_down(c, size, 0, false);
        c[size] = best;
        kept += best.score;
    } while (size > 0 && kept < p * *sum);
    *sum = kept;
    *count = likely - size;
    return c + size;
}

static void keep_min_p(candidate *c, int64_t count, double min_p, double *sum)
{
    if (min_p <= 0) {
        return;
    }
    double best = 0, kept = 0;
    for (int64_t i = 0; i < count; i++) {
        best = c[i].score > best ? c[i].score : best;
    }
    for (int64_t i = 0; i < count; i++) {
        c[i].score = c[i].score >= min_p * best ? c[i].score : 0;
        kept += c[i].score;
    }
    *sum = kept;
}

/* The first candidate at which the running sum passes u·sum. */
static int32_t draw(const candidate *c, int64_t count, double threshold)
{
    double running = 0;
    int32_t last = -1;
    for (int64_t i = 0; i < count; i++) {
        if (c[i].score > 0) {
            running += c[i].score;
            last = c[i].id; /* where rounding leaves the sum short, the last possible one */
        }
        if (running > threshold) {
            break;
        }
    }
    return last;
}

attn_status attn_sampler_sample(attn_sampler *s, const float *logits, int32_t *id)
{
    if (!s || !logits || !id) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", !s ? "sampler" : !logits ? "logits" : "id");
    }
    candidate best;
    attn_status status = take_logits(s, logits);
    if (status == ATTN_OK) {
        status = find_best(s, &best);
    }
    if (status != ATTN_OK) {
        return status;
    }
    *id = best.id;
    if (s->options.temperature > 0) {
        candidate *c = s->candidates;
        int64_t count = keep_top_k(c, s->vocab, s->options.top_k);
        double sum = weigh(c, count, best.score, s->options.temperature);
        c = keep_top_p(c, &count, s->options.top_p, &sum);
        keep_min_p(c, count, s->options.min_p, &sum);
        *id = draw(c, count, uniform(s->options.seed, s->draws - 1) * sum);
    }
    attn_sampler_accept(s, *id);
    return ATTN_OK;
}
