/**
 * nn/init.h: how parameters come to be, and how one seed becomes many.
 */
#ifndef ATTN_NN_INIT_H
#define ATTN_NN_INIT_H

#include <attn/nn.h>

/* A number as unlike `seed` as can be, and another one for every index (the finaliser of splitmix64, Steele et al. 2014). */
uint64_t nn_mix(uint64_t seed, uint64_t index);

/* options, or the defaults, checked and with zeros replaced, and the seed of child `index`. */
attn_status nn_options(const attn_nn_options *options, attn_nn_options *full);
attn_nn_options nn_child(const attn_nn_options *full, uint64_t index);

/* A matrix as `full` says: fan_in and fan_out for Xavier, values times gain; added to the module under `name`. */
attn_status nn_matrix(attn_module *module, const char *name, const attn_nn_options *full,
                      const int64_t shape[2], double gain, attn_tensor **tensor);

/* The same in a tensor that is there, whose reference it takes; NULL: in one of its own. */
attn_status nn_matrix_in(attn_tensor *made, attn_module *module, const char *name,
                         const attn_nn_options *full, const int64_t shape[2], double gain,
                         attn_tensor **tensor);

/* A vector of one value; made: as above. */
attn_status nn_vector_in(attn_tensor *made, attn_module *module, const char *name,
                         const attn_nn_options *full, int64_t size, double value,
                         attn_tensor **tensor);

attn_status nn_vector(attn_module *module, const char *name, const attn_nn_options *full,
                      int64_t size, double value, attn_tensor **tensor);

#endif
