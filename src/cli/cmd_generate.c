/**
 * attn generate: a prompt in, text out.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct generate_options {
    cli_lm_options lm;
    const char *prompt;
    int64_t logprobs;
    bool raw, json;
} generate_options;

enum { KEY_RAW = 0x3000, KEY_JSON, KEY_LOGPROBS };

static error_t parse(int key, char *text, struct argp_state *state)
{
    generate_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &options->lm;
        state->child_inputs[1] = &options->lm;
        return 0;
    case KEY_RAW: options->raw = true; return 0;
    case KEY_JSON: options->json = true; return 0;
    case KEY_LOGPROBS: return cli_int(state, "--logprobs", text, 1, 100000, &options->logprobs);
    case ARGP_KEY_ARG:
        if (options->prompt) {
            return cli_usage_error(state,
                                   "one prompt at a time: '%s' is one too many; put the prompt "
                                   "in quotes",
                                   text);
        }
        options->prompt = text;
        return 0;
    case ARGP_KEY_END:
        if (options->prompt == NULL) {
            return cli_usage_error(state, "a prompt is missing; `-' reads it from standard input");
        }
        if (options->logprobs > 0 && !options->json) {
            return cli_usage_error(state, "--logprobs goes with --json");
        }
        if (options->raw && (options->lm.system || options->lm.template_name)) {
            return cli_usage_error(state, "--raw skips the chat template, so %s has no place",
                                   options->lm.system ? "--system" : "--template");
        }
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* All of standard input, without one newline at its end. NULL with *code set and the sentence said.
 */
static char *read_input(size_t *size, int *code)
{
    char *text = NULL;
    size_t used = 0, room = 0;
    for (;;) {
        if (used + 1 >= room) {
            room = room ? 2 * room : 4096;
            char *grown = realloc(text, room);
            if (grown == NULL) {
                *code = cli_fail("not enough memory for the prompt");
                break;
            }
            text = grown;
        }
        ssize_t n = 0;
        if (cli_wait_input()) {
            n = read(STDIN_FILENO, text + used, room - used - 1);
        }
        if (cli_interrupted()) {
            *code = CLI_INTERRUPTED;
            break;
        }
        if (n < 0) {
            *code = cli_fail("standard input cannot be read: %s", strerror(errno));
            break;
        }
        if (n == 0) {
            used -= used > 0 && text[used - 1] == '\n';
            text[used] = '\0';
            *size = used;
            return text;
        }
        used += (size_t)n;
    }
    free(text);
    return NULL;
}

/* The prompt's tokens: as they are, also where the model knows no chat, or as a chat of one
 * question. */
static int32_t *encode_prompt(const generate_options *options, const cli_lm *lm, const char *text,
                              size_t size, int64_t *count)
{
    bool plain = !attn_tokenizer_has_chat_template(lm->tokenizer) && !options->lm.system &&
                 !options->lm.template_name;
    if (options->raw || plain) {
        return cli_encode(lm, text, size, true, count);
    }
    if (memchr(text, '\0', size)) {
        cli_fail("the prompt has a NUL byte, which chat templates cannot carry; use --raw");
        return NULL;
    }
    attn_chat_message messages[2];
    size_t n = 0;
    if (options->lm.system) {
        messages[n++] = (attn_chat_message){"system", options->lm.system};
    }
    messages[n++] = (attn_chat_message){"user", text};
    return cli_encode_chat(lm, options->lm.template_name, messages, n, count);
}

static bool on_text(void *user, const char *text, size_t size)
{
    const generate_options *options = user;
    return options->json || cli_write(text, size);
}

static json_t *json_ids(const int32_t *ids, int64_t count)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++) {
        json_array_append_new(list, json_integer(ids[i]));
    }
    return list;
}

static json_t *json_logprobs(const cli_lm *lm, const attn_generation *g, int64_t k)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < g->count; i++) {
        json_t *best = json_array();
        for (int64_t j = 0; j < k; j++) {
            const attn_token_logprob *p = &g->logprobs[i * k + j];
            size_t size = 0;
            const char *piece = attn_tokenizer_piece(lm->tokenizer, p->id, true, &size);
            json_t *entry = json_object();
            json_object_set_new(entry, "id", json_integer(p->id));
            json_object_set_new(entry, "text", cli_json_text(piece ? piece : "", piece ? size : 0));
            json_object_set_new(entry, "logprob", cli_json_number((double)p->logprob));
            json_array_append_new(best, entry);
        }
        json_array_append_new(list, best);
    }
    return list;
}

static int print_json(const generate_options *options, const cli_lm *lm, const int32_t *prompt,
                      const attn_generation *g)
{
    json_t *o = json_object();
    json_object_set_new(o, "text", cli_json_text(g->text, g->text_size));
    json_object_set_new(o, "prompt_ids", json_ids(prompt, g->prompt_tokens));
    json_object_set_new(o, "ids", json_ids(g->ids, g->count));
    json_object_set_new(o, "prompt_tokens", json_integer(g->prompt_tokens));
    json_object_set_new(o, "generated_tokens", json_integer(g->count));
    json_object_set_new(o, "prompt_tokens_per_s", cli_json_number(cli_prompt_rate(g)));
    json_object_set_new(o, "generation_tokens_per_s", cli_json_number(cli_generation_rate(g)));
    json_object_set_new(o, "kv_cache_bytes",
                        json_integer((json_int_t)attn_session_kv_bytes(lm->session)));
    json_object_set_new(o, "peak_rss_bytes", json_integer((json_int_t)cli_peak_rss()));
    json_object_set_new(o, "stop_reason", json_string(attn_stop_reason_name(g->reason)));
    if (options->logprobs > 0) {
        json_object_set_new(o, "logprobs", json_logprobs(lm, g, options->logprobs));
    }
    return cli_print_json(o);
}

static int run(const generate_options *options, const cli_lm *lm, const int32_t *prompt,
               int64_t count)
{
    attn_generate_options generate = attn_generate_options_init();
    generate.max_tokens = options->lm.max_tokens;
    generate.stop = options->lm.stop;
    generate.stop_count = options->lm.stop_count;
    generate.logprobs = options->logprobs;
    generate.on_text = on_text;
    generate.cancel = cli_cancel;
    generate.user = (void *)(uintptr_t)options;
    attn_generation generation;
    if (attn_generate(lm->session, lm->tokenizer, lm->sampler, &generate, prompt, count,
                      &generation) != ATTN_OK) {
        return cli_fail_attn(NULL);
    }
    int code = CLI_OK;
    if (options->json) {
        code = print_json(options, lm, prompt, &generation);
    } else {
        cli_write("\n", 1);
        code = cli_finish(code);
    }
    if (code == CLI_OK) {
        cli_lm_summary(lm, &generation);
        code = generation.reason == ATTN_STOP_INTERRUPTED ? CLI_INTERRUPTED : CLI_OK;
    }
    attn_generation_free(&generation);
    return code;
}

/* Room for the prompt and the answer: no more than can be used is allocated. */
static int64_t session_tokens(const generate_options *options, const cli_lm *lm, int64_t prompt)
{
    int64_t context = attn_model_get_config(lm->model)->context;
    int64_t answer = options->lm.max_tokens;
    return answer < 0 || answer > context || prompt > context - answer ? context : prompt + answer;
}

static int generate(const generate_options *options, const char *text, size_t size)
{
    cli_lm lm;
    int code = cli_lm_open(&options->lm, &lm);
    if (code != CLI_OK) {
        return code;
    }
    int64_t count = 0;
    int32_t *prompt = encode_prompt(options, &lm, text, size, &count);
    code = CLI_FAILED;
    if (prompt && count == 0) {
        code = cli_fail("the prompt %s",
                        size > 0 ? "has no character that the model knows; it can only begin with "
                                   "some of the text it was trained on"
                                 : "is empty");
    } else if (prompt) {
        code = cli_lm_session(&options->lm, session_tokens(options, &lm, count), &lm);
    }
    if (prompt && code == CLI_OK) {
        code = run(options, &lm, prompt, count);
    }
    free(prompt);
    cli_lm_close(&lm);
    return code;
}

int cmd_generate(int argc, char **argv)
{
    static const struct argp_option option_list[] = {
        {"raw", KEY_RAW, NULL, 0,
         "the prompt as it is, without the chat template (also where the model has none)", 30},
        {"json", KEY_JSON, NULL, 0, "one JSON object instead of streamed text", 0},
        {"logprobs", KEY_LOGPROBS, "K", 0,
         "with --json: the K best log-probabilities of every token", 0},
        {0},
    };
    static const struct argp_child children[] = {
        {&cli_model_argp, 0, "The model:", 10}, {&cli_sampling_argp, 0, "The answer:", 20}, {0}};
    static const struct argp argp = {
        .options = option_list,
        .parser = parse,
        .args_doc = "PROMPT",
        .children = children,
        .doc =
            "Continues PROMPT with a language model and streams the answer. A PROMPT of `-' is "
            "read from "
            "standard input, without one newline at its end."
            "\vWithout --context, room is made for prompt and answer, at most the model's context. "
            "--top-k, --top-p and --min-p draw with temperature 1 unless --temperature is given. "
            "Tokens a second "
            "count the prompt's tokens, and the steps after the first token. Ctrl-C stops with "
            "what "
            "there is and exit code 130.",
    };
    generate_options options = {.prompt = NULL};
    cli_lm_defaults(&options.lm);
    int code = cli_parse(&argp, argc, argv, &options);
    if (code < 0) {
        cli_interrupt_catch();
        size_t size = 0;
        char *input = NULL;
        if (strcmp(options.prompt, "-") == 0) {
            input = read_input(&size, &code);
        }
        if (input || strcmp(options.prompt, "-") != 0) {
            code = generate(&options, input ? input : options.prompt,
                            input ? size : strlen(options.prompt));
        }
        free(input);
    }
    cli_lm_options_free(&options.lm);
    return code;
}
