/**
 * tensor/tensor.h: inside the room: storage and its pool, tensors, nodes of the tape, gradients, and what every
 * operation begins and ends with.
 *
 * The shape of an operation:
 *   if (!attn_op_begin(tape, &name_op, count, inputs)) return NULL;
 *   … check shapes …                                     return attn_op_fail(tape, SHAPE, "name: …") on failure
 *   attn_tensor *out = attn_op_result(tape, …);          the tape owns it from here on
 *   … compute …
 *   return attn_op_record(tape, &name_op, out, count, inputs, saved, &params);
 * and of its way back, called with the gradient dy of its result:
 *   attn_tensor *dx = attn_grad_open(tape, x, &accumulate); … dx (+)= f(dy) …
 */
#ifndef ATTN_TENSOR_TENSOR_H
#define ATTN_TENSOR_TENSOR_H

#include <attn/tensor.h>

/* ---- storage and pool (storage.c) ---- */

typedef struct attn_buffers attn_buffers;

/** Memory that views share. One owner thread: counts are plain. */
typedef struct attn_storage {
    int64_t references;
    void *data;
    size_t bytes; /* of data, as taken */
    uint64_t version;
    attn_buffers *pool; /* where data goes back to; NULL: the C library */
} attn_storage;

/** A free list of buffers by size class, kept by its tape and by the storages that came from it. NULL: no memory. */
attn_buffers *attn_buffers_create(void);
void attn_buffers_release(attn_buffers *pool);
/** The tape is gone: what comes back is freed at once. */
void attn_buffers_close(attn_buffers *pool);
/** End of a step: frees what has lain idle for several of them. */
void attn_buffers_step(attn_buffers *pool);
size_t attn_buffers_bytes(const attn_buffers *pool);

/** One reference; not zeroed. NULL after attn_fail(NO_MEMORY). */
attn_storage *attn_storage_take(attn_buffers *pool, size_t bytes);
void attn_storage_release(attn_storage *storage);

/* ---- tensors (tensor.c) ---- */

struct attn_tensor {
    int64_t references;
    attn_storage *storage;
    attn_view view;
    bool requires_grad;
    bool taken;        /* the operation it was given to wrote over it: no input of another */
    bool grad_valid;   /* of a leaf: grad holds numbers; else only memory for the next ones */
    attn_tensor *grad; /* of a result: only during backward */
    attn_tape *tape;   /* of a recorded result, until the tape is cleared; NULL: leaf or constant */
    int64_t node;      /* its place on that tape */
};

/** Not zeroed, dense in the order of `like`'s strides (NULL: row-major), one reference. NULL after attn_fail. */
attn_tensor *attn_tensor_make(attn_buffers *pool, attn_dtype dtype, int ndim, const int64_t *shape,
                              const attn_view *like);
/** Whether there can be such a tensor: SHAPE for negative sizes and products that overflow. */
attn_status attn_shape_check(attn_dtype dtype, int ndim, const int64_t *shape);
/** Another handle on t's storage, with this view. NULL after attn_fail. */
attn_tensor *attn_tensor_alias(attn_tensor *t, const attn_view *view);
/** Whether nothing but this handle sees the memory. */
bool attn_tensor_exclusive(const attn_tensor *t);

/* ---- views (shape.c) ---- */

int64_t attn_view_count(const attn_view *v);
/** Whether row-major order is memory order without gaps. */
bool attn_view_is_dense(const attn_view *v);
/** Whether memory has no gaps in some order of the dimensions. */
bool attn_view_is_packed(const attn_view *v);
bool attn_view_same_shape(const attn_view *a, const attn_view *b);
bool attn_view_same_layout(const attn_view *a, const attn_view *b);
attn_view attn_view_swapped(attn_view v, int dim0, int dim1);
/** The last two dimensions exchanged. */
attn_view attn_view_transposed(const attn_view *v);
attn_view attn_view_cut(attn_view v, int dim, int64_t begin, int64_t end);
/** Whether b goes on where a ends, as rows of one matrix (or as parts of one vector) do. */
bool attn_view_follows(const attn_view *a, const attn_view *b);
/** v under another shape of as many elements; false where its strides do not allow it. */
bool attn_view_reshaped(const attn_view *v, int ndim, const int64_t *shape, attn_view *out);
/** v broadcast to a shape of at least its dimensions that it is known to fit: strides 0 where it repeats. */
attn_view attn_view_broadcast(const attn_view *v, int ndim, const int64_t *shape);
/** [rows, last dim] with unit last stride over the same memory; false where strides do not allow it. */
bool attn_view_rows(const attn_view *v, attn_view *rows);
/** The NumPy-style meeting of two shapes; false where they do not. */
bool attn_shapes_meet(const attn_view *a, const attn_view *b, int *ndim, int64_t *shape);

enum { ATTN_SHAPE_TEXT = 96 };
/** "[4, 8]" into text[ATTN_SHAPE_TEXT]; returns text. */
const char *attn_shape_text(int ndim, const int64_t *shape, char *text);

/* ---- the tape (tape.c, backward.c) ---- */

typedef struct attn_node attn_node;

typedef struct attn_op {
    const char *name;
    /** Adds to the gradients of the node's inputs that require one. attn_fail's status on failure. */
    attn_status (*backward)(attn_tape *tape, const attn_node *node, attn_tensor *dy);
} attn_op;

/** What an operation tells its way back. Tensors and data are the tape's. */
typedef struct attn_params {
    double number[2];
    int64_t integer[6];
    attn_tensor *tensor[2];
    attn_view mask;
    void *data;
    attn_tensor_function *function;
} attn_params;

enum { ATTN_NODE_INPUTS = 6, ATTN_SAVED_OUT = 1 << 30, ATTN_SAVED_INPUTS = ATTN_SAVED_OUT - 1 };

struct attn_node {
    const attn_op *op;
    attn_tensor *out;
    int count;
    attn_tensor **in;   /* retained; NULL entries are absent optional inputs */
    uint64_t *versions; /* [count + 1], the last one out's, when recorded */
    int saved;          /* bit i: backward reads in[i]; ATTN_SAVED_OUT */
    attn_params params;
    attn_tensor *in_place[ATTN_NODE_INPUTS];
    uint64_t versions_in_place[ATTN_NODE_INPUTS + 1];
};

enum { ATTN_NODES_PER_CHUNK = 64 };

struct attn_tape {
    attn_context *context;
    attn_buffers *pool;
    attn_status status;
    bool recording;
    bool met_grad; /* an operation that would have been recorded ran unrecorded */
    uint64_t
        met; /* of all parameters that operations read: a hash of their versions, for checkpoints */
    attn_node **chunks;
    int64_t chunk_count, length;
    attn_tensor **results; /* one reference each */
    int64_t result_count, result_room;
};

attn_node *attn_tape_node(const attn_tape *tape, int64_t index);
/** Drops nodes and results from these counts on. */
void attn_tape_cut(attn_tape *tape, int64_t length, int64_t results);
/** Gives a tensor's one reference to the tape; releases it and returns NULL on failure. */
attn_tensor *attn_tape_own(attn_tape *tape, attn_tensor *t);
/** One more version into the hash `met` of a tape. */
uint64_t attn_tape_meet(uint64_t met, uint64_t version);
/** Runs nodes end−1 … begin whose results have a gradient. */
attn_status attn_tape_walk(attn_tape *tape, int64_t begin, int64_t end);

/** NULL inputs (count of them from `inputs` must be there), foreign tapes, differing dtypes. False: return NULL. */
bool attn_op_begin(attn_tape *tape, const attn_op *op, int count, attn_tensor *const *inputs);
#define attn_op_fail(tape, ...) attn_tape_fail((tape), attn_fail(__VA_ARGS__))
/** A new result, not zeroed; dense in the order of `like` (NULL: row-major). NULL: failed. */
attn_tensor *attn_op_result(attn_tape *tape, attn_dtype dtype, int ndim, const int64_t *shape,
                            const attn_view *like);
/** A result that shows `view` of a's memory. */
attn_tensor *attn_op_view(attn_tape *tape, attn_tensor *a, const attn_view *view);
/** Memory that lives until the tape is cleared. NULL: failed. */
void *attn_op_memory(attn_tape *tape, size_t bytes);
/** Last step of every operation. Inputs may contain NULLs. params may be NULL. Returns out, or NULL after a failure. */
attn_tensor *attn_op_record(attn_tape *tape, const attn_op *op, attn_tensor *out, int count,
                            attn_tensor *const *inputs, int saved, const attn_params *params);
/** The same where something else than inputs tells whether a gradient is wanted. */
attn_tensor *attn_op_record_as(attn_tape *tape, const attn_op *op, attn_tensor *out, int count,
                               attn_tensor *const *inputs, int saved, const attn_params *params,
                               bool wanted);
/** A copy of options, of the arrays behind them too, that lives until the tape is cleared. given: NULL for defaults. NULL: failed. */
attn_sdpa_options *attn_op_keep_options(attn_tape *tape, const attn_sdpa_options *given,
                                        int64_t batch);
/** A copy of positions[batch·len], or 0 … len−1 for each of the batch, that lives until the tape is cleared. NULL: failed. */
int64_t *attn_op_positions(attn_tape *tape, const int64_t *positions, int64_t batch, int64_t len);
/** A dimension counted from either end → 0 … ndim−1; −1 after a failure. */
int attn_op_dim(attn_tape *tape, const attn_op *op, const attn_tensor *a, int dim);
/** True, or the tape's failure. */
bool attn_op_ok(attn_tape *tape, attn_status status);

/* ---- gradients (grad.c) ---- */

/** t's gradient to be written: (+)= as *accumulate tells; dense in t's order of dimensions. Borrowed. NULL after attn_fail. */
attn_tensor *attn_grad_open(attn_tape *tape, attn_tensor *t, bool *accumulate);
/** The same for f(dy) element by element: may be dy itself, to be changed in place. dy has t's shape. */
attn_tensor *attn_grad_open_over(attn_tape *tape, attn_tensor *t, attn_tensor *dy,
                                 bool *accumulate);
/**
 * Gradients of leaves[count] as one matrix of all their rows, (+)= as *accumulate tells; *view has no data where they cannot be one (then open
 * each). NO_MEMORY.
 */
attn_status attn_grad_open_joined(int count, attn_tensor *const *leaves, bool *accumulate,
                                  attn_view *view);
/** Adds g, of t's shape, without copying where t has none yet. */
attn_status attn_grad_give(attn_tape *tape, attn_tensor *t, attn_tensor *g);
/** Adds g summed over the dimensions in which t was broadcast. */
attn_status attn_grad_give_reduced(attn_tape *tape, attn_tensor *t, attn_tensor *g);
/** A temporary of the tape's pool, to be released. NULL after attn_fail. */
attn_tensor *attn_grad_scratch(attn_tape *tape, attn_dtype dtype, int ndim, const int64_t *shape,
                               const attn_view *like);
/** t itself (one more reference) or a dense row-major copy. NULL after attn_fail. */
attn_tensor *attn_tensor_dense(attn_tape *tape, attn_tensor *t);
/** t (one more reference) or a dense copy, and its [rows, dim] with unit last stride. NULL after attn_fail. */
attn_tensor *attn_tensor_rows(attn_tape *tape, attn_tensor *t, attn_view *rows);

/** Where rows of a gradient go: the gradient itself where its strides allow it, else a scratch that is added to it in the end. */
typedef struct attn_grad_target {
    attn_tensor *owner, *scratch;
    bool accumulate;
    attn_view rows;
} attn_grad_target;

/** dy: may be overwritten with the result, element by element or row by row; NULL: may not. */
attn_status attn_grad_rows(attn_tape *tape, attn_tensor *t, attn_tensor *dy,
                           attn_grad_target *target);
/** The same, `rows` being all of it in its own shape, dense row-major. */
attn_status attn_grad_dense(attn_tape *tape, attn_tensor *t, attn_tensor *dy,
                            attn_grad_target *target);
/** Rows to write t's share to, never to add to: its gradient if that is new, else a scratch. */
attn_status attn_grad_fresh(attn_tape *tape, attn_tensor *t, attn_grad_target *target);
/** Ends what those began; passes a failure on. */
attn_status attn_grad_done(attn_tape *tape, attn_grad_target *target, attn_status status);

/* ---- products (matmul.c) ---- */

/** c (+)= a·b where c's last stride need not be 1. */
attn_status attn_tensor_product(attn_tape *tape, const attn_view *a, const attn_view *b,
                                bool accumulate, const attn_view *c);

/* ---- loops over strided elements (loop.c) ---- */

enum { ATTN_LOOP_OPERANDS = 4 };

/* For loops written once for both types: number_##S. */
typedef float number_f32;
typedef double number_f64;

/** p[i] moves by s[i] elements; p[0] is what is written. */
typedef void attn_loop_body(const void *user, int64_t n, void *const *p, const int64_t *s);

/** body over all elements of v[0] and of v[1 …] broadcast to its shape, in pieces on the context's threads. */
attn_status attn_loop(attn_context *context, int count, const attn_view *v, attn_loop_body *body,
                      const void *user);
/** dst (+)= factor·src, src broadcast to dst. */
attn_status attn_loop_copy(attn_context *context, const attn_view *src, const attn_view *dst,
                           double factor, bool accumulate);
attn_status attn_loop_fill(attn_context *context, const attn_view *dst, double value);
/** dst (+)= factor·Σ src over the dimensions in which dst (broadcast to src's shape) repeats; summed in f64, in a fixed order. */
attn_status attn_loop_sum(attn_tape *tape, const attn_view *src, const attn_view *dst,
                          double factor, bool accumulate);

#endif
