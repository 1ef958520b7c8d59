/* Pre-splitting with PCRE2. An expression is applied to the text, the next one to each piece that
 * leaves (the matches and what lies between them), and so on: look-ahead never sees past its piece.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "lm/tokenizer_split.h"

#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STAGES 2

/* White_Space of Unicode. PCRE2's \s also has U+180E, which left that property in Unicode 6.3. */
#define SPACE                                                                                      \
    "\\t-\\r\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}" \
    "\\x{3000}"
#define SPACES_AT_END       "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"
#define SPACES_WITH_NEWLINE "[" SPACE "]*[\\r\\n]+"
#define CONTRACTIONS        "'s|'t|'re|'ve|'m|'ll|'d"

/* Radford et al. 2019. */
#define GPT2 CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?[^" SPACE "\\p{L}\\p{N}]+|" SPACES_AT_END

/* Contractions in either case; letters with the one sign before them; punctuation with the newlines
 * after it; `digits` at a time. Llama 3 takes three, Qwen2 one. */
#define SINCE_GPT4(digits)                                                      \
    "(?i:" CONTRACTIONS ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^" SPACE \
    "\\p{L}\\p{N}]+[\\r\\n]*|" SPACES_WITH_NEWLINE "|" SPACES_AT_END

typedef struct pre_split {
    const char *name;
    const char *stages[MAX_STAGES];
    bool whole_words, default_bos;
} pre_split;

static const pre_split known[] = {
    {.name = "smollm", .stages = {"\\p{N}", GPT2}},
    {.name = "gpt-2", .stages = {GPT2}},
    {.name = "llama-bpe",
     .stages = {SINCE_GPT4("\\p{N}{1,3}")},
     .whole_words = true,
     .default_bos = true},
    {.name = "qwen2", .stages = {SINCE_GPT4("\\p{N}")}},
    /* Every character a word: tokenizers that have one token per character. */
    {.name = SPLIT_CHARACTERS, .stages = {"[\\s\\S]"}, .whole_words = true},
};

/* Other names that the same tokenizers go by in files. */
static const char *const aliases[][2] = {
    {"gpt2", "gpt-2"},
    {"llama3", "llama-bpe"},
    {"llama-v3", "llama-bpe"},
};

struct splitter {
    const pre_split *pre;
    int stages;
    pcre2_code *code[MAX_STAGES];
};

struct split_run {
    const splitter *splitter;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static bool named(const char *name, const char *text, size_t size)
{
    return strlen(name) == size && memcmp(name, text, size) == 0;
}

static const pre_split *find_pre(const char *name, size_t size)
{
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++) {
        if (named(aliases[i][0], name, size)) {
            name = aliases[i][1];
            size = strlen(name);
            break;
        }
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (named(known[i].name, name, size)) {
            return &known[i];
        }
    }
    return NULL;
}

static attn_status compile(const char *expression, pcre2_code **code)
{
    int error;
    PCRE2_SIZE where;
    *code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK, &error, &where, NULL);
    if (!*code) {
        PCRE2_UCHAR text[128] = "";
        pcre2_get_error_message(error, text, sizeof text);
        return attn_fail(
            error == PCRE2_ERROR_HEAP_FAILED ? ATTN_ERR_NO_MEMORY : ATTN_ERR_UNSUPPORTED,
            "this PCRE2 does not compile the tokenizer's expression: %s", (const char *)text);
    }
    /* Where code cannot be made executable, the interpreter gives the same matches. */
    (void)pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE);
    return ATTN_OK;
}

attn_status splitter_create(const char *pre, size_t pre_size, splitter **made)
{
    *made = NULL;
    const pre_split *found = find_pre(pre, pre_size);
    if (!found) {
        return attn_fail(ATTN_ERR_UNSUPPORTED,
                         "tokenizer.ggml.pre is '%.*s', a pre-split that is not built in; those "
                         "that are: smollm, gpt-2, llama-bpe, qwen2",
                         (int)(pre_size < 64 ? pre_size : 64), pre);
    }
    splitter *s = calloc(1, sizeof *s);
    if (!s) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory for the tokenizer's expressions");
    }
    s->pre = found;
    for (int i = 0; i < MAX_STAGES && found->stages[i]; i++) {
        attn_status status = compile(found->stages[i], &s->code[i]);
        if (status != ATTN_OK) {
            splitter_destroy(s);
            return status;
        }
        s->stages++;
    }
    *made = s;
    return ATTN_OK;
}

void splitter_destroy(splitter *s)
{
    if (!s) {
        return;
    }
    for (int i = 0; i < s->stages; i++) {
        pcre2_code_free(s->code[i]);
    }
    free(s);
}

const char *splitter_name(const splitter *s)
{
    return s->pre->name;
}

bool splitter_whole_words(const splitter *s)
{
    return s->pre->whole_words;
}

bool splitter_default_bos(const splitter *s)
{
    return s->pre->default_bos;
}

attn_status split_run_create(const splitter *s, split_run **run)
{
    split_run *r = calloc(1, sizeof *r);
    *run = NULL;
    if (r) {
        r->splitter = s;
        r->match = pcre2_match_data_create(1, NULL);
        r->context = pcre2_match_context_create(NULL);
        r->stack = pcre2_jit_stack_create(32 * 1024, 1024 * 1024, NULL);
    }
    if (!r || !r->match || !r->context) {
        split_run_destroy(r);
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to split text into words");
    }
    /* The expressions take time linear in the text, so the limits meant for other kinds of
     * expression would only make a long run of spaces an error. */
    pcre2_set_match_limit(r->context, UINT32_MAX);
    pcre2_set_depth_limit(r->context, UINT32_MAX);
    if (r->stack) {
        pcre2_jit_stack_assign(r->context, NULL, r->stack);
    }
    *run = r;
    return ATTN_OK;
}

void split_run_destroy(split_run *run)
{
    if (!run) {
        return;
    }
    pcre2_jit_stack_free(run->stack);
    pcre2_match_context_free(run->context);
    pcre2_match_data_free(run->match);
    free(run);
}

/* The first match of a stage in text[at … size): *from and *to, or both `size` when there is none.
 */
static attn_status next_match(split_run *run, int stage, const char *text, size_t size, size_t at,
                              size_t *from, size_t *to)
{
    const pcre2_code *code = run->splitter->code[stage];
    PCRE2_SPTR subject = (PCRE2_SPTR)text;
    int found = pcre2_match(code, subject, size, at, PCRE2_NO_UTF_CHECK, run->match, run->context);
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {
        found = pcre2_match(code, subject, size, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, run->match,
                            run->context);
    }
    *from = *to = size;
    if (found == PCRE2_ERROR_NOMATCH) {
        return ATTN_OK;
    }
    if (found < 0) {
        PCRE2_UCHAR message[128] = "";
        pcre2_get_error_message(found, message, sizeof message);
        return attn_fail(ATTN_ERR_NO_MEMORY, "splitting text into words failed at byte %zu: %s", at,
                         (const char *)message);
    }
    const PCRE2_SIZE *ends = pcre2_get_ovector_pointer(run->match);
    *from = ends[0];
    *to = ends[1];
    return ATTN_OK;
}

static attn_status split_stage(split_run *run, int stage, const char *text, size_t size,
                               split_word word, void *user)
{
    if (stage >= MAX_STAGES || stage >= run->splitter->stages) {
        return word(user, text, size);
    }
    for (size_t at = 0; at < size;) {
        size_t from, to;
        attn_status status = next_match(run, stage, text, size, at, &from, &to);
        if (status == ATTN_OK && from > at) {
            status = split_stage(run, stage + 1, text + at, from - at, word, user);
        }
        if (status == ATTN_OK && to > from) {
            status = split_stage(run, stage + 1, text + from, to - from, word, user);
        }
        if (status != ATTN_OK) {
            return status;
        }
        at = to; /* the expressions match no empty text, so this moves on */
    }
    return ATTN_OK;
}

attn_status split_text(split_run *run, const char *text, size_t size, split_word word, void *user)
{
    return split_stage(run, 0, text, size, word, user);
}
