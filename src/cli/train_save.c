/**
 * cli/train_save.c: a run's checkpoint: the trainer's state with what this program needs to go on, and to generate from it.
 */
#define _GNU_SOURCE
#include "train.h"
#include <stdlib.h>
#include <string.h>

int train_save(train_run *run)
{
    json_t *o = json_object(), *files = json_array();
    for (size_t i = 0; i < run->control->data_count; i++) {
        char *whole = realpath(run->control->data[i], NULL); /* found again from another folder */
        const char *name = whole ? whole : run->control->data[i];
        json_array_append_new(files, cli_json_text(name, strlen(name)));
        free(whole);
    }
    json_object_set_new(o, "settings", train_settings_json(run->settings));
    json_object_set_new(o, "data", files);
    json_object_set_new(o, "history", train_log_history(&run->log));
    json_object_set_new(o, "seconds",
                        cli_json_number(run->earlier_seconds + cli_now() - run->began));
    json_object_set_new(o, "val_before", cli_json_number(run->val_before));
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    if (text == NULL) {
        return cli_fail("%s: not enough memory to save", run->checkpoint);
    }
    attn_safetensors_pair pairs[4] = {{"format", "pt"}, {"attn.run", text}};
    size_t count = 2;
    if (run->config_json) {
        pairs[count++] = (attn_safetensors_pair){"attn.config", run->config_json};
        pairs[count++] = (attn_safetensors_pair){"attn.tokenizer", run->tokenizer_json};
    }
    attn_status s = attn_trainer_save(run->trainer, run->checkpoint, pairs, count);
    free(text);
    return s == ATTN_OK ? CLI_OK : cli_fail_attn("the checkpoint was not saved");
}

json_t *train_load_run(const char *path)
{
    attn_safetensors *file = NULL;
    if (attn_safetensors_open(path, &file) != ATTN_OK) {
        cli_fail_attn("nothing to resume");
        return NULL;
    }
    const char *text = attn_safetensors_metadata(file, "attn.run");
    json_t *run = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (!json_is_object(run) || !json_is_object(json_object_get(run, "settings"))) {
        cli_fail("%s: is no checkpoint of `attn train'%s", path,
                 text ? ": its settings are damaged" : "; give the file of --out");
        json_decref(run);
        run = NULL;
    }
    attn_safetensors_close(file);
    return run;
}
