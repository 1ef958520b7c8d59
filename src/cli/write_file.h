/**
 * write_file.h: results written to disk whole or not at all.
 */
#ifndef ATTN_CLI_WRITE_FILE_H
#define ATTN_CLI_WRITE_FILE_H

#include <attn/base.h>

/**
 * Writes `count` parts one after the other, atomically: a temporary file beside `path`, flushed to the disk, then renamed; on failure `path` is as it
 * was. A device or pipe is written to as it is: renaming a file over /dev/null would be a surprise. Errors: IO.
 */
attn_status write_file(const char *path, const void *const *parts, const size_t *sizes, int count);

/**
 * Whether write_file could begin, to be asked before long work: creates a file beside `path`, and removes it. Errors: IO.
 */
attn_status write_file_possible(const char *path);

#endif
