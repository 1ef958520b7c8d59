/* attn_mask_*: boolean masks, written row by row from a rule. */
#include "attention/views.h"

#include <attn/mask.h>
#include <string.h>

/* What a row of a mask sees: columns below prefix, and begin … end−1. */
typedef struct columns {
    int64_t prefix, begin, end;
} columns;

typedef struct mask_rule {
    attn_causal causal;
    int64_t left, right; /* −1: unlimited */
    int64_t prefix;
    const int64_t *lengths;       /* by sequence, or NULL */
    const int64_t *ids_q, *ids_k; /* both or none */
} mask_rule;

static int64_t rows_of(const attn_view *mask)
{
    return mask->shape[mask->ndim - 2];
}

static int64_t columns_of(const attn_view *mask)
{
    return mask->shape[mask->ndim - 1];
}

static columns row_columns(const attn_view *mask, const mask_rule *rule, int64_t b, int64_t i)
{
    int64_t len_k = columns_of(mask);
    int64_t p = i + (rule->causal == ATTN_CAUSAL_BOTTOM_RIGHT ? len_k - rows_of(mask) : 0);
    columns see = {rule->prefix, 0, len_k};
    if (rule->left >= 0 && rule->left < p) {
        see.begin = p - rule->left;
    }
    if (rule->right >= 0 && rule->right < len_k - p - 1) {
        see.end = p + rule->right + 1;
    }
    if (rule->causal != ATTN_CAUSAL_NONE && see.end > p + 1) {
        see.end = p + 1;
    }
    if (rule->lengths && see.end > rule->lengths[b]) {
        see.end = rule->lengths[b];
    }
    return see;
}

static void write_row(const attn_view *mask, const mask_rule *rule, int64_t b, int64_t i,
                      unsigned char *row)
{
    int64_t len_k = columns_of(mask);
    if (rule->ids_q) {
        for (int64_t j = 0; j < len_k; j++) {
            row[j] = rule->ids_q[i] == rule->ids_k[j];
        }
        return;
    }
    columns see = row_columns(mask, rule, b, i);
    memset(row, 0, (size_t)len_k);
    memset(row, 1, (size_t)see.prefix);
    if (see.begin < see.end) {
        memset(row + see.begin, 1, (size_t)(see.end - see.begin));
    }
}

static attn_status fill(const attn_view *mask, const mask_rule *rule)
{
    /* Leading sizes and strides, as if there were always two of them. */
    int64_t size[2] = {1, 1}, stride[2] = {0, 0};
    for (int n = 0; n < mask->ndim - 2; n++) {
        int to = n + 4 - mask->ndim;
        size[to] = mask->shape[n];
        stride[to] = mask->stride[n];
    }
    for (int64_t b = 0; columns_of(mask) > 0 && b < size[0]; b++) {
        for (int64_t h = 0; h < size[1]; h++) {
            for (int64_t i = 0; i < rows_of(mask); i++) {
                write_row(mask, rule, b, i,
                          (unsigned char *)mask->data + b * stride[0] + h * stride[1] +
                              i * mask->stride[mask->ndim - 2]);
            }
        }
    }
    return ATTN_OK;
}

static attn_status check(const attn_view *mask)
{
    if (!mask) {
        return attn_fail(ATTN_ERR_ARGUMENT, "mask: is NULL but must be given");
    }
    if (mask->dtype != ATTN_BOOL) {
        return attn_fail(ATTN_ERR_DTYPE, "mask: is %s but must be bool, one byte an element",
                         attn_dtype_name(mask->dtype));
    }
    if (mask->ndim < 2 || mask->ndim > 4) {
        return attn_fail(ATTN_ERR_SHAPE,
                         "mask: has %d dimensions but must have 2 to 4, the last two len_q, len_k",
                         mask->ndim);
    }
    return sdpa_check_output("mask", mask);
}

static attn_status check_causal(attn_causal causal)
{
    if (causal != ATTN_CAUSAL_NONE && causal != ATTN_CAUSAL_TOP_LEFT &&
        causal != ATTN_CAUSAL_BOTTOM_RIGHT) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "causal: is %d but must be ATTN_CAUSAL_NONE, _TOP_LEFT or _BOTTOM_RIGHT",
                         (int)causal);
    }
    return ATTN_OK;
}

attn_status attn_mask_causal(const attn_view *mask, attn_causal causal)
{
    return attn_mask_sliding(mask, causal, -1, -1);
}

attn_status attn_mask_sliding(const attn_view *mask, attn_causal causal, int64_t left,
                              int64_t right)
{
    attn_status status = check(mask);
    if (status == ATTN_OK) {
        status = check_causal(causal);
    }
    if (status != ATTN_OK) {
        return status;
    }
    if (left < -1 || right < -1) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "%s: is %lld but must be at least 0, or −1 for no limit",
                         left < -1 ? "left" : "right", (long long)(left < -1 ? left : right));
    }
    return fill(mask, &(mask_rule){.causal = causal, .left = left, .right = right});
}

attn_status attn_mask_padding(const attn_view *mask, const int64_t *lengths, int64_t batch)
{
    attn_status status = check(mask);
    if (status != ATTN_OK) {
        return status;
    }
    if (mask->ndim != 4 || mask->shape[0] != batch) {
        return attn_fail(
            ATTN_ERR_SHAPE,
            "mask: is %s but must be [batch=%lld, heads or 1, len_q, len_k]: padding is "
            "different for each sequence",
            sdpa_shape_text(mask).text, (long long)batch);
    }
    if (!lengths && batch > 0) {
        return attn_fail(ATTN_ERR_ARGUMENT, "lengths: is NULL but must be given");
    }
    for (int64_t b = 0; b < batch; b++) {
        if (lengths[b] < 0 || lengths[b] > columns_of(mask)) {
            return attn_fail(ATTN_ERR_ARGUMENT,
                             "lengths[%lld]: is %lld but must be in 0 … %lld, the mask's len_k",
                             (long long)b, (long long)lengths[b], (long long)columns_of(mask));
        }
    }
    return fill(mask, &(mask_rule){.left = -1, .right = -1, .lengths = lengths});
}

attn_status attn_mask_block_diagonal(const attn_view *mask, const int64_t *ids_q,
                                     const int64_t *ids_k)
{
    attn_status status = check(mask);
    if (status != ATTN_OK) {
        return status;
    }
    if (!ids_q) {
        return attn_fail(ATTN_ERR_ARGUMENT, "ids_q: is NULL but must be given");
    }
    if (!ids_k && rows_of(mask) != columns_of(mask)) {
        return attn_fail(
            ATTN_ERR_SHAPE,
            "ids_k: is NULL but len_q %lld differs from len_k %lld; give the keys' ids",
            (long long)rows_of(mask), (long long)columns_of(mask));
    }
    return fill(mask, &(mask_rule){.ids_q = ids_q, .ids_k = ids_k ? ids_k : ids_q});
}

attn_status attn_mask_prefix_lm(const attn_view *mask, int64_t prefix)
{
    attn_status status = check(mask);
    if (status != ATTN_OK) {
        return status;
    }
    if (prefix < 0 || prefix > columns_of(mask)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "prefix: is %lld but must be in 0 … %lld, the mask's len_k",
                         (long long)prefix, (long long)columns_of(mask));
    }
    return fill(mask,
                &(mask_rule){
                    .causal = ATTN_CAUSAL_BOTTOM_RIGHT, .left = -1, .right = -1, .prefix = prefix});
}
