/**
 * write_file.c: atomic writing.
 */
#define _GNU_SOURCE
#include "write_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Everything into an open file, down to the disk; errno says why not. */
static bool write_parts(FILE *file, const void *const *parts, const size_t *sizes, int count)
{
    for (int i = 0; i < count; i++) {
        if (sizes[i] > 0 && fwrite(parts[i], sizes[i], 1, file) != 1) {
            return false;
        }
    }
    if (fflush(file) != 0) {
        return false;
    }
    return fsync(fileno(file)) == 0 || errno == EINVAL || errno == EROFS; /* pipes, devices */
}

attn_status write_file(const char *path, const void *const *parts, const size_t *sizes, int count)
{
    char temporary[4096];
    struct stat info;
    bool direct = stat(path, &info) == 0 && !S_ISREG(info.st_mode);
    int length = direct ? snprintf(temporary, sizeof temporary, "%s", path)
                        : snprintf(temporary, sizeof temporary, "%s.part%ld", path, (long)getpid());
    if (length >= (int)sizeof temporary) {
        return attn_fail(ATTN_ERR_IO, "%.200s…: the path is too long", path);
    }
    FILE *file = fopen(temporary, "wbe");
    if (!file) {
        return attn_fail(ATTN_ERR_IO, "%s: cannot create: %s", path, strerror(errno));
    }
    bool ok = write_parts(file, parts, sizes, count);
    int error = errno;
    if (fclose(file) != 0 && ok) {
        ok = false;
        error = errno;
    }
    if (ok && !direct && rename(temporary, path) != 0) {
        ok = false;
        error = errno;
    }
    if (!ok) {
        if (!direct) {
            unlink(temporary);
        }
        return attn_fail(ATTN_ERR_IO, "%s: cannot write: %s", path, strerror(error));
    }
    return ATTN_OK;
}

attn_status write_file_possible(const char *path)
{
    char temporary[4096];
    struct stat info;
    bool there = stat(path, &info) == 0;
    if (there && S_ISDIR(info.st_mode)) {
        return attn_fail(ATTN_ERR_IO, "%s: is a folder; give a file in it", path);
    }
    if (there && !S_ISREG(info.st_mode)) {
        return ATTN_OK; /* a device or pipe: nothing is created beside it */
    }
    int length = snprintf(temporary, sizeof temporary, "%s.try%ld", path, (long)getpid());
    if (length >= (int)sizeof temporary) {
        return attn_fail(ATTN_ERR_IO, "%.200s…: the path is too long", path);
    }
    int file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) {
        return attn_fail(ATTN_ERR_IO,
                         "%s: cannot create: %s; give a folder that is there and takes "
                         "files",
                         path, strerror(errno));
    }
    close(file);
    unlink(temporary);
    return ATTN_OK;
}
