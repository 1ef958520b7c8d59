/**
 * 01_sdpa.c: the first call. Three words look at each other; prints what comes out and who looked at whom.
 *
 *   cc 01_sdpa.c $(pkg-config --cflags --libs attn) -o 01_sdpa
 */
#include <attn/attn.h>

#include <stdio.h>

enum { LEN = 3, DIM = 4 };

static void print_matrix(const char *name, const float *values, int rows, int cols)
{
    printf("%s\n", name);
    for (int i = 0; i < rows; i++) {
        for (int j = 0; j < cols; j++) {
            printf(" %8.4f", (double)values[i * cols + j]);
        }
        printf("\n");
    }
}

int main(void)
{
    /* One row a word: what it asks (q), what it answers to (k), what it has to say (v). */
    const float q[LEN * DIM] = {1, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0};
    const float k[LEN * DIM] = {4, 0, 0, 0, 0, 4, 0, 0, 0, 0, 4, 0};
    const float v[LEN * DIM] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
    float out[LEN * DIM], weights[LEN * LEN];

    attn_context *context;
    if (attn_context_create(NULL, &context) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        return 1;
    }

    /* Views say how memory is laid out: [batch, heads, len, dim]; here one batch, one head. */
    attn_view q_view = attn_view_bhld(q, ATTN_F32, 1, 1, LEN, DIM);
    attn_view k_view = attn_view_bhld(k, ATTN_F32, 1, 1, LEN, DIM);
    attn_view v_view = attn_view_bhld(v, ATTN_F32, 1, 1, LEN, DIM);
    attn_view out_view = attn_view_bhld(out, ATTN_F32, 1, 1, LEN, DIM);
    attn_view weights_view = attn_view_bhld(weights, ATTN_F32, 1, 1, LEN, LEN);

    attn_sdpa_options options = attn_sdpa_options_init();
    options.weights =
        &weights_view; /* the only thing that costs len × len; leave it out in earnest */

    attn_status status = attn_sdpa(context, &options, &q_view, &k_view, &v_view, &out_view);
    if (status == ATTN_OK) {
        print_matrix("weights (row i: how much word i looks at each word)", weights, LEN, LEN);
        print_matrix("out (row i: what it then knows)", out, LEN, DIM);
    }

    /* The same, but nobody sees the words after it. */
    options.causal = ATTN_CAUSAL_BOTTOM_RIGHT;
    if (status == ATTN_OK) {
        status = attn_sdpa(context, &options, &q_view, &k_view, &v_view, &out_view);
    }
    if (status == ATTN_OK) {
        print_matrix("causal weights", weights, LEN, LEN);
    } else {
        fprintf(stderr, "%s\n", attn_last_error());
    }
    attn_context_destroy(context);
    return status == ATTN_OK ? 0 : 1;
}
