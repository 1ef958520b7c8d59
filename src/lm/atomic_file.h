/**
 * lm/atomic_file.h: a file that appears under its name whole or not at all, whatever happens while it is written.
 */
#ifndef ATTN_LM_ATOMIC_FILE_H
#define ATTN_LM_ATOMIC_FILE_H

#include <attn/base.h>

typedef struct atomic_file {
    char *path; /**< what will be replaced, symbolic links followed */
    char *part; /**< <path>.part; NULL for a device or pipe, which is written to as it is */
    int fd;
    size_t written;
} atomic_file;

/**
 * Opens <path>.part. One left by a process that was killed is taken over; one that another process is writing is an error (IO).
 * After ATTN_OK exactly one of commit and abandon follows.
 */
attn_status atomic_open(const char *path, atomic_file *file);

/** Appends. On failure (IO) nothing is cleaned up yet: abandon does. */
attn_status atomic_write(atomic_file *file, const void *data, size_t size);
/** Appends zeros up to a multiple of `alignment`. */
attn_status atomic_pad(atomic_file *file, size_t alignment);

/** Bytes to the disk, name into place, folder to the disk. Cleans up, also on failure (IO; the old file is as it was). */
attn_status atomic_commit(atomic_file *file);
/** Closes and removes the part; keeps the error text. */
void atomic_abandon(atomic_file *file);

#endif
