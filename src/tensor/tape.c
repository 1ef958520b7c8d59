/**
 * tape.c: the tape as a list: operations in the order they ran, and everything they made.
 */
#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

attn_status attn_tape_create(attn_context *context, attn_tape **tape)
{
    if (!tape) {
        return attn_fail(ATTN_ERR_ARGUMENT, "tape: must not be NULL; it is what is returned");
    }
    *tape = NULL;
    if (!context) {
        return attn_fail(ATTN_ERR_ARGUMENT, "context: must not be NULL; attn_context_create "
                                            "makes one");
    }
    attn_tape *made = calloc(1, sizeof *made);
    attn_buffers *pool = made ? attn_buffers_create() : NULL;
    if (!pool) {
        free(made);
        return attn_fail(ATTN_ERR_NO_MEMORY, "tape: no memory for a tape's own %zu bytes",
                         sizeof *made);
    }
    made->context = context;
    made->pool = pool;
    made->recording = true;
    *tape = made;
    return ATTN_OK;
}

attn_node *attn_tape_node(const attn_tape *tape, int64_t index)
{
    return &tape->chunks[index / ATTN_NODES_PER_CHUNK][index % ATTN_NODES_PER_CHUNK];
}

static void drop_node(attn_node *node)
{
    for (int i = 0; i < node->count; i++) {
        attn_tensor_release(node->in[i]);
    }
    attn_tensor_release(node->out->grad); /* there after a failed backward only */
    node->out->grad = NULL;
    node->out->tape = NULL;
    node->out->node = -1;
    node->out->requires_grad = false;
}

void attn_tape_cut(attn_tape *tape, int64_t length, int64_t results)
{
    while (tape->length > length) {
        drop_node(attn_tape_node(tape, --tape->length));
    }
    while (tape->result_count > results) {
        attn_tensor_release(tape->results[--tape->result_count]);
    }
}

void attn_tape_clear(attn_tape *tape)
{
    if (!tape) {
        return;
    }
    attn_tape_cut(tape, 0, 0);
    tape->status = ATTN_OK;
    attn_buffers_step(tape->pool);
}

void attn_tape_destroy(attn_tape *tape)
{
    if (!tape) {
        return;
    }
    attn_tape_cut(tape, 0, 0);
    attn_buffers_close(tape->pool);
    attn_buffers_release(tape->pool);
    for (int64_t i = 0; i < tape->chunk_count; i++) {
        free(tape->chunks[i]);
    }
    free(tape->chunks);
    free(tape->results);
    free(tape);
}

attn_status attn_tape_status(const attn_tape *tape)
{
    return tape ? tape->status : ATTN_ERR_ARGUMENT;
}

bool attn_tape_set_recording(attn_tape *tape, bool recording)
{
    bool before = tape && tape->recording;
    if (tape) {
        tape->recording = recording;
    }
    return before;
}

attn_context *attn_tape_context(const attn_tape *tape)
{
    return tape ? tape->context : NULL;
}

size_t attn_tape_bytes(const attn_tape *tape)
{
    return tape ? attn_buffers_bytes(tape->pool) : 0;
}

int64_t attn_tape_length(const attn_tape *tape)
{
    return tape ? tape->length : 0;
}

attn_tensor *attn_tape_own(attn_tape *tape, attn_tensor *t)
{
    if (tape->result_count == tape->result_room) {
        int64_t room = tape->result_room ? 2 * tape->result_room : 256;
        attn_tensor **more = realloc(tape->results, sizeof *more * (size_t)room);
        if (!more) {
            attn_tensor_release(t);
            return attn_op_fail(tape, ATTN_ERR_NO_MEMORY,
                                "tape: no memory for a list of %lld results", (long long)room);
        }
        tape->results = more;
        tape->result_room = room;
    }
    tape->results[tape->result_count++] = t;
    return t;
}

/* The next node, zeroed, not yet counted. NULL: no memory. */
static attn_node *next_node(attn_tape *tape)
{
    if (tape->length == tape->chunk_count * ATTN_NODES_PER_CHUNK) {
        size_t room = (size_t)tape->chunk_count + 1;
        attn_node **more = realloc(tape->chunks, sizeof *more * room);
        if (!more) {
            return NULL;
        }
        tape->chunks = more;
        tape->chunks[tape->chunk_count] = malloc(sizeof **more * ATTN_NODES_PER_CHUNK);
        if (!tape->chunks[tape->chunk_count]) {
            return NULL;
        }
        tape->chunk_count++;
    }
    attn_node *node = attn_tape_node(tape, tape->length);
    memset(node, 0, sizeof *node);
    return node;
}

uint64_t attn_tape_meet(uint64_t met, uint64_t version)
{
    met = (met ^ version) * 0x9e3779b97f4a7c15u;
    return met ^ (met >> 29);
}

attn_tensor *attn_op_record(attn_tape *tape, const attn_op *op, attn_tensor *out, int count,
                            attn_tensor *const *inputs, int saved, const attn_params *params)
{
    bool wanted = false;
    for (int i = 0; i < count; i++) {
        wanted = wanted || (inputs[i] && inputs[i]->requires_grad);
    }
    return attn_op_record_as(tape, op, out, count, inputs, saved, params, wanted);
}

attn_tensor *attn_op_record_as(attn_tape *tape, const attn_op *op, attn_tensor *out, int count,
                               attn_tensor *const *inputs, int saved, const attn_params *params,
                               bool wanted)
{
    for (int i = 0; i < count; i++) {
        if (inputs[i] && inputs[i]->requires_grad && !inputs[i]->tape) {
            tape->met = attn_tape_meet(tape->met, inputs[i]->storage->version + 1);
        }
    }
    if (!wanted || !tape->recording) {
        tape->met_grad = tape->met_grad || wanted;
        return out;
    }
    attn_node *node = next_node(tape);
    if (!node) {
        return attn_op_fail(tape, ATTN_ERR_NO_MEMORY, "%s: no memory to record it", op->name);
    }
    node->in = node->in_place;
    node->versions = node->versions_in_place;
    if (count > ATTN_NODE_INPUTS) {
        size_t each = sizeof *node->in + sizeof *node->versions;
        node->versions = attn_op_memory(tape, each * ((size_t)count + 1));
        if (!node->versions) {
            return NULL;
        }
        node->in = (attn_tensor **)(node->versions + count + 1);
    }
    for (int i = 0; i < count; i++) {
        node->in[i] = attn_tensor_retain(inputs[i]);
        node->versions[i] = inputs[i] ? inputs[i]->storage->version : 0;
    }
    node->versions[count] = out->storage->version;
    node->op = op;
    node->out = out;
    node->count = count;
    node->saved = saved;
    if (params) {
        node->params = *params;
    }
    out->requires_grad = true;
    out->tape = tape;
    out->node = tape->length++;
    return out;
}
