/**
 * 07_train_gpt.c: a GPT learns to say six letters backwards: the whole of a training loop, in a few seconds; then it is
 * asked.
 *
 *   cc 07_train_gpt.c $(pkg-config --cflags --libs attn_lm) -o 07_train_gpt
 */
#include <attn/lm.h>

#include <stdio.h>
#include <stdlib.h>

enum { LETTERS = 6, STOP = 26, VOCAB = 27, LEN = 2 * LETTERS, BATCH = 64, STEPS = 300 };

static int64_t ids[BATCH * LEN], targets[BATCH * LEN];

static void must(attn_status status)
{
    if (status != ATTN_OK) {
        fprintf(stderr, "%s\n", attn_last_error());
        exit(1);
    }
}

/* Each row: six letters, STOP, the same backwards. Only what comes after STOP is to be learned. */
static void make_batch(void)
{
    for (int64_t *in = ids, *out = targets; in < ids + BATCH * LEN; in += LEN, out += LEN) {
        for (int i = 0; i < LETTERS; i++) {
            in[i] = rand() % STOP;
            out[i] = -1;
        }
        in[LETTERS] = STOP;
        for (int i = 0; i < LETTERS; i++) {
            out[LETTERS + i] = in[LETTERS - 1 - i];
            if (i + 1 < LETTERS) {
                in[LETTERS + i + 1] = in[LETTERS - 1 - i];
            }
        }
    }
}

/* The most probable letter, and again with it in the text, until six are said. The tape does not record: nothing is learned here. */
static bool ask(attn_tape *tape, attn_module *gpt)
{
    int right = 0;
    attn_tape_set_recording(tape, false);
    for (int n = 0; n < LETTERS; n++) {
        int64_t len = LETTERS + 1 + n;
        attn_tensor *logits = attn_gpt_logits(tape, gpt, ids, 1, len); /* [1, len, VOCAB] */
        must(attn_tape_status(tape));
        const float *last = (const float *)attn_tensor_view(logits).data + (len - 1) * VOCAB;
        int best = 0;
        for (int i = 1; i < VOCAB; i++) {
            best = last[i] > last[best] ? i : best;
        }
        ids[len] = best;
        right += best == ids[LETTERS - 1 - n];
        attn_tape_clear(tape);
    }
    attn_tape_set_recording(tape, true);
    for (int i = 0; i <= 2 * LETTERS; i++) {
        printf("%c", ids[i] == STOP ? '|' : (char)('a' + ids[i]));
    }
    printf("   %d of %d right\n", right, LETTERS);
    return right == LETTERS;
}

int main(void)
{
    attn_context *context;
    attn_tape *tape;
    attn_module *gpt;
    attn_optimizer *adamw;
    attn_gpt_options options = attn_gpt_options_init();
    options.vocab = VOCAB;
    options.layers = 2;
    options.dim = 64;
    options.init = ATTN_INIT_XAVIER;
    must(attn_context_create(NULL, &context));
    must(attn_tape_create(context, &tape));
    must(attn_gpt_create(&options, &gpt));
    must(attn_optimizer_create(context, NULL, &adamw));
    must(attn_optimizer_add_module(adamw, gpt));
    double last = 0;
    for (int step = 0; step < STEPS; step++) {
        make_batch();
        attn_tensor *loss = attn_gpt_loss(tape, gpt, ids, targets, BATCH, LEN);
        must(attn_tape_backward(tape, loss, NULL));
        attn_step_options how = attn_step_options_init();
        how.lr = attn_lr_cosine(step, 30, STEPS, 5e-3, 1e-4);
        how.clip = 1.0;
        must(attn_optimizer_step(adamw, &how, NULL));
        last = attn_tensor_item(loss);
        if (step % 50 == 0 || step == STEPS - 1) {
            printf("step %3d   loss %.4f\n", step, last);
        }
        attn_optimizer_zero_grad(adamw);
        attn_tape_clear(tape);
    }
    int said = 0;
    for (int n = 0; n < 3; n++) {
        make_batch(); /* its first row: of 26⁶ words, hardly one of the 19,200 it learned from */
        said += ask(tape, gpt);
    }
    attn_optimizer_destroy(adamw);
    attn_module_destroy(gpt);
    attn_tape_destroy(tape);
    attn_context_destroy(context);
    return last < 0.05 && said > 1 ? 0 : 1;
}
