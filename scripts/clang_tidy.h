/**
 * clang_tidy.h: read before every file by clang-tidy alone (./dev lint). The analyser sees one file at a time, so it must be
 * told that what goes into attn_fail() comes out: without it, it follows failures as if they were ATTN_OK.
 */
#include <attn/base.h>

#define attn_fail(status, ...) ((attn_fail)((status), __VA_ARGS__), (status))
