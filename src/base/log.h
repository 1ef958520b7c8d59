/**
 * base/log.h: what ATTN_VERBOSE=1 prints, a line at a time.
 */
#ifndef ATTN_BASE_LOG_H
#define ATTN_BASE_LOG_H

#include <stdbool.h>

/** True when the environment's ATTN_VERBOSE was set, and not to 0, at the first question. */
bool attn_verbose(void);

/** One line (no newline), cut at 511 bytes, to the sink or stderr. Call only when attn_verbose(). */
void attn_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/** A clock in milliseconds, for the durations in such lines. */
double attn_log_ms(void);

#endif
