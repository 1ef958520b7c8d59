/**
 * init.c: initial values, all from one seed: the bits depend on the options alone.
 */
#include "nn/init.h"
#include "nn/module.h"

#include <math.h>

attn_nn_options attn_nn_options_init(void)
{
    return (attn_nn_options){.struct_size = sizeof(attn_nn_options)};
}

uint64_t nn_mix(uint64_t seed, uint64_t index)
{
    uint64_t z = seed + (index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

attn_status nn_options(const attn_nn_options *options, attn_nn_options *full)
{
    *full = attn_nn_options_init();
    attn_status status =
        attn_take_struct("options", "attn_nn_options_init", options, full, sizeof *full);
    if (status != ATTN_OK) {
        return status;
    }
    if (full->dtype == ATTN_DTYPE_NONE) {
        full->dtype = ATTN_F32;
    }
    if (full->dtype != ATTN_F32 && full->dtype != ATTN_F64) {
        return attn_fail(ATTN_ERR_DTYPE, "dtype: is %s, parameters are f32 (or f64, for tests)",
                         attn_dtype_name(full->dtype));
    }
    if ((unsigned)full->init > ATTN_INIT_ZERO) {
        return attn_fail(ATTN_ERR_ARGUMENT, "init: %d is no attn_init", (int)full->init);
    }
    if (full->std == 0.0) {
        full->std = 0.02;
    }
    if (!(full->std > 0.0 && isfinite(full->std))) {
        return attn_fail(ATTN_ERR_ARGUMENT, "std: is %g, must be above 0, for example 0.02",
                         full->std);
    }
    return ATTN_OK;
}

attn_nn_options nn_child(const attn_nn_options *full, uint64_t index)
{
    attn_nn_options child = *full;
    child.seed = nn_mix(full->seed, index);
    return child;
}

/* Adds it, and leaves the only reference with the module. */
static attn_status give(attn_status status, attn_module *module, const char *name,
                        attn_tensor *made, attn_tensor **tensor)
{
    *tensor = NULL;
    if (status == ATTN_OK) {
        status = attn_module_add_parameter(module, name, made);
    }
    if (status == ATTN_OK) {
        *tensor = made;
    }
    attn_tensor_release(made);
    return status;
}

attn_status nn_matrix_in(attn_tensor *made, attn_module *module, const char *name,
                         const attn_nn_options *full, const int64_t shape[2], double gain,
                         attn_tensor **tensor)
{
    attn_status status = made ? ATTN_OK : attn_tensor_create(full->dtype, 2, shape, &made);
    if (status == ATTN_OK && full->init != ATTN_INIT_ZERO) {
        attn_view view = attn_tensor_write(made);
        double limit = gain * sqrt(6.0 / (double)(shape[0] + shape[1]));
        status =
            full->init == ATTN_INIT_NORMAL
                ? attn_fill_normal(full->init_context, full->seed, 0, 0.0, gain * full->std, &view)
                : attn_fill_uniform(full->init_context, full->seed, 0, -limit, limit, &view);
    }
    return give(status, module, name, made, tensor);
}

attn_status nn_matrix(attn_module *module, const char *name, const attn_nn_options *full,
                      const int64_t shape[2], double gain, attn_tensor **tensor)
{
    return nn_matrix_in(NULL, module, name, full, shape, gain, tensor);
}

attn_status nn_vector_in(attn_tensor *made, attn_module *module, const char *name,
                         const attn_nn_options *full, int64_t size, double value,
                         attn_tensor **tensor)
{
    attn_status status = made ? ATTN_OK : attn_tensor_create(full->dtype, 1, &size, &made);
    if (status == ATTN_OK && value != 0.0) {
        attn_view view = attn_tensor_write(made);
        status = attn_fill_uniform(NULL, 0, 0, value, value, &view);
    }
    return give(status, module, name, made, tensor);
}

attn_status nn_vector(attn_module *module, const char *name, const attn_nn_options *full,
                      int64_t size, double value, attn_tensor **tensor)
{
    return nn_vector_in(NULL, module, name, full, size, value, tensor);
}
