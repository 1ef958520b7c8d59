/**
 * cli/rdata.h: text out of R's lazy-load databases (Rdata.rdb), as far as a package of texts needs it: zlib-compressed vectors of
 * strings. Everything in the file is untrusted.
 */
#ifndef ATTN_CLI_RDATA_H
#define ATTN_CLI_RDATA_H

#include <attn/base.h>

/**
 * The chunk at file[*at …): [4-byte big-endian length][zlib stream], within it a character vector in R's serialisation (XDR, version 2 or 3): its
 * strings, each with a newline after it, as *text (malloc'd, NUL-terminated, *text_size bytes). *at moves behind the chunk. Errors:
 * FORMAT (what, where), UNSUPPORTED, NO_MEMORY.
 */
attn_status rdata_next(const unsigned char *file, size_t size, size_t *at, char **text,
                       size_t *text_size);

#endif
