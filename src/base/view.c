/**
 * view.c: constructors of views. They only describe; whoever uses a view checks it.
 */
#include <attn/view.h>

attn_view attn_view_dense(const void *data, attn_dtype dtype, int ndim, const int64_t *shape)
{
    attn_view view = {0};
    if (ndim < 1 || ndim > 4 || !shape) {
        return view;
    }
    view.data = (void *)data;
    view.dtype = dtype;
    view.ndim = ndim;
    uint64_t stride =
        1; /* unsigned: absurd sizes wrap here and are refused where the view is used */
    for (int i = ndim - 1; i >= 0; i--) {
        view.shape[i] = shape[i];
        view.stride[i] = (int64_t)stride;
        stride *= (uint64_t)shape[i];
    }
    return view;
}

attn_view attn_view_bhld(const void *data, attn_dtype dtype, int64_t batch, int64_t heads,
                         int64_t len, int64_t dim)
{
    return attn_view_dense(data, dtype, 4, (int64_t[]){batch, heads, len, dim});
}

attn_view attn_view_blhd(const void *data, attn_dtype dtype, int64_t batch, int64_t len,
                         int64_t heads, int64_t dim)
{
    attn_view view = attn_view_dense(data, dtype, 4, (int64_t[]){batch, len, heads, dim});
    int64_t len_stride = view.stride[1];
    view.shape[1] = heads;
    view.shape[2] = len;
    view.stride[1] = view.stride[2];
    view.stride[2] = len_stride;
    return view;
}

attn_view attn_view_matrix(const void *data, attn_dtype dtype, int64_t rows, int64_t cols,
                           int64_t stride)
{
    attn_view view = attn_view_dense(data, dtype, 2, (int64_t[]){rows, cols});
    view.stride[0] = stride;
    return view;
}

attn_kv_view attn_kv_view_init(attn_view k, attn_view v)
{
    return (attn_kv_view){.struct_size = sizeof(attn_kv_view), .k = k, .v = v};
}
