/*
 * Writing beside, then renaming. The part has a fixed name, so that a process that is killed again and again leaves
 * one file behind, not many; a lock tells a part that is being written from one that was left.
 */
#define _GNU_SOURCE
#include "lm/atomic_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* One write() of at most this many bytes: the kernel's own limit is 2 GiB − 4 KiB. */
#define WRITE_BYTES ((size_t)1 << 30)

static attn_status cannot(const atomic_file *file, const char *what, int error)
{
    return attn_fail(ATTN_ERR_IO, "%s: cannot %s: %s", file->path, what, strerror(error));
}

static void forget(atomic_file *file)
{
    if (file->fd >= 0) {
        close(file->fd);
    }
    free(file->path);
    free(file->part);
    *file = (atomic_file){.fd = -1};
}

/* Whether the open part is still the file of that name: the process that held it before may have
 * renamed it meanwhile. */
static bool still_there(const atomic_file *file)
{
    struct stat open_one, named;
    return fstat(file->fd, &open_one) == 0 && lstat(file->part, &named) == 0 &&
           open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
}

static attn_status open_part(atomic_file *file, mode_t mode)
{
    for (;;) {
        file->fd = open(file->part, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (file->fd < 0) {
            return cannot(file, "create the part beside it", errno);
        }
        if (flock(file->fd, LOCK_EX | LOCK_NB) != 0) {
            return errno == EWOULDBLOCK
                       ? attn_fail(ATTN_ERR_IO,
                                   "%s: another process is writing it; let one of them write "
                                   "elsewhere",
                                   file->path)
                       : cannot(file, "lock the part beside it", errno);
        }
        if (still_there(file)) {
            break;
        }
        close(file->fd);
    }
    if (ftruncate(file->fd, 0) != 0) {
        return cannot(file, "empty the part beside it", errno);
    }
    if (mode) {
        (void)fchmod(file->fd,
                     mode); /* the rights of the file that it replaces, where that may be */
    }
    return ATTN_OK;
}

attn_status atomic_open(const char *path, atomic_file *file)
{
    *file = (atomic_file){.fd = -1};
    struct stat info;
    bool there = stat(path, &info) == 0, link = there && lstat(path, &info) == 0;
    link = link && S_ISLNK(info.st_mode);
    file->path = link ? realpath(path, NULL) : strdup(path);
    if (!file->path) {
        return attn_fail(ATTN_ERR_NO_MEMORY, "no memory to write %s", path);
    }
    there = there && stat(file->path, &info) == 0;
    attn_status status;
    if (there && S_ISDIR(info.st_mode)) {
        status = attn_fail(ATTN_ERR_IO, "%s: is a folder; give the path of a file", path);
    } else if (there && !S_ISREG(info.st_mode)) {
        file->fd = open(file->path, O_WRONLY | O_CLOEXEC);
        status = file->fd < 0 ? cannot(file, "open it", errno) : ATTN_OK;
    } else if (asprintf(&file->part, "%s.part", file->path) < 0) {
        file->part = NULL;
        status = attn_fail(ATTN_ERR_NO_MEMORY, "no memory to write %s", path);
    } else {
        status = open_part(file, there ? info.st_mode & 0777 : 0);
    }
    if (status != ATTN_OK) {
        forget(file);
    }
    return status;
}

attn_status atomic_write(atomic_file *file, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t n = write(file->fd, bytes, size < WRITE_BYTES ? size : WRITE_BYTES);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return cannot(file, "write it", n < 0 ? errno : ENOSPC);
        }
        bytes += n;
        size -= (size_t)n;
        file->written += (size_t)n;
    }
    return ATTN_OK;
}

attn_status atomic_pad(atomic_file *file, size_t alignment)
{
    static const char zeros[64];
    size_t missing = (alignment - file->written % alignment) % alignment;
    attn_status status = ATTN_OK;
    while (missing > 0 && status == ATTN_OK) {
        size_t n = missing < sizeof zeros ? missing : sizeof zeros;
        status = atomic_write(file, zeros, n);
        missing -= n;
    }
    return status;
}

/* The folder's own entry to the disk: without it a power cut may bring back the old name. */
static int sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int error = folder ? 0 : ENOMEM;
    free(folder);
    if (fd >= 0) {
        /* Some file systems cannot: then there is nothing more to be done. */
        error = fsync(fd) != 0 && errno != EINVAL && errno != EROFS ? errno : 0;
        close(fd);
    }
    return error;
}

attn_status atomic_commit(atomic_file *file)
{
    attn_status status = ATTN_OK;
    if (fsync(file->fd) != 0 && (file->part || (errno != EINVAL && errno != EROFS))) {
        status = cannot(file, "write it to the disk", errno);
    }
    if (status == ATTN_OK && file->part && rename(file->part, file->path) != 0) {
        status = cannot(file, "put the new file in its place", errno);
    }
    if (status != ATTN_OK) {
        atomic_abandon(file);
        return status;
    }
    int error = file->part ? sync_folder(file->path) : 0;
    if (error) {
        status = cannot(file, "write its folder to the disk", error);
    }
    forget(file);
    return status;
}

void atomic_abandon(atomic_file *file)
{
    if (file->part) {
        unlink(file->part);
    }
    forget(file);
}
