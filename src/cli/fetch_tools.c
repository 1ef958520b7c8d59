/**
 * cli/fetch_tools.c: folders, and programs run quietly.
 */
#define _GNU_SOURCE
#include "fetch_tools.h"
#include "cli.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- folders ---- */

bool fetch_make_folder(const char *path)
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

void fetch_remove_tree(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

char *fetch_temporary(const char *cache)
{
    char *folder = NULL;
    if (!fetch_make_folder(cache)) {
        cli_fail("the cache folder %s cannot be made: %s", cache, strerror(errno));
        return NULL;
    }
    if (asprintf(&folder, "%s/.fetch-XXXXXX", cache) < 0) {
        cli_fail("not enough memory");
        return NULL;
    }
    if (mkdtemp(folder) == NULL) {
        cli_fail("the cache folder %s cannot be written: %s", cache, strerror(errno));
        free(folder);
        return NULL;
    }
    return folder;
}

/* ---- programs ---- */

int fetch_run(char *const words[], const char *folder, const char *log)
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
            setenv("TMPDIR", folder, 1) == 0 && chdir(folder) == 0) {
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
        if (cli_interrupted() &&
            !asked) { /* SIGTERM came to us alone: the program must go as well */
            kill(child, SIGTERM);
            asked = true;
        }
    }
    if (n == (ssize_t)sizeof error) {
        return -error;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

void fetch_last_words(const char *log, char *text, size_t size)
{
    char line[512];
    bool error = false;
    text[0] = '\0';
    FILE *file = fopen(log, "r");
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = '\0';
        size_t head = strncmp(line, "ERROR: ", 7) == 0 ? 7 : strncmp(line, "E: ", 3) == 0 ? 3 : 0;
        bool is_error = head > 0;
        if (line[0] && (is_error || !error)) {
            snprintf(text, size, "%s", line + head);
            error = error || is_error;
        }
    }
    if (file) {
        fclose(file);
    }
}

bool fetch_log_says(const char *log, const char *what)
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

bool fetch_disk_full(const char *log)
{
    return fetch_log_says(log, "No space left on device") ||
           fetch_log_says(log, "Disk quota exceeded") ||
           fetch_log_says(log, "You don't have enough free space");
}

bool fetch_no_network(const char *log)
{
    return fetch_log_says(log, "Failed to establish a new connection") ||
           fetch_log_says(log, "ProxyError") ||
           fetch_log_says(log, "Temporary failure in name resolution") ||
           fetch_log_says(log, "Temporary failure resolving") ||
           fetch_log_says(log, "Could not resolve") || fetch_log_says(log, "Could not connect") ||
           fetch_log_says(log, "timed out") || fetch_log_says(log, "Network is unreachable");
}
