/**
 * attn chat: turn by turn. The whole conversation is rendered and tokenised at every turn; what the
 * session already holds of it is kept, so that only what is new is evaluated.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct conversation {
    const cli_lm_options *options;
    cli_lm lm;
    attn_chat_message *messages; /* contents are malloc'd, but for the system message's */
    size_t count;
    int32_t *held; /* tokens the session holds */
    int64_t held_count;
    attn_generation total; /* for the closing line: counts and seconds only */
    bool terminal;
} conversation;

static error_t parse(int key, char *text, struct argp_state *state)
{
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = state->input;
        state->child_inputs[1] = state->input;
        return 0;
    case ARGP_KEY_ARG:
        return cli_usage_error(
            state, "there is no argument '%s' here; `attn generate' takes a prompt", text);
    default: return ARGP_ERR_UNKNOWN;
    }
}

static bool has_system(const conversation *c)
{
    return c->options->system != NULL;
}

static bool add_message(conversation *c, const char *role, char *content)
{
    attn_chat_message *grown =
        content ? realloc(c->messages, (c->count + 1) * sizeof *grown) : NULL;
    if (grown == NULL) {
        cli_fail("not enough memory for the conversation");
        free(content);
        return false;
    }
    c->messages = grown;
    c->messages[c->count++] = (attn_chat_message){role, content};
    return true;
}

static void drop_message(conversation *c, size_t index)
{
    free((char *)(uintptr_t)c->messages[index].content);
    c->count--;
    memmove(c->messages + index, c->messages + index + 1, (c->count - index) * sizeof *c->messages);
}

/*
 * The conversation as tokens that leave room for an answer; the oldest turns are left out until
 * they do. NULL with the sentence said.
 */
static int32_t *encode(conversation *c, int64_t *count)
{
    int64_t capacity = attn_session_capacity(c->lm.session);
    int64_t reserve = capacity / 4 < 256 ? capacity / 4 : 256;
    bool told = false;
    for (;;) {
        int32_t *ids =
            cli_encode_chat(&c->lm, c->options->template_name, c->messages, c->count, count);
        size_t oldest = has_system(c) ? 1 : 0;
        if (ids == NULL || capacity == 0 || *count <= capacity - reserve) {
            return ids;
        }
        if (c->count - oldest < 3) { /* this question alone */
            if (*count <= capacity) {
                return ids;
            }
            cli_fail(
                "this message takes %lld tokens, more than the context of %lld; shorten it or use "
                "--context",
                (long long)*count, (long long)capacity);
            free(ids);
            return NULL;
        }
        free(ids);
        if (!told) {
            cli_note("(the context of %lld tokens is full: the oldest turns are left out)",
                     (long long)capacity);
            told = true;
        }
        drop_message(c, oldest);
        drop_message(c, oldest);
    }
}

/* Makes the session hold nothing but a beginning of ids[count]; returns how many tokens that is. */
static int64_t keep_common(conversation *c, const int32_t *ids, int64_t count)
{
    int64_t common = 0, most = c->held_count < count - 1 ? c->held_count : count - 1;
    while (common < most && c->held[common] == ids[common]) {
        common++;
    }
    if (attn_session_truncate(c->lm.session, common) != ATTN_OK) {
        common = 0; /* a ring that has overwritten it: begin again */
        attn_session_truncate(c->lm.session, 0);
    }
    return common;
}

static bool on_text(void *user, const char *text, size_t size)
{
    (void)user;
    return cli_write(text, size);
}

/* Remembers what the session holds after a turn: a beginning of prompt and answer. */
static bool remember(conversation *c, int32_t *ids, int64_t count, const attn_generation *g)
{
    int64_t position = attn_session_position(c->lm.session);
    int32_t *all = malloc((size_t)(count + g->count + 1) * sizeof *all);
    free(c->held);
    c->held = all;
    c->held_count = 0;
    if (all == NULL) {
        free(ids);
        cli_fail("not enough memory for the conversation");
        return false;
    }
    memcpy(all, ids, (size_t)count * sizeof *all);
    free(ids);
    if (g->count > 0) {
        memcpy(all + count, g->ids, (size_t)g->count * sizeof *all);
    }
    c->held_count = position < count + g->count ? position : count + g->count;
    c->total.prompt_tokens += g->prompt_tokens;
    c->total.prompt_seconds += g->prompt_seconds;
    c->total.count += g->count;
    c->total.generation_seconds += g->generation_seconds;
    c->total.reason = g->reason;
    return true;
}

/* One answer. −1 to go on with the conversation, else an exit code. */
static int answer(conversation *c)
{
    int64_t count = 0;
    int32_t *ids = encode(c, &count);
    if (ids == NULL) {
        drop_message(c, c->count - 1);
        return c->terminal ? -1 : CLI_FAILED;
    }
    attn_generate_options generate = attn_generate_options_init();
    generate.max_tokens = c->options->max_tokens;
    generate.stop = c->options->stop;
    generate.stop_count = c->options->stop_count;
    generate.on_text = on_text;
    generate.cancel = cli_cancel;
    attn_generation g;
    int64_t common = keep_common(c, ids, count);
    if (attn_generate(c->lm.session, c->lm.tokenizer, c->lm.sampler, &generate, ids + common,
                      count - common, &g) != ATTN_OK) {
        free(ids);
        return cli_fail_attn(NULL);
    }
    cli_write("\n", 1);
    bool kept = remember(c, ids, count, &g);
    if (g.count == 0) { /* stopped before it began: as if the question had not been asked */
        drop_message(c, c->count - 1);
    } else if (kept) {
        kept = add_message(c, "assistant", strdup(g.text));
    }
    if (g.reason == ATTN_STOP_CONTEXT) {
        cli_note("(the context of %lld tokens is full)",
                 (long long)attn_session_capacity(c->lm.session));
    }
    bool stopped = g.reason == ATTN_STOP_INTERRUPTED;
    attn_generation_free(&g);
    int code = cli_finish(CLI_OK);
    if (code != CLI_OK || !kept) {
        return CLI_FAILED;
    }
    if (stopped && !c->terminal) {
        return CLI_INTERRUPTED;
    }
    cli_interrupt_clear();
    return -1;
}

/* Reads a line: −1 with *line set (malloc'd, without its newline), or an exit code. */
static int read_line(conversation *c, char **line)
{
    size_t room = 0;
    *line = NULL;
    if (c->terminal) {
        cli_write("> ", 2);
    }
    ssize_t size = -1;
    if (!c->terminal || cli_wait_input()) {
        size = getline(line, &room, stdin);
    }
    if (size < 0) {
        free(*line);
        *line = NULL;
        if (c->terminal) {
            cli_write("\n", 1);
        }
        return cli_interrupted() ? CLI_INTERRUPTED : CLI_OK;
    }
    while (size > 0 && ((*line)[size - 1] == '\n' || (*line)[size - 1] == '\r')) {
        (*line)[--size] = '\0';
    }
    return -1;
}

static int talk(conversation *c)
{
    int code = -1;
    while (code < 0) {
        char *line;
        code = read_line(c, &line);
        if (code >= 0) {
            break;
        }
        if (strcmp(line, "/exit") == 0 || strcmp(line, "/quit") == 0) {
            free(line);
            return CLI_OK;
        }
        if (line[strspn(line, " \t")] == '\0') {
            free(line);
            continue;
        }
        if (line[0] == '/') {
            cli_note("(there is no command %s; /exit leaves)", line);
            free(line);
            continue;
        }
        code = add_message(c, "user", line) ? answer(c) : CLI_FAILED;
    }
    return code;
}

static int chat(const cli_lm_options *options)
{
    conversation c = {.options = options};
    c.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    int code = cli_lm_open(options, &c.lm);
    if (code == CLI_OK) {
        code = cli_lm_session(options, 0, &c.lm);
    }
    if (code == CLI_OK && c.terminal) {
        const attn_model_config *config = attn_model_get_config(c.lm.model);
        cli_note("%s. /exit or Ctrl-D leaves, Ctrl-C stops an answer.",
                 config->name[0] ? config->name : "A model");
    }
    if (code == CLI_OK) {
        char *system = options->system ? strdup(options->system) : NULL;
        code = options->system == NULL || add_message(&c, "system", system) ? talk(&c) : CLI_FAILED;
    }
    if (c.total.prompt_tokens > 0 && code != CLI_FAILED) {
        cli_lm_summary(&c.lm, &c.total);
    }
    while (c.count > 0) {
        drop_message(&c, c.count - 1);
    }
    free(c.messages);
    free(c.held);
    cli_lm_close(&c.lm);
    return code;
}

int cmd_chat(int argc, char **argv)
{
    static const struct argp_child children[] = {
        {&cli_model_argp, 0, "The model:", 10}, {&cli_sampling_argp, 0, "The answers:", 20}, {0}};
    static const struct argp argp = {
        .parser = parse,
        .children = children,
        .doc = "Talks with a language model, a line at a time. /exit or the end of input leaves; "
               "Ctrl-C stops "
               "an answer, and leaves at the prompt."
               "\vThe context is 4096 tokens, or the model's where that is less, unless --context "
               "is given. When it is full, the "
               "oldest turns are left out.",
    };
    cli_lm_options options;
    cli_lm_defaults(&options);
    int code = cli_parse(&argp, argc, argv, &options);
    if (code < 0) {
        cli_interrupt_catch();
        code = chat(&options);
    }
    cli_lm_options_free(&options);
    return code;
}
