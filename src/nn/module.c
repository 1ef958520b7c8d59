/**
 * module.c: the tree. Every module lists the parameters of all that is below it, so that reading names and
 * tensors by index needs no walk and cannot fail.
 */
#include "nn/module.h"

#include <stdlib.h>
#include <string.h>

const char *nn_kind_name(nn_kind kind)
{
    static const char *const names[] = {
        "a plain module", "a linear layer",      "an embedding",
        "a norm",         "a position encoding", "an attention layer",
        "an MLP",         "a transformer block", "a GPT",
        "a BERT encoder"};
    return names[kind];
}

static attn_status no_memory(void)
{
    return attn_fail(ATTN_ERR_NO_MEMORY, "not enough memory for a module");
}

attn_module *nn_module_new(nn_kind kind)
{
    attn_module *module = calloc(1, sizeof *module);
    if (!module) {
        no_memory();
        return NULL;
    }
    module->kind = kind;
    return module;
}

attn_status attn_module_create(attn_module **module)
{
    if (!module) {
        return attn_fail(ATTN_ERR_ARGUMENT, "module: NULL; give the address of a pointer");
    }
    *module = nn_module_new(NN_TREE);
    return *module ? ATTN_OK : ATTN_ERR_NO_MEMORY;
}

void attn_module_destroy(attn_module *module)
{
    if (!module) {
        return;
    }
    for (int i = 0; i < module->child_count; i++) {
        attn_module_destroy(module->children[i]);
    }
    for (int i = 0; i < module->entry_count; i++) {
        if (module->entries[i].owner == module) {
            attn_tensor_release(module->entries[i].tensor);
        }
        free(module->entries[i].name);
    }
    switch (module->kind) {
    case NN_POSITION: attn_tensor_release(module->as.position.own_table); break;
    case NN_ATTENTION: attn_tensor_release(module->as.attention.slopes); break;
    case NN_GPT: free(module->as.gpt.blocks); break;
    case NN_BERT: free(module->as.bert.blocks); break;
    default: break;
    }
    free(module->entries);
    free(module->children);
    free(module->name);
    free(module);
}

/* ---- names and entries ------------------------------------------------------------------------- */

static char *copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    if (copy) {
        memcpy(copy, text, size);
    }
    return copy;
}

/* `name` of something in `module` as `ancestor` calls it. */
static char *path_from(const attn_module *ancestor, const attn_module *module, const char *name)
{
    size_t size = strlen(name) + 1;
    for (const attn_module *m = module; m != ancestor; m = m->parent) {
        size += strlen(m->name) + 1;
    }
    char *path = malloc(size);
    if (!path) {
        return NULL;
    }
    char *at = path + size - strlen(name) - 1;
    strcpy(at, name);
    for (const attn_module *m = module; m != ancestor; m = m->parent) {
        size_t length = strlen(m->name);
        if (length > 0) {
            *--at = '.';
            at -= length;
            memcpy(at, m->name, length);
        }
    }
    memmove(path, at, strlen(at) + 1);
    return path;
}

static attn_status grow(void **array, int count, int *capacity, size_t size)
{
    if (count < *capacity) {
        return ATTN_OK;
    }
    int wanted = *capacity ? 2 * *capacity : 4;
    void *more = realloc(*array, (size_t)wanted * size);
    if (!more) {
        return no_memory();
    }
    *array = more;
    *capacity = wanted;
    return ATTN_OK;
}

static bool lists(const attn_module *module, const attn_tensor *tensor)
{
    for (int i = 0; i < module->entry_count; i++) {
        if (module->entries[i].tensor == tensor) {
            return true;
        }
    }
    return false;
}

/* Lists a tensor of `owner` that `below` calls `name`. */
static attn_status append(attn_module *module, const attn_module *below, const char *name,
                          attn_tensor *tensor, const attn_module *owner)
{
    if (lists(module, tensor)) {
        return ATTN_OK;
    }
    void *entries = module->entries;
    attn_status status =
        grow(&entries, module->entry_count, &module->entry_capacity, sizeof *module->entries);
    module->entries = entries;
    if (status != ATTN_OK) {
        return status;
    }
    char *path = path_from(module, below, name);
    if (!path) {
        return no_memory();
    }
    module->entries[module->entry_count++] = (nn_entry){path, tensor, owner};
    return ATTN_OK;
}

static void drop(attn_module *module, const attn_module *owner, const attn_tensor *tensor)
{
    int kept = 0;
    for (int i = 0; i < module->entry_count; i++) {
        nn_entry entry = module->entries[i];
        if (entry.owner == owner && (!tensor || entry.tensor == tensor)) {
            free(entry.name);
        } else {
            module->entries[kept++] = entry;
        }
    }
    module->entry_count = kept;
}

void nn_remove_parameter(attn_module *module, attn_tensor *tensor)
{
    for (attn_module *m = module; m; m = m->parent) {
        drop(m, module, tensor);
    }
    attn_tensor_release(tensor);
}

attn_tensor *attn_module_find_parameter(const attn_module *module, const char *name)
{
    for (int i = 0; module && name && i < module->entry_count; i++) {
        if (strcmp(module->entries[i].name, name) == 0) {
            return module->entries[i].tensor;
        }
    }
    return NULL;
}

static attn_module *child_named(const attn_module *module, const char *name)
{
    for (int i = 0; i < module->child_count; i++) {
        if (*name && strcmp(module->children[i]->name, name) == 0) {
            return module->children[i];
        }
    }
    return NULL;
}

static attn_status check_name(const attn_module *module, const char *name)
{
    if (!module || !name) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s",
                         module ? "name: must not be NULL or empty" : "module: must not be NULL");
    }
    if (child_named(module, name) || attn_module_find_parameter(module, name)) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "name: the module has a \"%s\" already; every name is given once", name);
    }
    return ATTN_OK;
}

attn_status attn_module_add_parameter(attn_module *module, const char *name, attn_tensor *tensor)
{
    attn_status status = check_name(module, name);
    if (status != ATTN_OK) {
        return status;
    }
    if (!tensor || !*name) {
        return attn_fail(ATTN_ERR_ARGUMENT, "%s: must not be %s", tensor ? "name" : "tensor",
                         tensor ? "empty" : "NULL");
    }
    if (lists(module, tensor)) {
        return attn_fail(ATTN_ERR_ARGUMENT, "tensor: is a parameter of this module already; use "
                                            "it where it is needed, it is stored once");
    }
    for (attn_module *m = module; m; m = m->parent) {
        status = append(m, module, name, tensor, module);
        if (status != ATTN_OK) {
            for (m = module; m; m = m->parent) {
                drop(m, module, tensor);
            }
            return status;
        }
    }
    attn_tensor_retain(tensor);
    attn_tensor_require_grad(tensor, true);
    return ATTN_OK;
}

/* ---- children ---------------------------------------------------------------------------------- */

/* Lists the child's parameters in the parent and all above; takes everything back when one fails. */
static attn_status list_child(attn_module *parent, const attn_module *child)
{
    attn_status status = ATTN_OK;
    for (attn_module *m = parent; m && status == ATTN_OK; m = m->parent) {
        for (int i = 0; i < child->entry_count && status == ATTN_OK; i++) {
            const nn_entry *entry = &child->entries[i];
            status = append(m, child, entry->name, entry->tensor, entry->owner);
        }
    }
    for (attn_module *m = parent; m && status != ATTN_OK; m = m->parent) {
        for (int i = 0; i < child->entry_count; i++) {
            drop(m, child->entries[i].owner, child->entries[i].tensor);
        }
    }
    return status;
}

static attn_status hang(attn_module *parent, const char *name, attn_module *child)
{
    void *children = parent->children;
    attn_status status =
        grow(&children, parent->child_count, &parent->child_capacity, sizeof(attn_module *));
    parent->children = children;
    if (status != ATTN_OK) {
        return status;
    }
    child->name = copy_text(name);
    if (!child->name) {
        return no_memory();
    }
    child->parent = parent;
    status = list_child(parent, child);
    if (status != ATTN_OK) {
        child->parent = NULL;
        return status;
    }
    parent->children[parent->child_count++] = child;
    attn_module_set_training(child, parent->training);
    return ATTN_OK;
}

attn_status nn_add(attn_module *parent, const char *name, attn_module *child, attn_module **slot)
{
    *slot = NULL;
    if (!child) { /* whatever made it NULL has said why */
        return ATTN_ERR_ARGUMENT;
    }
    /* Neither of these two is ours to destroy: it is part of a tree that is there. */
    for (const attn_module *m = parent; m; m = m->parent) {
        if (m == child) {
            return attn_fail(ATTN_ERR_ARGUMENT, "child: a module cannot be below itself");
        }
    }
    if (child->parent) {
        return attn_fail(ATTN_ERR_ARGUMENT,
                         "child: has a parent already; a module hangs in one place");
    }
    attn_status status = check_name(parent, name);
    if (status == ATTN_OK) {
        status = hang(parent, name, child);
    }
    if (status != ATTN_OK) {
        attn_module_destroy(child);
        return status;
    }
    *slot = child;
    return ATTN_OK;
}

attn_status attn_module_add(attn_module *parent, const char *name, attn_module *child)
{
    attn_module *slot;
    /* Layers of attn's own may hang without a name; from outside that is as good as NULL. */
    return nn_add(parent, name && !*name ? NULL : name, child, &slot);
}

attn_module *attn_module_find(const attn_module *module, const char *path)
{
    if (!module || !path) {
        return NULL;
    }
    if (!*path) {
        return (attn_module *)module;
    }
    for (int i = 0; i < module->child_count; i++) {
        const attn_module *child = module->children[i];
        size_t length = strlen(child->name);
        const char *rest = path + length;
        if (length == 0 || (strncmp(path, child->name, length) == 0 && (!*rest || *rest == '.'))) {
            attn_module *found = attn_module_find(child, rest + (length && *rest == '.'));
            if (found) {
                return found;
            }
        }
    }
    return NULL;
}

attn_status nn_finish(attn_status status, attn_module *module, attn_module **out)
{
    if (status != ATTN_OK) {
        attn_module_destroy(module);
        module = NULL;
    }
    *out = module;
    return status;
}
