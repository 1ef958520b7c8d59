/* A stranger's first program: one attention call through the installed headers and library. */
#include <attn/attn.h>

#include <stdio.h>

int main(void)
{
    /* Two keys alike: the answer is the mean of their values. */
    const float q[] = {1, 0}, k[] = {1, 1, 1, 1}, v[] = {2, 4, 6, 8};
    float o[2];
    const attn_view qv = attn_view_bhld(q, ATTN_F32, 1, 1, 1, 2);
    const attn_view kv = attn_view_bhld(k, ATTN_F32, 1, 1, 2, 2);
    const attn_view vv = attn_view_bhld(v, ATTN_F32, 1, 1, 2, 2);
    const attn_view ov = attn_view_bhld(o, ATTN_F32, 1, 1, 1, 2);

    attn_context *context;
    if (attn_context_create(NULL, &context) != ATTN_OK ||
        attn_sdpa(context, NULL, &qv, &kv, &vv, &ov) != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        return 1;
    }
    attn_context_destroy(context);
    printf("attn %s: %g %g\n", attn_version(), (double)o[0], (double)o[1]);
    return o[0] == 4 && o[1] == 6 ? 0 : 1;
}
