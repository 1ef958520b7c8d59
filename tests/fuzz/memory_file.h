/**
 * memory_file.h: bytes as a file that has a path, for readers that take one. Before it: #define _GNU_SOURCE.
 */
#ifndef TESTS_FUZZ_MEMORY_FILE_H
#define TESTS_FUZZ_MEMORY_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct memory_file {
    int fd; /* close() it */
    char path[64];
} memory_file;

static memory_file memory_file_of(const uint8_t *data, size_t size)
{
    memory_file file = {.fd = memfd_create("fuzz", 0)};
    if (file.fd < 0) {
        abort();
    }
    for (size_t done = 0; done < size;) {
        const ssize_t n = write(file.fd, data + done, size - done);
        if (n <= 0) {
            abort();
        }
        done += (size_t)n;
    }
    snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.fd);
    return file;
}

#endif
