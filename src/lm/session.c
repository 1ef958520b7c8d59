/**
 * lm/session.c: one text being read or written: its caches, its working memory, and evaluation
 * block by block.
 */
#include "lm/model.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_BLOCK 512

attn_session_options attn_session_options_init(void)
{
    attn_session_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    return options;
}

static attn_status check_options(const attn_model *model, attn_session_options *o)
{
    const attn_model_config *c = &model->config;
    if (o->context < 0 || o->window < 0 || o->prefill < 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: a number below 0; 0 means the default",
                         o->context < 0  ? "context"
                         : o->window < 0 ? "window"
                                         : "prefill");
    }
    if (o->context > c->context) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "context: %" PRId64 " tokens is more than the model's %" PRId64,
                         o->context, c->context);
    }
    if (o->window > INT32_MAX) {
        return attn_fail(ATTN_ERR_ARGUMENT, "window: %" PRId64 " is more than %d", o->window,
                         INT32_MAX);
    }
    if (o->kv == ATTN_DTYPE_NONE) {
        o->kv = model->activations == ATTN_ACTIVATIONS_F32 ? ATTN_F32 : ATTN_F16;
    }
    if (o->kv != ATTN_F32 && o->kv != ATTN_F16 && o->kv != ATTN_BF16) {
        return attn_fail(ATTN_ERR_DTYPE, "kv: %s, it must be f32, f16 or bf16",
                         attn_dtype_name(o->kv));
    }
    if (o->context == 0 && o->window == 0) {
        o->context = c->context;
    }
    if (o->prefill == 0) {
        o->prefill = DEFAULT_BLOCK;
    }
    if (o->context > 0 && o->prefill > o->context) {
        o->prefill = o->context;
    }
    return ATTN_OK;
}

static attn_status create_caches(attn_session *s)
{
    const attn_model_config *c = &s->model->config;
    bool ring;
    int64_t slots = lm_cache_slots(s->limit, s->window, s->block, &ring);
    s->caches = calloc((size_t)c->layers, sizeof *s->caches);
    if (s->caches == NULL) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for %" PRId64 " caches", c->layers);
    }
    attn_kv_cache_options options = attn_kv_cache_options_init();
    options.batch = 1;
    options.heads_kv = c->heads_kv;
    options.dim_qk = c->head_dim;
    options.dtype = s->kv;
    if (ring) {
        options.window = s->window;
        options.max_append = s->block;
        options.capacity = 0;
    } else {
        options.capacity = slots;
    }
    for (int64_t i = 0; i < c->layers; i++) {
        attn_status status = attn_kv_cache_create(s->context, &options, &s->caches[i]);
        if (status != ATTN_OK) {
            return status;
        }
    }
    return ATTN_OK;
}

static attn_status create_memory(attn_session *s)
{
    const attn_model_config *c = &s->model->config;
    size_t floats, block = (size_t)s->block;
    if (!lm_working_floats(c, s->block, &floats)) {
        return attn_fail(ATTN_ERR_NO_MEMORY,
                         "prefill: blocks of %" PRId64 " tokens need more memory than there can be",
                         s->block);
    }
    /* Every buffer starts on a cache line when rows are multiples of 16 floats, which real models'
     * are. */
    size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
    s->memory = aligned_alloc(64, bytes);
    s->positions = malloc(block * sizeof *s->positions);
    if (s->memory == NULL || s->positions == NULL) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for the session: %zu bytes", bytes);
    }
    size_t q = (size_t)(c->heads_q * c->head_dim), kv = (size_t)(c->heads_kv * c->head_dim);
    s->x = s->memory;
    s->h = s->x + block * (size_t)c->dim;
    s->qkv = s->h + block * (size_t)c->dim;
    s->mix = s->qkv + block * (q + 2 * kv);
    s->ffn = s->mix + block * q;
    return ATTN_OK;
}

attn_status attn_session_create(attn_context *context, const attn_model *model,
                                const attn_session_options *options, attn_session **session)
{
    if (session == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "session: NULL; give the address of a pointer");
    }
    *session = NULL;
    if (context == NULL || model == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: NULL", context ? "model" : "context");
    }
    attn_session_options o = attn_session_options_init();
    attn_status status =
        attn_take_struct("options", "attn_session_options_init", options, &o, sizeof o);
    if (status == ATTN_OK) {
        status = check_options(model, &o);
    }
    if (status != ATTN_OK) {
        return status;
    }
    attn_session *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for a session");
    }
    s->context = context;
    s->model = model;
    s->kv = o.kv;
    s->limit = o.context;
    s->window = o.window;
    s->block = o.prefill;
    status = create_memory(s);
    if (status == ATTN_OK) {
        status = create_caches(s);
    }
    if (status != ATTN_OK) {
        attn_session_destroy(s);
        return status;
    }
    *session = s;
    return ATTN_OK;
}

void attn_session_destroy(attn_session *session)
{
    if (session == NULL) {
        return;
    }
    for (int64_t i = 0; session->caches && i < session->model->config.layers; i++) {
        attn_kv_cache_destroy(session->caches[i]);
    }
    free(session->caches);
    free(session->memory);
    free(session->positions);
    free(session);
}

void attn_session_set_cancel(attn_session *session, bool (*cancel)(void *user), void *user)
{
    if (session) {
        session->cancel = cancel;
        session->cancel_user = user;
    }
}

/* Back to `position` after a call that did not finish: layers may have gone different ways. */
static void restore(attn_session *s, int64_t position)
{
    bool restored = true;
    for (int64_t i = 0; i < s->model->config.layers; i++) {
        attn_kv_cache *cache = s->caches[i];
        if (attn_kv_cache_position(cache, 0) > position &&
            attn_kv_cache_truncate(cache, 0, position) != ATTN_OK) {
            restored = false; /* a ring that has overwritten what it held */
        }
    }
    s->position = position;
    if (!restored) {
        for (int64_t i = 0; i < s->model->config.layers; i++) {
            attn_kv_cache_reset(s->caches[i]);
        }
        s->position = 0;
    }
}

static attn_status check_tokens(const attn_session *s, const int32_t *tokens, int64_t count)
{
    if (s->limit > 0 && count > s->limit - s->position) {
        return attn_fail(ATTN_ERR_CAPACITY,
                         "context: %" PRId64 " tokens do not fit, %" PRId64 " of %" PRId64
                         " are taken; use a larger context or fewer tokens",
                         count, s->position, s->limit);
    }
    for (int64_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || tokens[i] >= s->model->config.vocab) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "tokens: id %" PRId32 " at %" PRId64 ", it must be 0 to %" PRId64,
                             tokens[i], i, s->model->config.vocab - 1);
        }
    }
    return ATTN_OK;
}

attn_status attn_session_eval(attn_session *session, const int32_t *tokens, int64_t count, bool all,
                              float *logits)
{
    if (session == NULL || count < 0 || (tokens == NULL && count > 0)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s",
                         session == NULL ? "session: NULL"
                         : count < 0     ? "count: below 0"
                                         : "tokens: NULL");
    }
    if (count == 0 && logits && !all) {
        return attn_fail(ATTN_ERR_ARGUMENT, "count: 0, but logits of the last token are asked for");
    }
    attn_status status = check_tokens(session, tokens, count);
    if (status != ATTN_OK) {
        return status;
    }
    const int64_t start = session->position;
    for (int64_t done = 0; done < count;) {
        int64_t rows = count - done < session->block ? count - done : session->block;
        int64_t wanted = logits == NULL ? 0 : all ? rows : done + rows == count ? 1 : 0;
        float *out = wanted == 0 ? NULL : logits + (all ? done * session->model->config.vocab : 0);
        status = lm_forward_block(session, tokens + done, rows, wanted, out);
        if (status != ATTN_OK) {
            restore(session, start);
            return status;
        }
        session->position += rows;
        done += rows;
    }
    return ATTN_OK;
}

int64_t attn_session_position(const attn_session *session)
{
    return session ? session->position : 0;
}

int64_t attn_session_capacity(const attn_session *session)
{
    return session ? session->limit : 0;
}

attn_status attn_session_truncate(attn_session *session, int64_t position)
{
    if (session == NULL) {
        return attn_fail(ATTN_ERR_ARGUMENT, "session: NULL");
    }
    if (position < 0 || position > session->position) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "position: %" PRId64 ", it must be 0 to %" PRId64
                         ", what the session holds",
                         position, session->position);
    }
    for (int64_t i = 0; i < session->model->config.layers; i++) {
        if (position == 0) {
            attn_kv_cache_reset(session->caches[i]);
            continue;
        }
        /* All caches are alike: the first one refuses for all, with nothing changed. */
        attn_status status = attn_kv_cache_truncate(session->caches[i], 0, position);
        if (status != ATTN_OK) {
            return status;
        }
    }
    session->position = position;
    return ATTN_OK;
}

size_t attn_session_kv_bytes(const attn_session *session)
{
    size_t sum = 0;
    for (int64_t i = 0; session && i < session->model->config.layers; i++) {
        sum += attn_kv_cache_bytes(session->caches[i]);
    }
    return sum;
}

attn_dtype attn_session_kv_dtype(const attn_session *session)
{
    return session ? session->kv : ATTN_DTYPE_NONE;
}
