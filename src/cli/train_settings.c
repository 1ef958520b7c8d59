/**
 * cli/train_settings.c: the settings of a training run as one table: options of the command line, JSON in a checkpoint, defaults.
 */
#define _GNU_SOURCE
#include "train.h"
#include <math.h>
#include <string.h>

typedef enum kind { INTEGER, REAL, SEED, FLAG, TEXT } kind;

typedef struct setting {
    const char *name; /* of the option without "--", and in JSON */
    kind kind;
    size_t offset, size; /* size: of a TEXT's array */
    double min, max;
} setting;

#define FIELD(name) offsetof(train_settings, name)

static const setting table[] = {
    {"layers", INTEGER, FIELD(layers), 0, 1, 1000},
    {"dim", INTEGER, FIELD(dim), 0, 2, 65536},
    {"heads", INTEGER, FIELD(heads), 0, 1, 4096},
    {"kv-heads", INTEGER, FIELD(kv_heads), 0, 1, 4096},
    {"ffn", INTEGER, FIELD(ffn), 0, 1, 1 << 20},
    {"context", INTEGER, FIELD(context), 0, 2, 1 << 20},
    {"tokenizer", TEXT, FIELD(tokenizer), sizeof((train_settings *)0)->tokenizer, 0, 0},
    {"dropout", REAL, FIELD(dropout), 0, 0, 0.99},
    {"batch", INTEGER, FIELD(batch), 0, 1, 1 << 16},
    {"accumulate", INTEGER, FIELD(accumulate), 0, 1, 1 << 16},
    {"steps", INTEGER, FIELD(steps), 0, 1, 1000000000},
    {"lr", REAL, FIELD(lr), 0, 0, 100},
    {"warmup", INTEGER, FIELD(warmup), 0, 0, 1000000000},
    {"weight-decay", REAL, FIELD(weight_decay), 0, 0, 100},
    {"clip", REAL, FIELD(clip), 0, 0, INFINITY},
    {"seed", SEED, FIELD(seed), 0, 0, 0},
    {"recompute", FLAG, FIELD(recompute), 0, 0, 0},
    {"finetune", TEXT, FIELD(base), sizeof((train_settings *)0)->base, 0, 0},
    {"full", FLAG, FIELD(full), 0, 0, 0},
    {"lora-rank", INTEGER, FIELD(lora_rank), 0, 1, 4096},
    {"lora-alpha", REAL, FIELD(lora_alpha), 0, 0, 1e6},
    {"lora-targets", TEXT, FIELD(lora_targets), sizeof((train_settings *)0)->lora_targets, 0, 0},
};
enum { COUNT = sizeof table / sizeof table[0], KEY_PRESET = TRAIN_SETTING + COUNT };

/* In the table's order: the keys are its indices. */
static const struct argp_option option_list[] = {
    {"layers", TRAIN_SETTING + 0, "N", 0, "transformer blocks", 20},
    {"dim", TRAIN_SETTING + 1, "N", 0, "width", 20},
    {"heads", TRAIN_SETTING + 2, "N", 0, "attention heads", 20},
    {"kv-heads", TRAIN_SETTING + 3, "N", 0, "heads of keys and values (default: --heads)", 20},
    {"ffn", TRAIN_SETTING + 4, "N", 0, "width inside the MLP (default 8/3 of --dim)", 20},
    {"context", TRAIN_SETTING + 5, "N", 0, "tokens of a window", 20},
    {"tokenizer", TRAIN_SETTING + 6, "KIND", 0,
     "char (default), or bpe:VOCAB, byte pairs trained on the text", 20},
    {"dropout", TRAIN_SETTING + 7, "P", 0, "default 0", 20},
    {"batch", TRAIN_SETTING + 8, "N", 0, "windows of one pass (default 16; fine-tuning 1)", 30},
    {"accumulate", TRAIN_SETTING + 9, "N", 0, "passes of one step (default 1; fine-tuning 4)", 30},
    {"steps", TRAIN_SETTING + 10, "N", 0,
     "default 3000, or what fits --max-minutes (fine-tuning 100)", 30},
    {"lr", TRAIN_SETTING + 11, "X", 0,
     "learning rate at its peak (default 3e-3; LoRA 5e-4, --full 2e-5)", 30},
    {"warmup", TRAIN_SETTING + 12, "N", 0,
     "steps in which it rises (default 100, fine-tuning 10; a tenth of what fits --max-minutes at "
     "most)",
     30},
    {"weight-decay", TRAIN_SETTING + 13, "X", 0, "default 0.1 (fine-tuning 0)", 30},
    {"clip", TRAIN_SETTING + 14, "X", 0, "largest norm of the gradient, 0: any (default 1)", 30},
    {"seed", TRAIN_SETTING + 15, "N", 0, "of first weights, windows and dropout (default 1)", 30},
    {"recompute", TRAIN_SETTING + 16, NULL, 0,
     "keep less for the way back and compute it again: less memory, a third more time", 30},
    {"finetune", TRAIN_SETTING + 17, "MODEL", 0, "start from smollm2 or a model file", 40},
    {"full", TRAIN_SETTING + 18, NULL, 0, "train all its weights instead of LoRA adapters", 40},
    {"lora-rank", TRAIN_SETTING + 19, "N", 0, "default 8", 40},
    {"lora-alpha", TRAIN_SETTING + 20, "X", 0, "adapters count times alpha/rank (default 16)", 40},
    {"lora-targets", TRAIN_SETTING + 21, "A,B", 0,
     "layers with adapters: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj "
     "(default: all)",
     40},
    {"preset", KEY_PRESET, "NAME", 0, "sizes at once: tiny, small (default) or medium", 20},
    {0},
};

typedef struct preset {
    const char *name;
    int64_t layers, dim, heads, ffn, context;
} preset;

static const preset presets[] = {
    {"small", 4, 128, 4, 344, 256}, /* the default */
    {"tiny", 2, 64, 2, 172, 128},
    {"medium", 6, 256, 8, 688, 256},
};

static void *field(const train_settings *settings, const setting *s)
{
    return (char *)(uintptr_t)settings + s->offset;
}

static error_t take_text(struct argp_state *state, const setting *s, const char *text, char *to)
{
    if (text[0] == '\0' || strlen(text) >= s->size) {
        return cli_usage_error(state, "--%s: '%.60s' must have 1 to %zu bytes", s->name, text,
                               s->size - 1);
    }
    strcpy(to, text);
    if (s->offset == FIELD(tokenizer) && strcmp(text, "char") != 0) {
        int64_t vocab;
        if (strncmp(text, "bpe:", 4) != 0) {
            return cli_usage_error(state, "--tokenizer: '%s' is neither char nor bpe:VOCAB", text);
        }
        return cli_int(state, "--tokenizer bpe", text + 4, 257, 1 << 20, &vocab);
    }
    return 0;
}

static error_t parse(int key, char *text, struct argp_state *state)
{
    train_settings_input *input = state->input;
    if (key == KEY_PRESET) {
        int index = 0;
        input->preset = text;
        return cli_word(state, "--preset", text,
                        (const char *const[]){"small", "tiny", "medium", NULL}, &index);
    }
    if (key < TRAIN_SETTING || key >= TRAIN_SETTING + COUNT) {
        return ARGP_ERR_UNKNOWN;
    }
    const setting *s = &table[key - TRAIN_SETTING];
    void *to = field(&input->values, s);
    char option[32] = "--";
    strncat(option, s->name, sizeof option - 3);
    input->given |= (uint64_t)1 << (key - TRAIN_SETTING);
    switch (s->kind) {
    case INTEGER: return cli_int(state, option, text, (int64_t)s->min, (int64_t)s->max, to);
    case REAL: return cli_double(state, option, text, s->min, s->max, to);
    case SEED: return cli_uint64(state, option, text, to);
    case FLAG: *(bool *)to = true; return 0;
    default: return take_text(state, s, text, to);
    }
}

const struct argp train_settings_argp = {.options = option_list, .parser = parse};

bool train_settings_given(const train_settings_input *input, const char *name)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (strcmp(table[i].name, name) == 0) {
            return input->given >> i & 1;
        }
    }
    return false;
}

static int usage(const char *sentence)
{
    fprintf(stderr, "attn train: %s\n", sentence);
    return CLI_USAGE;
}

/* Options of one kind of run given to the other. */
static int check_kind(const train_settings_input *input)
{
    static const char *const of_base[] = {"layers", "dim", "heads", "kv-heads", "ffn", "tokenizer"};
    static const char *const of_lora[] = {"lora-rank", "lora-alpha", "lora-targets"};
    const train_settings *s = &input->values;
    char text[200];
    for (size_t i = 0; s->base[0] && i < sizeof of_base / sizeof of_base[0]; i++) {
        if (train_settings_given(input, of_base[i])) {
            snprintf(text, sizeof text, "--%s is the base model's with --finetune; leave it out",
                     of_base[i]);
            return usage(text);
        }
    }
    for (size_t i = 0; i < sizeof of_lora / sizeof of_lora[0]; i++) {
        if (train_settings_given(input, of_lora[i]) && (s->base[0] == '\0' || s->full)) {
            snprintf(text, sizeof text, "--%s %s", of_lora[i],
                     s->full ? "is for adapters, and --full has none; leave one of them out"
                             : "goes with --finetune");
            return usage(text);
        }
    }
    if (s->base[0] && input->preset) {
        return usage("--preset is for a new model; leave it out with --finetune");
    }
    if (s->base[0] == '\0' && s->full) {
        return usage("--full goes with --finetune");
    }
    return CLI_OK;
}

/* The value where the option was not given. */
#define DEFAULT(name, member, value)              \
    do {                                          \
        if (!train_settings_given(input, name)) { \
            s->member = (value);                  \
        }                                         \
    } while (0)

static void complete_sizes(train_settings_input *input)
{
    train_settings *s = &input->values;
    const preset *p = &presets[0];
    for (size_t i = 0; input->preset && i < sizeof presets / sizeof presets[0]; i++) {
        p = strcmp(presets[i].name, input->preset) == 0 ? &presets[i] : p;
    }
    DEFAULT("layers", layers, p->layers);
    DEFAULT("dim", dim, p->dim);
    DEFAULT("heads", heads, p->heads);
    DEFAULT("kv-heads", kv_heads, s->heads);
    DEFAULT("ffn", ffn, s->dim == p->dim ? p->ffn : (8 * s->dim / 3 + 7) / 8 * 8);
    DEFAULT("context", context, p->context);
    if (!train_settings_given(input, "tokenizer")) {
        strcpy(s->tokenizer, "char");
    }
}

int train_settings_complete(train_settings_input *input)
{
    train_settings *s = &input->values;
    bool base = s->base[0] != '\0';
    int code = check_kind(input);
    if (code != CLI_OK) {
        return code;
    }
    if (!base) {
        complete_sizes(input);
        if (s->dim % s->heads != 0 || s->heads % s->kv_heads != 0 || s->dim / s->heads % 2 != 0) {
            fprintf(stderr,
                    "attn train: --dim %lld, --heads %lld, --kv-heads %lld do not fit together: "
                    "heads must divide dim into even parts and kv-heads must divide heads, as in "
                    "128, 4, 2\n",
                    (long long)s->dim, (long long)s->heads, (long long)s->kv_heads);
            return CLI_USAGE;
        }
    }
    DEFAULT("context", context, 256);
    DEFAULT("batch", batch, base ? 1 : 16);
    DEFAULT("accumulate", accumulate, base ? 4 : 1);
    DEFAULT("steps", steps, base ? 100 : 3000);
    DEFAULT("warmup", warmup, base ? 10 : 100);
    DEFAULT("lr", lr, !base ? 3e-3 : s->full ? 2e-5 : 5e-4);
    DEFAULT("weight-decay", weight_decay, base ? 0 : 0.1);
    DEFAULT("clip", clip, 1);
    DEFAULT("seed", seed, 1);
    DEFAULT("lora-rank", lora_rank, 8);
    DEFAULT("lora-alpha", lora_alpha, 16);
    return CLI_OK;
}

json_t *train_settings_json(const train_settings *settings)
{
    json_t *object = json_object();
    for (size_t i = 0; i < COUNT; i++) {
        const setting *s = &table[i];
        const void *value = field(settings, s);
        json_t *v = NULL;
        char number[24];
        switch (s->kind) {
        case INTEGER: v = json_integer((json_int_t) * (const int64_t *)value); break;
        case REAL: v = json_real(*(const double *)value); break;
        case SEED: /* JSON's integers are signed */
            snprintf(number, sizeof number, "%llu", (unsigned long long)*(const uint64_t *)value);
            v = json_string(number);
            break;
        case FLAG: v = json_boolean(*(const bool *)value); break;
        case TEXT: v = cli_json_text(value, strlen(value)); break;
        }
        json_object_set_new(object, s->name, v);
    }
    return object;
}

/* One value from JSON, in its range; false where it is not there or no such value. */
static bool read_value(const setting *s, const json_t *v, void *to)
{
    switch (s->kind) {
    case INTEGER:
        *(int64_t *)to = json_integer_value(v);
        return json_is_integer(v) && (double)json_integer_value(v) >= 0 &&
               (double)json_integer_value(v) <= s->max;
    case REAL:
        *(double *)to = json_number_value(v);
        return json_is_number(v) && json_number_value(v) >= s->min &&
               json_number_value(v) <= s->max;
    case SEED: {
        char *end = NULL;
        const char *text = json_string_value(v);
        *(uint64_t *)to = text ? strtoull(text, &end, 10) : 0;
        return text && end != text && *end == '\0';
    }
    case FLAG: *(bool *)to = json_is_true(v); return json_is_boolean(v);
    default:
        if (!json_is_string(v) || json_string_length(v) >= s->size) {
            return false;
        }
        memcpy(to, json_string_value(v), json_string_length(v) + 1);
        return true;
    }
}

static bool same_value(const setting *s, const train_settings *a, const train_settings *b)
{
    const void *x = field(a, s), *y = field(b, s);
    switch (s->kind) {
    case INTEGER: return *(const int64_t *)x == *(const int64_t *)y;
    case REAL:
        return *(const double *)x <= *(const double *)y && *(const double *)x >= *(const double *)y;
    case SEED: return *(const uint64_t *)x == *(const uint64_t *)y;
    case FLAG: return *(const bool *)x == *(const bool *)y;
    default: return strcmp(x, y) == 0;
    }
}

int train_settings_resume(train_settings_input *input, const json_t *stored, const char *path)
{
    train_settings values;
    memset(&values, 0, sizeof values);
    for (size_t i = 0; i < COUNT; i++) {
        const setting *s = &table[i];
        if (!read_value(s, json_object_get(stored, s->name), field(&values, s))) {
            return cli_fail("%s: its settings are damaged: '%s' is not there or no such value",
                            path, s->name);
        }
        bool given = input->given >> i & 1;
        if (given && s->offset == FIELD(steps)) {
            values.steps = input->values.steps;
        } else if (given && !same_value(s, &values, &input->values)) {
            fprintf(stderr,
                    "attn train: --%s: the run in %s has another value, and a resumed run keeps "
                    "its settings; leave --%s out\n",
                    s->name, path, s->name);
            return CLI_USAGE;
        }
    }
    if (input->preset) {
        return usage("--preset is for a new run; leave it out with --resume");
    }
    input->values = values;
    return CLI_OK;
}
