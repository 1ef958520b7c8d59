/**
 * 04_masks.c: who may look at whom. Draws each mask, and shows that an option of attn_sdpa (no memory, and what is hidden
 * is not computed) gives the bits that the mask gives.
 *
 *   cc 04_masks.c $(pkg-config --cflags --libs attn) -lm -o 04_masks
 */
#include <attn/attn.h>

#include <stdio.h>
#include <string.h>

enum { LEN = 8, DIM = 16 };

static float q[LEN * DIM], k[LEN * DIM], v[LEN * DIM];

static void draw(const char *title, const unsigned char *mask)
{
    printf("%s\n", title);
    for (int i = 0; i < LEN; i++) {
        printf("  ");
        for (int j = 0; j < LEN; j++) {
            printf("%s ", mask[i * LEN + j] ? "■" : "·");
        }
        printf("\n");
    }
}

static attn_status attend(attn_context *context, const attn_sdpa_options *options, float *out)
{
    attn_view q_view = attn_view_bhld(q, ATTN_F32, 1, 1, LEN, DIM);
    attn_view k_view = attn_view_bhld(k, ATTN_F32, 1, 1, LEN, DIM);
    attn_view v_view = attn_view_bhld(v, ATTN_F32, 1, 1, LEN, DIM);
    attn_view out_view = attn_view_bhld(out, ATTN_F32, 1, 1, LEN, DIM);
    return attn_sdpa(context, options, &q_view, &k_view, &v_view, &out_view);
}

/* Draws `mask`, attends with it and with `options`; says whether the two agree. */
static int compare(attn_context *context, const char *title, const unsigned char *mask,
                   attn_sdpa_options options)
{
    draw(title, mask);
    attn_view view = attn_view_dense(mask, ATTN_BOOL, 2, (int64_t[]){LEN, LEN});
    attn_sdpa_options with_mask = attn_sdpa_options_init();
    with_mask.mask = &view;
    float by_mask[LEN * DIM], by_option[LEN * DIM];
    if (attend(context, &with_mask, by_mask) != ATTN_OK ||
        attend(context, &options, by_option) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        return 1;
    }
    float largest = 0;
    for (int i = 0; i < LEN * DIM; i++) {
        float difference = by_mask[i] - by_option[i];
        difference = difference < 0 ? -difference : difference;
        largest = difference > largest ? difference : largest;
    }
    printf("  mask against option: largest difference %.2g\n\n", (double)largest);
    return largest < 1e-6f ? 0 : 1;
}

static int run(attn_context *context)
{
    unsigned char mask[LEN * LEN] = {0};
    attn_view view = attn_view_dense(mask, ATTN_BOOL, 2, (int64_t[]){LEN, LEN});
    int failures = 0;

    attn_sdpa_options causal = attn_sdpa_options_init();
    causal.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    failures += attn_mask_causal(&view, ATTN_CAUSAL_BOTTOM_RIGHT) != ATTN_OK;
    failures += compare(context, "causal: nobody sees what comes later", mask, causal);

    attn_sdpa_options window = causal;
    window.has_window = true;
    window.window_left = 2;
    window.window_right = 0;
    failures += attn_mask_sliding(&view, ATTN_CAUSAL_BOTTOM_RIGHT, 2, 0) != ATTN_OK;
    failures += compare(context, "sliding window: self and the two before", mask, window);

    const int64_t length = 5;
    attn_view four = attn_view_dense(mask, ATTN_BOOL, 4, (int64_t[]){1, 1, LEN, LEN});
    attn_sdpa_options padding = attn_sdpa_options_init();
    padding.lengths_k = &length;
    failures += attn_mask_padding(&four, &length, 1) != ATTN_OK;
    failures += compare(context, "padding: five words, three empty places", mask, padding);

    const int64_t documents[LEN] = {0, 0, 0, 1, 1, 1, 1, 2};
    failures += attn_mask_block_diagonal(&view, documents, NULL) != ATTN_OK;
    draw("block-diagonal: three documents in one row", mask);
    failures += attn_mask_prefix_lm(&view, 3) != ATTN_OK;
    draw("prefix-LM: a question seen by all, an answer written in order", mask);
    return failures;
}

int main(void)
{
    for (int i = 0; i < LEN * DIM; i++) {
        q[i] = (float)(i * 7 % 13) / 6 - 1;
        k[i] = (float)(i * 5 % 11) / 5 - 1;
        v[i] = (float)(i * 3 % 17) / 8 - 1;
    }
    attn_context *context;
    if (attn_context_create(NULL, &context) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        return 1;
    }
    int failures = run(context);
    attn_context_destroy(context);
    return failures ? 1 : 0;
}
