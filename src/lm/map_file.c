/* See map_file.h. */
#define _GNU_SOURCE
#include "lm/map_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static attn_status map_open_file(const char *path, int fd, const map_kind *kind,
                                 const unsigned char **map, size_t *size)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return attn_fail(ATTN_ERR_IO, "%s: cannot tell its size: %s", path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return attn_fail(ATTN_ERR_IO, "%s: not a regular file; give the path of a %s file", path,
                         kind->extension);
    }
    if (info.st_size < kind->least_bytes) {
        return attn_fail(ATTN_ERR_FORMAT, "%s: %lld bytes are too few for %s %d", path,
                         (long long)info.st_size, kind->least, kind->least_bytes);
    }
    void *memory = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED) {
        return attn_fail(errno == ENOMEM ? ATTN_ERR_NO_MEMORY : ATTN_ERR_IO,
                         "%s: cannot map %lld bytes: %s", path, (long long)info.st_size,
                         strerror(errno));
    }
    *map = memory;
    *size = (size_t)info.st_size;
    return ATTN_OK;
}

attn_status map_file(const char *path, const map_kind *kind, const unsigned char **map,
                     size_t *size)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return attn_fail(ATTN_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    attn_status status = map_open_file(path, fd, kind, map, size);
    close(fd);
    return status;
}

void unmap_file(const unsigned char *map, size_t size)
{
    if (map) {
        munmap((void *)(uintptr_t)map, size);
    }
}
