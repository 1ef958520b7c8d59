/**
 * attn info: the machine, and a model file before it is loaded.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct info_options {
    const char *file;
    bool measure, json;
    int64_t context, window, threads;
    attn_dtype kv;
    attn_activations activations;
} info_options;

enum {
    KEY_MEASURE = 0x3000,
    KEY_JSON,
    KEY_CONTEXT,
    KEY_WINDOW,
    KEY_THREADS,
    KEY_KV,
    KEY_ACTIVATIONS
};

static error_t parse(int key, char *text, struct argp_state *state)
{
    info_options *o = state->input;
    switch (key) {
    case KEY_MEASURE: o->measure = true; return 0;
    case KEY_JSON: o->json = true; return 0;
    case KEY_CONTEXT: return cli_int(state, "--context", text, 1, INT32_MAX, &o->context);
    case KEY_WINDOW: return cli_int(state, "--window", text, 1, INT32_MAX, &o->window);
    case KEY_THREADS: return cli_int(state, "--threads", text, 1, 1024, &o->threads);
    case KEY_KV: return cli_kv(state, text, &o->kv);
    case KEY_ACTIVATIONS: return cli_activations(state, text, &o->activations);
    case ARGP_KEY_ARG:
        if (o->file) {
            return cli_usage_error(state, "one file at a time: '%s' is one too many", text);
        }
        o->file = text;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the machine ---- */

static void cpu_name(char *text, size_t size)
{
    char line[256];
    snprintf(text, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(text, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
            break;
        }
    }
    if (file) {
        fclose(file);
    }
}

static json_int_t cache_bytes(int name)
{
    long bytes = sysconf(name);
    return bytes > 0 ? bytes : 0;
}

/* Everything as JSON; the text below is made from it. NULL with the sentence said. */
static json_t *machine(const info_options *options)
{
    attn_context *context = cli_context(options->threads);
    if (context == NULL) {
        return NULL;
    }
    char name[200];
    cpu_name(name, sizeof name);
    json_t *o = json_object();
    json_object_set_new(o, "cpu", cli_json_text(name, strlen(name)));
    json_object_set_new(o, "isa_detected", json_string(attn_isa_name(attn_isa_detected())));
    json_object_set_new(o, "isa", json_string(attn_isa_name(attn_context_isa(context))));
    json_object_set_new(o, "processors", json_integer(attn_available_processors()));
    json_object_set_new(o, "threads", json_integer(attn_context_threads(context)));
    json_object_set_new(o, "l1d_bytes", json_integer(cache_bytes(_SC_LEVEL1_DCACHE_SIZE)));
    json_object_set_new(o, "l2_bytes", json_integer(cache_bytes(_SC_LEVEL2_CACHE_SIZE)));
    json_object_set_new(o, "l3_bytes", json_integer(cache_bytes(_SC_LEVEL3_CACHE_SIZE)));
    json_object_set_new(o, "memory_bytes",
                        json_integer((json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)));
    if (options->measure) {
        attn_ceilings ceilings;
        if (attn_measure_ceilings(context, &ceilings) != ATTN_OK) {
            cli_fail_attn("--measure");
            json_decref(o);
            o = NULL;
        } else {
            json_object_set_new(o, "fma_gflops", cli_json_number(ceilings.fma_gflops));
            json_object_set_new(o, "read_gbytes_per_s",
                                cli_json_number(ceilings.read_gbytes_per_s));
        }
    }
    attn_context_destroy(context);
    return o;
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static const char *word(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static void print_machine(FILE *out, const json_t *o)
{
    char a[32], b[32], c[32], d[32];
    fprintf(out, "processor     %s\n", word(o, "cpu"));
    fprintf(out, "level         %s (the machine has %s)\n", word(o, "isa"),
            word(o, "isa_detected"));
    fprintf(out, "threads       %.0f of %.0f processors this process may use\n",
            number(o, "threads"), number(o, "processors"));
    fprintf(out, "caches        L1d %s, L2 %s, L3 %s\n",
            cli_bytes(number(o, "l1d_bytes"), a, sizeof a),
            cli_bytes(number(o, "l2_bytes"), b, sizeof b),
            cli_bytes(number(o, "l3_bytes"), c, sizeof c));
    fprintf(out, "memory        %s\n", cli_bytes(number(o, "memory_bytes"), d, sizeof d));
    if (json_object_get(o, "fma_gflops")) {
        fprintf(out, "measured      %.1f GF/s f32 multiply-adds, %.1f GB/s memory reads\n",
                number(o, "fma_gflops"), number(o, "read_gbytes_per_s"));
    }
}

/* ---- a model ---- */

/* Tensors and bytes by type, in the order they are met. */
static json_t *tensor_types(const attn_gguf *file)
{
    json_t *types = json_object();
    for (int64_t i = 0; i < attn_gguf_tensor_count(file); i++) {
        const attn_gguf_tensor *tensor = attn_gguf_tensor_at(file, i);
        const char *name = attn_gguf_type_name(tensor->type);
        json_t *entry = json_object_get(types, name);
        if (entry == NULL) {
            entry = json_pack("{s:I, s:I}", "tensors", (json_int_t)0, "bytes", (json_int_t)0);
            json_object_set_new(types, name, entry);
        }
        json_object_set_new(entry, "tensors",
                            json_integer((json_int_t)number(entry, "tensors") + 1));
        json_object_set_new(
            entry, "bytes",
            json_integer((json_int_t)number(entry, "bytes") + (json_int_t)tensor->bytes));
    }
    return types;
}

static void set_config(json_t *o, const attn_model_config *c)
{
    const struct {
        const char *key;
        int64_t value;
    } sizes[] = {
        {"parameters", c->parameters}, {"layers", c->layers},     {"dim", c->dim},
        {"heads_q", c->heads_q},       {"heads_kv", c->heads_kv}, {"head_dim", c->head_dim},
        {"ffn_dim", c->ffn_dim},       {"vocab", c->vocab},       {"context", c->context},
        {"rope_dims", c->rope_dims},
    };
    json_object_set_new(o, "architecture", cli_json_text(c->architecture, strlen(c->architecture)));
    json_object_set_new(o, "name", cli_json_text(c->name, strlen(c->name)));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        json_object_set_new(o, sizes[i].key, json_integer(sizes[i].value));
    }
    json_object_set_new(o, "rope_theta", cli_json_number(c->rope_theta));
    json_object_set_new(o, "norm_eps", cli_json_number(c->norm_eps));
    json_object_set_new(o, "tied_output", json_boolean(c->tied_output));
}

/* What can be said of any GGUF file; then, where the model can run here, what it takes. */
static json_t *describe(const info_options *options, const attn_gguf *file)
{
    attn_gguf_string architecture = {"", 0}, name = {"", 0};
    attn_model_config config;
    json_t *o = json_object();
    const char *path = attn_gguf_path(file);
    attn_gguf_get_string(file, "general.architecture", &architecture);
    attn_gguf_get_string(file, "general.name", &name);
    json_object_set_new(o, "file", cli_json_text(path, strlen(path)));
    json_object_set_new(o, "file_bytes", json_integer((json_int_t)attn_gguf_file_bytes(file)));
    json_object_set_new(o, "architecture", cli_json_text(architecture.data, architecture.size));
    json_object_set_new(o, "name", cli_json_text(name.data, name.size));
    json_object_set_new(o, "tensors", json_integer(attn_gguf_tensor_count(file)));
    json_object_set_new(o, "types", tensor_types(file));
    if (attn_model_config_read(file, &config) != ATTN_OK) {
        const char *why = attn_last_error();
        json_object_set_new(o, "unsupported", cli_json_text(why, strlen(why)));
        return o;
    }
    set_config(o, &config);
    attn_model_options model = attn_model_options_init();
    model.activations = options->activations;
    attn_dtype kv = options->kv                                    ? options->kv
                    : options->activations == ATTN_ACTIVATIONS_F32 ? ATTN_F32
                                                                   : ATTN_F16;
    int64_t context = options->context ? options->context : config.context;
    size_t weights, cache, activations;
    if (attn_model_memory(file, &model, kv, context, options->window, &weights, &cache,
                          &activations) != ATTN_OK) {
        cli_fail_attn(NULL);
        json_decref(o);
        return NULL;
    }
    json_t *memory = json_object();
    json_object_set_new(memory, "context", json_integer(context));
    json_object_set_new(memory, "weights_bytes", json_integer((json_int_t)weights));
    json_object_set_new(memory, "kv_cache_bytes", json_integer((json_int_t)cache));
    json_object_set_new(memory, "activations_bytes", json_integer((json_int_t)activations));
    json_object_set_new(memory, "total_bytes",
                        json_integer((json_int_t)(weights + cache + activations)));
    json_object_set_new(o, "kv_type", json_string(attn_dtype_name(kv)));
    json_object_set_new(o, "kv_bytes_per_token",
                        json_integer((json_int_t)attn_model_kv_bytes_per_token(&config, kv)));
    json_object_set_new(o, "memory", memory);
    return o;
}

static void print_model(FILE *out, const json_t *o)
{
    char a[32], b[32], c[32], d[32];
    fprintf(out, "file          %s, %s\n", word(o, "file"),
            cli_bytes(number(o, "file_bytes"), a, sizeof a));
    fprintf(out, "model         %s, architecture %s\n", word(o, "name"), word(o, "architecture"));
    fprintf(out, "tensors       %.0f:", number(o, "tensors"));
    const char *type;
    json_t *entry;
    const char *comma = " ";
    json_object_foreach(json_object_get(o, "types"), type, entry)
    {
        fprintf(out, "%s%.0f %s (%s)", comma, number(entry, "tensors"), type,
                cli_bytes(number(entry, "bytes"), a, sizeof a));
        comma = ", ";
    }
    fputc('\n', out);
    if (json_object_get(o, "unsupported")) {
        fprintf(out, "cannot run    %s\n", word(o, "unsupported"));
        return;
    }
    fprintf(out,
            "shape         %.1f M parameters, %.0f layers of %.0f, %.0f query and %.0f key heads "
            "of %.0f\n",
            number(o, "parameters") / 1e6, number(o, "layers"), number(o, "dim"),
            number(o, "heads_q"), number(o, "heads_kv"), number(o, "head_dim"));
    fprintf(out,
            "              feed-forward %.0f, vocabulary %.0f, context %.0f, RoPE theta %g, %s "
            "output\n",
            number(o, "ffn_dim"), number(o, "vocab"), number(o, "context"), number(o, "rope_theta"),
            json_is_true(json_object_get(o, "tied_output")) ? "tied" : "own");
    const json_t *memory = json_object_get(o, "memory");
    fprintf(out, "cache         %s a token (%s)\n",
            cli_bytes(number(o, "kv_bytes_per_token"), a, sizeof a), word(o, "kv_type"));
    fprintf(out, "memory        %s for %.0f tokens: weights %s, cache %s, activations %s\n",
            cli_bytes(number(memory, "total_bytes"), a, sizeof a), number(memory, "context"),
            cli_bytes(number(memory, "weights_bytes"), b, sizeof b),
            cli_bytes(number(memory, "kv_cache_bytes"), c, sizeof c),
            cli_bytes(number(memory, "activations_bytes"), d, sizeof d));
}

/* ---- both ---- */

static json_t *model(const info_options *options, int *code)
{
    attn_gguf *file = NULL;
    char *path = cli_model_resolve(options->file, code);
    json_t *o = NULL;
    if (path == NULL) {
        return NULL;
    }
    attn_status status = cli_model_open(path, NULL, &file);
    if (status != ATTN_OK) {
        *code = status == ATTN_ERR_CANCELLED ? CLI_INTERRUPTED : cli_fail_attn(NULL);
    } else {
        o = describe(options, file);
        *code = o ? CLI_OK : CLI_FAILED;
    }
    attn_gguf_close(file);
    free(path);
    return o;
}

static int print_text(const json_t *machine_part, const json_t *model_part)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) {
        return cli_fail("not enough memory");
    }
    if (machine_part) {
        print_machine(out, machine_part);
    }
    if (model_part) {
        print_model(out, model_part);
    }
    fclose(out);
    cli_write(text, size);
    free(text);
    return cli_finish(CLI_OK);
}

static int info(const info_options *options)
{
    int code = CLI_OK;
    json_t *model_part = NULL, *machine_part = NULL;
    if (options->file) {
        model_part = model(options, &code);
    }
    if (code == CLI_OK && (options->file == NULL || options->measure || options->json)) {
        machine_part = machine(options);
        code = machine_part ? CLI_OK : CLI_FAILED;
    }
    if (code == CLI_OK && options->json) {
        json_t *both = json_object();
        json_object_set(both, "machine", machine_part);
        if (model_part) {
            json_object_set(both, "model", model_part);
        }
        code = cli_print_json(both);
    } else if (code == CLI_OK) {
        code = print_text(machine_part, model_part);
    }
    json_decref(model_part);
    json_decref(machine_part);
    return code;
}

int cmd_info(int argc, char **argv)
{
    static const struct argp_option option_list[] = {
        {"measure", KEY_MEASURE, NULL, 0,
         "measure what this machine can do at most (half a second)", 0},
        {"context", KEY_CONTEXT, "N", 0, "memory needed at N tokens (default: the model's context)",
         0},
        {"window", KEY_WINDOW, "W", 0, "memory needed with a window of W tokens", 0},
        {"kv", KEY_KV, "TYPE", 0, "how keys and values are kept: f32, bf16 or f16 (default f16)",
         0},
        {"activations", KEY_ACTIVATIONS, "TYPE", 0, "auto, int8, or f32", 0},
        {"threads", KEY_THREADS, "N", 0, "default: the processors this process may use", 0},
        {"json", KEY_JSON, NULL, 0, "one JSON object with `machine' and `model'", 0},
        {0},
    };
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "[FILE]",
        .doc = "Tells what this machine offers; with FILE (GGUF, a model trained by attn, an "
               "adapter, or the name of a known model), "
               "what the model is and how "
               "much memory it needs, without loading it.",
    };
    info_options options = {.file = NULL};
    int code = cli_parse(&argp, argc, argv, &options);
    if (code >= 0) {
        return code;
    }
    cli_interrupt_catch();
    return info(&options);
}
